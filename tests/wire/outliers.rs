//! Outlier detection: endpoints whose responses fail get no requests for a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use crate::support::frames::{Frame, Frames, kind};
use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

/// An origin that answers with its name, and with the status that the test sets.
struct Moody {
    origin: Origin,
    status: Arc<AtomicU16>,
}

impl Moody {
    fn new(name: &'static str, status: u16) -> Self {
        let status = Arc::new(AtomicU16::new(status));
        let said = Arc::clone(&status);
        let origin = Origin::scripted(move |peer| {
            while peer.request().is_some() {
                let (status, length) = (said.load(Ordering::SeqCst), name.len());
                peer.send(format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n\r\n{name}"));
            }
        });
        Self { origin, status }
    }

    fn says(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn requests(&self) -> usize {
        self.origin.requests().len()
    }
}

/// A configuration with one service at `endpoints`. `more` are further settings of the service.
fn config(port: u16, endpoints: &[String], more: &str) -> String {
    format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: {endpoints:?}, balance: round-robin, {more}}}}}\n"
    )
}

fn before(origins: &[&Moody], more: &str) -> (Proxy, u16) {
    let port = free_port();
    let endpoints: Vec<_> = origins.iter().map(|moody| moody.origin.address()).collect();
    (Proxy::start_with(&config(port, &endpoints, more), 1), port)
}

fn ejections(proxy: &Proxy, reason: &str) -> f64 {
    let labels = format!("{{service=\"app\",reason=\"{reason}\"}}");
    proxy.metric(&format!("ringway_service_outlier_ejections_total{labels}"))
}

fn ejected(proxy: &Proxy) -> f64 {
    proxy.metric("ringway_service_outlier_ejections_active")
}

#[track_caller]
fn await_log(proxy: &Proxy, words: &str) {
    eventually(words, || proxy.log().contains(words).then_some(()));
}

fn statuses(port: u16, count: usize) -> Vec<u16> {
    let mut client = Client::connect(port);
    (0..count).map(|_| client.get("a", "/").status).collect()
}

#[test]
fn an_endpoint_that_fails_in_a_row_gets_nothing_more() {
    let (bad, good) = (Moody::new("bad", 500), Moody::new("good", 200));
    let (proxy, port) = before(&[&bad, &good], "outlier_detection: {consecutive_5xx: 3}");
    assert!(statuses(port, 6).iter().filter(|&&status| status == 500).count() == 3);
    assert_eq!(statuses(port, 20), [200; 20]);
    assert_eq!((bad.requests(), good.requests()), (3, 23));
    assert_eq!((ejections(&proxy, "consecutive_5xx"), ejected(&proxy)), (1.0, 1.0));
    await_log(&proxy, "endpoint ejected");
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains("endpoint ejected")).unwrap();
    for part in [
        &bad.origin.address(),
        "consecutive_5xx",
        "lasts=30s",
        "ejected_endpoints=1",
        "all_endpoints=2",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let shown = proxy.admin("/services");
    for part in ["\"ejected\":true", "\"ejected\":false", "\"last_reason\":\"consecutive_5xx\""] {
        assert!(shown.text().contains(part), "{part}: {}", shown.text());
    }
}

#[test]
fn an_endpoint_returns_and_the_next_ejection_takes_longer() {
    let (bad, good) = (Moody::new("bad", 503), Moody::new("good", 200));
    let detection = "outlier_detection: {consecutive_5xx: 1, interval: 1h, base_ejection_time: 1s}";
    let (proxy, port) = before(&[&bad, &good], detection);
    statuses(port, 4);
    assert_eq!(bad.requests(), 1);
    await_log(&proxy, "endpoint is no longer ejected");
    assert_eq!(ejected(&proxy), 0.0);
    bad.says(200);
    assert_eq!(statuses(port, 4), [200; 4]);
    assert_eq!(bad.requests(), 3);
    bad.says(503);
    statuses(port, 4);
    assert_eq!(bad.requests(), 4);
    await_log(&proxy, "lasts=2s");
    assert_eq!(ejections(&proxy, "consecutive_5xx"), 2.0);
}

/// Each request is answered by the other endpoint before connecting to the first one fails.
#[test]
fn an_endpoint_that_accepts_nothing_is_ejected_though_no_request_waits_for_it() {
    let (deaf, _streams) = super::hedge::deaf();
    let (deaf, good) = (deaf.local_addr().unwrap().to_string(), Moody::new("good", 200));
    let port = free_port();
    let more =
        "connect_timeout: 400ms, connect_hedge: 20ms, outlier_detection: {consecutive_5xx: 2}";
    let endpoints = [deaf.clone(), good.origin.address()];
    let proxy = Proxy::start_with(&config(port, &endpoints, more), 1);
    let of_deaf = |name: &str| {
        proxy.metric(&format!(
            "ringway_endpoint_{name}_total{{service=\"app\",endpoint=\"{deaf}\"}}"
        ))
    };
    let mut client = Client::connect(port);
    while of_deaf("requests") < 2.0 {
        assert_eq!(client.get("a", "/").status, 200);
        let tried = of_deaf("requests");
        eventually("connecting fails", || (of_deaf("connect_failures") == tried).then_some(()));
    }
    eventually("an ejection", || (ejected(&proxy) == 1.0).then_some(()));
    assert_eq!(ejections(&proxy, "consecutive_5xx"), 1.0);
}

