//! Hosts that vanish without a reset: the kernel detects this, and no exchange waits forever.

use crate::support::eventually;
use crate::support::http::Client;
use crate::support::netns::{App, Host, Wire, can_have_hosts};
use crate::support::proxy::Proxy;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A proxy with TCP settings that detect a dead peer after about two seconds, on both sides.
fn proxy(side: &Host) -> Proxy {
    let config = "listeners:\n  web: {bind: \"0.0.0.0:80\"}\n\
                  \x20 raw: {bind: \"0.0.0.0:81\", protocol: tcp, service: app}\n\
                  routes: {\"*\": [{to: app}]}\n\
                  services: {app: {endpoints: [\"10.99.0.3:8080\"]}}\n\
                  tcp: {keepalive: {time: 1s, interval: 1s, probes: 2}, user_timeout: 2s}\n";
    Proxy::start_in(&side.name, config)
}

/// Drops all packets to and from a host. ARP still works, so no peer gets an error.
fn vanish(host: &Host) {
    host.nft(
        "table inet gone {\n\
         chain in { type filter hook input priority 0; policy drop; }\n\
         chain out { type filter hook output priority 0; policy drop; }\n}\n",
    );
}

fn open_connections(proxy: &Proxy) -> f64 {
    proxy.metric("ringway_worker_connections_active")
}

#[test]
fn a_tunnel_ends_when_its_client_vanishes() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(3);
    let [client, side, other] = &wire.hosts[..] else { panic!() };
    let app = App::new(other.listen("0.0.0.0:8080"), |stream| {
        Client::over(stream).send("welcome").rest();
    });
    let proxy = proxy(side);
    let mut peer = Client::over(client.connect("10.99.0.2:81"));
    assert_eq!(peer.exactly(7).unwrap(), b"welcome");
    assert_eq!((app.peers().len(), open_connections(&proxy)), (1, 1.0));
    vanish(client);
    eventually("the tunnel to end", || (open_connections(&proxy) == 0.0).then_some(()));
}

#[test]
fn a_request_fails_when_its_endpoint_vanishes() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(3);
    let [client, side, other] = &wire.hosts[..] else { panic!() };
    // The endpoint answers the first request of a connection, and no later request.
    let app = App::new(other.listen("0.0.0.0:8080"), |stream| {
        let mut peer = Client::over(stream);
        while let Some(head) = peer.head() {
            if !head.contains("/silent") {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        }
    });
    let _proxy = proxy(side);
    let mut waiting = Client::over(client.connect("10.99.0.2:80"));
    waiting.send("GET /silent HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request to arrive", || (app.peers().len() == 1).then_some(()));
    let mut pooled = Client::over(client.connect("10.99.0.2:80"));
    assert_eq!(pooled.request(GET).text(), "ok");
    vanish(other);
    // This request is sent to the endpoint and never acknowledged.
    pooled.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    for peer in [&mut waiting, &mut pooled] {
        let status = peer.response().status;
        assert!((502..=504).contains(&status), "{status}");
    }
}
