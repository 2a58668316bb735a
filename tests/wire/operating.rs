//! The operation of a proxy: logs, signals, mounted files, sockets, names and limits.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port, read_once};

fn config(port: u16, endpoint: &str) -> String {
    format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"{endpoint}\"]}}}}\n"
    )
}

#[test]
fn the_access_log_has_a_line_for_each_exchange() {
    let origin = Origin::saying("x");
    let port = free_port();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let mut with_log = config(port, &origin.address());
    with_log += &format!("telemetry: {{access_log: {{path: {}}}}}\n", path.display());
    let proxy = Proxy::start(&with_log);
    let mut client = Client::connect(port);
    client.send("GET /a?b=c HTTP/1.1\r\nHost: shop\r\nCookie: secret\r\nX-Request-Id: r1\r\n\r\n");
    assert_eq!(client.response().status, 200);
    Client::connect(port).send("NOT HTTP\r\n\r\n").rest();
    let text = eventually("two lines", || {
        let text = std::fs::read_to_string(&path).ok()?;
        (text.lines().count() == 2).then_some(text)
    });
    let line = text.lines().find(|line| line.contains("/a?b=c")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["status"], 200);
    assert_eq!(line["method"], "GET");
    assert_eq!(line["service"], "app");
    assert_eq!(line["request_id"], "r1");
    assert!(!text.contains("secret"), "{text}");
    // A rotated file is reopened at SIGHUP.
    std::fs::rename(&path, directory.path().join("access.log.1")).unwrap();
    proxy.signal(Signal::SIGHUP);
    eventually("the file to be made again", || path.exists().then_some(()));
    Client::connect(port).get("shop", "/after");
    eventually("the line in the new file", || {
        std::fs::read_to_string(&path).ok()?.contains("/after").then_some(())
    });
}

#[test]
fn the_access_log_says_the_client_as_policies_see_it() {
    let origin = Origin::saying("x");
    let ports = [free_port(), free_port(), free_port()];
    let proxy = Proxy::start(&format!(
        "listeners:\n\
         \x20 none: {{bind: 127.0.0.1:{}}}\n\
         \x20 one: {{bind: 127.0.0.1:{}, trusted_hops: 1}}\n\
         \x20 both: {{bind: 127.0.0.1:{}, trusted_hops: 1, proxy_protocol: true}}\n\
         routes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"{}\"]}}}}\n\
         authorization: [{{action: deny, from: {{forwarded_ips: 192.0.2.7}}}}]\n\
         telemetry: {{access_log: {{path: stdout}}}}\n",
        ports[0],
        ports[1],
        ports[2],
        origin.address()
    ));
    let header = "PROXY TCP4 198.51.100.1 127.0.0.1 1 2\r\n";
    for (nth, begin, forwarded, client, status) in [
        (0, "", "192.0.2.7", "127.0.0.1", 200),
        (1, "", "192.0.2.9, 192.0.2.7", "192.0.2.7", 403),
        (1, "", "192.0.2.7, 192.0.2.8:80", "192.0.2.8", 200),
        (1, "", "none", "127.0.0.1", 200),
        (1, "", "::ffff:192.0.2.7", "192.0.2.7", 403),
        (2, header, "192.0.2.7", "192.0.2.7", 403),
        (2, header, "none", "198.51.100.1", 200),
    ] {
        let answer = Client::connect(ports[nth]).request(format!(
            "{begin}GET /{nth} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {forwarded}\r\n\r\n"
        ));
        assert_eq!(answer.status, status, "{forwarded}");
        let field = format!("\"x_forwarded_for\":\"{forwarded}\"");
        let target = format!("\"target\":\"/{nth}\"");
        let line = eventually("the line", || {
            let log = proxy.log();
            let line = log.lines().find(|line| line.contains(&field) && line.contains(&target))?;
            serde_json::from_str::<serde_json::Value>(line).ok()
        });
        assert_eq!(line["client"], client, "{line}");
        let peer = if begin.is_empty() { "127.0.0.1:" } else { "198.51.100.1:" };
        assert!(line["peer"].as_str().unwrap().starts_with(peer), "{line}");
    }
}