#[test]
fn refused_connections_and_resets_are_failures_of_the_endpoint() {
    let good = Moody::new("good", 200);
    let resetting = Origin::scripted(|peer| {
        peer.request();
        peer.reset();
    });
    let closed = format!("127.0.0.1:{}", free_port());
    for (bad, more, reason) in [
        (&closed, "consecutive_5xx: 2", "consecutive_5xx"),
        (
            &closed,
            "consecutive_gateway_errors: 2, consecutive_5xx: 0",
            "consecutive_gateway_errors",
        ),
        (&closed, "consecutive_local_failures: 2", "consecutive_local_failures"),
        (&resetting.address(), "consecutive_local_failures: 2", "consecutive_local_failures"),
    ] {
        let port = free_port();
        let endpoints = [bad.clone(), good.origin.address()];
        let more = format!("outlier_detection: {{{more}}}");
        let proxy = Proxy::start_with(&config(port, &endpoints, &more), 1);
        statuses(port, 8);
        assert_eq!((ejections(&proxy, reason), ejected(&proxy)), (1.0, 1.0), "{bad} {more}");
        assert_eq!(statuses(port, 4), [200; 4]);
    }
}

#[test]
fn no_more_than_the_limit_are_ejected() {
    let moody = [0; 4].map(|_| Moody::new("bad", 500));
    let [one, two, three, four] = moody.each_ref();
    let detection = "outlier_detection: {consecutive_5xx: 1, max_ejection_percent: 50%}";
    let (proxy, port) = before(&[one, two, three, four], detection);
    statuses(port, 20);
    assert_eq!((ejections(&proxy, "consecutive_5xx"), ejected(&proxy)), (2.0, 2.0));
    assert!(proxy.metric("ringway_service_outlier_ejections_over_limit_total") > 0.0);
    assert_eq!(three.requests() + four.requests(), 18);
}

#[test]
fn when_all_are_ejected_the_panic_threshold_decides() {
    let (one, two) = (Moody::new("one", 500), Moody::new("two", 500));
    let all = "consecutive_5xx: 1, max_ejection_percent: 100%";
    let (proxy, port) = before(&[&one, &two], &format!("outlier_detection: {{{all}}}"));
    assert_eq!(statuses(port, 10), [500; 10]);
    assert_eq!(ejected(&proxy), 2.0);
    assert_eq!(proxy.metric("ringway_service_health_panic"), 1.0);
    drop(proxy);
    let none = format!("outlier_detection: {{{all}, panic_threshold: 0%}}");
    let (proxy, port) = before(&[&one, &two], &none);
    assert_eq!(statuses(port, 4), [500, 500, 503, 503]);
    // A request is counted after its client has the answer.
    let series = "ringway_service_response_flags_total{service=\"app\",flag=\"UH\"}";
    eventually("two refused requests", || (proxy.metric(series) == 2.0).then_some(()));
}

#[test]
fn ejections_survive_a_reload_and_end_with_their_policy() {
    let (bad, good) = (Moody::new("bad", 500), Moody::new("good", 200));
    let port = free_port();
    let endpoints = [bad.origin.address(), good.origin.address()];
    let detection = |more| config(port, &endpoints, &format!("outlier_detection: {{{more}}}"));
    let proxy = Proxy::start_with(&detection("consecutive_5xx: 1"), 1);
    statuses(port, 4);
    assert_eq!((bad.requests(), ejected(&proxy)), (1, 1.0));
    proxy.reload(&detection("consecutive_5xx: 2"));
    assert_eq!(statuses(port, 4), [200; 4]);
    assert_eq!((ejections(&proxy, "consecutive_5xx"), ejected(&proxy)), (1.0, 1.0));
    let third = Moody::new("third", 200);
    let more = [third.origin.address(), endpoints[0].clone(), endpoints[1].clone()];
    proxy.reload(&config(port, &more, "outlier_detection: {consecutive_5xx: 2}"));
    assert_eq!(statuses(port, 6), [200; 6]);
    assert_eq!((bad.requests(), third.requests()), (1, 3));
    proxy.reload(&config(port, &endpoints, "timeout: 9s"));
    assert!(statuses(port, 4).contains(&500));
    proxy.reload(&detection("consecutive_5xx: 5"));
    assert_eq!(ejected(&proxy), 0.0);
}

