//! Hedging: a slow request is sent to a second endpoint, and the first good response is used.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::frames::{Frames, code, kind};
use crate::support::http::Client;
use crate::support::origin::{Origin, Peer};
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// The first endpoint is slow if it takes this long.
const SLOW: &str = "hedge: {after: 50ms}";

/// The number of requests that two origins have got, and of those that were cancelled.
#[derive(Clone, Default)]
struct Seen {
    requests: Arc<AtomicUsize>,
    cancelled: Arc<AtomicUsize>,
}

impl Seen {
    /// Waits until the origins have got this many requests.
    fn wait_for(&self, requests: usize) {
        let came = || (self.requests.load(Ordering::SeqCst) >= requests).then_some(());
        eventually("a request at an origin", came);
    }

    /// Waits until the proxy cancels.
    fn hold(&self, peer: &mut Peer) {
        peer.until_closed();
        self.cancelled.fetch_add(1, Ordering::SeqCst);
    }
}

/// Two origins that answer by `serve`, whose arguments are the number of the request, from 0, and
/// its text. If it returns false, the connection ends.
fn two(
    serve: impl Fn(&mut Peer, &Seen, usize, &str) -> bool + Clone + Send + Sync + 'static,
) -> ([Origin; 2], Seen) {
    let seen = Seen::default();
    let origin = || {
        let (serve, seen) = (serve.clone(), seen.clone());
        Origin::scripted(move |peer| {
            while let Some(request) = peer.request() {
                let number = seen.requests.fetch_add(1, Ordering::SeqCst);
                if !serve(peer, &seen, number, &request) {
                    return;
                }
            }
        })
    };
    ([origin(), origin()], seen)
}

fn say(peer: &mut Peer, status: u16, body: &str) -> bool {
    let length = body.len();
    peer.send(format!("HTTP/1.1 {status} S\r\nContent-Length: {length}\r\n\r\n{body}"));
    true
}

/// A proxy in front of `origins`. `retries` are its settings, `more` those of the service.
fn before(origins: &[Origin], retries: &str, more: &str) -> (Proxy, u16) {
    let port = free_port();
    let addresses: Vec<_> = origins.iter().map(Origin::address).collect();
    let proxy = Proxy::start_with(
        &format!(
            "telemetry: {{access_log: {{path: stdout}}}}\n\
             listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
             services: {{app: {{endpoints: {addresses:?}, balance: round-robin, \
             outlier_detection: {{consecutive_5xx: 1}}, retries: {{{retries}}}{more}}}}}\n"
        ),
        1,
    );
    (proxy, port)
}

fn hedged(proxy: &Proxy, result: &str) -> f64 {
    let labels = format!("{{service=\"app\",result=\"{result}\"}}");
    proxy.metric(&format!("ringway_hedged_requests_total{labels}"))
}

fn all(proxy: &Proxy) -> f64 {
    proxy.metric("ringway_hedged_requests_total")
}

fn is_blamed(proxy: &Proxy) -> bool {
    let failures = proxy.metric("ringway_endpoint_failures_total");
    failures + proxy.metric("ringway_service_outlier_ejections_total") > 0.0
}

#[test]
fn a_slow_request_is_answered_by_a_second_endpoint_and_the_first_is_not_blamed() {
    let (origins, seen) = two(|peer, seen, number, request| match number {
        0 => {
            seen.hold(peer);
            false
        }
        _ => say(peer, 200, request),
    });
    let retries = format!("attempts: 0, attempt_count: both, {SLOW}");
    let (proxy, port) = before(&origins, &retries, "");
    let mut client = Client::connect(port);
    let answer = client.request(GET);
    assert_eq!((answer.status, answer.field("x-envoy-attempt-count")), (200, Some("2")));
    assert!(answer.text().to_ascii_lowercase().contains("x-envoy-attempt-count: 2"));
    let cancelled = || (seen.cancelled.load(Ordering::SeqCst) == 1).then_some(());
    eventually("the first connection closes", cancelled);
    assert_eq!((hedged(&proxy, "won"), all(&proxy), is_blamed(&proxy)), (1.0, 1.0, false));
    eventually("its line", || proxy.log().contains("\"attempts\":2").then_some(()));
    let winner = origins.iter().find(|it| it.requests()[0].contains("count: 2")).unwrap();
    let endpoint = format!("\"endpoint\":\"{}\"", winner.address());
    assert!(proxy.log().contains(&endpoint), "{}", proxy.log());
    // The connections of both sides still serve.
    assert_eq!(client.request(GET).status, 200);
}