#[test]
fn sighup_applies_the_files_even_when_they_have_not_changed() {
    let (one, two) = (Origin::saying("one"), Origin::saying("two"));
    let port = free_port();
    let proxy = Proxy::start(&config(port, &one.address()));
    assert_eq!(Client::connect(port).get("a", "/").text(), "one");
    let before = proxy.metric("ringway_config_version");
    proxy.signal(Signal::SIGHUP);
    eventually("SIGHUP to apply even the same files", || {
        (proxy.metric("ringway_config_version") > before).then_some(())
    });
    proxy.reload(&config(port, &two.address()));
    assert_eq!(Client::connect(port).get("a", "/").text(), "two");
}

#[test]
fn an_editor_that_writes_twice_causes_one_reload() {
    let (one, two) = (Origin::saying("one"), Origin::saying("two"));
    let port = free_port();
    let proxy = Proxy::start(&config(port, &one.address()));
    let before = proxy.metric("ringway_config_version");
    std::fs::write(proxy.config_file(), "").unwrap();
    std::fs::write(proxy.config_file(), config(port, &two.address())).unwrap();
    eventually("the new content", || {
        (Client::connect(port).get("a", "/").text() == "two").then_some(())
    });
    // A worker uses the new configuration before all workers do. The metric changes when all use
    // it.
    eventually("the new version to be counted", || {
        (proxy.metric("ringway_config_version") > before).then_some(())
    });
    assert_eq!(proxy.metric("ringway_config_version"), before + 1.0);
    assert_eq!(proxy.metric("ringway_config_reloads_total{result=\"failure\"}"), 0.0);
}

/// Kubernetes mounts a ConfigMap as `file -> ..data/file`, `..data -> ..TIMESTAMP`, and swaps the
/// link `..data` by rename.
#[test]
fn a_mounted_configmap_is_swapped() {
    let (one, two) = (Origin::saying("one"), Origin::saying("two"));
    let port = free_port();
    let mount = tempfile::tempdir().unwrap();
    let version = |mount: &Path, name: &str, origin: &Origin| {
        std::fs::create_dir(mount.join(name)).unwrap();
        let text = config(port, &origin.address());
        std::fs::write(mount.join(name).join("ringway.yaml"), text).unwrap();
        symlink(name, mount.join("..data_tmp")).unwrap();
        std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    };
    version(mount.path(), "..2026_01", &one);
    symlink("..data/ringway.yaml", mount.path().join("ringway.yaml")).unwrap();
    let admin_port = free_port();
    let base = mount.path().join("base.yaml");
    std::fs::write(base, format!("admin: {{bind: 127.0.0.1:{admin_port}}}\n")).unwrap();
    let proxy = Proxy::start_on(mount, admin_port);
    assert_eq!(Client::connect(port).get("a", "/").text(), "one");
    version(proxy.directory(), "..2026_02", &two);
    std::fs::remove_dir_all(proxy.directory().join("..2026_01")).unwrap();
    eventually("the swapped content", || {
        (Client::connect(port).get("a", "/").text() == "two").then_some(())
    });
}

#[test]
fn the_driver_is_chosen_by_the_configuration() {
    let origin = Origin::saying("x");
    for (setting, name) in [("epoll", "epoll"), ("auto", "")] {
        let port = free_port();
        let runtime = format!("workers: 1, driver: {setting}");
        let proxy = Proxy::start_under(&[], &runtime, &config(port, &origin.address()));
        assert_eq!(Client::connect(port).get("a", "/").text(), "x");
        let metrics = proxy.admin("/metrics");
        let line = metrics.text().lines().find(|line| line.starts_with("ringway_worker_info"));
        assert!(line.unwrap().contains(&format!("driver=\"{name}")), "{line:?}");
    }
}

#[test]
fn listens_on_a_unix_socket_and_connects_to_one() {
    let directory = tempfile::tempdir().unwrap();
    let (front, back) = (directory.path().join("front"), directory.path().join("back"));
    let origin = std::os::unix::net::UnixListener::bind(&back).unwrap();
    let served = std::thread::spawn(move || {
        let (mut peer, _) = origin.accept().unwrap();
        let mut buf = [0; 1024];
        let n = read_once(&mut peer, &mut buf).unwrap();
        peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nunix").unwrap();
        String::from_utf8_lossy(&buf[..n]).into_owned()
    });
    let _proxy = Proxy::start(&format!(
        "listeners: {{web: {{bind: \"unix:{}\"}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"unix:{}\"]}}}}\n",
        front.display(),
        back.display()
    ));
    let mut client = UnixStream::connect(&front).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("unix"), "{answer}");
    assert!(served.join().unwrap().starts_with("GET / HTTP/1.1\r\n"));
}

