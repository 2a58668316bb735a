//! Changes of configuration files that a watch may miss: whole directories are replaced, symlinks
//! on the path are swapped, events are lost, files cannot be read for a moment.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use nix::sys::signal::Signal;

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port, skipped};

fn config(port: u16, origin: &Origin) -> String {
    format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"{}\"]}}}}\n",
        origin.address()
    )
}

#[track_caller]
fn await_text(port: u16, text: &str) {
    eventually(text, || (Client::connect(port).get("a", "/").text() == text).then_some(()));
}

/// Starts a proxy with its files in `inside`, a path in its directory. The shell runs `prepare` in
/// the directory before the start.
fn start(prepare: &str, inside: &str, config: &str) -> Proxy {
    let script = format!(
        "cd \"$3\" && mkdir -p {inside} && mv *.yaml {inside} && {prepare} \
         exec \"$0\" run -c \"$3/{inside}\""
    );
    Proxy::start_under(&["sh", "-c", &script], "workers: 1", config)
}

/// Copies the directory `from` to `to`, with a new configuration.
fn copy(from: &Path, to: &Path, config: &str) {
    std::fs::create_dir_all(to).unwrap();
    std::fs::copy(from.join("base.yaml"), to.join("base.yaml")).unwrap();
    std::fs::write(to.join("ringway.yaml"), config).unwrap();
}

#[test]
fn a_directory_is_replaced_and_changes_go_on() {
    let origins = ["one", "two", "three", "four"].map(Origin::saying);
    let port = free_port();
    let proxy = start("", "conf", &config(port, &origins[0]));
    let [conf, old, new] = ["conf", "old", "new"].map(|name| proxy.directory().join(name));
    await_text(port, "one");
    copy(&conf, &new, &config(port, &origins[1]));
    std::fs::rename(&conf, &old).unwrap();
    std::fs::rename(&new, &conf).unwrap();
    await_text(port, "two");
    std::fs::write(conf.join("ringway.yaml"), config(port, &origins[2])).unwrap();
    await_text(port, "three");
    std::fs::remove_dir_all(&conf).unwrap();
    eventually("the metric to say that the files are gone", || {
        (proxy.metric("ringway_config_files_differ") == 1.0).then_some(())
    });
    copy(&old, &conf, &config(port, &origins[3]));
    await_text(port, "four");
    eventually("the metric to say that all is well", || {
        (proxy.metric("ringway_config_files_differ") == 0.0).then_some(())
    });
    assert_eq!(proxy.metric("ringway_config_last_reload_successful"), 1.0);
}

#[test]
fn a_symlink_on_the_way_is_swapped() {
    let (one, two) = (Origin::saying("one"), Origin::saying("two"));
    let port = free_port();
    let prepare = "mkdir releases && mv current releases/1 && ln -s releases/1 current &&";
    let proxy = start(prepare, "current/conf", &config(port, &one));
    let directory = proxy.directory();
    await_text(port, "one");
    let from = directory.join("releases/1/conf");
    copy(&from, &directory.join("releases/2/conf"), &config(port, &two));
    symlink("releases/2", directory.join("next")).unwrap();
    std::fs::rename(directory.join("next"), directory.join("current")).unwrap();
    await_text(port, "two");
    let again = directory.join("releases/2/conf/ringway.yaml");
    std::fs::write(again, config(port, &one)).unwrap();
    await_text(port, "one");
}

#[test]
fn events_that_were_lost_are_a_change() {
    let (one, two) = (Origin::saying("one"), Origin::saying("two"));
    let port = free_port();
    let proxy = start("", "conf", &config(port, &one));
    let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    proxy.signal(Signal::SIGSTOP);
    let conf = proxy.directory().join("conf");
    for number in 0..limit {
        let noise = conf.join(format!("noise{}", number % 2));
        std::fs::write(&noise, "").unwrap();
        std::fs::remove_file(&noise).unwrap();
    }
    std::fs::write(conf.join("ringway.yaml"), config(port, &two)).unwrap();
    proxy.signal(Signal::SIGCONT);
    await_text(port, "two");
}

#[test]
fn a_moment_without_permission_is_waited_for() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root can run the proxy as another user");
    }
    let (one, two) = (Origin::saying("one"), Origin::saying("two"));
    let port = free_port();
    let prepare = "chown -R 65534 . && ";
    let script = format!("{prepare} exec setpriv --reuid=65534 --clear-groups \"$0\" \"$@\"");
    let script = format!("cd \"$3\" && {script}");
    let proxy = Proxy::start_under(&["sh", "-c", &script], "workers: 1", &config(port, &one));
    await_text(port, "one");
    let mode = |bits| {
        let mode = std::fs::Permissions::from_mode(bits);
        std::fs::set_permissions(proxy.directory(), mode).unwrap();
    };
    mode(0o000);
    std::fs::write(proxy.config_file(), config(port, &two)).unwrap();
    eventually("the metric to say it", || {
        (proxy.metric("ringway_config_files_differ") == 1.0).then_some(())
    });
    assert_eq!(Client::connect(port).get("a", "/").text(), "one");
    mode(0o755);
    await_text(port, "two");
    assert_eq!(proxy.metric("ringway_config_last_reload_successful"), 1.0);
}

#[test]
fn files_that_cannot_be_watched_are_read_again() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root can limit watching for one process");
    }
    let (one, two) = (Origin::saying("one"), Origin::saying("two"));
    let port = free_port();
    let script = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$0\" \"$@\"";
    let wrapper = ["unshare", "-U", "-r", "sh", "-c", script];
    let proxy = Proxy::start_under(&wrapper, "workers: 1", &config(port, &one));
    await_text(port, "one");
    assert!(proxy.log().contains("cannot be watched"), "{}", proxy.log());
    std::fs::write(proxy.config_file(), config(port, &two)).unwrap();
    await_text(port, "two");
}

#[test]
fn a_directory_of_certificates_is_replaced() {
    let (first, second) = (Pki::new(), Pki::new());
    first.leaf("web", &Wanted { serial: 0x4142, ..Wanted::default() });
    second.leaf("web", &Wanted { serial: 0x5152, ..Wanted::default() });
    let origin = Origin::saying("x");
    let port = free_port();
    let directory = tempfile::tempdir().unwrap();
    let [certs, old, new] = ["certs", "old", "new"].map(|name| directory.path().join(name));
    let fill = |to: &Path, pki: &Pki| {
        std::fs::create_dir(to).unwrap();
        for file in ["web.pem", "web.key"] {
            std::fs::copy(pki.path(file), to.join(file)).unwrap();
        }
    };
    fill(&certs, &first);
    fill(&new, &second);
    let tls = format!("tls: {{cert: {0}/web.pem, key: {0}/web.key}}", certs.display());
    let config = config(port, &origin).replace(&format!("{port}}}"), &format!("{port}, {tls}}}"));
    let proxy = Proxy::start(&config);
    let await_serial = |serial: &str| {
        eventually(serial, || proxy.admin("/certs").text().contains(serial).then_some(()));
    };
    await_serial("41:42");
    std::fs::rename(&certs, &old).unwrap();
    std::fs::rename(&new, &certs).unwrap();
    await_serial("51:52");
    std::fs::remove_dir_all(&certs).unwrap();
    std::fs::rename(&old, &certs).unwrap();
    await_serial("41:42");
}
