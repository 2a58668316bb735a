//! Traffic from other hosts to a workload.

use std::io::Write;

use super::rules::{self, By};
use crate::support::eventually;
use crate::support::http::Client;
use crate::support::netns::{App, Wire, can_have_hosts};
use crate::support::proxy::Proxy;

#[test]
fn plain_requests_reach_the_application_by_both_ways_and_both_families() {
    if !can_have_hosts() {
        return;
    }
    for (by, backend) in both_by_both() {
        let wire = Wire::new(2);
        let [client, side] = &wire.hosts[..] else { panic!() };
        let app = App::saying(side.listen("[::]:8080"), "from the app");
        let proxy = Proxy::start_in(
            &side.name,
            &format!(
                "mesh: {{inbound: {{bind: [\"0.0.0.0:15006\", \"[::]:15006\"], intercept: {}}}}}\n",
                by.word()
            ),
        );
        rules::up(side, backend, &proxy);
        for (host, family) in [(side.v4(), 4), (side.v6(), 6)] {
            let mut peer = Client::over(client.connect(&format!("{host}:8080")));
            for _ in 0..2 {
                let said = peer.get("shop", "/");
                assert_eq!(said.text(), "from the app", "{by:?} {backend} {family}");
            }
        }
        let seen = "ringway_capture_detected_total{listener=\"mesh.inbound\",protocol=\"http1\"";
        assert_eq!(proxy.metric(seen), 2.0, "{by:?} {backend}");
        let expected = match by {
            By::Redirect => ["::ffff:10.99.0.2", "fd99::2"],
            By::Tproxy => ["::ffff:10.99.0.1", "fd99::1"],
        };
        assert_eq!(app.peers(), expected, "{by:?} {backend}");
    }
}

fn both_by_both() -> impl Iterator<Item = (By, &'static str)> {
    let ways = [By::Redirect, By::Tproxy].into_iter();
    ways.flat_map(|by| rules::BACKENDS.into_iter().map(move |backend| (by, backend)))
}

#[test]
fn the_application_may_be_on_loopback_alone() {
    if !can_have_hosts() {
        return;
    }
    for by in [By::Redirect, By::Tproxy] {
        let wire = Wire::new(2);
        let [client, side] = &wire.hosts[..] else { panic!() };
        let app = App::saying(side.listen("127.0.0.1:8080"), "from the app");
        rules::inbound(side, by);
        let _proxy = Proxy::start_in(
            &side.name,
            &format!(
                "mesh: {{inbound: {{bind: \"0.0.0.0:15006\", intercept: {}, \
                 application: loopback}}}}\n",
                by.word()
            ),
        );
        let mut peer = Client::over(client.connect("10.99.0.2:8080"));
        assert_eq!(peer.get("shop", "/").text(), "from the app", "{by:?}");
        assert_eq!(app.peers(), ["127.0.0.1"], "{by:?}");
    }
}

#[test]
fn connections_that_bear_a_clients_address_do_not_clash_with_its_own() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(2);
    let [client, side] = &wire.hosts[..] else { panic!() };
    let app = App::saying(side.listen("0.0.0.0:8080"), "from the app");
    rules::inbound(side, By::Tproxy);
    let _proxy = Proxy::start_in(
        &side.name,
        "mesh: {inbound: {bind: \"0.0.0.0:15006\", intercept: tproxy}}\n",
    );
    // So few local ports that the kernel would give the same ports to both hosts.
    for host in [client, side] {
        host.run(&["sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40015"]);
    }
    let open = |_| Client::over(client.connect("10.99.0.2:8080"));
    let mut peers: Vec<_> = (0..12).map(open).collect();
    for peer in &mut peers {
        assert_eq!(peer.get("shop", "/").text(), "from the app");
    }
    assert_eq!(app.peers(), ["10.99.0.1"; 12]);
}

#[test]
fn a_server_may_speak_first() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(2);
    let [client, side] = &wire.hosts[..] else { panic!() };
    let greet = |mut stream: std::net::TcpStream| {
        stream.write_all(b"220 ready\r\n").unwrap();
        let mut peer = Client::over(stream);
        let Ok(said) = peer.exactly(6) else { return };
        assert_eq!(said, b"EHLO\r\n");
        peer.send("250 ok\r\n");
    };
    let _app = App::new(side.listen("0.0.0.0:8025"), greet);
    rules::inbound(side, By::Redirect);
    let proxy = Proxy::start_in(&side.name, "mesh: {inbound: {bind: \"0.0.0.0:15006\"}}\n");
    let mut peer = Client::over(client.connect("10.99.0.2:8025"));
    assert_eq!(peer.exactly(11).unwrap(), b"220 ready\r\n");
    peer.send("EHLO\r\n");
    assert_eq!(peer.exactly(8).unwrap(), b"250 ok\r\n");
    drop(peer);
    let seen = "ringway_capture_detected_total{listener=\"mesh.inbound\",protocol=\"server_first\"";
    assert_eq!(proxy.metric(seen), 1.0);
    assert_eq!(proxy.metric("ringway_capture_early_connections_total"), 1.0);
}

