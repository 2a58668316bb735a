//! The operation of a proxy: logs, signals, mounted files, sockets, names and limits.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port, read_once, skipped};

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
    // It starts the proxy at the first connection.
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
    // The admin interface shares the descriptors: it can be asked again only when some are back.
    drop(crowd);
    eventually("requests to be answered again", || {
        let mut client = Client::connect(port);
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.try_response(false).ok().filter(|response| response.text() == "x")
    });
    assert!(errors() > 0.0, "accepting has met the limit");
}

#[test]
fn a_service_is_found_by_name_and_followed_as_its_addresses_change() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root can give the proxy a resolver of its own");
    }
    let origin = Origin::saying("one");
    let names = NameServer::start([127, 0, 0, 1]);
    let port = free_port();
    let directory = tempfile::tempdir().unwrap();
    let resolv = directory.path().join("resolv.conf");
    std::fs::write(&resolv, format!("nameserver {}\n", names.address)).unwrap();
    let script = format!("mount --bind {} /etc/resolv.conf && exec \"$@\"", resolv.display());
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let by_name = config(port, "x")
        .replace("endpoints: [\"x\"]", &format!("dns: \"app.ringway.test:{}\"", origin.port));
    let proxy = Proxy::start_under(&wrapper, "workers: 1", &by_name);
    let version = proxy.metric("ringway_config_version");
    assert_eq!(Client::connect(port).get("a", "/").text(), "one");
    names.answer_with([127, 0, 0, 9]);
    // Nothing listens at the new address: that is how it shows that it is used.
    eventually("the new address to be used", || {
        let status = Client::connect(port).get("a", "/").status;
        (status == 503).then_some(())
    });
    names.answer_with([127, 0, 0, 1]);
    eventually("the first address to be back", || {
        (Client::connect(port).get("a", "/").status == 200).then_some(())
    });
    assert_eq!(proxy.metric("ringway_config_version"), version, "nothing is compiled for it");
    let asked = names.asked();
    names.fail();
    eventually("lookups to fail", || (names.asked() > asked + 1).then_some(()));
    assert_eq!(Client::connect(port).get("a", "/").text(), "one", "what was known stays in use");
}

/// A name server that knows one name, with a TTL of a second.
struct NameServer {
    address: String,
    answer: Arc<Mutex<[u8; 4]>>,
    asked: Arc<AtomicUsize>,
}

impl NameServer {
    fn start(answer: [u8; 4]) -> Self {
        // Resolvers are asked at port 53; each test run takes a loopback address of its own.
        let last = std::process::id() % 250 + 1;
        let address = format!("127.53.0.{last}");
        let socket = UdpSocket::bind((address.as_str(), 53)).unwrap();
        let (answer, asked) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicUsize::new(0)));
        let (known, count) = (answer.clone(), asked.clone());
        std::thread::spawn(move || {
            let mut buf = [0; 512];
            while let Ok((n, peer)) = socket.recv_from(&mut buf) {
                count.fetch_add(1, Ordering::SeqCst);
                let reply = reply_to(&buf[..n], *known.lock().unwrap());
                socket.send_to(&reply, peer).ok();
            }
        });
        Self { address, answer, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn answer_with(&self, address: [u8; 4]) {
        *self.answer.lock().unwrap() = address;
    }

    /// Makes the name unknown from now on. The known addresses stay in use.
    fn fail(&self) {
        *self.answer.lock().unwrap() = [0; 4];
    }
}

/// The answer to a query (RFC 1035 4.1); SERVFAIL when there is no address to give.
fn reply_to(query: &[u8], address: [u8; 4]) -> Vec<u8> {
    let name_end = 12 + query[12..].iter().position(|&byte| byte == 0).unwrap() + 1;
    let question = &query[12..name_end + 4];
    let is_a = question[question.len() - 4..] == [0, 1, 0, 1];
    let known = address != [0; 4];
    let answers = u8::from(is_a && known);
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, if known { 0x80 } else { 0x82 }, 0, 1, 0, answers, 0, 0, 0, 0]);
    reply.extend(question);
    if answers == 1 {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        reply.extend(address);
    }
    reply
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
