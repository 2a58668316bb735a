//! Services with `protocol: auto` learn HTTP/3 by `alt-svc`, and go on over TCP where it fails.

use std::net::UdpSocket;
use std::process::Command;

use crate::support::eventually;
use crate::support::free_port;
use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;

/// The configuration of an endpoint at `port` that speaks HTTP/3, and says `alt_svc`.
fn endpoint(pki: &Pki, port: u16, origin: &Origin, alt_svc: &str) -> String {
    format!(
        "listeners: {{in: {{bind: \"127.0.0.1:{port}\", http3: {{alt_svc: false}}, \
         tls: {{cert: {}, key: {}}}}}}}\n\
         routes: {{\"*\": [{{to: app, \
         headers: {{response: {{set: {{alt-svc: '{alt_svc}'}}}}}}}}]}}\n\
         services: {{app: {{endpoints: [\"{}\"]}}}}\n\
         telemetry: {{access_log: {{path: stdout}}}}\n",
        pki.path("web.pem"),
        pki.path("web.key"),
        origin.address()
    )
}

/// A proxy in front of the endpoint at `far`. Returns its port, too.
fn client(pki: &Pki, far: u16) -> (Proxy, u16) {
    let near = free_port();
    let config = format!(
        "listeners: {{web: {{bind: \"127.0.0.1:{near}\"}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"127.0.0.1:{far}\"], connect_timeout: 1s, \
         tls: {{ca: {}, sni: web.example}}}}}}\n",
        pki.path("ca.pem")
    );
    (Proxy::start_with(&config, 1), near)
}

fn pki() -> Pki {
    let pki = Pki::new();
    pki.leaf("web", &Wanted { names: &["web.example"], ..Wanted::default() });
    pki
}

/// The number of requests that the endpoint has served over `version`.
fn served(endpoint: &Proxy, version: &str) -> usize {
    endpoint.log().matches(&format!("\"protocol\":\"{version}\"")).count()
}

/// Asks until the endpoint has served another request over `version`. Each request must succeed.
fn asks_over(near: u16, endpoint: &Proxy, version: &str) {
    let before = served(endpoint, version);
    let mut client = Client::connect(near);
    eventually(version, || {
        assert_eq!(client.get("x", "/").text(), "hello", "{}", endpoint.log());
        (served(endpoint, version) > before).then_some(())
    });
}

#[test]
fn http3_is_learned_and_ends_with_its_offer() {
    let (pki, far) = (pki(), free_port());
    let origin = Origin::saying("hello");
    let says = |alt_svc: &str| endpoint(&pki, far, &origin, alt_svc);
    let offer = format!("h3=\":{far}\"; ma=3600");
    let endpoint = Proxy::start(&says(&offer));
    let (proxy, near) = client(&pki, far);
    assert_eq!(Client::connect(near).get("x", "/").text(), "hello");
    eventually("the first request in the log", || (served(&endpoint, "HTTP/2") == 1).then_some(()));
    asks_over(near, &endpoint, "HTTP/3");
    endpoint.reload(&says("clear"));
    asks_over(near, &endpoint, "HTTP/2");
    endpoint.reload(&says(&offer));
    asks_over(near, &endpoint, "HTTP/3");
    // A field without HTTP/3 replaces the offer.
    endpoint.reload(&says("h2=\":1\""));
    asks_over(near, &endpoint, "HTTP/2");
    assert_eq!(proxy.metric("ringway_service_quic_fallbacks_total"), 0.0, "{}", proxy.log());
}

