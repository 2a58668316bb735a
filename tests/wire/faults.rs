//! Injected faults: delays and aborts, for HTTP/1, HTTP/2 and gRPC.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::frames::{END_STREAM, Frames, kind};
use crate::support::http::{Client, Response};
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Starts a proxy in front of `origin` with this `fault`. `rule` has more lines of the rule.
fn before(origin: &Origin, fault: &str, rule: &str) -> (Proxy, u16) {
    let port = free_port();
    let proxy = Proxy::start_with(&config(port, origin, fault, rule), 1);
    (proxy, port)
}

fn config(port: u16, origin: &Origin, fault: &str, rule: &str) -> String {
    format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes: {{\"*\": [{{to: app, fault: {{{fault}}}{rule}}}]}}\n\
         services: {{app: {{endpoints: [\"{}\"]}}}}\n\
         telemetry: {{access_log: {{path: stdout}}}}\n",
        origin.address()
    )
}

fn ask(port: u16, request: &str) -> Response {
    Client::connect(port).request(request)
}

fn injected(proxy: &Proxy, kind: &str) -> f64 {
    let labels = format!("host=\"*\",route=\"*#1\",kind=\"{kind}\"");
    proxy.metric(&format!("ringway_faults_injected_total{{{labels}}}"))
}

/// Waits until this many requests have ended with `flag`. A request ends after its response.
#[track_caller]
fn flagged(proxy: &Proxy, flag: &str, times: f64) {
    let labels = format!("service=\"app\",flag=\"{flag}\"");
    let series = format!("ringway_service_response_flags_total{{{labels}}}");
    eventually(flag, || (proxy.metric(&series) == times).then_some(()));
}

/// The flags of the line that the access log gets.
fn flags_in_log(proxy: &Proxy) -> String {
    eventually("a line of the access log", || {
        let log = proxy.log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.next_back().map(|line| line["response_flags"].as_str().unwrap_or_default().to_owned())
    })
}

#[test]
fn an_abort_answers_and_no_endpoint_is_asked() {
    let origin = Origin::saying("fine");
    let (proxy, port) = before(&origin, "abort: {status: 503, percent: 100}", "");
    let mut client = Client::connect(port);
    for request in [GET, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody", GET] {
        let answer = client.request(request);
        assert_eq!((answer.status, answer.text()), (503, "the route injects this fault"));
    }
    assert_eq!((origin.accepted(), injected(&proxy, "abort")), (0, 3.0));
    flagged(&proxy, "FI", 3.0);
    assert_eq!(flags_in_log(&proxy), "FI");
}

#[test]
fn an_abort_before_the_body_has_arrived_closes_the_connection() {
    let origin = Origin::saying("fine");
    let (_proxy, port) = before(&origin, "abort: {status: 418}", "");
    let mut client = Client::connect(port);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
    let answer = client.response();
    assert_eq!((answer.status, answer.field("connection")), (418, Some("close")));
    assert_eq!(client.send("body").rest(), b"");
}

#[test]
fn retries_do_not_repeat_an_abort() {
    let origin = Origin::saying("fine");
    let rule = ", retries: {on: 5xx}";
    let (proxy, port) = before(&origin, "abort: {status: 503}", rule);
    assert_eq!(ask(port, GET).status, 503);
    assert_eq!((origin.accepted(), injected(&proxy, "abort")), (0, 1.0));
}

#[test]
fn a_share_of_the_requests_gets_the_fault_and_none_with_zero() {
    let origin = Origin::saying("fine");
    let (proxy, port) = before(&origin, "abort: {status: 500, percent: 50}", "");
    let mut client = Client::connect(port);
    let mut statuses = |times| (0..times).filter(|_| client.request(GET).status == 500).count();
    // The chance of fewer or more is below one in a billion.
    let aborted = statuses(400);
    assert!((130..270).contains(&aborted), "{aborted} of 400");
    assert_eq!(injected(&proxy, "abort"), aborted as f64);
    proxy.reload(&config(port, &origin, "abort: {status: 500, percent: 0%}", ""));
    assert_eq!(statuses(100), 0);
    // A rule that stays keeps its counters.
    assert_eq!(injected(&proxy, "abort"), aborted as f64);
}

#[test]
fn only_requests_with_the_header_get_the_fault() {
    let origin = Origin::saying("fine");
    let (_proxy, port) = before(&origin, "headers: {x-chaos: ~on.*}, abort: {status: 500}", "");
    let mut client = Client::connect(port);
    for (field, status) in [("X-Chaos: only", 500), ("x-chaos: off", 200), ("a: only", 200)] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
        assert_eq!(client.request(request).status, status, "{field}");
    }
}

#[test]
fn a_delay_comes_before_the_request_and_counts_for_no_timeout() {
    let origin = Origin::saying("fine");
    let delay = Duration::from_millis(2500);
    let (proxy, port) = before(&origin, "delay: {duration: 2500ms}", ", timeout: 2s");
    let began = Instant::now();
    let answer = ask(port, GET);
    assert!(began.elapsed() >= delay, "{:?}", began.elapsed());
    assert_eq!((answer.status, answer.text()), (200, "fine"));
    assert_eq!(injected(&proxy, "delay"), 1.0);
    flagged(&proxy, "DI", 1.0);
    assert_eq!(flags_in_log(&proxy), "DI");
}

#[test]
fn a_request_may_be_aborted_after_its_delay() {
    let origin = Origin::saying("fine");
    let fault = "delay: {duration: 200ms}, abort: {status: 502}";
    let (proxy, port) = before(&origin, fault, "");
    let began = Instant::now();
    assert_eq!(ask(port, GET).status, 502);
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!((injected(&proxy, "delay"), injected(&proxy, "abort")), (1.0, 1.0));
    assert_eq!(flags_in_log(&proxy), "DI,FI");
}

