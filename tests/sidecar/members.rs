//! Members of a mesh: mutual TLS between sidecars, and L4 authorization.

use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::rules::{self, By};
use crate::support::http::Client;
use crate::support::netns::{App, Host, Wire, can_have_hosts};
use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, eventually};

/// Creates a CA. Returns its directory.
pub(super) fn authority(directory: &tempfile::TempDir) -> String {
    let ca = directory.path().join("ca").display().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    let made = command.args(["ca", "init", "--dir", &ca]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    ca
}

/// The sidecar of the workload `name`. Both sidecars have the same configuration.
fn sidecar(host: &Host, ca: &str, name: &str, by: By, more: &str) -> Proxy {
    let by = by.word();
    Proxy::start_in(
        &host.name,
        &format!(
            "mesh:\n\
             \x20 identity: {{ca: {ca}, id: spiffe://cluster.local/ns/demo/sa/{name}}}\n\
             \x20 inbound: {{bind: [\"0.0.0.0:15006\", \"[::]:15006\"], intercept: {by}, \
             timeouts: {{header: 1s}}, mtls: strict, ports: {{\"8090\": permissive}}, \
             probes: [{{port: 8080, path: /healthz}}, {{port: 8081, path: /live}}]}}\n\
             \x20 outbound: {{timeouts: {{header: 1s}}, intercept: {by}, \
             bind: [\"127.0.0.1:15001\", \"[::1]:15001\"]}}\n\
             \x20 intercept: {{exclude: {{inbound: {{ports: 9999}}, outbound: {{ports: 9999}}}}}}\n\
             services:\n\
             \x20 stock: {{addresses: [\"10.9.0.1:8080\", \"[fd09::1]:8080\"], tls: mesh,\n\
             \x20   endpoints: [\"10.99.0.2:8080\"], \
             identity: spiffe://cluster.local/ns/demo/sa/stock}}\n\
             \x20 stock-v6: {{addresses: \"[fd09::2]:8080\", tls: mesh, \
             endpoints: [\"[fd99::2]:8080\"]}}\n\
             \x20 mail: {{addresses: \"10.9.0.2:8025\", tls: mesh, \
             endpoints: [\"10.99.0.2:8025\"]}}\n\
             telemetry: {{access_log: {{path: stdout}}}}\n{more}"
        ),
    )
}

/// Captures the packets on an interface.
struct Capture {
    child: Child,
    file: tempfile::NamedTempFile,
}

impl Capture {
    fn start(host: &Host) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let words = ["tcpdump", "-U", "-i", "eth0", "-s", "0", "-Z", "root", "-w", path, "tcp"];
        let child = host.command(&words).stderr(Stdio::null()).spawn().unwrap();
        eventually("the capture", || (file.path().metadata().unwrap().len() > 0).then_some(()));
        Self { child, file }
    }

    /// Waits until the captured bytes contain `until`, and ends the capture. Returns the bytes of
    /// all packets.
    fn stop(mut self, until: &[u8]) -> Vec<u8> {
        let holds = |bytes: &[u8]| bytes.windows(until.len()).any(|window| window == until);
        let bytes = eventually("the packets to be written", || {
            std::fs::read(self.file.path()).ok().filter(|bytes| holds(bytes))
        });
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).unwrap();
        self.child.wait().unwrap();
        std::fs::read(self.file.path()).unwrap_or(bytes)
    }
}

#[test]
fn between_sidecars_there_is_only_tls_on_the_wire() {
    if !can_have_hosts() {
        return;
    }
    for (by, backend) in [(By::Redirect, "nft"), (By::Tproxy, "nft"), (By::Redirect, "iptables")] {
        let directory = tempfile::tempdir().unwrap();
        let ca = authority(&directory);
        let wire = Wire::new(2);
        let [shop, stock] = &wire.hosts[..] else { panic!() };
        let app = App::saying(stock.listen("[::]:8080"), "secret-answer");
        let _mail = App::new(stock.listen("0.0.0.0:8025"), |stream| {
            Client::over(stream).send("220 secret-greeting\r\n").rest();
        });
        let shop_proxy = sidecar(shop, &ca, "shop", by, "");
        let stock_proxy = sidecar(stock, &ca, "stock", by, "");
        rules::up(shop, backend, &shop_proxy);
        rules::up(stock, backend, &stock_proxy);
        let _end = App::saying(stock.listen("0.0.0.0:9999"), "");
        let packets = Capture::start(stock);
        // A virtual address, an endpoint, and the same with IPv6.
        for address in ["10.9.0.1:8080", "10.99.0.2:8080", "[fd09::1]:8080", "[fd09::2]:8080"] {
            let mut peer = Client::over(shop.connect(address));
            let answer = peer.request("GET /secret-question HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(answer.text(), "secret-answer", "{by:?} {address}\n{}", shop_proxy.log());
        }
        // A server that speaks first, through both sidecars.
        let mut peer = Client::over(shop.connect("10.9.0.2:8025"));
        assert_eq!(peer.exactly(21).unwrap(), b"220 secret-greeting\r\n", "{by:?}");
        let mut plain = shop.connect("10.99.0.2:9999");
        std::io::Write::write_all(&mut plain, b"the end of the capture").unwrap();
        let bytes = packets.stop(b"the end of the capture");
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("secret") && !text.contains("HTTP/1.1"), "{by:?}: in the clear");
        let handshakes = stock_proxy.metric("ringway_listener_tls_handshakes_total")
            + stock_proxy.metric("ringway_listener_tls_resumed_total");
        // A slow client may get its own connection. A client of the mail server always gets one.
        let early = shop_proxy.metric("ringway_capture_early_connections_total");
        let reused = 3.0..=2.0 + early;
        assert!(reused.contains(&handshakes), "{by:?}: {handshakes} handshakes, {early} early");
        let expected = if by == By::Redirect { "::ffff:10.99.0.2" } else { "::ffff:10.99.0.1" };
        assert!(app.peers().contains(&expected.to_owned()), "{by:?}: {:?}", app.peers());
    }
}