#[test]
fn an_offer_that_does_not_hold_fails_no_request() {
    let pki = pki();
    let origin = Origin::saying("hello");
    // A port that drops datagrams, one where nobody listens, and one with another certificate.
    let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    pki.leaf("other", &Wanted { names: &["other.example"], ..Wanted::default() });
    let other = free_port();
    let _other = Proxy::start(&format!(
        "listeners: {{in: {{bind: \"127.0.0.1:{other}\", protocol: http3, \
         tls: {{cert: {}, key: {}}}}}}}\nroutes: {{\"*\": [{{respond: {{status: 500}}}}]}}\n",
        pki.path("other.pem"),
        pki.path("other.key"),
    ));
    for offered in [mute.local_addr().unwrap().port(), closed, other] {
        let far = free_port();
        let endpoint = Proxy::start(&endpoint(&pki, far, &origin, &format!("h3=\":{offered}\"")));
        let (proxy, near) = client(&pki, far);
        let mut client = Client::connect(near);
        eventually("the fallback", || {
            assert_eq!(client.get("x", "/").text(), "hello", "{}", proxy.log());
            (proxy.metric("ringway_service_quic_fallbacks_total") == 1.0).then_some(())
        });
        for _ in 0..10 {
            assert_eq!(client.get("x", "/").text(), "hello", "{}", proxy.log());
        }
        assert_eq!(served(&endpoint, "HTTP/3"), 0);
        let told = proxy.log().matches("does not answer over QUIC").count();
        assert_eq!(told, 1, "{}", proxy.log());
    }
}

#[test]
fn a_misdirected_request_goes_over_tcp_and_ends_the_offer() {
    let (pki, far, other) = (pki(), free_port(), free_port());
    let origin = Origin::saying("hello");
    let _other = Proxy::start(&format!(
        "listeners: {{in: {{bind: \"127.0.0.1:{other}\", protocol: http3, \
         tls: {{cert: {}, key: {}}}}}}}\nroutes: {{\"*\": [{{respond: {{status: 421}}}}]}}\n",
        pki.path("web.pem"),
        pki.path("web.key"),
    ));
    let endpoint = Proxy::start(&endpoint(&pki, far, &origin, &format!("h3=\":{other}\"")));
    let (proxy, near) = client(&pki, far);
    let mut client = Client::connect(near);
    eventually("the fallback", || {
        assert_eq!(client.get("x", "/").text(), "hello", "{} {}", proxy.log(), endpoint.log());
        (proxy.metric("ringway_service_quic_fallbacks_total") == 1.0).then_some(())
    });
    for _ in 0..20 {
        assert_eq!(client.get("x", "/").text(), "hello", "{} {}", proxy.log(), endpoint.log());
    }
}

#[test]
fn a_host_that_is_not_served_over_tcp_either_does_not_end_the_offer() {
    let (pki, far) = (pki(), free_port());
    let origin = Origin::saying("hello");
    let config = endpoint(&pki, far, &origin, &format!("h3=\":{far}\""));
    let config = config.replace("routes: {", "routes: {wrong: [{respond: {status: 421}}], ");
    let endpoint = Proxy::start(&config);
    let (proxy, near) = client(&pki, far);
    asks_over(near, &endpoint, "HTTP/3");
    let mut client = Client::connect(near);
    for _ in 0..10 {
        assert_eq!(client.get("wrong", "/").status, 421);
        assert_eq!(client.get("x", "/").text(), "hello", "{} {}", proxy.log(), endpoint.log());
    }
    eventually("421 over both", || {
        let log = endpoint.log();
        let refused = |version: &str| {
            let protocol = format!("\"protocol\":\"{version}\"");
            log.lines().any(|it| it.contains("\"status\":421") && it.contains(&protocol))
        };
        (refused("HTTP/2") && refused("HTTP/3")).then_some(())
    });
    asks_over(near, &endpoint, "HTTP/3");
    assert_eq!(proxy.metric("ringway_service_quic_fallbacks_total"), 0.0, "{}", proxy.log());
}

#[test]
fn only_verified_endpoints_may_offer_http3() {
    let pki = pki();
    let ca = format!("ca: {}", pki.path("ca.pem"));
    for (tls, more, learns) in [
        (&*ca, "", true),
        (&*ca, ", alt_svc: true", true),
        (&*ca, ", alt_svc: false", false),
        (&*ca, ", protocol: http2", false),
        (&*ca, ", protocol: http1", false),
        ("verify: none", "", false),
    ] {
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        let config = format!(
            "listeners: {{web: {{bind: \"127.0.0.1:80\"}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
             services: {{app: {{endpoints: [\"127.0.0.1:443\"], tls: {{{tls}}}{more}}}}}\n"
        );
        std::fs::write(file.path(), config).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_ringway"))
            .args(["explain", "-c", file.path().to_str().unwrap(), "GET", "http://x/"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(said.contains("transport: QUIC where"), learns, "{tls}{more}: {said}");
    }
}
