//! Mirrored requests: their heads and bodies, and what they never do to the original requests.

use std::sync::Arc;
use std::sync::Mutex;

use crate::support::frames::{Frames, code, kind};
use crate::support::http::{Client, Response};
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_listener, free_port};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Starts a proxy in front of `app`, with a mirror at the address `shadow`. `mirror`, `service` and
/// `top` have more lines of the mirror, of its service, and of the configuration.
fn before(app: &Origin, shadow: &str, (mirror, service, top): (&str, &str, &str)) -> (Proxy, u16) {
    let port = free_port();
    let proxy = Proxy::start_with(
        &format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
             routes: {{\"*\": [{{to: app, mirror: {{to: shadow{mirror}}}}}]}}\n\
             services:\n  app: {{endpoints: [\"{}\"]}}\n\
             \x20 shadow: {{endpoints: [\"{shadow}\"]{service}}}\n\
             telemetry: {{access_log: {{path: stdout}}}}\n{top}",
            app.address()
        ),
        1,
    );
    (proxy, port)
}

fn ask(port: u16, request: &str) -> Response {
    Client::connect(port).request(request)
}

fn active(proxy: &Proxy) -> f64 {
    proxy.metric("ringway_worker_mirrored_requests_active")
}

/// Waits until this many mirrored requests have ended with `result`, and no others.
#[track_caller]
fn ended(proxy: &Proxy, result: &str, times: f64) {
    let all = "ringway_mirrored_requests_total{service=\"shadow\",result=\"";
    let series = format!("{all}{result}\"}}");
    eventually(&series, || (proxy.metric(&series) == times).then_some(()));
    assert_eq!(proxy.metric(all), times, "{}", proxy.admin("/metrics").text());
    assert_eq!(active(proxy), 0.0);
}

/// The value of a field in the text of a request.
fn field<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    let fields = request.split("\r\n\r\n").next()?.lines().skip(1);
    fields
        .filter_map(|line| line.split_once(": "))
        .find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
}

fn body(request: &str) -> &str {
    request.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

#[test]
fn a_mirror_gets_the_request_and_the_client_the_response_of_the_service() {
    let (app, shadow) = (Origin::saying("app"), Origin::saying("shadow"));
    let (proxy, port) = before(&app, &shadow.address(), ("", "", ""));
    let mut client = Client::connect(port);
    for _ in 0..3 {
        let request = "GET /x?y=z HTTP/1.1\r\nHost: a.b:81\r\nX-Own: yes\r\n\r\n";
        assert_eq!(client.request(request).text(), "app");
    }
    ended(&proxy, "answered", 3.0);
    // Each original has a copy. Copies have their own order.
    let ids = |origin: &Origin| {
        let requests = origin.requests();
        let id = |request: &String| field(request, "x-request-id").unwrap().to_owned();
        let mut ids: Vec<String> = requests.iter().map(id).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&app), ids(&shadow));
    let copy = &shadow.requests()[0];
    assert!(copy.starts_with("GET /x?y=z HTTP/1.1\r\n"), "{copy}");
    assert_eq!(field(copy, "host"), Some("a.b-shadow:81"));
    assert_eq!(field(copy, "x-own"), Some("yes"));
    assert_eq!(field(copy, "x-forwarded-for"), Some("127.0.0.1"));
    // Only the originals have lines in the access log, and count for a service.
    let lines = || proxy.log().lines().filter(|line| line.starts_with("{\"time\"")).count();
    eventually("the lines", || (lines() >= 3).then_some(()));
    assert_eq!(lines(), 3, "{}", proxy.log());
    assert_eq!(proxy.metric("ringway_service_requests_total{service=\"shadow\""), 0.0);
    let endpoint = "ringway_endpoint_requests_total{service=\"shadow\"";
    assert_eq!(proxy.metric(endpoint), 3.0);
}

#[test]
fn the_host_of_a_copy_may_stay() {
    let (app, shadow) = (Origin::saying("app"), Origin::saying("shadow"));
    let (proxy, port) = before(&app, &shadow.address(), (", shadow_host: false", "", ""));
    ask(port, GET);
    ended(&proxy, "answered", 1.0);
    assert_eq!(field(&shadow.requests()[0], "host"), Some("a"));
}

