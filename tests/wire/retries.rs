//! Retries by policy: the requests that are sent again, their number, and their bodies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::http2_format::frame;
use crate::support::frames::{END_HEADERS, END_STREAM, Frame, Frames, block, kind};
use crate::support::http::{Client, Response};
use crate::support::origin::{Origin, Peer};
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";

/// Starts a proxy in front of `origins`. `service` and `rule` are more lines of their settings.
fn before(origins: &[&Origin], service: &str, rule: &str) -> (Proxy, u16) {
    let port = free_port();
    let addresses: Vec<_> =
        origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    let proxy = Proxy::start_with(
        &format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
             routes: {{\"*\": [{{to: app{rule}}}]}}\n\
             services: {{app: {{endpoints: [{}], balance: round-robin{service}}}}}\n",
            addresses.join(", ")
        ),
        1,
    );
    (proxy, port)
}

fn ask(port: u16, request: &str) -> Response {
    Client::connect(port).request(request)
}

fn count(proxy: &Proxy, name: &str) -> f64 {
    proxy.metric(&format!("ringway_service_{name}_total"))
}

fn response(status: &str, more: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{more}Content-Length: 3\r\n\r\nsad")
}

/// An origin that answers every request with `answer`.
fn always(answer: String) -> Origin {
    Origin::scripted(move |peer| {
        while peer.request().is_some() {
            peer.send(&answer);
        }
    })
}

/// An origin that answers the first `failures` requests by `fail`, and echoes the bodies of the
/// others.
fn fails_first(failures: usize, fail: impl Fn(&mut Peer) + Send + Sync + 'static) -> Origin {
    let seen = AtomicUsize::new(0);
    Origin::scripted(move |peer| {
        while let Some(request) = peer.request() {
            if seen.fetch_add(1, Ordering::SeqCst) < failures {
                fail(peer);
                return;
            }
            let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let length = body.len();
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"));
        }
    })
}

#[test]
fn a_failed_request_goes_to_another_endpoint() {
    let (bad, good) = (always(response("503 Sad", "")), Origin::saying("good"));
    let (proxy, port) = before(&[&bad, &good], ", retries: {on: 5xx, budget: {min: 100}}", "");
    for _ in 0..10 {
        let answer = ask(port, GET);
        assert_eq!((answer.status, answer.text()), (200, "good"));
    }
    assert!(!bad.requests().is_empty());
    assert_eq!(count(&proxy, "retries"), bad.requests().len() as f64);
    assert_eq!(good.requests().len(), 10);
}

#[test]
fn without_a_policy_a_response_is_an_answer() {
    let bad = always(response("503 Sad", ""));
    let (_proxy, port) = before(&[&bad], "", "");
    let answer = ask(port, GET);
    assert_eq!((answer.status, answer.text()), (503, "sad"));
    assert_eq!(bad.requests().len(), 1);
}

#[test]
fn a_request_that_is_not_idempotent_is_sent_once_unless_its_method_is_named() {
    let bad = always(response("503 Sad", ""));
    let (proxy, port) = before(&[&bad], ", retries: {on: [5xx, reset]}", "");
    assert_eq!(ask(port, POST).status, 503);
    assert_eq!((bad.requests().len(), count(&proxy, "retries")), (1, 0.0));
    drop(proxy);
    let (proxy, port) = before(&[&bad], ", retries: {on: 503, methods: [POST]}", "");
    assert_eq!(ask(port, POST).status, 503);
    assert_eq!((bad.requests().len(), count(&proxy, "retries")), (4, 2.0));
}

#[test]
fn the_client_gets_the_last_response_after_the_last_attempt() {
    let bad = always(response("503 Sad", ""));
    let (proxy, port) = before(&[&bad], "", ", retries: {attempts: 1, on: gateway-error}");
    let answer = ask(port, GET);
    assert_eq!((answer.status, answer.text()), (503, "sad"));
    assert_eq!(bad.requests().len(), 2);
    assert_eq!((count(&proxy, "retries"), count(&proxy, "retries_exhausted")), (1.0, 1.0));
}

#[test]
fn the_policy_of_a_rule_replaces_that_of_the_service() {
    let bad = always(response("503 Sad", ""));
    let (proxy, port) = before(&[&bad], ", retries: {on: 5xx}", ", retries: {attempts: 0}");
    assert_eq!(ask(port, GET).status, 503);
    assert_eq!((bad.requests().len(), count(&proxy, "retries")), (1, 0.0));
}

#[test]
fn a_body_is_sent_again_whole_whether_it_came_with_the_head_or_later() {
    let service = ", retries: {on: 503, methods: POST, replay_bytes: 100KiB}";
    for chunked in [false, true] {
        for pieces in [vec![4], vec![10, 20], vec![60_000, 30_000]] {
            let origin = fails_first(1, |peer| peer.send(response("503 Sad", "")));
            let (proxy, port) = before(&[&origin], service, "");
            let total: usize = pieces.iter().sum();
            let framing = match chunked {
                true => "Transfer-Encoding: chunked".to_owned(),
                false => format!("Content-Length: {total}"),
            };
            let mut client = Client::connect(port);
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
            for (piece, letter) in pieces.iter().zip(["x", "y"]) {
                let bytes = letter.repeat(*piece);
                client.send(match chunked {
                    true => format!("{piece:x}\r\n{bytes}\r\n"),
                    false => bytes,
                });
            }
            if chunked {
                client.send("0\r\n\r\n");
            }
            let answer = client.response();
            let case = format!("chunked {chunked} pieces {pieces:?}");
            assert_eq!(answer.status, 200, "{case}");
            let letters = |letter| answer.text().matches(letter).count();
            let expected = (pieces[0], pieces.get(1).copied().unwrap_or_default());
            assert_eq!((letters('x'), letters('y')), expected, "{case}");
            assert_eq!(count(&proxy, "retries"), 1.0, "{case}");
            // The connection still serves. The next request was not read as a part of the body.
            assert_eq!(client.request(GET).status, 200, "{case}");
        }
    }
}

#[test]
fn a_body_larger_than_replay_bytes_is_sent_once() {
    let origin = fails_first(1, |peer| peer.send(response("503 Sad", "")));
    let service = ", retries: {on: 503, methods: POST, replay_bytes: 40KiB}";
    let (proxy, port) = before(&[&origin], service, "");
    let mut client = Client::connect(port);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n");
    client.send("a".repeat(60_000));
    assert_eq!(client.response().status, 503);
    assert_eq!(count(&proxy, "retries"), 0.0);
}

#[test]
fn a_reset_and_a_cut_off_head_are_retried() {
    for cut in ["", "HTTP/1.1 200 OK\r\nContent-"] {
        let origin = fails_first(2, move |peer| {
            peer.send(cut);
            peer.reset();
        });
        let (proxy, port) = before(&[&origin], ", retries: {on: reset}", "");
        assert_eq!(ask(port, GET).status, 200, "{cut:?}: {}", proxy.log());
        assert_eq!(count(&proxy, "retries"), 2.0, "{cut:?}");
    }
}

#[test]
fn an_attempt_that_takes_too_long_is_given_up_for_another() {
    let origin = fails_first(1, |peer| {
        peer.until_closed();
    });
    let retries = ", retries: {on: reset, per_try_timeout: 500ms}";
    let (proxy, port) = before(&[&origin], retries, "");
    assert_eq!(ask(port, GET).status, 200, "{}", proxy.log());
    assert_eq!(count(&proxy, "retries"), 1.0);
}

#[test]
fn the_last_attempt_that_takes_too_long_is_told_as_such() {
    let silent = Origin::scripted(|peer| {
        peer.until_closed();
    });
    let retries = ", retries: {attempts: 1, on: 5xx, per_try_timeout: 50ms}";
    let (proxy, port) = before(&[&silent], retries, "");
    let answer = ask(port, GET);
    assert_eq!(answer.status, 504);
    assert!(answer.text().contains("per_try_timeout"), "{}", answer.text());
    assert_eq!((count(&proxy, "retries"), silent.accepted()), (1.0, 2));
}

#[test]
fn a_refused_connection_is_tried_again_whatever_the_method_is() {
    let closed = free_port();
    let port = free_port();
    let proxy = Proxy::start_with(
        &format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
             services: {{app: {{endpoints: [127.0.0.1:{closed}], retries: {{attempts: 3}}}}}}\n"
        ),
        1,
    );
    assert_eq!(ask(port, POST).status, 503);
    assert_eq!(count(&proxy, "retries"), 3.0);
}