#[test]
fn a_client_that_thinks_for_a_while_is_still_heard_as_what_it_is() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(2);
    let [client, side] = &wire.hosts[..] else { panic!() };
    let app = App::saying(side.listen("0.0.0.0:8080"), "from the app");
    rules::inbound(side, By::Redirect);
    let proxy = Proxy::start_in(&side.name, "mesh: {inbound: {bind: \"0.0.0.0:15006\"}}\n");
    let mut peer = Client::over(client.connect("10.99.0.2:8080"));
    eventually("the early connection", || (app.peers().len() == 1).then_some(()));
    // Send the request in parts, so that the first bytes are not enough to detect the protocol.
    peer.send("GE");
    peer.send("T / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(peer.response().text(), "from the app");
    assert_eq!(app.peers().len(), 1, "the early connection was used");
    let seen = "ringway_capture_detected_total{listener=\"mesh.inbound\",protocol=\"http1\"";
    assert_eq!(proxy.metric(seen), 1.0);
}

#[test]
fn who_is_silent_is_closed_by_the_idle_timeout() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(2);
    let [client, side] = &wire.hosts[..] else { panic!() };
    let _app = App::new(side.listen("0.0.0.0:8080"), |stream| {
        Client::over(stream).rest();
    });
    rules::inbound(side, By::Redirect);
    let proxy = Proxy::start_in(
        &side.name,
        "mesh: {inbound: {bind: \"0.0.0.0:15006\", timeouts: {tcp_idle: 400ms}}}\n\
         telemetry: {access_log: {path: stdout}}\n",
    );
    // One client sends nothing. The other sends bytes and gets no answer.
    for words in ["", "\x01\x02"] {
        let mut peer = Client::over(client.connect("10.99.0.2:8080"));
        peer.send(words);
        assert!(peer.closes_within(crate::support::PATIENCE), "{words:?}");
    }
    eventually("both in the log", || {
        (proxy.log().matches("\"response_flags\":\"DT\"").count() == 2).then_some(())
    });
}

#[test]
fn what_was_not_captured_or_leads_back_is_refused_with_its_flag() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(2);
    let [client, side] = &wire.hosts[..] else { panic!() };
    rules::inbound(side, By::Redirect);
    let proxy = Proxy::start_in(
        &side.name,
        "mesh: {inbound: {bind: \"0.0.0.0:15006\"}, \
         intercept: {exclude: {inbound: {ports: 8022}}}}\n\
         listeners: {web: {bind: \"0.0.0.0:8443\"}}\n\
         telemetry: {access_log: {path: stdout}}\n",
    );
    for address in ["10.99.0.2:15006", "10.99.0.2:8443", "10.99.0.2:8022"] {
        let mut peer = Client::over(client.connect(address));
        assert!(peer.closes_within(crate::support::PATIENCE), "{address}");
    }
    let refused = "ringway_capture_refused_total{listener=\"mesh.inbound\",reason=\"ourselves\"";
    assert_eq!(proxy.metric(refused), 2.0);
    let excluded = "ringway_capture_refused_total{listener=\"mesh.inbound\",reason=\"excluded\"";
    assert_eq!(proxy.metric(excluded), 1.0);
    eventually("all in the log", || {
        (proxy.log().matches("\"response_flags\":\"OD\"").count() == 3).then_some(())
    });
}

#[test]
fn a_silent_connection_does_not_hold_up_the_end() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(2);
    let [client, side] = &wire.hosts[..] else { panic!() };
    let app = App::new(side.listen("0.0.0.0:8080"), |stream| {
        Client::over(stream).rest();
    });
    rules::inbound(side, By::Redirect);
    let config = "mesh: {inbound: {bind: \"0.0.0.0:15006\"}}\ndrain: 10m\n";
    let mut proxy = Proxy::start_in(&side.name, config);
    let mut peer = Client::over(client.connect("10.99.0.2:8080"));
    eventually("the early connection", || (app.peers().len() == 1).then_some(()));
    proxy.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(proxy.wait().success());
    assert!(peer.closes_within(crate::support::PATIENCE));
}
