//! Slow start: new and recovered endpoints get little traffic at first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

/// An origin that answers with the status that the test sets. It counts requests, but no checks.
pub(super) struct Counting {
    pub(super) origin: Origin,
    status: Arc<AtomicU16>,
}

impl Counting {
    pub(super) fn new() -> Self {
        let status = Arc::new(AtomicU16::new(200));
        let said = Arc::clone(&status);
        let origin = Origin::scripted(move |peer| {
            while peer.request().is_some() {
                let status = said.load(Ordering::SeqCst);
                peer.send(format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n"));
            }
        });
        Self { origin, status }
    }

    pub(super) fn says(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    pub(super) fn requests(&self) -> usize {
        self.origin.requests().iter().filter(|request| !request.contains("/healthz")).count()
    }
}

fn config(port: u16, endpoints: &[&Counting], more: &str) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(|it| it.origin.address()).collect();
    format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: {endpoints:?}, {more}}}}}\n"
    )
}

/// How many of `count` requests `origin` gets.
fn share(port: u16, count: usize, origin: &Counting) -> usize {
    let (mut client, before) = (Client::connect(port), origin.requests());
    (0..count).for_each(|_| assert!(client.get("a", "/").status > 0));
    origin.requests() - before
}

#[test]
fn a_new_endpoint_gets_a_tenth_of_its_share_at_first() {
    let (old, new) = (Counting::new(), Counting::new());
    // The window is so long that nothing grows during the test.
    for (balance, expected) in
        [("round-robin", 9..=11), ("random", 1..=40), ("least-request", 0..=30)]
    {
        let port = free_port();
        let more = format!("balance: {balance}, slow_start: 10h");
        let proxy = Proxy::start_with(&config(port, &[&old], &more), 1);
        assert_eq!(share(port, 20, &old), 20);
        proxy.reload(&config(port, &[&new, &old], &more));
        let count = share(port, 110, &new);
        assert!(expected.contains(&count), "{balance}: {count}");
        proxy.reload(&config(port, &[&old, &new], &format!("balance: {balance}")));
        assert!(share(port, 110, &new) > 20, "{balance}: no slow start any more");
        let shown = proxy.admin("/services");
        assert!(shown.text().contains("\"slow_start\":null"), "{}", shown.text());
    }
}

#[test]
fn the_first_endpoints_and_those_of_a_new_slow_start_are_equal() {
    let (one, two, three) = (Counting::new(), Counting::new(), Counting::new());
    let port = free_port();
    let slow = "balance: round-robin, slow_start: {window: 10h, min_weight_percent: 1%}";
    let proxy = Proxy::start_with(&config(port, &[&one, &two], slow), 1);
    assert_eq!(share(port, 100, &two), 50);
    proxy.reload(&config(port, &[&one, &two, &three], "balance: round-robin"));
    proxy.reload(&config(port, &[&one, &two, &three], slow));
    assert_eq!(share(port, 90, &three), 30);
}

#[test]
fn an_endpoint_begins_again_after_an_ejection() {
    let (good, bad) = (Counting::new(), Counting::new());
    let port = free_port();
    let more = "balance: round-robin, slow_start: 10h, \
        outlier_detection: {consecutive_5xx: 1, base_ejection_time: 1s}";
    let proxy = Proxy::start_with(&config(port, &[&good, &bad], more), 1);
    bad.says(500);
    // Not more requests than necessary: the ejection must not end before it says 200.
    eventually("an ejection", || (share(port, 2, &bad) == 0).then_some(()));
    bad.says(200);
    eventually("the end of the ejection", || {
        proxy.log().contains("endpoint is no longer ejected").then_some(())
    });
    assert!((9..=11).contains(&share(port, 110, &bad)));
}

#[test]
fn an_endpoint_begins_again_when_it_is_healthy_again() {
    let (good, bad) = (Counting::new(), Counting::new());
    let port = free_port();
    let check = "balance: round-robin, health_check: {http: /healthz, interval: 20ms}";
    let proxy = Proxy::start_with(&config(port, &[&good, &bad], check), 1);
    let await_healthy = |count: f64| {
        let series = "ringway_endpoint_healthy";
        eventually("the health", || (proxy.metric(series) == count).then_some(()));
    };
    await_healthy(2.0);
    proxy.reload(&config(port, &[&good, &bad], &format!("{check}, slow_start: 10h")));
    assert_eq!(share(port, 100, &bad), 50);
    bad.says(503);
    await_healthy(1.0);
    bad.says(200);
    await_healthy(2.0);
    assert!((9..=11).contains(&share(port, 110, &bad)));
}