#[test]
fn the_budget_bounds_the_retries_of_a_service_that_fails_always() {
    let bad = always(response("503 Sad", ""));
    let retries = ", retries: {attempts: 5, on: 5xx, backoff: {base: 1ms}}";
    let (proxy, port) = before(&[&bad], retries, "");
    let mut client = Client::connect(port);
    for _ in 0..100 {
        assert_eq!(client.request(GET).status, 503);
    }
    let retried = bad.requests().len() - 100;
    assert!((3..=20).contains(&retried), "{retried} retries of 100 requests");
    assert_eq!(count(&proxy, "retries"), retried as f64);
    assert!(count(&proxy, "retries_over_budget") > 0.0);
}

#[test]
fn an_endpoint_that_asks_for_a_long_wait_is_not_asked_again() {
    let bad = always(response("503 Sad", "Retry-After: 3600\r\n"));
    let (proxy, port) = before(&[&bad], ", retries: {on: 5xx}", "");
    let answer = ask(port, GET);
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("3600")));
    assert_eq!((bad.requests().len(), count(&proxy, "retries")), (1, 0.0));
}

/// An HTTP/2 endpoint that answers requests by `serve`. The number of the request is an argument.
fn http2(serve: impl Fn(&mut Frames, u32, usize, Vec<u8>) + Send + Sync + 'static) -> Origin {
    let requests = Arc::new(AtomicUsize::new(0));
    Origin::scripted(move |peer| {
        let Some(mut frames) = Frames::accept(peer, &[]) else { return };
        while let Some((stream, body)) = frames.request() {
            serve(&mut frames, stream, requests.fetch_add(1, Ordering::SeqCst), body);
        }
    })
}