#[test]
fn a_share_of_the_requests_is_mirrored() {
    let (app, shadow) = (Origin::saying("app"), Origin::saying("shadow"));
    let (proxy, port) = before(&app, &shadow.address(), (", percent: 50", "", ""));
    let mut client = Client::connect(port);
    for _ in 0..400 {
        assert_eq!(client.request(GET).status, 200);
    }
    eventually("the copies", || (active(&proxy) == 0.0).then_some(()));
    let copies = shadow.requests().len();
    // The chance of fewer or more is below one in a billion.
    assert!((130..270).contains(&copies), "{copies} of 400");
    ended(&proxy, "answered", copies as f64);
    // The connections of copies go back to the pool.
    assert!(shadow.accepted() < copies / 2, "{} connections", shadow.accepted());
}

#[test]
fn bodies_are_mirrored_whole_however_they_arrive() {
    for chunked in [false, true] {
        for pieces in [vec![4], vec![10, 20], vec![60_000, 30_000]] {
            let (app, shadow) = (Origin::echoing(), Origin::saying("shadow"));
            let (proxy, port) = before(&app, &shadow.address(), (", mirror_bytes: 100KiB", "", ""));
            let total: usize = pieces.iter().sum();
            let framing = match chunked {
                true => "Transfer-Encoding: chunked".to_owned(),
                false => format!("Content-Length: {total}"),
            };
            let mut client = Client::connect(port);
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
            for (piece, letter) in pieces.iter().zip(["x", "y"]) {
                // The copy is not sent before the whole body is there.
                assert_eq!(shadow.requests().len(), 0);
                let bytes = letter.repeat(*piece);
                client.send(match chunked {
                    true => format!("{piece:x}\r\n{bytes}\r\n"),
                    false => bytes,
                });
            }
            if chunked {
                client.send("0\r\n\r\n");
            }
            let case = format!("chunked {chunked} pieces {pieces:?}");
            assert_eq!(client.response().status, 200, "{case}");
            ended(&proxy, "answered", 1.0);
            let (copy, original) = (&shadow.requests()[0], &app.requests()[0]);
            assert!(body(copy) == body(original), "{case}");
            assert_eq!(field(copy, "content-length"), field(original, "content-length"), "{case}");
            // The next request is no part of the body.
            assert_eq!(client.request(GET).status, 200, "{case}");
            ended(&proxy, "answered", 2.0);
        }
    }
}

#[test]
fn the_next_request_of_a_client_is_no_part_of_a_copy() {
    let (app, shadow) = (Origin::echoing(), Origin::saying("shadow"));
    // The body fits exactly.
    let (proxy, port) = before(&app, &shadow.address(), (", mirror_bytes: 4", "", ""));
    let mut client = Client::connect(port);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
    eventually("the copy", || (active(&proxy) == 1.0).then_some(()));
    client.send(format!("body{GET}"));
    assert_eq!((client.response().text(), client.response().text()), ("body", ""));
    ended(&proxy, "answered", 2.0);
    let copies = shadow.requests();
    let mut bodies: Vec<&str> = copies.iter().map(|copy| body(copy)).collect();
    bodies.sort();
    assert_eq!(bodies, ["", "body"]);
}

#[test]
fn a_mirror_speaks_its_own_protocol() {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&bodies);
    let shadow = Origin::scripted(move |peer| {
        let Some(mut frames) = Frames::accept(peer, &[]) else { return };
        while let Some((stream, body)) = frames.request() {
            seen.lock().unwrap().push(body);
            frames.respond(stream, &"x".repeat(100));
        }
    });
    let app = Origin::echoing();
    let (proxy, port) = before(&app, &shadow.address(), ("", ", protocol: http2", ""));
    let post = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = Client::connect(port);
    client.send(post).send("4\r\nbody\r\n").send("0\r\n\r\n");
    assert_eq!(client.response().status, 200);
    let mut streams = Frames::connect(port);
    let fields = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    streams.headers(1, &fields, false);
    streams.data(1, b"str", false);
    streams.data(1, b"eam", true);
    while !streams.next().unwrap().ends() {}
    ended(&proxy, "answered", 2.0);
    let mut bodies = bodies.lock().unwrap().clone();
    bodies.sort();
    assert_eq!(bodies, [b"body".to_vec(), b"stream".to_vec()]);
    assert_eq!(shadow.accepted(), 1);
}