#[test]
fn a_delay_ends_when_the_client_leaves() {
    let origin = Origin::saying("fine");
    let (proxy, port) = before(&origin, "delay: {duration: 1h}", "");
    let waiting = |count: f64| {
        let active = "ringway_service_requests_active{service=\"app\"";
        eventually("the requests", || (proxy.metric(active) == count).then_some(()));
    };
    let mut client = Client::connect(port);
    client.send(GET);
    let mut streams = Frames::connect(port);
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    streams.headers(1, &fields, true);
    waiting(2.0);
    streams.reset(1, crate::support::frames::code::CANCEL);
    waiting(1.0);
    drop(client);
    waiting(0.0);
    flagged(&proxy, "DC", 2.0);
    assert_eq!(origin.accepted(), 0);
    assert_eq!(flags_in_log(&proxy), "DI,DC");
}

/// An origin that sends a body of this length, with a length or in two chunks.
fn sending(bytes: usize, chunked: bool) -> Origin {
    Origin::scripted(move |peer| {
        while peer.request().is_some() {
            let half = "x".repeat(bytes / 2);
            let size = bytes / 2;
            peer.send(match chunked {
                true => format!(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                     {size:x}\r\n{half}\r\n{size:x}\r\n{half}\r\n0\r\n\r\n"
                ),
                false => {
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n{half}{half}")
                }
            });
        }
    })
}

#[test]
fn a_limited_bandwidth_makes_a_response_slow_and_leaves_it_whole() {
    for (bytes, per_second, chunked, at_least_ms) in [
        (30_000, 20_000, false, 1400),
        (30_000, 20_000, true, 1400),
        (600_000, 999_999, false, 500),
    ] {
        let origin = sending(bytes, chunked);
        let fault = format!("bandwidth: {{bytes_per_second: {per_second}}}");
        let (proxy, port) = before(&origin, &fault, "");
        let at_least = Duration::from_millis(at_least_ms);
        let mut client = Client::connect(port);
        let began = Instant::now();
        assert_eq!(client.request(GET).body.len(), bytes);
        assert!(began.elapsed() >= at_least, "{:?} for {bytes}", began.elapsed());
        let mut streams = Frames::connect(port);
        let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
        let began = Instant::now();
        streams.headers(1, &fields, true);
        let mut received = 0;
        loop {
            let frame = streams.next().unwrap();
            if frame.kind == kind::DATA {
                received += frame.payload.len();
                let more = (frame.payload.len() as u32).max(1).to_be_bytes();
                streams.send(kind::WINDOW_UPDATE, 0, 0, &more);
                streams.send(kind::WINDOW_UPDATE, 0, 1, &more);
            }
            if frame.ends() {
                break;
            }
        }
        assert_eq!(received, bytes);
        assert!(began.elapsed() >= at_least, "{:?} for {bytes}", began.elapsed());
        assert_eq!(injected(&proxy, "bandwidth"), 2.0);
        // The connections still serve.
        assert_eq!(client.request(GET).status, 200);
    }
}

#[test]
fn a_client_may_leave_in_a_slow_response() {
    let origin = sending(30_000, false);
    let (proxy, port) = before(&origin, "bandwidth: {bytes_per_second: 10}", "");
    let mut client = Client::connect(port);
    client.send(GET);
    assert!(client.head().is_some());
    drop(client);
    flagged(&proxy, "DC", 1.0);
    assert_eq!(proxy.metric("ringway_service_requests_active{service=\"app\"}"), 0.0);
}

/// Sends a gRPC call with one more field. Returns the fields of the response, which has no body.
fn call(port: u16, (name, value): (&str, &str)) -> String {
    let mut client = Frames::connect(port);
    client.call(1, &[(name, value)]);
    client.data(1, b"\0\0\0\0\x03abc", true);
    let head = client.next_of(kind::HEADERS).unwrap();
    assert!(head.flags & END_STREAM != 0);
    String::from_utf8_lossy(&head.payload).into_owned()
}

#[test]
fn a_call_gets_a_grpc_status_and_another_request_the_status_that_belongs_to_it() {
    let origin = Origin::saying("fine");
    for (abort, code, status) in [
        ("grpc_status: UNAVAILABLE", 14, 503),
        ("grpc_status: RESOURCE_EXHAUSTED", 8, 429),
        ("grpc_status: 9", 9, 400),
        ("status: 503", 14, 503),
        ("status: 403", 7, 403),
    ] {
        let (proxy, port) = before(&origin, &format!("abort: {{{abort}}}"), "");
        call(port, ("x", "y"));
        let labels = format!("service=\"app\",method=\"shop.Cart/Add\",grpc_status=\"{code}\"");
        let counted = || proxy.metric(&format!("ringway_grpc_requests_total{{{labels}}}"));
        eventually(abort, || (counted() == 1.0).then_some(()));
        assert_eq!(ask(port, GET).status, status, "{abort}");
        flagged(&proxy, "FI", 2.0);
    }
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn the_deadline_of_a_call_ends_its_delay() {
    let origin = Origin::saying("fine");
    let (proxy, port) = before(&origin, "delay: {duration: 1h}", "");
    call(port, ("grpc-timeout", "100m"));
    let labels = "service=\"app\",method=\"shop.Cart/Add\",grpc_status=\"4\"";
    let counted = || proxy.metric(&format!("ringway_grpc_requests_total{{{labels}}}"));
    eventually("the end of the call", || (counted() == 1.0).then_some(()));
    assert_eq!(flags_in_log(&proxy), "DI,UT");
    assert_eq!(origin.accepted(), 0);
}
