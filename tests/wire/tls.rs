//! TLS with real peers: curl and openssl in front, nginx, HAProxy and openssl behind.

use std::io::{Read, Write};

use rcgen::ExtendedKeyUsagePurpose as Usage;

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::peers::{Server, curl, curl_fails, openssl};
use crate::support::pki::{HOUR_S, Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::tls::{TlsClient, client};
use crate::support::{eventually, free_port};

/// A listener with `tls`, in front of `origin`.
fn in_front_of(pki: &Pki, tls: &str, origin: &Origin) -> (Proxy, u16) {
    let port = free_port();
    let proxy = Proxy::start(&format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}, tls: {tls}}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"{}\"]}}}}\n",
        origin.address()
    ));
    assert!(!tls.contains(".key") || pki.directory().exists());
    (proxy, port)
}

fn files(pki: &Pki, name: &str) -> String {
    format!("cert: {}, key: {}", pki.path(&format!("{name}.pem")), pki.path(&format!("{name}.key")))
}

#[test]
fn curl_gets_what_it_asks_for_through_tls() {
    let pki = Pki::new();
    pki.leaf("web", &Wanted::default());
    let origin = Origin::echoing();
    let (proxy, port) = in_front_of(&pki, &format!("{{{}}}", files(&pki, "web")), &origin);
    let ca = pki.path("ca.pem");
    let url = format!("https://localhost:{port}/");
    for version in [["--tls-max", "1.2"], ["--tlsv1.3", "--http1.1"]] {
        let said = curl(&[&["--cacert", &ca, "-d", "x=y", &url][..], &version[..]].concat());
        assert_eq!(said, "x=y", "{version:?}");
    }
    // A body that is larger than records, buffers and socket buffers, in both directions.
    let large = "0123456789abcdef".repeat(200_000);
    let file = pki.path("large");
    std::fs::write(&file, &large).unwrap();
    let sent = format!("@{file}");
    assert!(curl(&["--cacert", &ca, "--data-binary", &sent, &url]) == large);
    assert!(origin.requests().iter().any(|head| head.contains("x-forwarded-proto: https")));
    assert_eq!(proxy.metric("ringway_listener_tls_handshakes_total"), 3.0);
}

#[test]
fn sessions_are_resumed_on_any_worker() {
    let pki = Pki::new();
    pki.leaf("web", &Wanted::default());
    let origin = Origin::saying("hello");
    let (proxy, port) = in_front_of(&pki, &format!("{{{}}}", files(&pki, "web")), &origin);
    let (address, session) = (format!("127.0.0.1:{port}"), pki.path("session"));
    let ask = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for version in ["-tls1_2", "-tls1_3"] {
        let first = ["s_client", "-connect", &address, version, "-ign_eof", "-sess_out", &session];
        assert!(openssl(&first, ask).contains("\nNew, TLS"), "{version}");
        for _ in 0..4 {
            let again =
                ["s_client", "-connect", &address, version, "-ign_eof", "-sess_in", &session];
            let said = openssl(&again, ask);
            assert!(said.contains("\nReused, TLS") && said.contains("hello"), "{version}: {said}");
        }
    }
    assert_eq!(proxy.metric("ringway_listener_tls_resumed_total"), 8.0);
}

#[test]
fn the_certificate_is_chosen_by_name() {
    let pki = Pki::new();
    for (file, name) in [("a", "a.test"), ("b", "*.b.test")] {
        pki.leaf(file, &Wanted { names: &[name], ..Wanted::default() });
    }
    let origin = Origin::saying("hello");
    let tls = format!("[{{{}}}, {{{}}}]", files(&pki, "a"), files(&pki, "b"));
    let (_proxy, port) = in_front_of(&pki, &tls, &origin);
    for (asked, presented) in [("a.test", "a.test"), ("x.b.test", "*.b.test"), ("c.test", "a.test")]
    {
        let address = format!("127.0.0.1:{port}");
        let said = openssl(&["s_client", "-connect", &address, "-servername", asked], "");
        assert!(said.contains(&format!("subject=CN = {presented}")), "{asked}: {said}");
    }
}