#[test]
fn a_call_is_mirrored_with_its_deadline() {
    let app = Origin::scripted(|peer| {
        let Some(mut frames) = Frames::accept(peer, &[]) else { return };
        while let Some((stream, body)) = frames.request() {
            let head = [(":status", "200"), ("content-type", "application/grpc")];
            frames.headers(stream, &head, false);
            frames.data(stream, &body, false);
            frames.headers(stream, &[("grpc-status", "0")], true);
        }
    });
    let port = free_port();
    let proxy = Proxy::start_with(
        &format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
             routes: {{\"*\": [{{to: shadow, mirror: {{to: shadow, timeout: 60s}}}}]}}\n\
             services: {{shadow: {{endpoints: [\"{}\"], protocol: grpc}}}}\n",
            app.address()
        ),
        1,
    );
    let mut client = Frames::connect(port);
    client.call(1, &[]);
    client.data(1, b"\0\0\0\0\x03abc", true);
    assert_eq!(client.next_of(kind::DATA).unwrap().payload, b"\0\0\0\0\x03abc");
    ended(&proxy, "answered", 1.0);
    let endpoint = "ringway_endpoint_requests_total{service=\"shadow\"";
    assert_eq!(proxy.metric(endpoint), 2.0);
}

#[test]
fn a_mirror_that_is_down_costs_its_counter() {
    let app = Origin::saying("app");
    let dead = free_listener().local_addr().unwrap().to_string();
    let (proxy, port) = before(&app, &dead, ("", ", retries: {on: 5xx}", ""));
    let mut client = Client::connect(port);
    for _ in 0..5 {
        assert_eq!(client.request(GET).text(), "app");
    }
    ended(&proxy, "failed", 5.0);
    assert_eq!(proxy.metric("ringway_service_retries_total{service=\"shadow\"}"), 0.0);
    assert!(!proxy.log().contains("UF"), "{}", proxy.log());
}

#[test]
fn a_mirror_that_breaks_its_response_costs_its_counter() {
    for answer in ["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "nonsense\r\n\r\n", ""] {
        let app = Origin::saying("app");
        let shadow = Origin::scripted(move |peer| {
            peer.request();
            peer.send(answer);
            peer.reset();
        });
        let (proxy, port) = before(&app, &shadow.address(), ("", "", ""));
        assert_eq!(ask(port, GET).text(), "app", "{answer:?}");
        ended(&proxy, "failed", 1.0);
    }
}

#[test]
fn a_response_with_an_error_is_an_answer_and_not_retried() {
    let app = Origin::saying("app");
    let shadow = Origin::scripted(|peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Sad\r\n");
            peer.send("Transfer-Encoding: chunked\r\n\r\n3\r\nsad\r\n0\r\n\r\n");
        }
    });
    let service = ", retries: {on: 5xx}";
    let (proxy, port) = before(&app, &shadow.address(), ("", service, ""));
    let mut client = Client::connect(port);
    for times in 1..4 {
        assert_eq!(client.request(GET).text(), "app");
        ended(&proxy, "answered", f64::from(times));
    }
    assert_eq!((shadow.accepted(), shadow.requests().len()), (1, 3));
}

#[test]
fn a_silent_mirror_holds_no_original_and_ends_at_its_timeout() {
    let app = Origin::saying("app");
    let shadow = Origin::scripted(|peer| _ = peer.until_closed());
    let (proxy, port) = before(&app, &shadow.address(), (", timeout: 1s", "", ""));
    let mut client = Client::connect(port);
    for _ in 0..5 {
        assert_eq!(client.request(GET).text(), "app");
    }
    ended(&proxy, "timed_out", 5.0);
    let failures = "ringway_endpoint_failures_total{service=\"shadow\"";
    assert_eq!(proxy.metric(failures), 5.0);
}

