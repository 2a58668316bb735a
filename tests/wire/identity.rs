//! Identities in the mesh: every way in which a certificate can be wrong, for clients and for
//! endpoints, and connections whose certificate becomes invalid.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::ExtendedKeyUsagePurpose as Usage;

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::peers::{Server, openssl};
use crate::support::pki::{HOUR_S, Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::tls::{TlsClient, client};
use crate::support::{eventually, free_port};

const ME: &str = "spiffe://cluster.local/ns/demo/sa/me";
const PEER: &str = "spiffe://cluster.local/ns/demo/sa/peer";

/// Each kind of certificate that must be refused, with its alert (RFC 8446 6.2) and the reason in
/// the log.
fn bad_certificates(pki: &Pki, usage: Usage) -> Vec<(&'static str, u8, &'static str)> {
    let good = Wanted { names: &[PEER], ..Wanted::default() };
    pki.leaf("expired", &Wanted { valid_s: (-48 * HOUR_S, -HOUR_S), ..good.clone() });
    pki.leaf("early", &Wanted { valid_s: (HOUR_S, 48 * HOUR_S), ..good.clone() });
    pki.leaf("foreign", &Wanted { names: &["spiffe://other.org/ns/demo/sa/peer"], ..good.clone() });
    pki.leaf("wrong-usage", &Wanted { usage, ..good.clone() });
    pki.leaf("bare", &Wanted { with_intermediate: false, ..good.clone() });
    pki.leaf("revoked", &Wanted { serial: 99, ..good.clone() });
    pki.leaf("two", &Wanted { names: &[PEER, ME], ..good.clone() });
    pki.leaf("none", &Wanted { names: &["peer.example"], ..good.clone() });
    pki.leaf("not-spiffe", &Wanted { names: &["https://cluster.local/peer"], ..good.clone() });
    pki.self_signed("self", &good);
    for (name, links) in [("long", 50), ("endless", 400)] {
        pki.leaf(name, &good);
        let (chain, link) = (pki.read(&format!("{name}.pem")), pki.read("bare.pem"));
        pki.replace(&format!("{name}.pem"), &(chain + &link.repeat(links)));
    }
    pki.revocation_list("crl.pem", &[99]);
    vec![
        ("expired", 45, "it has expired"),
        ("early", 45, "it is not valid yet"),
        ("foreign", 46, "no bundle for the domain other.org"),
        ("wrong-usage", 43, "extended key usage"),
        ("bare", 48, "does not lead to a trusted root"),
        ("revoked", 44, "it is revoked"),
        ("two", 46, "2 URI names instead of one"),
        ("none", 46, "no SPIFFE ID"),
        ("not-spiffe", 46, "not a SPIFFE ID"),
        ("self", 48, "does not lead to a trusted root"),
        ("long", 46, "its chain is oversized"),
        ("endless", 50, "an oversized handshake message"),
    ]
}

fn identity(pki: &Pki, name: &str) -> String {
    let path = |extension: &str| pki.path(&format!("{name}.{extension}"));
    format!("{{cert: {}, key: {}, roots: {}}}", path("pem"), path("key"), pki.path("ca.pem"))
}

/// A workload with the identity ME. Its inbound listener forwards to `origin`.
fn inbound(pki: &Pki, origin: &Origin) -> (Proxy, u16) {
    pki.leaf("me", &Wanted { names: &[ME], ..Wanted::default() });
    let port = free_port();
    let proxy = Proxy::start(&format!(
        "mesh: {{identity: {}, crl: {}}}\n\
         listeners: {{in: {{bind: \"127.0.0.1:{port}\", tls: mesh}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\nservices: {{app: {{endpoints: [\"{}\"]}}}}\n",
        identity(pki, "me"),
        pki.path("crl.pem"),
        origin.address()
    ));
    (proxy, port)
}

#[test]
fn a_client_with_a_bad_certificate_gets_the_alert_and_the_log_names_it() {
    let pki = Pki::new();
    let cases = bad_certificates(&pki, Usage::ServerAuth);
    pki.leaf("peer", &Wanted { names: &[PEER], ..Wanted::default() });
    let origin = Origin::saying("hello");
    let (proxy, port) = inbound(&pki, &origin);
    let ask = |name: &str, version: &str| {
        let (cert, key) = (pki.path(&format!("{name}.pem")), pki.path(&format!("{name}.key")));
        let address = format!("127.0.0.1:{port}");
        let arguments = ["s_client", "-connect", &address, version, "-ign_eof", "-cert", &cert];
        let chain = ["-cert_chain", &cert, "-key", &key];
        let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        openssl(&[&arguments[..], &chain].concat(), request)
    };
    for version in ["-tls1_2", "-tls1_3"] {
        assert!(ask("peer", version).contains("hello"), "{version}: {}", proxy.log());
        for (name, alert, reason) in &cases {
            let before = proxy.log().len();
            // The log is limited to some refusals per second, so try again if the line is missing.
            let line = eventually(&format!("{name} in the log"), || {
                let said = ask(name, version);
                assert!(!said.contains("hello"), "{version} {name}");
                let expected = format!("SSL alert number {alert}");
                assert!(said.contains(&expected), "{version} {name}: {said}");
                let log = proxy.log()[before..].to_owned();
                log.lines().find(|l| l.contains(reason)).map(ToOwned::to_owned)
            });
            assert!(line.contains("handshake failed") && line.contains("peer=\"127.0.0.1\""));
        }
    }
    assert_eq!(origin.requests().len(), 2, "only the good ones came through");
}

#[test]
fn an_endpoint_with_a_bad_certificate_is_not_talked_to_and_the_log_names_it() {
    let pki = Pki::new();
    let mut cases = bad_certificates(&pki, Usage::ClientAuth);
    pki.leaf("stranger", &Wanted { names: &[ME], ..Wanted::default() });
    cases.push(("stranger", 46, "it proves spiffe://cluster.local/ns/demo/sa/me"));
    pki.leaf("me", &Wanted { names: &[ME], ..Wanted::default() });
    pki.leaf("peer", &Wanted { names: &[PEER], ..Wanted::default() });
    let servers: Vec<_> = cases
        .iter()
        .copied()
        .chain([("peer", 0, "")])
        .map(|(name, alert, reason)| (name, alert, reason, Server::openssl_tls(&pki, name)))
        .collect();
    let mut routes = String::new();
    let mut services = String::new();
    for (name, _, _, server) in &servers {
        routes += &format!("  {name}: [{{to: {name}}}]\n");
        let tls = format!("tls: mesh, identity: \"{PEER}\"");
        services += &format!("  {name}: {{endpoints: [\"127.0.0.1:{}\"], {tls}}}\n", server.port);
    }
    let port = free_port();
    let proxy = Proxy::start(&format!(
        "mesh: {{identity: {}, crl: {}}}\nlisteners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes:\n{routes}services:\n{services}",
        identity(&pki, "me"),
        pki.path("crl.pem"),
    ));
    for (name, alert, reason, server) in &servers {
        if *name == "peer" {
            let answer = Client::connect(port).get(name, "/");
            assert_eq!(answer.status, 200, "{}", proxy.log());
            continue;
        }
        // A worker logs some refusals per second only, so try again if the line is missing.
        let line = eventually(&format!("{name} in the log"), || {
            assert_eq!(Client::connect(port).get(name, "/").status, 503, "{name}");
            let wanted = format!("service=\"{name}\"");
            let log = proxy.log();
            log.lines().find(|l| l.contains(&wanted)).map(ToOwned::to_owned)
        });
        assert!(line.contains(reason) && line.contains("127.0.0.1"), "{name}: {line}");
        let alert = format!("SSL alert number {alert}");
        eventually(&format!("{name}: {alert}: {}", server.said()), || {
            server.said().contains(&alert).then_some(())
        });
    }
}

#[test]
fn workloads_of_linkerd_istio_and_consul_are_known_by_their_names() {
    let pki = Pki::new();
    let origin = Origin::saying("hello");
    let consul_domain = "11111111-2222-3333-4444-555555555555.consul";
    let consul = &format!("spiffe://{consul_domain}/ns/default/dc/dc1/svc/web");
    for (name, identity) in [
        ("linkerd", "web.emojivoto.serviceaccount.identity.linkerd.cluster.local"),
        ("istio", "spiffe://cluster.local/ns/emojivoto/sa/web"),
        ("consul", consul),
        ("other", "vote.emojivoto.serviceaccount.identity.linkerd.cluster.local"),
    ] {
        pki.leaf(name, &Wanted { names: &[identity], ..Wanted::default() });
    }
    pki.leaf("me", &Wanted { names: &[ME], ..Wanted::default() });
    let port = free_port();
    let proxy = Proxy::start(&format!(
        "mesh:\n  identity: {}\n  trust_bundles: {{{consul_domain}: {}}}\n\
         listeners: {{in: {{bind: \"127.0.0.1:{port}\", tls: mesh}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\nservices: {{app: {{endpoints: [\"{}\"]}}}}\n\
         authorization:\n  - name: web\n    action: allow\n    to: {{service: app}}\n\
         \x20   from:\n      identities:\n        - \"{consul}\"\n\
         \x20       - spiffe://cluster.local/ns/emojivoto/sa/web\n",
        identity(&pki, "me"),
        pki.path("ca.pem"),
        origin.address()
    ));
    for (name, expected) in [
        ("linkerd", "hello"),
        ("istio", "hello"),
        ("consul", "hello"),
        ("other", "access denied by policy"),
    ] {
        let answer = TlsClient::connect(&client(&pki, Some(name)), port).get().unwrap();
        assert!(answer.contains(expected), "{name}: {answer}: {}", proxy.log());
    }
}

#[test]
fn a_revoked_certificate_ends_its_live_connections_and_no_others() {
    let pki = Pki::new();
    pki.revocation_list("crl.pem", &[]);
    pki.leaf("good", &Wanted { names: &[PEER], serial: 50, ..Wanted::default() });
    pki.leaf("bad", &Wanted { names: &[PEER], serial: 99, ..Wanted::default() });
    let origin = Origin::saying("hello");
    let (proxy, port) = inbound(&pki, &origin);
    let (good, bad) = (client(&pki, Some("good")), client(&pki, Some("bad")));
    let mut kept = TlsClient::connect(&good, port);
    let mut idle = TlsClient::connect(&bad, port);
    for connection in [&mut kept, &mut idle] {
        assert_eq!(connection.get().unwrap(), "hello");
    }
    pki.revocation_list("crl.pem", &[99]);
    idle.ends();
    assert_eq!(kept.get().unwrap(), "hello", "the connections of others live on");
    let mut again = TlsClient::connect(&bad, port);
    assert!(again.get().is_err() && !again.resumed());
    assert_eq!(proxy.metric("ringway_listener_revoked_connections_total"), 1.0);
    let log = proxy.log();
    assert!(log.contains("certificate is revoked") && log.contains("serial 63"), "{log}");
}

#[test]
fn a_tunnel_ends_when_the_certificate_at_either_end_is_revoked() {
    let pki = Pki::new();
    pki.revocation_list("crl.pem", &[]);
    pki.leaf("me", &Wanted { names: &[ME], serial: 1, ..Wanted::default() });
    pki.leaf("client", &Wanted { names: &[PEER], serial: 50, ..Wanted::default() });
    let origin = Origin::scripted(|peer| {
        let mut stream = peer.stream.try_clone().unwrap();
        std::io::copy(&mut stream, &mut peer.stream).ok();
    });
    let (outer, inner) = (free_port(), free_port());
    // With two workers, one end of the tunnel could close before the worker of the other end checks
    // it.
    let config = format!(
        "mesh: {{identity: {}, crl: {}}}\nlisteners:\n\
         \x20 outer: {{bind: \"127.0.0.1:{outer}\", protocol: tcp, service: next, tls: mesh}}\n\
         \x20 inner: {{bind: \"127.0.0.1:{inner}\", protocol: tcp, service: app, tls: mesh}}\n\
         services:\n  next: {{protocol: tcp, endpoints: [\"127.0.0.1:{inner}\"], tls: mesh}}\n\
         \x20 app: {{protocol: tcp, endpoints: [\"{}\"]}}\n",
        identity(&pki, "me"),
        pki.path("crl.pem"),
        origin.address()
    );
    let proxy = Proxy::start_with(&config, 1);
    let config = client(&pki, Some("client"));
    let mut tunnel = TlsClient::connect(&config, outer);
    assert_eq!(tunnel.echo(b"over there").unwrap(), b"over there");
    pki.revocation_list("crl.pem", &[50]);
    tunnel.ends();
    let cut = || proxy.metric("ringway_listener_revoked_connections_total{listener=\"outer\"");
    assert_eq!(cut(), 1.0);
    pki.revocation_list("crl.pem", &[]);
    let mut tunnel = eventually("the list to be lifted", || {
        let mut tunnel = TlsClient::connect(&config, outer);
        tunnel.echo(b"again").is_ok().then_some(tunnel)
    });
    // Its own certificate is also the certificate of the endpoint that it connects to.
    pki.revocation_list("crl.pem", &[1]);
    tunnel.ends();
    assert_eq!(cut(), 2.0);
}

#[test]
fn a_certificate_is_refused_from_the_second_in_which_it_expires() {
    let pki = Pki::new();
    pki.revocation_list("crl.pem", &[]);
    let origin = Origin::saying("hello");
    let (proxy, port) = inbound(&pki, &origin);
    // Create this certificate last: its life is short, and the proxy may start slowly on a busy
    // machine.
    pki.leaf("brief", &Wanted { names: &[PEER], valid_s: (-HOUR_S, 4), ..Wanted::default() });
    let not_after = pki.not_after_unix_s("brief");
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let resuming = client(&pki, Some("brief"));
    assert_eq!(TlsClient::connect(&resuming, port).get().unwrap(), "hello");
    let mut alive = TlsClient::connect(&resuming, port);
    let (mut accepted, mut refused, mut resumed) = (0, 0, 0);
    while refused < 20 {
        assert_eq!(alive.get().unwrap(), "hello", "a connection lives on");
        let mut fresh = (*resuming).clone();
        fresh.resumption = rustls::client::Resumption::disabled();
        for config in [&resuming, &Arc::new(fresh)] {
            let before = now();
            let mut connection = TlsClient::connect(config, port);
            let answer = connection.get();
            match answer {
                Ok(_) => {
                    accepted += 1;
                    resumed += u32::from(connection.resumed());
                    assert!(before <= not_after, "accepted {} s too late", before - not_after);
                }
                Err(error) => {
                    refused += 1;
                    assert!(now() > not_after, "refused early: {error}: {}", proxy.log());
                }
            }
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert!(accepted >= 4 && resumed >= 2, "{accepted} accepted, {resumed} of them resumed");
    let log = proxy.log();
    assert!(log.contains("it has expired since the session began"), "{log}");
}