#[test]
fn a_grpc_call_is_sent_again_for_the_codes_of_the_policy() {
    let origin = http2(|frames, stream, number, body| {
        if number == 0 {
            let fields = [
                (":status", "200"),
                ("content-type", "application/grpc"),
                ("grpc-status", "14"),
                ("grpc-retry-pushback-ms", "0"),
            ];
            frames.headers(stream, &fields, true);
            return;
        }
        frames.headers(stream, &[(":status", "200"), ("content-type", "application/grpc")], false);
        frames.data(stream, &body, false);
        frames.headers(stream, &[("grpc-status", "0")], true);
    });
    let (proxy, port) = before(&[&origin], ", protocol: grpc, retries: {on: unavailable}", "");
    let mut client = Frames::connect(port);
    client.call(1, &[]);
    client.data(1, b"\0\0\0\0\x03abc", true);
    let data = client.next_of(kind::DATA).unwrap();
    assert_eq!(data.payload, b"\0\0\0\0\x03abc");
    let trailers = client.next_of(kind::HEADERS).unwrap();
    assert!(trailers.flags & END_STREAM != 0);
    assert_eq!(count(&proxy, "retries"), 1.0);
}

/// An endpoint that sends the head of a response and its trailers at once. After a message, the
/// code says nothing about a retry. `more` is a further trailer.
fn fails_by_trailers(message: &'static [u8], more: (&'static str, &'static str)) -> Origin {
    http2(move |frames, stream, number, body| {
        let head = [(":status", "200"), ("content-type", "application/grpc")];
        let (code, body) = if number == 0 { ("14", message) } else { ("0", &body[..]) };
        let mut bytes = frame(kind::HEADERS, END_HEADERS, stream, &block(&head));
        if !body.is_empty() {
            bytes.extend(frame(kind::DATA, 0, stream, body));
        }
        let trailers = block(&[("grpc-status", code), more]);
        bytes.extend(frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &trailers));
        frames.send_bytes(&bytes);
    })
}

#[test]
fn a_grpc_code_in_trailers_that_follow_the_head_at_once_is_a_condition() {
    let message = b"\0\0\0\0\x03abc";
    let none = ("x-more", "1");
    for (sent, more, retries) in
        [(&b""[..], none, 1.0), (message, none, 0.0), (b"", ("grpc-retry-pushback-ms", "-1"), 0.0)]
    {
        let origin = fails_by_trailers(sent, more);
        let (proxy, port) = before(&[&origin], ", protocol: grpc, retries: {on: unavailable}", "");
        let mut client = Frames::connect(port);
        client.call(1, &[]);
        client.data(1, message, true);
        let code = if retries > 0.0 { "0" } else { "14" };
        let ends = std::iter::from_fn(|| client.next()).find(Frame::ends).unwrap();
        let field = block(&[("grpc-status", code)]);
        // The proxy encodes the name from its own table, so only the value is compared.
        let value = &field[field.len() - code.len()..];
        let has_value = ends.payload.windows(value.len()).any(|part| part == value);
        assert!(has_value, "{:?}", ends.payload);
        assert_eq!(count(&proxy, "retries"), retries, "{sent:?} {more:?}");
    }
}

#[test]
fn endpoints_and_clients_get_the_number_of_the_attempt_where_they_should() {
    let number = |text: &str| {
        let text = text.to_ascii_lowercase();
        let field = text.split("\r\n").find_map(|line| line.strip_prefix("x-envoy-attempt-count:"));
        field.map(|value| value.trim().to_owned())
    };
    for (setting, requests, responses) in [
        ("none", false, false),
        ("request", true, false),
        ("response", false, true),
        ("both", true, true),
    ] {
        let bad = always(response("503 Sad", "x-envoy-attempt-count: 7\r\n"));
        let retries = format!(", retries: {{on: 5xx, attempt_count: {setting}}}");
        let (_proxy, port) = before(&[&bad], &retries, "");
        let answer = ask(port, "GET / HTTP/1.1\r\nHost: a\r\nx-envoy-attempt-count: 9\r\n\r\n");
        let sent: Vec<_> = bad.requests().iter().map(|it| number(it).unwrap()).collect();
        let expected = if requests { ["1", "2", "3"] } else { ["9"; 3] };
        assert_eq!(sent, expected, "{setting}");
        let expected = if responses { "3" } else { "7" };
        assert_eq!(answer.field("x-envoy-attempt-count"), Some(expected), "{setting}");
    }
}