#[test]
fn a_stream_that_is_overtaken_is_cancelled_alone() {
    let seen = Seen::default();
    let origin = || {
        let seen = seen.clone();
        Origin::scripted(move |peer| {
            let Some(mut frames) = Frames::accept(peer, &[]) else { return };
            while let Some((stream, body)) = frames.request() {
                if seen.requests.fetch_add(1, Ordering::SeqCst) == 0 {
                    let reset = frames.next_of(kind::RST_STREAM).expect("a reset of the stream");
                    let cancel = code::CANCEL.to_be_bytes();
                    assert_eq!((reset.stream, &reset.payload[..]), (stream, &cancel[..]));
                    seen.cancelled.fetch_add(1, Ordering::SeqCst);
                } else {
                    frames.respond(stream, std::str::from_utf8(&body).unwrap());
                }
            }
        })
    };
    let origins = [origin(), origin()];
    let retries = format!("methods: POST, {SLOW}");
    let (proxy, port) = before(&origins, &retries, ", protocol: http2");
    let mut client = Client::connect(port);
    // The body arrives in two parts, and the second endpoint gets both.
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n");
    client.send("late").send("body");
    let answer = client.response();
    assert_eq!((answer.status, answer.text()), (200, "latebody"));
    let cancelled = || (seen.cancelled.load(Ordering::SeqCst) == 1).then_some(());
    eventually("the first stream is cancelled", cancelled);
    assert_eq!((hedged(&proxy, "won"), is_blamed(&proxy)), (1.0, false));
    for _ in 0..4 {
        let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(client.request(post).text(), "ok");
    }
    assert_eq!(origins.each_ref().map(Origin::accepted), [1, 1], "no connection was closed");
}

#[test]
fn the_first_endpoint_wins_if_it_is_faster_and_the_second_is_cancelled() {
    let (origins, seen) = two(|peer, seen, number, _| {
        if number == 0 {
            seen.wait_for(2);
            return say(peer, 200, "first");
        }
        seen.hold(peer);
        false
    });
    let (proxy, port) = before(&origins, SLOW, "");
    assert_eq!(Client::connect(port).request(GET).text(), "first");
    let cancelled = || (seen.cancelled.load(Ordering::SeqCst) == 1).then_some(());
    eventually("the second connection closes", cancelled);
    assert_eq!((hedged(&proxy, "lost"), all(&proxy), is_blamed(&proxy)), (1.0, 1.0, false));
}

/// One endpoint fails when both have the request. The other one answers after that. If the proxy
/// reads both answers at once, it does not wait for the failure of the second endpoint.
#[test]
fn a_failure_never_wins() {
    for (failing, text, results) in
        [(0, "answer 1", &["won"][..]), (1, "answer 0", &["failed", "lost"])]
    {
        let (origins, seen) = two(move |peer, seen, number, _| {
            seen.wait_for(2);
            if number == failing {
                say(peer, 503, "sad");
                seen.cancelled.fetch_add(1, Ordering::SeqCst);
                return true;
            }
            let failed = || (seen.cancelled.load(Ordering::SeqCst) > 0).then_some(());
            eventually("the other one has failed", failed);
            say(peer, 200, &format!("answer {number}"))
        });
        let retries = format!("on: 5xx, {SLOW}");
        let (proxy, port) = before(&origins, &retries, "");
        let answer = Client::connect(port).request(GET);
        assert_eq!((answer.status, answer.text()), (200, text));
        let counted: f64 = results.iter().map(|result| hedged(&proxy, result)).sum();
        assert_eq!((counted, all(&proxy)), (1.0, 1.0));
        assert_eq!(seen.requests.load(Ordering::SeqCst), 2);
    }
}