#[test]
fn takes_a_socket_that_systemd_passes() {
    let origin = Origin::saying("passed");
    let port = free_port();
    let config = config(port, &origin.address())
        .replace(&format!("bind: 127.0.0.1:{port}"), "bind: \"systemd:web\"");
    let listen = format!("127.0.0.1:{port}");
    let wrapper = ["systemd-socket-activate", "--fdname=web", "-l", &listen];
    // systemd-socket-activate starts the proxy at the first connection.
    let knock = std::thread::spawn(move || {
        eventually("the first connection", || TcpStream::connect(("127.0.0.1", port)).ok())
    });
    let _proxy = Proxy::start_under(&wrapper, "workers: 2", &config);
    drop(knock.join().unwrap());
    assert_eq!(Client::connect(port).get("a", "/").text(), "passed");
}

#[test]
fn survives_having_no_descriptors_left() {
    let origin = Origin::saying("x");
    let port = free_port();
    let wrapper = ["prlimit", "--nofile=48:48"];
    let proxy = Proxy::start_under(&wrapper, "workers: 1", &config(port, &origin.address()));
    let errors = || proxy.metric("ringway_worker_accept_errors_total");
    let crowd: Vec<TcpStream> =
        (0..60).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    // The admin interface needs descriptors too. It answers again only when some connections have
    // closed.
    drop(crowd);
    eventually("requests to be answered again", || {
        let mut client = Client::connect(port);
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.try_response(false).ok().filter(|response| response.text() == "x")
    });
    assert!(errors() > 0.0, "accepting has met the limit");
}

#[test]
fn a_reload_without_descriptors_is_tried_again() {
    let (old, new) = (Origin::saying("old"), Origin::saying("new"));
    let port = free_port();
    let wrapper = ["prlimit", "--nofile=64:64"];
    let proxy = Proxy::start_under(&wrapper, "workers: 1", &config(port, &old.address()));
    // More connections than the proxy can accept. No descriptor is left for a reload.
    let crowd: Vec<TcpStream> =
        (0..80).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    eventually("accepting to meet the limit", || {
        proxy.log().contains("cannot accept connections").then_some(())
    });
    std::fs::write(proxy.config_file(), config(port, &new.address())).unwrap();
    eventually("the log to announce another try", || {
        proxy.log().contains("it will be tried again").then_some(())
    });
    drop(crowd);
    eventually("the new configuration", || {
        (Client::connect(port).get("a", "/").text() == "new").then_some(())
    });
}

/// A debugger, `docker pause` or a snapshot of a virtual machine stops a process like this.
#[test]
fn a_process_that_is_stopped_for_a_moment_loses_nothing() {
    let origin = Origin::saying("x");
    let echo = Origin::scripted(|peer| {
        while let Some(portion) = peer.portion() {
            peer.send(portion);
        }
    });
    let (web, raw) = (free_port(), free_port());
    let proxy = Proxy::start(&format!(
        "listeners:\n  web: {{bind: 127.0.0.1:{web}}}\n\
         \x20 raw: {{bind: 127.0.0.1:{raw}, protocol: tcp, service: raw}}\n\
         routes: {{\"*\": [{{to: app}}]}}\n\
         services:\n  app: {{endpoints: [\"{}\"]}}\n\
         \x20 raw: {{protocol: tcp, endpoints: [\"{}\"]}}\n",
        origin.address(),
        echo.address()
    ));
    let (mut requests, mut bytes) = (Client::connect(web), Client::connect(raw));
    for number in 0..100u8 {
        proxy.signal(Signal::SIGSTOP);
        requests.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        bytes.send([number]);
        let mut fresh = Client::connect(web);
        proxy.signal(Signal::SIGCONT);
        assert_eq!(requests.response().text(), "x");
        assert_eq!(bytes.exactly(1).unwrap(), [number]);
        assert_eq!(fresh.get("a", "/").text(), "x");
    }
}
