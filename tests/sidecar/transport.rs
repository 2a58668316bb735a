//! Sidecars that speak HTTP/3 to each other (`mesh.transport: quic`), and TCP where QUIC fails.

use std::net::{TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::members::authority;
use super::rules;
use crate::support::eventually;
use crate::support::http::Client;
use crate::support::netns::{App, Host, Wire, can_have_hosts};
use crate::support::proxy::Proxy;
use crate::support::quic;

/// Issues a certificate for the workload `name`. Returns its path without `.pem`.
fn issue(ca: &str, name: &str) -> String {
    let (out, id) = (format!("{ca}/{name}"), format!("spiffe://cluster.local/ns/demo/sa/{name}"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    let issued = command.args(["ca", "issue", &id, "--dir", ca, "--out", &out]).output().unwrap();
    assert!(issued.status.success(), "{}", String::from_utf8_lossy(&issued.stderr));
    out
}

/// The configuration of the sidecar of the workload `name`. All sidecars have the same services.
fn configuration(ca: &str, name: &str, hedge: &str, more: &str) -> String {
    format!(
        "mesh:\n\
         \x20 identity: {{ca: {ca}, id: spiffe://cluster.local/ns/demo/sa/{name}}}\n\
         \x20 transport: quic\n\
         \x20 inbound: {{bind: [\"0.0.0.0:15006\", \"[::]:15006\"], mtls: strict}}\n\
         \x20 outbound: {{bind: [\"127.0.0.1:15001\", \"[::1]:15001\"], \
         ports: {{\"8080\": http}}}}\n\
         services:\n\
         \x20 stock: {{addresses: \"10.9.0.1:8080\", endpoints: [\"10.99.0.2:8080\"],\n\
         \x20   tls: mesh, connect_hedge: {hedge}}}\n\
         \x20 stock6: {{addresses: \"[fd09::1]:8080\", endpoints: [\"[fd99::2]:8080\"],\n\
         \x20   tls: mesh, connect_hedge: {hedge}}}\n\
         \x20 calls: {{addresses: \"10.9.0.2:8082\", endpoints: [\"10.99.0.2:8082\"],\n\
         \x20   tls: mesh, protocol: grpc, connect_hedge: {hedge}}}\n\
         \x20 mute: {{addresses: \"10.9.0.3:8080\", endpoints: [\"10.99.0.3:8080\"],\n\
         \x20   tls: mesh}}\n\
         \x20 mail: {{addresses: \"10.9.0.4:8025\", endpoints: [\"10.99.0.2:8025\"],\n\
         \x20   tls: mesh}}\n\
         \x20 right: {{addresses: \"10.9.0.5:8080\", endpoints: [\"10.99.0.2:8083\"],\n\
         \x20   tls: mesh, identity: spiffe://cluster.local/ns/demo/sa/stock,\n\
         \x20   connect_hedge: {hedge}}}\n\
         \x20 wrong: {{addresses: \"10.9.0.6:8080\", endpoints: [\"10.99.0.2:8084\"],\n\
         \x20   tls: mesh, identity: spiffe://cluster.local/ns/demo/sa/other,\n\
         \x20   connect_hedge: {hedge}}}\n\
         \x20 one: {{addresses: \"10.9.0.7:8080\", endpoints: [\"10.99.0.2:8085\"], tls: mesh,\n\
         \x20   connect_hedge: {hedge}, circuit_breaker: {{max_connections: 1}}}}\n\
         \x20 aged: {{addresses: \"10.9.0.8:8080\", endpoints: [\"10.99.0.2:8086\"], tls: mesh,\n\
         \x20   connect_hedge: {hedge}, http2: {{max_connection_age: 1s}}}}\n\
         \x20 rotated: {{addresses: \"10.9.0.9:8080\", endpoints: [\"10.99.0.2:8087\"],\n\
         \x20   tls: mesh, connect_hedge: {hedge}}}\n\
         telemetry: {{access_log: {{path: stdout}}}}\n{more}"
    )
}

/// The sidecar of the workload `name`.
fn sidecar(host: &Host, ca: &str, name: &str, hedge: &str, more: &str) -> Proxy {
    let proxy = Proxy::start_in(&host.name, &configuration(ca, name, hedge, more));
    rules::up(host, "nft", &proxy);
    proxy
}

/// A program in a namespace. Killed when dropped.
struct Server(Child);

impl Server {
    fn start(host: &Host, words: &[&str]) -> Self {
        let mut command = host.command(words);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Captures the packets on an interface.
struct Capture {
    child: Child,
    file: tempfile::NamedTempFile,
}

/// The datagram that ends a capture.
const END: &[u8] = b"the end of the capture";

impl Capture {
    fn start(host: &Host) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let filter = "tcp or udp";
        let words = ["tcpdump", "-U", "-i", "eth0", "-s", "0", "-Z", "root", "-w", path, filter];
        let child = host.command(&words).stderr(Stdio::null()).spawn().unwrap();
        eventually("the capture", || (file.path().metadata().unwrap().len() > 0).then_some(()));
        Self { child, file }
    }

    /// Waits for the datagram END, and ends the capture.
    fn stop(&mut self) {
        eventually("the packets to be written", || {
            let bytes = std::fs::read(self.file.path()).ok()?;
            bytes.windows(END.len()).any(|window| window == END).then_some(())
        });
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).unwrap();
        self.child.wait().unwrap();
    }

    /// The packets that match `filter`, a line each.
    fn packets(&self, filter: &str) -> Vec<String> {
        let path = self.file.path().to_str().unwrap();
        let words = ["-n", "-r", path, filter];
        let output = Command::new("tcpdump").args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().map(ToOwned::to_owned).collect()
    }
}

/// The directory of a CA, the CA, and hosts.
fn mesh(hosts: u8) -> (TempDir, String, Wire) {
    let directory = tempfile::tempdir().unwrap();
    let ca = authority(&directory);
    (directory, ca, Wire::new(hosts))
}

#[test]
fn two_sidecars_speak_quic_alone() {
    if !can_have_hosts() {
        return;
    }
    let (_directory, ca, wire) = mesh(2);
    let [shop, stock] = &wire.hosts[..] else { panic!() };
    let _app = App::saying(stock.listen("[::]:8080"), "secret-answer");
    let _mail = App::new(stock.listen("0.0.0.0:8025"), |stream| {
        Client::over(stream).send("220 secret-greeting\r\n").rest();
    });
    let _http2 = Server::start(stock, &["nghttpd", "--no-tls", "8082", "-d", "/"]);
    let shop_proxy = sidecar(shop, &ca, "shop", "20s", "");
    let stock_proxy = sidecar(stock, &ca, "stock", "20s", "");
    let mut capture = Capture::start(stock);
    for address in ["10.9.0.1:8080", "10.99.0.2:8080", "[fd09::1]:8080"] {
        let mut peer = Client::over(shop.connect(address));
        for _ in 0..3 {
            let answer = peer.request("GET /secret-question HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(answer.text(), "secret-answer", "{address}\n{}", shop_proxy.log());
        }
    }
    let call = ["curl", "-sS", "--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_code}"];
    let url = "http://10.9.0.2:8082/etc/hostname";
    assert_eq!(shop.run(&[&call[..], &[url]].concat()), "200", "{}", stock_proxy.log());
    shop.within(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(END, "10.99.0.2:9999")).unwrap();
    capture.stop();
    assert_eq!(capture.packets("tcp"), [""; 0]);
    assert_eq!(capture.packets("udp and not port 15006 and not port 9999"), [""; 0]);
    assert!(capture.packets("udp port 15006").len() > 10);
    let bytes = std::fs::read(capture.file.path()).unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains("secret"), "in the clear");
    let log = eventually("the requests in the log", || {
        let log = stock_proxy.log();
        (log.matches("HTTP/3").count() == 10).then_some(log)
    });
    assert!(log.contains("spiffe://cluster.local/ns/demo/sa/shop"), "{log}");
    assert!(log.contains("10.99.0.2:8080"), "the original destination: {log}");
    // Opaque bytes go over TCP.
    let mut peer = Client::over(shop.connect("10.9.0.4:8025"));
    assert_eq!(peer.exactly(21).unwrap(), b"220 secret-greeting\r\n");
    assert_eq!(shop_proxy.metric("ringway_service_quic_fallbacks_total"), 0.0);
}

const NO_UDP: &str = "table inet test_mute {\n\
    chain input { type filter hook input priority -300; meta l4proto udp drop; }\n}\n";

#[test]
fn a_sidecar_that_drops_udp_is_asked_over_tcp() {
    if !can_have_hosts() {
        return;
    }
    let (_directory, ca, wire) = mesh(3);
    let [shop, stock, mute] = &wire.hosts[..] else { panic!() };
    let _stock_app = App::saying(stock.listen("0.0.0.0:8080"), "from the stock");
    let _mute_app = App::saying(mute.listen("0.0.0.0:8080"), "from the mute");
    mute.nft(NO_UDP);
    let shop_proxy = sidecar(shop, &ca, "shop", "250ms", "");
    let stock_proxy = sidecar(stock, &ca, "stock", "250ms", "");
    let mute_proxy = sidecar(mute, &ca, "mute", "250ms", "");
    let ask = |address: &str, body: &str| {
        let mut peer = Client::over(shop.connect(address));
        for _ in 0..3 {
            let answer = peer.request("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(answer.text(), body, "{}", shop_proxy.log());
        }
    };
    let together = |address: &str, body: &str| {
        std::thread::scope(|scope| {
            (0..8).for_each(|_| _ = scope.spawn(|| ask(address, body)));
        });
    };
    let fallbacks = |service: &str| {
        let name = format!("ringway_service_quic_fallbacks_total{{service=\"{service}\"}}");
        shop_proxy.metric(&name)
    };
    together("10.9.0.3:8080", "from the mute");
    together("10.9.0.1:8080", "from the stock");
    // The failure is known when the attempt over QUIC has reached its time limit.
    eventually("the fallback", || (fallbacks("mute") == 1.0).then_some(()));
    together("10.9.0.3:8080", "from the mute");
    assert_eq!(fallbacks("stock"), 0.0);
    let log = shop_proxy.log();
    let told = log.matches("the endpoint does not answer over QUIC").count();
    assert_eq!(told, 1, "{log}");
    assert!(log.contains("10.99.0.3:8080") && !log.contains("\"UF\""), "{log}");
    let versions = |proxy: &Proxy, version: &str| proxy.log().matches(version).count();
    eventually("the requests in the log", || {
        (versions(&mute_proxy, "HTTP/1.1") == 48).then_some(())
    });
    assert_eq!(versions(&mute_proxy, "HTTP/3"), 0);
    eventually("HTTP/3 in the log", || (versions(&stock_proxy, "HTTP/3") > 0).then_some(()));
    // The path begins to drop UDP while a connection over QUIC is open.
    stock.nft(NO_UDP);
    for _ in 0..4 {
        together("10.9.0.1:8080", "from the stock");
    }
    eventually("the second fallback", || (fallbacks("stock") == 1.0).then_some(()));
    assert!(!shop_proxy.log().contains("\"UF\""), "{}", shop_proxy.log());
}

#[test]
fn authorization_sees_the_identity_of_a_client_over_quic() {
    if !can_have_hosts() {
        return;
    }
    let (_directory, ca, wire) = mesh(2);
    let [shop, stock] = &wire.hosts[..] else { panic!() };
    let _app = App::saying(stock.listen("0.0.0.0:8080"), "from the stock");
    let rule = "authorization: [{name: not-the-thief, action: deny, to: {service: stock}, \
        from: {identities: \"*/sa/thief\"}}]\n";
    let thief = sidecar(shop, &ca, "thief", "20s", "");
    let stock_proxy = sidecar(stock, &ca, "stock", "20s", rule);
    let mut peer = Client::over(shop.connect("10.9.0.1:8080"));
    let answer = peer.request("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(answer.status, 403, "{}", thief.log());
    let log = eventually("the denial in the log", || {
        let log = stock_proxy.log();
        log.contains("not-the-thief").then_some(log)
    });
    assert!(log.contains("HTTP/3") && log.contains("sa/thief"), "{log}");
}

/// The code of a connection that is refused because its requests must go over TCP (RFC 9114 8.1).
const USE_TCP: &str = "closed: 0x110";

#[test]
fn quic_reaches_only_ports_that_speak_http_with_an_identity() {
    if !can_have_hosts() {
        return;
    }
    let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ca, other_ca) = (authority(&directory), authority(&elsewhere));
    let (shop, stranger) = (issue(&ca, "shop"), issue(&other_ca, "shop"));
    let wire = Wire::new(2);
    let [client, side] = &wire.hosts[..] else { panic!() };
    let app = App::new(side.listen("0.0.0.0:3306"), drop);
    let proxy = Proxy::start_in(
        &side.name,
        &format!(
            "mesh:\n\
             \x20 identity: {{ca: {ca}, id: spiffe://cluster.local/ns/demo/sa/stock}}\n\
             \x20 transport: quic\n\
             \x20 dns: {{bind: 127.0.0.1:15053}}\n\
             \x20 intercept: {{exclude: {{inbound: {{ports: 22}}}}}}\n\
             \x20 inbound: {{bind: \"0.0.0.0:15006\", mtls: permissive, application: loopback,\n\
             \x20   ports: {{\"8081\": disable}}, protocols: {{\"3306\": tcp}}}}\n\
             listeners: {{web: {{bind: \"0.0.0.0:8443\"}}}}\n\
             routes: {{\"*\": [{{to: calls}}]}}\n\
             services:\n\
             \x20 mail: {{endpoints: [\"10.99.0.2:8025\"], protocol: tcp}}\n\
             \x20 calls: {{endpoints: [\"10.99.0.2:8082\"], protocol: grpc}}\n"
        ),
    );
    let cases = [
        ("a member", "http-8080", Some(&shop), "served"),
        ("gRPC", "http2-8082", Some(&shop), "served"),
        ("no certificate", "http-8080", None, "alert 116"),
        ("a certificate of another CA", "http-8080", Some(&stranger), "alert 51"),
        ("a port of plain text", "http-8081", Some(&shop), USE_TCP),
        ("a port that is declared tcp", "http-3306", Some(&shop), USE_TCP),
        ("the same as HTTP/2", "http2-3306", Some(&shop), USE_TCP),
        ("a service that is declared tcp", "http-8025", Some(&shop), USE_TCP),
        ("an excluded port", "http-22", Some(&shop), USE_TCP),
        ("the port of captured traffic", "http-15006", Some(&shop), USE_TCP),
        ("a listener", "http-8443", Some(&shop), USE_TCP),
        ("the admin interface on loopback", "http-9900", Some(&shop), USE_TCP),
        ("the resolver on loopback", "http-15053", Some(&shop), USE_TCP),
        ("no port", "stock", Some(&shop), USE_TCP),
    ];
    for (case, name, certificate, expected) in cases {
        let name = format!("{name}.mesh.ringway.internal");
        let to = "10.99.0.2:15006".parse().unwrap();
        let fate = client.within(|| quic::fate(to, &name, certificate.map(|path| &**path)));
        assert_eq!(fate, expected, "{case}: {}", proxy.log());
    }
    assert_eq!(app.peers(), [""; 0]);
}

const NO_TCP: &str = "table inet test_mute {\n\
    chain input { type filter hook input priority -300; \
    iifname eth0 meta l4proto tcp reject with tcp reset; }\n}\n";

#[test]
fn a_server_with_another_identity_gets_no_request_over_quic() {
    if !can_have_hosts() {
        return;
    }
    let (_directory, ca, wire) = mesh(2);
    let [shop, stock] = &wire.hosts[..] else { panic!() };
    let _right = App::saying(stock.listen("0.0.0.0:8083"), "from the stock");
    let wrong = App::saying(stock.listen("0.0.0.0:8084"), "from the stock");
    stock.nft(NO_TCP);
    let shop_proxy = sidecar(shop, &ca, "shop", "20s", "");
    let stock_proxy = sidecar(stock, &ca, "stock", "20s", "");
    for (address, status) in [("10.9.0.5:8080", 200), ("10.9.0.6:8080", 503)] {
        let mut peer = Client::over(shop.connect(address));
        let answer = peer.request("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(answer.status, status, "{address}: {}", shop_proxy.log());
    }
    assert_eq!(wrong.peers(), [""; 0], "{}", stock_proxy.log());
}

/// Answers requests. The first one for `/hold` waits until `release` is set. Returns the number of
/// requests for `/hold`, too.
fn holding(listener: TcpListener, release: &Arc<AtomicBool>) -> (App, Arc<AtomicUsize>) {
    let (release, held) = (Arc::clone(release), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&held);
    let app = App::new(listener, move |stream| {
        let mut client = Client::over(stream);
        while let Some(head) = client.head() {
            if head.starts_with("GET /hold ") && counted.fetch_add(1, Relaxed) == 0 {
                eventually("the release", || release.load(Relaxed).then_some(()));
            }
            client.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    (app, held)
}

const HOLD: &str = "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n";

/// The handshakes for captured inbound connections so far, and the open connections.
fn inbound_connections(proxy: &Proxy) -> (f64, f64) {
    let metric =
        |name| proxy.metric(&format!("ringway_listener_{name}{{listener=\"mesh.inbound\"}}"));
    (metric("tls_handshakes_total"), metric("connections_active"))
}

#[test]
fn at_the_limit_on_connections_a_silent_one_gives_its_place_to_tcp() {
    falls_silent(7, "shop");
}

#[test]
fn a_silent_connection_that_drains_is_given_up() {
    falls_silent(8, "shop");
}

#[test]
fn the_connection_beside_a_silent_one_has_the_new_certificate() {
    falls_silent(9, "renamed");
}

/// The path drops UDP while a request to `10.9.0.{service}` waits. The workload has the name
/// `identity` by then.
fn falls_silent(service: u16, identity: &str) {
    if !can_have_hosts() {
        return;
    }
    let (_directory, ca, wire) = mesh(2);
    let [shop, stock] = &wire.hosts[..] else { panic!() };
    let (never, listener) = (Arc::default(), stock.listen(&format!("0.0.0.0:{}", 8078 + service)));
    let (_app, held) = holding(listener, &never);
    let shop_proxy = sidecar(shop, &ca, "shop", "20s", "");
    let stock_proxy = sidecar(stock, &ca, "stock", "20s", "");
    let connect = || Client::over(shop.connect(&format!("10.9.0.{service}:8080")));
    assert_eq!(connect().get("x", "/").status, 200, "{}", shop_proxy.log());
    let mut waiting = connect();
    waiting.send(HOLD);
    eventually("the request", || (held.load(Relaxed) == 1).then_some(()));
    if service == 8 {
        eventually("a second connection", || {
            assert_eq!(connect().get("x", "/").status, 200);
            (inbound_connections(&stock_proxy).0 == 2.0).then_some(())
        });
    }
    if identity != "shop" {
        shop_proxy.reload(&configuration(&ca, identity, "20s", ""));
    }
    stock.nft(NO_UDP);
    let fallbacks = || shop_proxy.metric("ringway_service_quic_fallbacks_total");
    eventually("the fallback", || (fallbacks() == 1.0).then_some(()));
    // The connection over TCP that was opened for this is used by new requests.
    assert_eq!(connect().get("x", "/new").status, 200, "{}", shop_proxy.log());
    assert_eq!(waiting.response().status, 200, "{}", shop_proxy.log());
    let log = eventually("the request in the log", || {
        let log = stock_proxy.log();
        Some(log.lines().find(|line| line.contains("\"/new\""))?.to_owned())
    });
    let identity = format!("demo/sa/{identity}\"");
    assert!(log.contains("HTTP/1.1") && log.contains(&identity), "{log}");
}

#[test]
fn a_late_connection_without_room_is_closed_and_no_failure() {
    if !can_have_hosts() {
        return;
    }
    let (_directory, ca, wire) = mesh(2);
    let [shop, stock] = &wire.hosts[..] else { panic!() };
    let release = Arc::default();
    let (_app, held) = holding(stock.listen("0.0.0.0:8085"), &release);
    let shop_proxy = sidecar(shop, &ca, "shop", "1ms", "");
    let stock_proxy = sidecar(stock, &ca, "stock", "1ms", "");
    let mut waiting = Client::over(shop.connect("10.9.0.7:8080"));
    waiting.send(HOLD);
    eventually("the request", || (held.load(Relaxed) == 1).then_some(()));
    // One handshake over TCP, and one over QUIC.
    eventually("the end of the connection over QUIC", || {
        (inbound_connections(&stock_proxy) == (2.0, 1.0)).then_some(())
    });
    release.store(true, Relaxed);
    assert_eq!(waiting.response().status, 200, "{}", shop_proxy.log());
    assert_eq!(shop_proxy.metric("ringway_service_quic_fallbacks_total"), 0.0);
    assert!(!shop_proxy.log().contains("does not answer over QUIC"), "{}", shop_proxy.log());
}
