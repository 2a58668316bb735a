//! Traffic from a workload to other hosts.

use std::io::Write;

use super::rules::{self, By};
use crate::support::http::Client;
use crate::support::netns::{App, Host, Wire, can_have_hosts};
use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, eventually};

/// The sidecar of a workload. It knows two services on the other host.
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
    // `ringway intercept` uses REDIRECT for outbound traffic. Rules of other tools may use TPROXY.
    for (by, backend) in
        [(By::Redirect, Some("nft")), (By::Redirect, Some("iptables")), (By::Tproxy, None)]
    {
        let wire = Wire::new(2);
        let [side, other] = &wire.hosts[..] else { panic!() };
        let app = |port: u16, body| App::saying(other.listen(&format!("[::]:{port}")), body);
        let apps = [app(8081, "shop"), app(8082, "stock 1"), app(8083, "stock 2")];
        let unknown = app(8084, "unknown");
        let _mail = App::new(other.listen("0.0.0.0:8025"), |mut stream| {
            stream.write_all(b"220 ready\r\n").unwrap();
            Client::over(stream).rest();
        });
        let proxy = sidecar(side, by, "");
        match backend {
            Some(backend) => rules::up(side, backend, &proxy),
            None => rules::outbound(side, by),
        }
        // A request with a known host name is routed by this name, for any destination address.
        for address in ["10.99.0.2:8084", "10.9.0.1:8080", "10.77.0.1:8080", "[fd99::2]:8084"] {
            assert_eq!(ask(side, address, "shop").text(), "shop", "{by:?} {address}");
        }
        // A request to a virtual address goes to any endpoint of the service.
        for address in ["10.9.0.1:8080", "[fd09::1]:8080"] {
            // A connection that was opened early for a slow client may have used a round-robin
            // turn.
            let mut seen = std::collections::BTreeSet::new();
            eventually("both endpoints", || {
                seen.insert(ask(side, address, "else").text().to_owned());
                (seen.len() == 2).then_some(())
            });
            assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["stock 1", "stock 2"], "{by:?}");
        }
        // A request to the address of one endpoint goes to this endpoint.
        for _ in 0..3 {
            assert_eq!(ask(side, "10.99.0.2:8083", "else").text(), "stock 2", "{by:?}");
        }
        // A server that speaks first.
        let mut peer = Client::over(side.connect("10.9.0.2:8025"));
        assert_eq!(peer.exactly(11).unwrap(), b"220 ready\r\n", "{by:?}");
        // Unknown destinations.
        for address in ["10.99.0.2:8084", "[fd99::2]:8084"] {
            assert_eq!(ask(side, address, "else").text(), "unknown", "{by:?}");
            let seen = format!(
                "ringway_capture_unknown_destinations_total{{listener=\"mesh.outbound\",\
                 destination=\"{address}\",result=\"allowed\"}}"
            );
            assert_eq!(proxy.metric(&seen), 1.0, "{by:?} {address}");
        }
        assert!(unknown.peers().len() >= 2, "{by:?}");
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
    // The rules skip another mark than the proxy's mark, so the proxy captures its own traffic.
    rules::outbound(side, By::Redirect);
    let config = "mesh: {outbound: {bind: \"127.0.0.1:15001\"}, intercept: {mark: 7}}\n";
    let proxy = Proxy::start_in(&side.name, config);
    assert_ne!(ask(side, "10.99.0.2:8084", "else").status, 200);
    let looped = "ringway_capture_refused_total{listener=\"mesh.outbound\",reason=\"loop\"}";
    assert!(proxy.metric(looped) >= 1.0);
    let connections = proxy.metric("ringway_listener_connections_total");
    assert!(connections < 20.0, "{connections}");
}

#[test]
fn health_checks_pass_by_the_rules() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(2);
    let [side, other] = &wire.hosts[..] else { panic!() };
    let _app = App::saying(other.listen("[::]:8084"), "fine");
    rules::outbound(side, By::Redirect);
    let config = |mesh: &str| {
        format!(
            "mesh: {{outbound: {{bind: \"127.0.0.1:15001\"}}{mesh}}}\n\
             services: {{shop: {{endpoints: [\"10.99.0.2:8084\"], \
             health_check: {{http: /, interval: 50ms}}}}}}\n"
        )
    };
    let proxy = Proxy::start_in(&side.name, &config(""));
    eventually("five checks", || {
        (proxy.metric("ringway_health_checks_total") >= 5.0).then_some(())
    });
    assert_eq!(proxy.metric("ringway_endpoint_healthy"), 1.0);
    assert_eq!(proxy.metric("ringway_listener_connections_total"), 0.0, "none was turned aside");
    drop(proxy);
    // The kernel closes the sockets of a ring only after the process has ended.
    eventually("a free port", || {
        side.within(|| std::net::TcpListener::bind("127.0.0.1:15001")).ok().map(drop)
    });
    // The rules skip another mark, so a health check of the proxy is captured. The proxy recognises
    // it as its own connection.
    let proxy = Proxy::start_in(&side.name, &config(", intercept: {mark: 7}"));
    let looped = "ringway_capture_refused_total{listener=\"mesh.outbound\",reason=\"loop\"}";
    eventually("loops", || (proxy.metric(looped) >= 3.0).then_some(()));
    assert_eq!(proxy.metric("ringway_endpoint_healthy"), 0.0);
}