#[test]
fn if_both_fail_the_client_gets_the_first_failure() {
    let (origins, seen) = two(|peer, seen, number, _| {
        seen.wait_for(2);
        say(peer, 503, &format!("sad {number}"))
    });
    let (proxy, port) = before(&origins, SLOW, "");
    let answer = Client::connect(port).request(GET);
    assert_eq!((answer.status, answer.text()), (503, "sad 0"));
    assert_eq!((hedged(&proxy, "failed"), all(&proxy)), (1.0, 1.0));
    assert_eq!(seen.requests.load(Ordering::SeqCst), 2);
}

/// The endpoint never answers. The timeout of the request passes long after a hedge would have
/// begun.
#[test]
fn a_request_is_hedged_only_if_that_is_harmless_and_within_the_limits() {
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab";
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    for (request, retries, more, endpoints) in [
        (post, "", "", 2),
        (upgrade, "", "", 2),
        (GET, "", "", 1),
        (GET, "budget: {min: 0}, ", "", 2),
        (GET, "", ", circuit_breaker: {max_retries: 0}", 2),
        (GET, "", ", concurrency: {min: 1, max: 1}", 2),
    ] {
        let (origins, seen) = two(|peer, seen, _, _| {
            seen.hold(peer);
            false
        });
        let retries = format!("{retries}hedge: {{after: 20ms}}");
        let more = format!("{more}, timeout: 300ms");
        let (proxy, port) = before(&origins[..endpoints], &retries, &more);
        assert_eq!(Client::connect(port).request(request).status, 504, "{retries}{more}");
        let requests = seen.requests.load(Ordering::SeqCst);
        assert_eq!((requests, all(&proxy)), (1, 0.0), "{request} {retries}{more}");
    }
}

#[test]
fn a_response_that_has_begun_holds_no_place_of_a_retry() {
    // The second attempt may reach its endpoint before the first one does.
    let (origins, _seen) = two(|peer, seen, _, request| {
        let is_hedge = request.to_ascii_lowercase().contains("x-envoy-attempt-count: 2");
        match (is_hedge, request.starts_with("GET /long ")) {
            (true, true) => peer.send("HTTP/1.1 200 S\r\nContent-Length: 8\r\n\r\nhalf"),
            (true, false) => return say(peer, 200, "whole"),
            (false, _) => {}
        }
        seen.hold(peer);
        false
    });
    let more = ", timeout: 5s, circuit_breaker: {max_retries: 1}";
    let (proxy, port) = before(&origins, &format!("attempt_count: both, {SLOW}"), more);
    let mut long = Client::connect(port);
    long.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(long.head().unwrap().contains(" 200 "));
    assert_eq!(Client::connect(port).request(GET).text(), "whole");
    assert_eq!(hedged(&proxy, "won"), 2.0);
}

/// The first endpoint fails while the second one does not accept the connection.
#[test]
fn a_client_that_leaves_while_the_second_endpoint_accepts_nothing_is_noticed() {
    let (deaf, _streams) = super::hedge::deaf();
    let seen = Seen::default();
    let of_sad = seen.clone();
    let sad = Origin::scripted(move |peer| {
        while peer.request().is_some() {
            of_sad.wait_for(1);
            say(peer, 503, "sad");
            of_sad.cancelled.store(1, Ordering::SeqCst);
        }
    });
    let port = free_port();
    let endpoints = [deaf.local_addr().unwrap().to_string(), sad.address()];
    let proxy = Proxy::start_with(
        &format!(
            "telemetry: {{access_log: {{path: stdout}}}}\n\
             listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
             services: {{app: {{endpoints: {endpoints:?}, balance: round-robin, \
             connect_hedge: none, connect_timeout: 50s, retries: {{attempts: 0, {SLOW}}}}}}}\n"
        ),
        1,
    );
    let send = || {
        let mut client = Client::connect(port);
        client.send(GET);
        client
    };
    let attempts = |count| {
        let begun = || proxy.metric("ringway_endpoint_requests_total") >= count;
        eventually("an attempt", || begun().then_some(()));
    };
    // One request waits for the deaf endpoint, the other one is hedged there.
    let clients = [send(), send()];
    attempts(3.0);
    seen.requests.store(1, Ordering::SeqCst);
    let failed = || (seen.cancelled.load(Ordering::SeqCst) == 1).then_some(());
    eventually("the first endpoint has failed", failed);
    // The worker reads the next request after that response.
    let _next = send();
    attempts(4.0);
    drop(clients);
    let noticed = || proxy.log().contains("waited for a second endpoint").then_some(());
    eventually("the client has left", noticed);
}

