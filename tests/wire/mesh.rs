//! Sidecars with identities from a local CA: authentication and authorization.

use std::path::Path;
use std::process::Command;

use crate::support::http::{Client, Response};
use crate::support::origin::Origin;
use crate::support::peers::{curl, curl_fails, openssl};
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

fn ringway(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_ringway")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Creates a CA in `directory`. Returns its path.
fn authority(directory: &Path) -> String {
    let ca = directory.join("ca").display().to_string();
    ringway(&["ca", "init", "--dir", &ca]);
    ca
}

struct Sidecar {
    proxy: Proxy,
    outbound: u16,
    _app: Origin,
}

impl Sidecar {
    /// A sidecar as in `conf/mesh`, with its own ports.
    fn start(name: &str, ca: &str, shop: u16, stock: u16) -> Self {
        let app = Origin::saying(&format!("from {name}"));
        let (admin, outbound) = (free_port(), free_port());
        let inbound = match name {
            "shop" => shop,
            "stock" => stock,
            _ => free_port(),
        };
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/mesh/ringway.yaml");
        let text = std::fs::read_to_string(example).unwrap();
        let settings: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(settings.len() < 30, "the example stays small");
        let mut text = settings.join("\n");
        for (from, to) in [
            ("${CA:-/etc/ringway/ca}", ca.to_owned()),
            ("${NAME:-shop}", name.to_owned()),
            ("${ADMIN:-9900}", admin.to_string()),
            ("${INBOUND:-15006}", inbound.to_string()),
            ("${OUTBOUND:-15001}", outbound.to_string()),
            ("127.0.0.1:${APP:-8081}", app.address()),
            ("127.0.0.1:15006", format!("127.0.0.1:{shop}")),
            ("127.0.0.1:15007", format!("127.0.0.1:{stock}")),
        ] {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, &to);
        }
        text += "\ntelemetry: {access_log: {path: stdout}}\nruntime: {workers: 1}\n";
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ringway.yaml"), text).unwrap();
        Self { proxy: Proxy::start_on(directory, admin), outbound, _app: app }
    }

    fn calls(&self, service: &str) -> Response {
        let mut client = Client::connect(self.outbound);
        client.request(format!("GET /items HTTP/1.1\r\nHost: {service}\r\n\r\n"))
    }
}

#[test]
fn two_services_call_each_other_and_a_third_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let ca = authority(directory.path());
    let (shop_port, stock_port) = (free_port(), free_port());
    let start = |name| Sidecar::start(name, &ca, shop_port, stock_port);
    let (shop, stock, thief) = (start("shop"), start("stock"), start("thief"));
    for _ in 0..3 {
        assert_eq!(shop.calls("stock").text(), "from stock");
        assert_eq!(stock.calls("shop").text(), "from shop");
        let refused = thief.calls("stock");
        assert_eq!(refused.status, 403);
        assert!(!refused.text().contains("only-shop"), "details are for the operator");
    }
    let line = eventually("the denial in the log", || {
        let log = stock.proxy.log();
        log.lines().find(|line| line.contains("\"UAEX\"")).map(ToOwned::to_owned)
    });
    assert!(line.contains("denied: no allow rule matches (only-shop-and-stock"), "{line}");
    assert!(line.contains("spiffe://cluster.local/ns/demo/sa/thief"), "{line}");
    assert_eq!(
        stock.proxy.metric(
            "ringway_authorization_requests_total{rule=\"only-shop-and-stock\",result=\"denied"
        ),
        3.0
    );
    // Mutual TLS is required.
    let said = curl(&["-i", &format!("http://127.0.0.1:{stock_port}/")]);
    assert!(said.starts_with("HTTP/1.1 400"), "{said}");
    curl_fails(&["-k", &format!("https://127.0.0.1:{stock_port}/")]);
    let certs = shop.proxy.admin("/certs");
    assert!(certs.text().contains("spiffe://cluster.local/ns/demo/sa/shop"), "{}", certs.text());
    assert!(!certs.text().contains("PRIVATE KEY"));
}

