//! Connections that are reused, and connections that must not be reused.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

fn config(port: u16, origin: &Origin, more: &str) -> String {
    format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"{}\"]{more}}}}}\n",
        origin.address()
    )
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_pooled_connection_that_its_peer_has_closed_is_not_used() {
    let origin = Origin::scripted(|peer| {
        peer.request();
        peer.send(OK);
    });
    let port = free_port();
    let _proxy = Proxy::start_with(&config(port, &origin, ""), 1);
    let mut client = Client::connect(port);
    for round in 0..20 {
        let response = client.request("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(response.status, 200, "round {round}");
        // Wait until the origin's close has arrived: the next request then meets a closed
        // connection.
        eventually("the origin's close", || all_of_its_ends_have_arrived(&origin).then_some(()));
    }
    assert_eq!(origin.accepted(), 20);
}

/// Whether no connection of the origin is in the state FIN_WAIT1 (04). Then the proxy has received
/// its FIN.
fn all_of_its_ends_have_arrived(origin: &Origin) -> bool {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let local = format!("0100007F:{:04X}", origin.port);
    !table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(&local) && words.nth(1) == Some("04")
    })
}

#[test]
fn an_idempotent_request_survives_a_connection_that_dies_on_use() {
    // Each connection answers one request. It then reads the second request and closes without an
    // answer.
    let dead = std::sync::Arc::new(AtomicUsize::new(0));
    let origin = Origin::scripted({
        let dead = dead.clone();
        move |peer| {
            peer.request();
            peer.send(OK);
            if peer.request().is_some() {
                dead.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let port = free_port();
    let proxy = Proxy::start_with(&config(port, &origin, ""), 1);
    let mut client = Client::connect(port);
    for _ in 0..10 {
        assert_eq!(client.get("a", "/").status, 200);
    }
    assert!(dead.load(Ordering::SeqCst) > 0, "the case did not happen");
    assert!(proxy.metric("ringway_service_requests_repeated_total") > 0.0);
}

#[test]
fn a_request_that_may_not_be_repeated_fails_with_its_flag() {
    let origin = Origin::scripted(|peer| {
        peer.request();
        peer.send(OK);
        peer.request();
    });
    let port = free_port();
    let proxy = Proxy::start_with(&config(port, &origin, ""), 1);
    let mut client = Client::connect(port);
    assert_eq!(client.get("a", "/").status, 200);
    let response = client.request("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(response.status, 502);
    assert_eq!(origin.requests().len(), 2, "it was sent once");
    // The flag is counted after the answer was sent.
    eventually("the flag to be counted", || {
        let series = "ringway_service_response_flags_total{service=\"app\",flag=\"UC\"}";
        (proxy.metric(series) == 1.0).then_some(())
    });
}

#[test]
fn idle_clients_are_closed_after_their_time() {
    let origin = Origin::saying("x");
    let port = free_port();
    let config = format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}, \
         timeouts: {{keep_alive: 300ms, header: 400ms}}}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"{}\"]}}}}\n",
        origin.address()
    );
    let _proxy = Proxy::start(&config);
    let mut client = Client::connect(port);
    assert_eq!(client.get("a", "/").status, 200);
    assert!(client.closes_within(Duration::from_secs(10)));
    let mut slow = Client::connect(port);
    slow.send("GET / HTTP/1.1\r\nHo");
    assert_eq!(slow.response().status, 408);
    let mut silent = Client::connect(port);
    assert!(silent.closes_within(Duration::from_secs(10)));
}

#[test]
fn a_slow_origin_gives_504_after_the_timeout() {
    let origin = Origin::scripted(|peer| {
        peer.request();
        peer.until_closed();
    });
    let port = free_port();
    let _proxy = Proxy::start(&config(port, &origin, ", timeout: 200ms"));
    let mut client = Client::connect(port);
    assert_eq!(client.get("a", "/").status, 504);
    assert_eq!(client.get("a", "/").status, 504, "the client's connection goes on");
}

#[test]
fn a_client_that_leaves_ends_its_request_at_the_origin() {
    let (left, has_left) = std::sync::mpsc::channel();
    let origin = Origin::scripted(move |peer| {
        peer.request();
        peer.until_closed();
        left.send(()).ok();
    });
    let port = free_port();
    let _proxy = Proxy::start(&config(port, &origin, ""));
    let mut client = Client::connect(port);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request to arrive", || (!origin.requests().is_empty()).then_some(()));
    drop(client);
    has_left.recv_timeout(crate::support::PATIENCE).expect("the origin sees the client leave");
}