#[test]
fn an_endpoint_that_reports_progress_is_not_overtaken() {
    let (origins, seen) = two(|peer, seen, _, _| {
        peer.send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        seen.hold(peer);
        false
    });
    // The endpoint has to say 103 within the time of `after`, also on a busy machine.
    let (proxy, port) = before(&origins, "hedge: {after: 1s}", ", timeout: 2s");
    let mut client = Client::connect(port);
    client.send(GET);
    assert!(client.head().unwrap().contains(" 103 "));
    assert_eq!(client.response().status, 504);
    assert_eq!((seen.requests.load(Ordering::SeqCst), all(&proxy)), (1, 0.0));
}

#[test]
fn a_percentile_is_learned_from_the_responses_and_survives_a_reload() {
    let (origins, _seen) = two(|peer, seen, _, request| {
        if request.contains("/slow") && !request.contains("attempt-count: 2") {
            seen.hold(peer);
            return false;
        }
        say(peer, 200, "ok")
    });
    let retries = "attempt_count: request, hedge: {after: p90}, budget: {percent: 100%}";
    let (proxy, port) = before(&origins, retries, "");
    let mut client = Client::connect(port);
    for _ in 0..110 {
        assert_eq!(client.get("a", "/").status, 200);
    }
    let before = all(&proxy);
    assert_eq!(client.get("a", "/slow").status, 200);
    assert!(all(&proxy) > before);
    let config = std::fs::read_to_string(proxy.config_file()).unwrap();
    proxy.reload(&config.replace("p90", "p95"));
    assert_eq!(client.get("a", "/slow").status, 200);
}

#[test]
fn each_version_has_its_own_percentile() {
    let of = |pause_ms: u64| {
        two(move |peer, seen, _, request| {
            if request.contains("/hang") && !request.contains("attempt-count: 2") {
                seen.hold(peer);
                return false;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(pause_ms));
            say(peer, 200, "ok")
        })
    };
    let ((fast, _), (slow, slow_seen)) = (of(0), of(40));
    let port = free_port();
    let list = |origins: &[Origin]| {
        let addresses: Vec<_> = origins.iter().map(Origin::address).collect();
        format!("{addresses:?}")
    };
    let text = format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes: {{v1: [{{to: app/v1}}], v2: [{{to: app/v2}}]}}\n\
         services: {{app: {{versions: {{v1: {}, v2: {}}}, retries: {{attempt_count: request, \
         hedge: {{after: p90}}, budget: {{percent: 100%}}}}}}}}\n",
        list(&fast),
        list(&slow)
    );
    let proxy = Proxy::start_with(&text, 1);
    let mut client = Client::connect(port);
    for _ in 0..110 {
        assert_eq!(client.get("v1", "/").status, 200);
    }
    // The slow version is not hedged after the latency of the fast one.
    for _ in 0..5 {
        assert_eq!(client.get("v2", "/").status, 200);
    }
    assert_eq!(slow_seen.requests.load(Ordering::SeqCst), 5);
    // The fast version keeps its percentile in a reload that moves it to another place.
    let before = all(&proxy);
    proxy.reload(&text.replace("{v1: [\"", &format!("{{a: {}, v1: [\"", list(&fast))));
    assert_eq!(client.get("v1", "/hang").status, 200);
    assert_eq!(all(&proxy), before + 1.0);
}