#[test]
fn clients_without_a_good_certificate_are_refused_with_the_reason() {
    let pki = Pki::new();
    pki.leaf("web", &Wanted::default());
    let good = Wanted { names: &["client"], ..Wanted::default() };
    pki.leaf("good", &good);
    pki.leaf("expired", &Wanted { valid_s: (-48 * HOUR_S, -HOUR_S), ..good.clone() });
    pki.leaf("early", &Wanted { valid_s: (HOUR_S, 48 * HOUR_S), ..good.clone() });
    pki.leaf("server-only", &Wanted { usage: Usage::ServerAuth, ..good.clone() });
    pki.leaf("bare", &Wanted { with_intermediate: false, ..good.clone() });
    pki.leaf("revoked", &Wanted { serial: 99, ..good.clone() });
    pki.self_signed("self", &good);
    Pki::new().leaf("stranger", &good);
    pki.revocation_list("crl.pem", &[99]);
    let origin = Origin::saying("hello");
    let (ca, crl) = (pki.path("ca.pem"), pki.path("crl.pem"));
    let tls = format!("{{{}, client_ca: {ca}, crl: {crl}}}", files(&pki, "web"));
    let (proxy, port) = in_front_of(&pki, &tls, &origin);
    let url = format!("https://localhost:{port}/");
    let with = |name: &str| {
        let (cert, key) = (pki.path(&format!("{name}.pem")), pki.path(&format!("{name}.key")));
        ["--cacert", &ca, "--cert", &cert, "--key", &key, &url].map(ToOwned::to_owned)
    };
    let said = with("good");
    assert_eq!(curl(&said.each_ref().map(String::as_str)), "hello");
    for (name, alert, reason) in [
        ("expired", "certificate expired", "it has expired"),
        ("early", "certificate expired", "it is not valid yet"),
        ("server-only", "unsupported certificate", "extended key usage"),
        ("bare", "unknown ca", "does not lead to a trusted root"),
        ("self", "unknown ca", "does not lead to a trusted root"),
        ("revoked", "certificate revoked", "it is revoked"),
    ] {
        let arguments = with(name);
        let error = curl_fails(&arguments.each_ref().map(String::as_str));
        assert!(error.contains(alert), "{name}: {error}");
        eventually(&format!("{name}: {reason}: {}", proxy.log()), || {
            proxy.log().lines().any(|l| l.contains("refused") && l.contains(reason)).then_some(())
        });
    }
    let error = curl_fails(&["--cacert", &ca, &url]);
    assert!(error.contains("certificate required"), "{error}");
    let failures = "ringway_listener_tls_failures_total{listener=\"web\",reason=\"certificate\"}";
    assert_eq!(proxy.metric(failures), 6.0);
}

#[test]
fn plain_http_on_a_tls_port_is_told_so() {
    let pki = Pki::new();
    pki.leaf("web", &Wanted::default());
    let origin = Origin::saying("hello");
    let (proxy, port) = in_front_of(&pki, &format!("{{{}}}", files(&pki, "web")), &origin);
    let said = curl(&["-i", &format!("http://127.0.0.1:{port}/")]);
    assert!(said.starts_with("HTTP/1.1 400") && said.contains("https://"), "{said}");
    assert!(origin.requests().is_empty());
    assert_eq!(
        proxy.metric("ringway_listener_tls_failures_total{listener=\"web\",reason=\"not_tls"),
        1.0
    );
}

#[test]
fn services_are_reached_through_tls_and_only_the_right_ones() {
    let pki = Pki::new();
    pki.leaf("web", &Wanted { names: &["web.test"], ..Wanted::default() });
    pki.leaf("client", &Wanted { names: &["client"], ..Wanted::default() });
    let stranger = Pki::new();
    let ca = pki.path("ca.pem");
    let servers = [
        ("nginx", Server::nginx_tls(&pki, "web")),
        ("haproxy", Server::haproxy_tls(&pki, "web")),
        ("openssl", Server::openssl_tls(&pki, "web")),
    ];
    let own = files(&pki, "client");
    let mut config = String::from("services:\n");
    let mut routes = String::from("routes:\n");
    let mut add = |name: &str, port: u16, tls: &str| {
        config += &format!("  {name}: {{endpoints: [\"127.0.0.1:{port}\"], tls: {{{tls}}}}}\n");
        routes += &format!("  {name}: [{{to: {name}}}]\n");
    };
    for (name, server) in &servers {
        let port = server.port;
        add(name, port, &format!("ca: {ca}, sni: web.test, {own}"));
        add(&format!("{name}-name"), port, &format!("ca: {ca}, sni: other.test, {own}"));
        add(&format!("{name}-ca"), port, &format!("ca: {}, {own}", stranger.path("ca.pem")));
        add(&format!("{name}-anonymous"), port, &format!("ca: {ca}, sni: web.test"));
        add(&format!("{name}-any"), port, &format!("verify: none, {own}"));
    }
    let port = free_port();
    let proxy =
        Proxy::start(&format!("listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n{routes}{config}"));
    let ask = |host: &str| {
        let request = format!("GET /page HTTP/1.1\r\nHost: {host}\r\n\r\n");
        Client::connect(port).request(&request)
    };
    for (name, _) in &servers {
        for _ in 0..3 {
            assert_eq!(ask(name).status, 200, "{name}: {}", proxy.log());
        }
        assert_eq!(ask(&format!("{name}-any")).status, 200, "{name}");
        assert_eq!(ask(&format!("{name}-name")).status, 503, "{name}");
        assert_eq!(ask(&format!("{name}-ca")).status, 503, "{name}");
        assert!(ask(&format!("{name}-anonymous")).status >= 400, "{name}");
    }
    let log = proxy.log();
    assert!(log.contains("it is for web.test, 127.0.0.1, not for other.test"), "{log}");
    assert!(log.contains("not of a trusted root"), "{log}");
    assert!(log.contains("verify: none"), "accepting anyone is warned of: {log}");
}