#[test]
fn a_client_may_shorten_the_timeout_but_not_lengthen_it() {
    let silent = Origin::scripted(|peer| {
        peer.until_closed();
    });
    for (own, asked) in [("1h", "50"), ("50ms", "3600000"), ("50ms", "0"), ("50ms", "-1")] {
        let (_proxy, port) = before(&[&silent], &format!(", timeout: {own}"), "");
        let field = format!("x-envoy-upstream-rq-timeout-ms: {asked}");
        let answer = ask(port, &format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"));
        assert_eq!(answer.status, 504, "{own} {asked}");
    }
}

/// Each attempt gets the time that is left, and not the whole time again.
#[test]
fn the_endpoint_learns_how_much_of_the_time_is_left() {
    let bad = always(response("503 Sad", ""));
    let service = ", timeout: 20s, retries: {attempts: 1, on: 5xx, backoff: {base: 1ms}}";
    let (_proxy, port) = before(&[&bad], service, "");
    for (asked, most) in [("9000", 9000), ("3600000", 20_000)] {
        let field = format!("X-Envoy-Upstream-Rq-Timeout-Ms: {asked}");
        ask(port, &format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"));
        let requests = bad.requests();
        let left = requests[requests.len() - 2..].iter().map(|request| {
            let lines = request.lines().filter_map(|line| line.split_once(": "));
            let named = |(name, _): &(&str, &str)| {
                name.eq_ignore_ascii_case("x-envoy-upstream-rq-timeout-ms")
            };
            let values: Vec<u32> = lines.filter(named).map(|(_, ms)| ms.parse().unwrap()).collect();
            assert_eq!(values.len(), 1, "{request}");
            values[0]
        });
        let left: Vec<u32> = left.collect();
        assert!(left[0] <= most && left[1] < left[0] && left[1] > most / 2, "{left:?}");
    }
}

#[test]
fn the_wait_before_a_retry_ends_when_the_client_leaves() {
    let bad = always(response("503 Sad", ""));
    let service = ", circuit_breaker: {max_requests: 9}, \
                   retries: {on: 5xx, backoff: {base: 1000h, max: 1000h}}";
    let (proxy, port) = before(&[&bad], service, "");
    let series = "ringway_service_circuit_breaker_in_use{service=\"app\",limit=\"max_requests\"}";
    let mut leaver = Client::connect(port);
    leaver.send(GET);
    let waits = || (count(&proxy, "retries") == 1.0).then_some(());
    eventually("the request waits for its retry", waits);
    drop(leaver);
    eventually("the request ends", || (proxy.metric(series) == 0.0).then_some(()));
    let detail = "the client left while its request waited for a retry";
    eventually("its line", || proxy.log().contains(detail).then_some(()));
}

#[test]
fn a_limit_on_bytes_does_not_use_up_the_time_of_an_attempt() {
    let origin = fails_first(0, |_| ());
    let service = ", outlier_detection: {consecutive_5xx: 1}, \
                   retries: {on: reset, per_try_timeout: 500ms}";
    let rule = ", rate_limit: {bytes: 20KB, per: 1s}";
    let (proxy, port) = before(&[&origin], service, rule);
    let mut client = Client::connect(port);
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n");
    client.send("x".repeat(50_000));
    assert_eq!(client.response().status, 200, "{}", proxy.log());
    assert_eq!((count(&proxy, "retries"), origin.requests().len()), (0.0, 1));
}

#[test]
fn a_retry_by_http2_sends_the_whole_body_again() {
    let origin = http2(|frames, stream, number, body| match number {
        0 => frames.headers(stream, &[(":status", "503")], true),
        _ => frames.respond(stream, std::str::from_utf8(&body).unwrap()),
    });
    let service = ", protocol: http2, retries: {on: 5xx, methods: POST}";
    let (proxy, port) = before(&[&origin], service, "");
    let mut client = Client::connect(port);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n");
    client.send("late").send("body");
    let answer = client.response();
    assert_eq!((answer.status, answer.text()), (200, "latebody"));
    assert_eq!(count(&proxy, "retries"), 1.0);
}