#[test]
fn an_endpoint_with_another_identity_is_not_talked_to() {
    let pki = Pki::new();
    let files = |name: &str, id: &str| {
        pki.leaf(name, &Wanted { names: &[id], ..Wanted::default() });
        let path = |extension: &str| pki.path(&format!("{name}.{extension}"));
        format!("{{cert: {}, key: {}, roots: {}}}", path("pem"), path("key"), pki.path("ca.pem"))
    };
    let me = files("me", "spiffe://cluster.local/ns/demo/sa/me");
    let origin = Origin::saying("hello");
    let inbound = |id: &str| {
        let port = free_port();
        let name = format!("x{port}");
        let proxy = Proxy::start(&format!(
            "mesh: {{trust_domain: {}, identity: {}}}\n\
             listeners: {{in: {{bind: \"127.0.0.1:{port}\", tls: mesh}}}}\n\
             routes: {{\"*\": [{{to: app}}]}}\n\
             services: {{app: {{endpoints: [\"{}\"]}}}}\n",
            id.trim_start_matches("spiffe://").split('/').next().unwrap(),
            files(&name, id),
            origin.address()
        ));
        (port, proxy)
    };
    let (right, _right) = inbound("spiffe://cluster.local/ns/demo/sa/right");
    let (wrong, _wrong) = inbound("spiffe://cluster.local/ns/demo/sa/wrong");
    let (foreign, _foreign) = inbound("spiffe://other.org/ns/demo/sa/right");
    let port = free_port();
    let expected = "tls: mesh, identity: spiffe://cluster.local/ns/demo/sa/right";
    let proxy = Proxy::start(&format!(
        "mesh: {{identity: {me}}}\nlisteners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes: {{right: [{{to: right}}], wrong: [{{to: wrong}}], foreign: [{{to: foreign}}]}}\n\
         services:\n\
         \x20 right: {{endpoints: [\"127.0.0.1:{right}\"], {expected}}}\n\
         \x20 wrong: {{endpoints: [\"127.0.0.1:{wrong}\"], {expected}}}\n\
         \x20 foreign: {{endpoints: [\"127.0.0.1:{foreign}\"], tls: mesh}}\n"
    ));
    let ask = |host: &str| {
        Client::connect(port).request(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    };
    assert_eq!(ask("right").status, 200, "{}", proxy.log());
    assert_eq!(ask("wrong").status, 503);
    assert_eq!(ask("foreign").status, 503);
    for reason in
        ["it proves spiffe://cluster.local/ns/demo/sa/wrong", "no bundle for the domain other.org"]
    {
        eventually(reason, || proxy.log().contains(reason).then_some(()));
    }
}

#[test]
fn permissive_serves_plain_and_encrypted_on_one_port() {
    let directory = tempfile::tempdir().unwrap();
    let ca = authority(directory.path());
    let origin = Origin::saying("hello");
    let (port, strict) = (free_port(), free_port());
    let proxy = Proxy::start(&format!(
        "mesh:\n  identity: {{ca: {ca}, id: spiffe://cluster.local/ns/demo/sa/me}}\n\
         \x20 inbound: {{mtls: permissive, ports: {{\"{strict}\": strict}}}}\n\
         listeners:\n\
         \x20 in: {{bind: \"127.0.0.1:{port}\", tls: mesh, forward_client_cert: set}}\n\
         \x20 strict: {{bind: \"127.0.0.1:{strict}\", tls: mesh}}\n\
         routes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"{}\"]}}}}\n",
        origin.address()
    ));
    let client = directory.path().join("client").display().to_string();
    let id = "spiffe://cluster.local/ns/demo/sa/client";
    ringway(&["ca", "issue", id, "--dir", &ca, "--out", &client]);
    let forged = "x-forwarded-client-cert: URI=spiffe://cluster.local/ns/demo/sa/admin";
    assert_eq!(curl(&["-H", forged, &format!("http://127.0.0.1:{port}/")]), "hello");
    let (cert, key) = (format!("{client}.pem"), format!("{client}.key"));
    let with = ["-k", "--cert", &cert, "--key", &key, "-H", forged];
    assert_eq!(curl(&[&with[..], &[&format!("https://127.0.0.1:{port}/")]].concat()), "hello");
    let requests = origin.requests();
    assert!(!requests[0].contains("x-forwarded-client-cert"), "{}", requests[0]);
    assert!(!requests.concat().contains("sa/admin"), "never trusted from outside");
    let told = "x-forwarded-client-cert: By=spiffe://cluster.local/ns/demo/sa/me;Hash=";
    assert!(requests[1].contains(told) && requests[1].contains(&format!("URI={id}")));
    assert!(curl(&["-i", &format!("http://127.0.0.1:{strict}/")]).starts_with("HTTP/1.1 400"));
    assert_eq!(curl(&[&with[..], &[&format!("https://127.0.0.1:{strict}/")]].concat()), "hello");
    assert_eq!(proxy.metric("ringway_listener_tls_handshakes_total"), 2.0);
}

#[test]
fn the_identity_is_issued_anew_at_half_of_its_life() {
    let directory = tempfile::tempdir().unwrap();
    let ca = authority(directory.path());
    let port = free_port();
    let proxy = Proxy::start(&format!(
        "mesh:\n  identity: {{ca: {ca}, id: spiffe://cluster.local/ns/demo/sa/me, lifetime: 4s}}\n\
         listeners: {{in: {{bind: \"127.0.0.1:{port}\", tls: mesh}}}}\n\
         routes: {{\"*\": [{{respond: {{body: hello}}}}]}}\n"
    ));
    let serial = || {
        let said = openssl(&["s_client", "-connect", &format!("127.0.0.1:{port}")], "");
        let begin = said.find("-----BEGIN").unwrap_or_else(|| panic!("{said}"));
        openssl(&["x509", "-noout", "-serial"], &said[begin..])
    };
    let first = serial();
    eventually("a new certificate", || (serial() != first).then_some(()));
    assert!(proxy.log().contains("renewing this workload's certificate"));
}

#[test]
fn two_proxies_speak_http3_without_captured_traffic() {
    let directory = tempfile::tempdir().unwrap();
    let ca = authority(directory.path());
    let origin = Origin::saying("from the stock");
    let (far, near, mute) = (free_port(), free_port(), free_port());
    let mesh = |name: &str, more: &str| {
        let id = format!("spiffe://cluster.local/ns/demo/sa/{name}");
        format!(
            "mesh: {{identity: {{ca: {ca}, id: \"{id}\"}}{more}}}\n\
             telemetry: {{access_log: {{path: stdout}}}}\n"
        )
    };
    let inbound = |port: u16, more: &str| {
        let text = format!(
            "listeners: {{in: {{bind: \"127.0.0.1:{port}\", tls: mesh}}}}\n\
             routes: {{\"*\": [{{to: app}}]}}\n\
             services: {{app: {{endpoints: [\"{}\"]}}}}\n",
            origin.address()
        );
        Proxy::start(&(mesh("stock", more) + &text))
    };
    let stock = inbound(far, ", transport: quic");
    // This one does not receive QUIC.
    let old = inbound(mute, "");
    let shop = format!(
        "listeners: {{web: {{bind: \"127.0.0.1:{near}\"}}}}\n\
         routes: {{stock: [{{to: stock}}], old: [{{to: old}}]}}\n\
         services:\n\
         \x20 stock: {{endpoints: [\"127.0.0.1:{far}\"], tls: mesh, connect_hedge: 20s}}\n\
         \x20 old: {{endpoints: [\"127.0.0.1:{mute}\"], tls: mesh}}\n"
    );
    let shop = Proxy::start(&(mesh("shop", ", transport: quic") + &shop));
    for (host, version) in [("stock", "HTTP/3"), ("old", "HTTP/2"), ("stock", "HTTP/3")] {
        let mut client = Client::connect(near);
        for _ in 0..3 {
            let answer = client.request(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!(answer.text(), "from the stock", "{host}\n{}", shop.log());
        }
        let proxy = if host == "stock" { &stock } else { &old };
        let spoken = format!("\"protocol\":\"{version}\"");
        eventually(version, || (proxy.log().matches(&spoken).count() >= 3).then_some(()));
    }
    assert!(!stock.log().contains("\"HTTP/2\"") && !old.log().contains("\"HTTP/3\""));
    let fallbacks = |service: &str| {
        shop.metric(&format!("ringway_service_quic_fallbacks_total{{service=\"{service}\"}}"))
    };
    // With epoll, nobody tells that the port is closed, so this takes until `connect_timeout`.
    eventually("a fallback", || (fallbacks("old") > 0.0).then_some(()));
    assert_eq!((fallbacks("stock"), fallbacks("old")), (0.0, 1.0), "{}", shop.log());
}
