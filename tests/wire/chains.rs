//! Certificate chains as real servers and clients send them.

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::peers::{Server, curl, openssl};
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

/// A proxy in front of an nginx with the certificate `shown`. The proxy trusts the CAs in `ca`, and
/// opens a connection for each request. Returns the nginx, the proxy and its port.
fn before_nginx(pki: &Pki, shown: &str, ca: &str) -> (Server, Proxy, u16) {
    let server = Server::nginx_http2(&[("page", "a page".to_owned())], Some((pki, shown)));
    let service = format!(
        "protocol: http1, max_idle_connections: 0, connect_timeout: 20s, \
         tls: {{ca: {}}}, endpoints: [\"127.0.0.1:{}\"]",
        pki.path(ca),
        server.port
    );
    let (proxy, port, _) = Proxy::before(pki, &service);
    (server, proxy, port)
}

#[test]
fn rfc5280_6_1_an_expired_certificate_that_no_path_needs_does_not_matter() {
    let pki = Pki::new();
    pki.leaf("web", &Wanted::default());
    pki.add_old_root("web");
    let (_server, _proxy, port) = before_nginx(&pki, "web", "ca.pem");
    let mut client = Client::connect(port);
    // The first connection creates a session. The other connections resume it.
    let answers: Vec<_> = (0..6).map(|_| client.get("a", "/page").status).collect();
    assert_eq!(answers, [200; 6]);
    // The same for a client that presents a certificate.
    let origin = Origin::saying("through");
    let (plain, tls) = (free_port(), free_port());
    let proxy = Proxy::start(&format!(
        "listeners:\n  plain: {{bind: 127.0.0.1:{plain}}}\n\
         \x20 tls: {{bind: 127.0.0.1:{tls}, tls: {{cert: {0}, key: {1}, client_ca: {2}}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\nservices: {{app: {{endpoints: [\"{3}\"]}}}}\n",
        pki.path("web.pem"),
        pki.path("web.key"),
        pki.path("ca.pem"),
        origin.address()
    ));
    let (to, session) = (format!("127.0.0.1:{tls}"), pki.path("session"));
    for from in ["-sess_out", "-sess_in"] {
        let [cert, key] = ["web.pem", "web.key"].map(|name| pki.path(name));
        // With -cert_chain, openssl sends all certificates of the file.
        let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let ends = ["s_client", "-quiet", "-ign_eof", "-no_check_time", "-connect", &to];
        let own = ["-cert", &cert, "-key", &key, "-cert_chain", &cert, from, &session];
        let said = openssl(&[&ends[..], &own[..]].concat(), request);
        assert!(said.contains("through"), "{from}: {said}\n{}", proxy.log());
    }
    assert_eq!(proxy.metric("ringway_listener_tls_resumed_total"), 1.0);
}

#[test]
fn a_certificate_that_is_itself_in_ca_is_trusted_for_its_names() {
    let pki = Pki::new();
    pki.leaf("web", &Wanted::default());
    // Certificates as operators create them: self-signed, with CA:TRUE.
    for (name, names) in [
        ("pinned", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
        ("other", "subjectAltName=IP:127.0.0.1"),
        ("misnamed", "subjectAltName=DNS:elsewhere.test"),
    ] {
        let [pem, key] = [format!("{name}.pem"), format!("{name}.key")].map(|file| pki.path(&file));
        let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
        let how = ["-nodes", "-days", "2", "-subj", "/CN=a", "-addext", names];
        openssl(&[&new[..], &how[..], &["-keyout", &key, "-out", &pem]].concat(), "");
    }
    for (shown, ca, status, why) in [
        ("pinned", "pinned.pem", 200, ""),
        ("pinned", "other.pem", 503, "the peer's certificate is refused"),
        ("misnamed", "misnamed.pem", 503, "elsewhere.test"),
    ] {
        let (server, proxy, port) = before_nginx(&pki, shown, ca);
        assert_eq!(Client::connect(port).get("a", "/page").status, status, "{shown} {ca}");
        eventually("the reason in the log", || proxy.log().contains(why).then_some(()));
        if status == 200 {
            let url = format!("https://localhost:{}/page", server.port);
            assert_eq!(curl(&["--cacert", &pki.path(ca), &url]), "a page", "curl agrees");
        } else if shown == "misnamed" {
            assert!(proxy.log().contains("not for 127.0.0.1"), "{}", proxy.log());
        }
    }
}

#[test]
fn clients_are_told_the_names_of_the_cas_unless_the_operator_says_no() {
    let pki = Pki::new();
    pki.leaf("web", &Wanted::default());
    let origin = Origin::saying("x");
    for (more, told) in [("", true), (", send_ca_names: false", false)] {
        let port = free_port();
        let _proxy = Proxy::start(&format!(
            "listeners: {{tls: {{bind: 127.0.0.1:{port}, \
             tls: {{cert: {}, key: {}, client_ca: {}{more}}}}}}}\n\
             routes: {{\"*\": [{{to: app}}]}}\nservices: {{app: {{endpoints: [\"{}\"]}}}}\n",
            pki.path("web.pem"),
            pki.path("web.key"),
            pki.path("ca.pem"),
            origin.address()
        ));
        let said = openssl(&["s_client", "-connect", &format!("127.0.0.1:{port}")], "");
        assert!(said.contains("Server certificate"), "{said}");
        // Some versions of openssl print no spaces.
        let said = said.replace(' ', "");
        let names = "AcceptableclientcertificateCAnames";
        assert_eq!(said.contains(names) && said.contains("CN=testroot"), told, "{said}");
    }
}
