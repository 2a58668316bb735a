//! The documented setup with `ringway.service`: root makes a CA, and the service runs as its own
//! user. No systemd runs here, so the test itself applies the unit and its drop-in: the user, the
//! capabilities, a read-only file system, and the copies of `LoadCredential=`.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::http::Client;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

/// The user that systemd would allocate (DynamicUser=).
const USER: u32 = 64_999;

/// Copies the files that the drop-in names, as systemd does. `root` replaces `/`.
fn load_credentials(root: &Path, to: &Path) {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let drop_in = std::fs::read_to_string(units.join("ringway.service.d/ca.conf")).unwrap();
    std::fs::create_dir(to).unwrap();
    let mut loaded = 0;
    for line in drop_in.lines().filter_map(|line| line.strip_prefix("LoadCredential=")) {
        let (name, path) = line.split_once(':').unwrap();
        let copy = to.join(name);
        std::fs::copy(root.join(path.trim_start_matches('/')), &copy).unwrap();
        chown(&copy, Some(USER), Some(USER)).unwrap();
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o400)).unwrap();
        loaded += 1;
    }
    assert_eq!(loaded, 3);
    chown(to, Some(USER), Some(USER)).unwrap();
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o500)).unwrap();
}

/// A shell script that runs the proxy as the unit does.
fn script(credentials: &Path) -> String {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/ringway.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    for line in [
        "DynamicUser=yes",
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
        "CapabilityBoundingSet=CAP_NET_BIND_SERVICE",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "UMask=0077",
    ] {
        assert!(unit.lines().any(|found| found == line), "the test does {line}");
    }
    let capabilities = "-all,+net_bind_service";
    format!(
        "chmod 755 \"$3\" && umask 0077 &&\n\
         mount --make-rprivate / && mount -o remount,bind,ro / &&\n\
         export CREDENTIALS_DIRECTORY={} &&\n\
         exec setpriv --reuid={USER} --regid={USER} --clear-groups --no-new-privs \
         --inh-caps={capabilities} --ambient-caps={capabilities} \
         --bounding-set={capabilities} \"$0\" \"$@\"",
        credentials.display()
    )
}

#[test]
fn the_service_user_gets_its_certificate_from_a_ca_of_root() {
    if !nix::unistd::geteuid().is_root() {
        return crate::support::skipped("only root can become another user");
    }
    let root = tempfile::tempdir().unwrap();
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let authority = root.path().join("etc/ringway/ca");
    let mut init = Command::new(env!("CARGO_BIN_EXE_ringway"));
    let made = init.args(["ca", "init", "--dir"]).arg(&authority).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let credentials = root.path().join("credentials");
    load_credentials(root.path(), &credentials);
    // A loopback address of this test: its port below 1024 is free.
    let own = std::process::id();
    let low = format!("127.{}.{}.{}:443", 100 + own % 100, own / 100 % 250 + 1, own / 25_000 % 250);
    let port = free_port();
    let config = format!(
        "mesh: {{identity: {{ca: \"${{CREDENTIALS_DIRECTORY:-{}}}\", \
         id: spiffe://cluster.local/ns/a/sa/web}}}}\n\
         listeners:\n  in: {{bind: \"{low}\", tls: mesh}}\n  web: {{bind: 127.0.0.1:{port}}}\n\
         routes: {{\"*\": [{{respond: {{status: 204}}}}]}}\n",
        authority.display()
    );
    let script = script(&credentials);
    let wrapper = ["unshare", "-m", "sh", "-c", &script];
    let mut proxy = Proxy::start_under(&wrapper, "workers: 2", &config);
    assert_eq!(Client::connect(port).get("a", "/").status, 204);
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let value =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    assert!(value("Uid:").starts_with(&USER.to_string()), "{status}");
    assert_eq!((value("CapEff:"), value("CapBnd:")), ("0000000000000400", "0000000000000400"));
    let certificates = proxy.admin("/certs");
    assert!(certificates.text().contains("spiffe://cluster.local/ns/a/sa/web"), "{certificates:?}");
    proxy.signal(Signal::SIGHUP);
    eventually("the reload", || {
        (proxy.metric("ringway_config_reloads_total{result=\"success\"}") == 2.0).then_some(())
    });
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.wait().success());
}