/// The command that removes the network capabilities of a process, but keeps its user.
const POWERLESS: [&str; 3] =
    ["setpriv", "--bounding-set=-net_admin,-net_raw", "--inh-caps=-net_admin,-net_raw"];

#[test]
fn without_capabilities_the_rules_know_the_proxy_by_its_user() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(2);
    let [side, other] = &wire.hosts[..] else { panic!() };
    let _app = App::saying(other.listen("[::]:8084"), "unknown");
    rules::outbound_by_user(side);
    let config = "mesh: {outbound: {bind: \"127.0.0.1:15001\"}}\n";
    let proxy = Proxy::start_in_under(&side.name, &POWERLESS, config);
    let nobody = ["setpriv", "--reuid=65534", "--clear-groups", "curl", "-sS"];
    let said = side.run(&[&nobody[..], &["http://10.99.0.2:8084/"]].concat());
    assert_eq!(said, "unknown");
    assert_eq!(proxy.metric("ringway_listener_connections_total{listener=\"mesh.outbound\""), 1.0);
}

#[test]
fn tproxy_without_its_capability_is_one_clear_message() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(1);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ringway.yaml");
    let ringway = env!("CARGO_BIN_EXE_ringway");
    for (mesh, expected) in [
        ("inbound: {bind: \"0.0.0.0:15006\", intercept: tproxy}", "TPROXY needs CAP_NET_ADMIN"),
        ("outbound: {bind: \"0.0.0.0:15001\", udp: {}}", "captured UDP needs CAP_NET_ADMIN"),
    ] {
        std::fs::write(&file, format!("admin: {{bind: off}}\nmesh: {{{mesh}}}\n")).unwrap();
        let run = [ringway, "run", "-c", file.to_str().unwrap()];
        let output = wire.hosts[0].command(&[&POWERLESS[..], &run].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn http2_is_served_where_the_service_speaks_it_and_passes_as_it_is_elsewhere() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(2);
    let [side, other] = &wire.hosts[..] else { panic!() };
    let api = Proxy::start_in(
        &other.name,
        "listeners: {web: {bind: [\"10.99.0.2:8080\", \"10.99.0.2:8081\"]}}\n\
         routes: {\"*\": [{respond: {body: hello}}]}\n\
         telemetry: {access_log: {path: stdout}}\n",
    );
    rules::outbound(side, By::Redirect);
    let proxy = Proxy::start_in(
        &side.name,
        "mesh: {outbound: {bind: \"127.0.0.1:15001\"}}\n\
         services: {api: {protocol: http2, addresses: \"10.9.0.1:8080\", \
         endpoints: [\"10.99.0.2:8080\"]}}\n\
         telemetry: {access_log: {path: stdout}}\n",
    );
    for address in ["10.9.0.1:8080", "10.99.0.2:8081"] {
        let url = format!("http://{address}/");
        let said = side.run(&["curl", "-sS", "--http2-prior-knowledge", &url]);
        assert_eq!(said, "hello", "{address}");
    }
    eventually("both as HTTP/2 at the service", || {
        (api.log().matches("\"protocol\":\"HTTP/2\"").count() == 2).then_some(())
    });
    eventually("one request and one connection in our log", || {
        let count = |protocol: &str| proxy.log().matches(&format!("\":\"{protocol}\"")).count();
        ((count("HTTP/2"), count("TCP")) == (1, 1)).then_some(())
    });
    let seen = "ringway_capture_detected_total{listener=\"mesh.outbound\",protocol=\"http2\"";
    assert_eq!(proxy.metric(seen), 2.0);
}

#[test]
fn the_workload_reaches_others_until_its_last_inbound_request_is_over() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(2);
    let [side, other] = &wire.hosts[..] else { panic!() };
    let _shop = App::saying(other.listen("0.0.0.0:8081"), "shop");
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let app = App::new(side.listen("0.0.0.0:8080"), move |stream| {
        let mut client = Client::over(stream);
        client.head().unwrap();
        released.lock().unwrap().recv().ok();
        client.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
    });
    rules::inbound(side, By::Redirect);
    rules::outbound(side, By::Redirect);
    let config = "mesh: {inbound: {bind: \"0.0.0.0:15006\"}, outbound: {bind: \"0.0.0.0:15001\"}}\n\
                  routes: {shop: [{to: shop}]}\n\
                  services: {shop: {endpoints: [\"10.99.0.2:8081\"]}}\n";
    let mut proxy = Proxy::start_in(&side.name, config);
    let mut client = Client::over(other.connect("10.99.0.1:8080"));
    client.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n");
    eventually("the request to arrive", || (app.peers().len() == 1).then_some(()));
    proxy.signal(nix::sys::signal::Signal::SIGTERM);
    eventually("the inbound side to refuse", || other.try_connect("10.99.0.1:8080").err());
    assert_eq!(ask(side, "10.77.0.1:8080", "shop").text(), "shop");
    release.send(()).unwrap();
    assert_eq!(client.response().text(), "done");
    assert!(proxy.wait().success());
}