#[test]
fn failures_count_over_all_workers() {
    let (bad, good) = (Moody::new("bad", 500), Moody::new("good", 200));
    let port = free_port();
    let endpoints = [bad.origin.address(), good.origin.address()];
    let detection = "outlier_detection: {consecutive_5xx: 6}";
    let proxy = Proxy::start_with(&config(port, &endpoints, detection), 4);
    for _ in 0..60 {
        statuses(port, 1);
    }
    // The client has its answer before the attempt is counted, so each other worker may send one
    // request more.
    assert!((6..=9).contains(&bad.requests()), "{}", bad.requests());
    assert_eq!(ejected(&proxy), 1.0);
}

#[test]
fn an_endpoint_with_too_many_failures_in_an_interval_is_ejected() {
    // Every second answer of the bad one is a success, so it never fails twice in a row.
    let turn = AtomicUsize::new(0);
    let bad = Origin::scripted(move |peer| {
        while peer.request().is_some() {
            let status = 200 + 300 * (turn.fetch_add(1, Ordering::SeqCst) % 2);
            peer.send(format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    let good: Vec<_> = (0..5).map(|_| Moody::new("good", 200)).collect();
    let mut endpoints: Vec<_> = good.iter().map(|it| it.origin.address()).collect();
    endpoints.push(bad.address());
    let rate = "success_rate: {request_volume: 4}";
    let failures = "failure_percentage: {threshold: 40%, minimum_hosts: 6, request_volume: 4}";
    for (rule, reason) in [(rate, "success_rate"), (failures, "failure_percentage")] {
        let port = free_port();
        let more = format!("outlier_detection: {{consecutive_5xx: 2, interval: 200ms, {rule}}}");
        let proxy = Proxy::start_with(&config(port, &endpoints, &more), 2);
        eventually("the ejection", || {
            statuses(port, 60);
            (ejections(&proxy, reason) == 1.0).then_some(())
        });
        assert_eq!((ejections(&proxy, "consecutive_5xx"), ejected(&proxy)), (0.0, 1.0));
        assert_eq!(statuses(port, 30), [200; 30]);
        await_log(&proxy, &format!("reason=\"{reason}\""));
    }
}

#[test]
fn a_grpc_call_fails_by_its_code() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let origin = |code: &'static str, asked: Arc<AtomicUsize>| {
        Origin::scripted(move |peer| {
            let Some(mut frames) = Frames::accept(peer, &[]) else { return };
            while let Some((stream, _)) = frames.request() {
                asked.fetch_add(1, Ordering::SeqCst);
                let fields = [(":status", "200"), ("content-type", "application/grpc")];
                frames.headers(stream, &fields, false);
                frames.data(stream, b"\0\0\0\0\0", false);
                frames.headers(stream, &[("grpc-status", code)], true);
            }
        })
    };
    let (bad, good) = (origin("14", counted), origin("5", Arc::default()));
    let port = free_port();
    let endpoints = [bad.address(), good.address()];
    let more = "protocol: grpc, outlier_detection: {consecutive_gateway_errors: 2}";
    let proxy = Proxy::start_with(&config(port, &endpoints, more), 1);
    let mut client = Frames::connect(port);
    for number in 0..10 {
        client.call(1 + 2 * number, &[]);
        client.data(1 + 2 * number, b"\0\0\0\0\0", true);
        client.next_of(kind::HEADERS).unwrap();
        client.next_of(kind::HEADERS).unwrap();
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert_eq!(ejections(&proxy, "consecutive_gateway_errors"), 1.0);
}

/// A stream of messages that goes on until the deadline of its client is no failure of an endpoint
/// that has begun to answer. An endpoint that has not begun is late.
#[test]
fn a_stream_that_lasts_until_the_deadline_of_its_client_blames_no_endpoint() {
    for (begins, part, ejected) in [(true, &b""[..], 0.0), (true, b"\0\0", 0.0), (false, b"", 1.0)]
    {
        let origin = Origin::scripted(move |peer| {
            let Some(mut frames) = Frames::accept(peer, &[]) else { return };
            while let Some((stream, _)) = frames.request() {
                if begins {
                    let head = [(":status", "200"), ("content-type", "application/grpc")];
                    frames.headers(stream, &head, false);
                    frames.data(stream, &[b"\0\0\0\0\x03abc", part].concat(), false);
                }
            }
        });
        let port = free_port();
        let more = "protocol: grpc, outlier_detection: {consecutive_5xx: 1}";
        let proxy = Proxy::start_with(&config(port, &[origin.address()], more), 1);
        let mut client = Frames::connect(port);
        client.call(1, &[("grpc-timeout", "1100m")]);
        client.data(1, b"\0\0\0\0\x03abc", true);
        let ends = |frame: &Frame| frame.ends() || frame.kind == kind::RST_STREAM;
        std::iter::from_fn(|| client.next()).find(ends).expect("the end of the call");
        let done = || (proxy.metric("ringway_service_requests_active") == 0.0).then_some(());
        eventually("the call is over", done);
        assert_eq!(ejections(&proxy, "consecutive_5xx"), ejected, "{begins} {part:?}");
    }
}