#[test]
fn new_files_serve_new_handshakes_and_broken_ones_do_not() {
    let pki = Pki::new();
    pki.leaf("web", &Wanted { serial: 1, ..Wanted::default() });
    let origin = Origin::saying("hello");
    let (proxy, port) = in_front_of(&pki, &format!("{{{}}}", files(&pki, "web")), &origin);
    let address = format!("127.0.0.1:{port}");
    let serial = || {
        let said = openssl(&["s_client", "-connect", &address], "");
        let begin = said.find("-----BEGIN").unwrap_or_else(|| panic!("{said}"));
        let serial = openssl(&["x509", "-noout", "-serial"], &said[begin..]);
        serial.trim().trim_start_matches("serial=").to_owned()
    };
    assert_eq!(serial(), "01");
    pki.leaf("web", &Wanted { serial: 2, ..Wanted::default() });
    eventually("the new certificate", || (serial() == "02").then_some(()));
    for broken in ["not a certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n"] {
        let before = proxy.metric("ringway_config_reloads_total{result=\"failure\"}");
        pki.replace("web.pem", broken);
        eventually("the refusal", || {
            let failed = proxy.metric("ringway_config_reloads_total{result=\"failure\"}");
            (failed > before).then_some(())
        });
        assert_eq!(serial(), "02");
    }
    pki.leaf("web", &Wanted { serial: 3, ..Wanted::default() });
    eventually("the next certificate", || (serial() == "03").then_some(()));
}

/// Kubernetes mounts a secret like this: the files are symlinks into `..data`, and `..data` is
/// replaced.
#[test]
fn a_swapped_mount_serves_new_handshakes() {
    let (before, after) = (Pki::new(), Pki::new());
    before.leaf("tls", &Wanted { serial: 1, ..Wanted::default() });
    after.leaf("tls", &Wanted { serial: 2, ..Wanted::default() });
    let mount = tempfile::tempdir().unwrap();
    let at = |name: &str| mount.path().join(name);
    std::os::unix::fs::symlink(before.directory(), at("..data")).unwrap();
    for name in ["tls.pem", "tls.key"] {
        std::os::unix::fs::symlink(format!("..data/{name}"), at(name)).unwrap();
    }
    let origin = Origin::saying("hello");
    let tls = format!("{{cert: {0}/tls.pem, key: {0}/tls.key}}", mount.path().display());
    let (proxy, port) = in_front_of(&before, &tls, &origin);
    let trusting = |pki: &Pki| client(pki, None);
    let mut alive = TlsClient::connect(&trusting(&before), port);
    assert_eq!(alive.get().unwrap(), "hello");
    std::os::unix::fs::symlink(after.directory(), at("..new")).unwrap();
    std::fs::rename(at("..new"), at("..data")).unwrap();
    eventually("the new certificate", || {
        TlsClient::connect(&trusting(&after), port).get().is_ok().then_some(())
    });
    assert_eq!(alive.get().unwrap(), "hello", "connections live on: {}", proxy.log());
}

#[test]
fn tcp_goes_through_tls_on_both_sides_with_half_close() {
    let pki = Pki::new();
    pki.leaf("web", &Wanted::default());
    let origin = Origin::scripted(|peer| {
        let mut all = Vec::new();
        peer.stream.read_to_end(&mut all).unwrap();
        peer.stream.write_all(&all).unwrap();
    });
    let (outer, inner) = (free_port(), free_port());
    let ca = pki.path("ca.pem");
    let _proxy = Proxy::start(&format!(
        "listeners:\n\
         \x20 plain: {{bind: 127.0.0.1:{outer}, protocol: tcp, service: encrypted}}\n\
         \x20 tls: {{bind: 127.0.0.1:{inner}, protocol: tcp, service: app, tls: {{{}}}}}\n\
         services:\n\
         \x20 encrypted: {{protocol: tcp, endpoints: [\"127.0.0.1:{inner}\"], tls: {{ca: {ca}}}}}\n\
         \x20 app: {{protocol: tcp, endpoints: [\"{}\"]}}\n",
        files(&pki, "web"),
        origin.address()
    ));
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", outer)).unwrap();
    let sent = b"some bytes that are encrypted on the way ".repeat(40_000);
    let mut writer = stream.try_clone().unwrap();
    let copy = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
}