#[test]
fn strict_ports_let_nobody_in_without_an_identity_but_probes() {
    if !can_have_hosts() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let ca = authority(&directory);
    let wire = Wire::new(2);
    let [plain, stock] = &wire.hosts[..] else { panic!() };
    let app = App::saying(stock.listen("0.0.0.0:8080"), "from the app");
    let _other = App::saying(stock.listen("0.0.0.0:8090"), "permissive");
    let _unruled = App::saying(stock.listen("0.0.0.0:8081"), "no rule is about it");
    rules::inbound(stock, By::Redirect);
    let rule = "authorization: [{action: deny, to: {ports: 8080}, from: {ips: 0.0.0.0/0}}]\n";
    let proxy = sidecar(stock, &ca, "stock", By::Redirect, rule);
    let ask = |address: &str, path: &str| Client::over(plain.connect(address)).get("x", path);
    assert_eq!(ask("10.99.0.2:8080", "/healthz").text(), "from the app");
    assert_eq!(ask("10.99.0.2:8080", "/healthz?full=1").status, 200, "a query is ignored");
    for path in ["/", "/healthz/", "/healthz/../secret", "/healthz%2f"] {
        assert_eq!(ask("10.99.0.2:8080", path).status, 403, "{path}");
    }
    assert_eq!(ask("10.99.0.2:8081", "/live").status, 200);
    assert_eq!(ask("10.99.0.2:8081", "/healthz").status, 403, "a probe of another port");
    let mut peer = Client::over(plain.connect("10.99.0.2:8080"));
    let posted = peer.request("POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(posted.status, 403, "a probe only looks");
    let mut opaque = Client::over(plain.connect("10.99.0.2:8025"));
    opaque.send("\x01\x02\x03");
    assert!(opaque.closes_within(PATIENCE));
    assert_eq!(ask("10.99.0.2:8025", "/").status, 403, "no probe is possible at this port");
    assert_eq!(ask("10.99.0.2:8090", "/").text(), "permissive");
    assert_eq!(proxy.metric("ringway_capture_probes_total"), 3.0);
    assert_eq!(app.peers().len(), 1, "and the others never got there");
}

#[test]
fn bytes_do_not_pass_where_a_token_is_demanded() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(2);
    let [client, side] = &wire.hosts[..] else { panic!() };
    let app = App::saying(side.listen("0.0.0.0:8080"), "from the app");
    rules::inbound(side, By::Redirect);
    let proxy = Proxy::start_in(
        &side.name,
        "mesh: {inbound: {bind: \"0.0.0.0:15006\", timeouts: {header: 1s}}}\n\
         jwt: {id: {issuer: https://id.example, jwks: {url: http://127.0.0.1:9/keys}}}\n\
         services: {app: {endpoints: [\"10.99.0.2:8080\"], jwt: id}}\n\
         telemetry: {access_log: {path: stdout}}\n",
    );
    assert_eq!(Client::over(client.connect("10.99.0.2:8080")).get("x", "/").status, 401);
    // Neither almost valid HTTP nor silence passes.
    for words in ["GET / HTTP/9.9\r\nHost: x\r\n\r\n", ""] {
        let mut peer = Client::over(client.connect("10.99.0.2:8080"));
        assert!(peer.send(words).closes_within(PATIENCE), "{words:?}");
    }
    eventually("both in the log", || {
        (proxy.log().matches("which an opaque connection cannot carry").count() == 2).then_some(())
    });
    assert_eq!(app.peers().len(), 0);
}

#[test]
fn rules_about_identity_address_and_port_hold_for_bytes() {
    if !can_have_hosts() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let ca = authority(&directory);
    let wire = Wire::new(3);
    let [shop, stock, thief] = &wire.hosts[..] else { panic!() };
    let _mail = App::new(stock.listen("0.0.0.0:8025"), |stream| {
        Client::over(stream).send("220 ready\r\n").rest();
    });
    for host in [shop, stock, thief] {
        rules::inbound(host, By::Redirect);
        rules::outbound(host, By::Redirect);
    }
    let rule = "authorization:\n\
                - {name: shop-mails, action: allow, to: {service: mail, ports: 8025}, \
                from: {identities: \"*/sa/shop\"}}\n\
                - {name: not-there, action: deny, \
                to: {ips: 10.99.0.3, service: mesh/passthrough}}\n";
    let stock_proxy = sidecar(stock, &ca, "stock", By::Redirect, rule);
    let _shop = sidecar(shop, &ca, "shop", By::Redirect, rule);
    // The thief's own sidecar would allow the connection.
    let _thief = sidecar(thief, &ca, "thief", By::Redirect, "");
    let mut allowed = Client::over(shop.connect("10.9.0.2:8025"));
    assert_eq!(allowed.exactly(11).unwrap(), b"220 ready\r\n");
    let mut denied = Client::over(thief.connect("10.9.0.2:8025"));
    assert!(denied.closes_within(PATIENCE));
    let line = eventually("the denial in the log", || {
        let log = stock_proxy.log();
        log.lines().find(|line| line.contains("\"UAEX\"")).map(ToOwned::to_owned)
    });
    assert!(line.contains("sa/thief") && line.contains("shop-mails"), "{line}");
    // The sender's sidecar denies the connection by its destination address.
    let mut elsewhere = Client::over(shop.connect("10.99.0.3:8099"));
    assert!(elsewhere.closes_within(PATIENCE));
}