#[test]
fn more_mirrored_requests_than_the_limit_are_not_sent() {
    let app = Origin::saying("app");
    let shadow = Origin::scripted(|peer| _ = peer.until_closed());
    let mirror = (", timeout: 1h", "", "limits: {mirrored_requests: 3}\n");
    let (proxy, port) = before(&app, &shadow.address(), mirror);
    let mut client = Client::connect(port);
    for _ in 0..10 {
        assert_eq!(client.request(GET).text(), "app");
    }
    let all = "ringway_mirrored_requests_total{service=\"shadow\",result=\"";
    assert_eq!(proxy.metric(&format!("{all}overflow")), 7.0);
    assert_eq!((proxy.metric(all), active(&proxy)), (7.0, 3.0));
}

#[test]
fn a_request_with_a_large_body_is_not_mirrored_and_arrives_whole() {
    for framing in ["Content-Length: 50000", "Transfer-Encoding: chunked"] {
        let (app, shadow) = (Origin::echoing(), Origin::saying("shadow"));
        let mirror = (", mirror_bytes: 40KiB", "", "");
        let (proxy, port) = before(&app, &shadow.address(), mirror);
        let mut client = Client::connect(port);
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        client.send(match framing {
            "Transfer-Encoding: chunked" => format!("c350\r\n{}\r\n0\r\n\r\n", "x".repeat(50_000)),
            _ => "x".repeat(50_000),
        });
        assert_eq!(client.response().text().matches('x').count(), 50_000, "{framing}");
        ended(&proxy, "too_large", 1.0);
        assert_eq!(shadow.accepted(), 0, "{framing}");
    }
}

#[test]
fn a_request_that_never_becomes_whole_is_not_mirrored() {
    let (app, shadow) = (Origin::echoing(), Origin::saying("shadow"));
    let (proxy, port) = before(&app, &shadow.address(), ("", "", ""));
    let mut client = Client::connect(port);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nbody");
    eventually("the copy", || (active(&proxy) == 1.0).then_some(()));
    drop(client);
    ended(&proxy, "incomplete", 1.0);
    let mut streams = Frames::connect(port);
    let fields = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    streams.headers(1, &fields, false);
    eventually("the copy", || (active(&proxy) == 1.0).then_some(()));
    streams.reset(1, code::CANCEL);
    ended(&proxy, "incomplete", 2.0);
    assert_eq!(shadow.accepted(), 0);
}

#[test]
fn tunnels_and_aborted_requests_are_not_mirrored() {
    let (app, shadow) = (Origin::saying("app"), Origin::saying("shadow"));
    let port = free_port();
    let proxy = Proxy::start_with(
        &format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
             routes:\n  a: [{{to: app, mirror: {{to: shadow}}}}]\n\
             \x20 b: [{{to: app, mirror: {{to: shadow}}, fault: {{abort: {{status: 500}}}}}}]\n\
             services:\n  app: {{endpoints: [\"{}\"]}}\n  shadow: {{endpoints: [\"{}\"]}}\n",
            app.address(),
            shadow.address()
        ),
        1,
    );
    assert_eq!(ask(port, "GET / HTTP/1.1\r\nHost: b\r\n\r\n").status, 500);
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(ask(port, upgrade).status, 200);
    assert_eq!(ask(port, GET).status, 200);
    ended(&proxy, "answered", 1.0);
    assert_eq!(shadow.requests().len(), 1);
}

#[test]
fn a_connection_with_the_identity_of_a_client_serves_no_other_copy() {
    let (app, shadow) = (Origin::saying("app"), Origin::saying("shadow"));
    let (proxy, port) = before(&app, &shadow.address(), ("", "", ""));
    let with = "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: NTLM TlRMTVNTUAAB\r\n\r\n";
    for (times, request) in [(1.0, with), (2.0, GET), (3.0, GET)] {
        assert_eq!(ask(port, request).status, 200);
        ended(&proxy, "answered", times);
    }
    assert_eq!(shadow.accepted(), 2);
}
