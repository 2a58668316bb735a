//! What a workload sends to others.

use std::io::Write;

use super::rules::{self, By};
use crate::support::http::Client;
use crate::support::netns::{App, Host, Wire, can_have_hosts};
use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, eventually};

/// The proxy of a workload that knows two services on the other host.
fn sidecar(side: &Host, by: By, more: &str) -> Proxy {
    let config = format!(
        "mesh: {{outbound: {{bind: [\"127.0.0.1:15001\", \"[::1]:15001\"], \
         intercept: {}{more}}}}}\n\
         routes: {{shop: [{{to: shop}}]}}\n\
         services:\n\
         \x20 shop: {{endpoints: [\"10.99.0.2:8081\"]}}\n\
         \x20 stock: {{addresses: [\"10.9.0.1:8080\", \"[fd09::1]:8080\"], \
         endpoints: [\"10.99.0.2:8082\", \"10.99.0.2:8083\"], balance: round-robin}}\n\
         \x20 mail: {{addresses: \"10.9.0.2:8025\", endpoints: [\"10.99.0.2:8025\"]}}\n\
         telemetry: {{access_log: {{path: stdout}}}}\n",
        by.word()
    );
    Proxy::start_in(&side.name, &config)
}

fn ask(side: &Host, address: &str, host: &str) -> crate::support::http::Response {
    Client::over(side.connect(address)).get(host, "/")
}

#[test]
fn calls_go_where_a_name_or_an_address_leads() {
    if !can_have_hosts() {
        return;
    }
    for by in [By::Redirect, By::Tproxy] {
        let wire = Wire::new(2);
        let [side, other] = &wire.hosts[..] else { panic!() };
        let app = |port: u16, body| App::saying(other.listen(&format!("[::]:{port}")), body);
        let apps = [app(8081, "shop"), app(8082, "stock 1"), app(8083, "stock 2")];
        let unknown = app(8084, "unknown");
        let _mail = App::new(other.listen("0.0.0.0:8025"), |mut stream| {
            stream.write_all(b"220 ready\r\n").unwrap();
            Client::over(stream).rest();
        });
        rules::outbound(side, by);
        let proxy = sidecar(side, by, "");
        // By name, whatever the address.
        for address in ["10.99.0.2:8084", "10.9.0.1:8080", "10.77.0.1:8080", "[fd99::2]:8084"] {
            assert_eq!(ask(side, address, "shop").text(), "shop", "{by:?} {address}");
        }
        // By a virtual address: to all of its endpoints.
        for address in ["10.9.0.1:8080", "[fd09::1]:8080"] {
            let mut said = [ask(side, address, "else"), ask(side, address, "else")];
            said.sort_by_key(|response| response.body.clone());
            assert_eq!([said[0].text(), said[1].text()], ["stock 1", "stock 2"], "{by:?}");
        }
        // Who means one endpoint gets that one.
        for _ in 0..3 {
            assert_eq!(ask(side, "10.99.0.2:8083", "else").text(), "stock 2", "{by:?}");
        }
        // A server that speaks first.
        let mut peer = Client::over(side.connect("10.9.0.2:8025"));
        assert_eq!(peer.exactly(11).unwrap(), b"220 ready\r\n", "{by:?}");
        // What nobody names.
        for address in ["10.99.0.2:8084", "[fd99::2]:8084"] {
            assert_eq!(ask(side, address, "else").text(), "unknown", "{by:?}");
            let seen = format!(
                "ringway_capture_unknown_destinations_total{{listener=\"mesh.outbound\",\
                 destination=\"{address}\",result=\"allowed\"}}"
            );
            assert_eq!(proxy.metric(&seen), 1.0, "{by:?} {address}");
        }
        assert_eq!(unknown.peers().len(), 2, "{by:?}");
        assert!(apps.iter().all(|app| !app.peers().is_empty()), "{by:?}");
        assert_eq!(proxy.metric("ringway_capture_refused_total"), 0.0, "{by:?}");
    }
}

#[test]
fn unknown_destinations_can_be_denied() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(2);
    let [side, other] = &wire.hosts[..] else { panic!() };
    let unknown = App::saying(other.listen("[::]:8084"), "unknown");
    rules::outbound(side, By::Redirect);
    let proxy = sidecar(side, By::Redirect, ", unknown: deny");
    let refused = ask(side, "10.99.0.2:8084", "else");
    assert_eq!(refused.status, 502);
    let mut opaque = Client::over(side.connect("10.99.0.2:8084"));
    opaque.send("\x01\x02\x03");
    assert!(opaque.closes_within(PATIENCE));
    assert_eq!(unknown.peers().len(), 0);
    let seen = "ringway_capture_unknown_destinations_total{listener=\"mesh.outbound\",\
                destination=\"10.99.0.2:8084\",result=\"denied\"}";
    assert_eq!(proxy.metric(seen), 2.0);
    eventually("both in the log", || {
        (proxy.log().matches("\"response_flags\":\"OD\"").count() == 2).then_some(())
    });
}

#[test]
fn a_loop_in_the_rules_is_refused() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(2);
    let [side, other] = &wire.hosts[..] else { panic!() };
    let _app = App::saying(other.listen("[::]:8084"), "unknown");
    rules::outbound_without_exception(side);
    let proxy = sidecar(side, By::Redirect, "");
    assert_ne!(ask(side, "10.99.0.2:8084", "else").status, 200);
    let looped = "ringway_capture_refused_total{listener=\"mesh.outbound\",reason=\"loop\"}";
    assert!(proxy.metric(looped) >= 1.0);
    let connections = proxy.metric("ringway_listener_connections_total");
    assert!(connections < 20.0, "{connections}");
}
