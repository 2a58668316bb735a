//! Global rate limits, with a rate limit service that answers as the test's script says. The real
//! service of the protocol is in `tests/ratelimit_service`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::frames::{END_STREAM, Frames, code, kind};
use crate::support::http::{Client, Response};
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_listener, free_port};

/// The reaction of the service to a question.
enum Say {
    /// It answers with this message, and with OK.
    Message(Vec<u8>),
    /// It answers with this gRPC status, without a message.
    Code(&'static str),
    /// It answers with this HTTP status.
    Status(&'static str),
    /// It does not answer.
    Nothing,
    /// It closes the connection.
    Close,
}

/// Answers as the official definitions encode them.
fn pass() -> Say {
    Say::Message(vec![0x08, 1])
}

/// OVER_LIMIT. One limit, `per user`, has 300 in a minute, none left, and is reset in 41 s and
/// 5 ns. The response gets `x-a: b`, and `content-length: 9`, which no service may set.
fn over_limit() -> Say {
    let status = b"\x08\x02\x12\x0f\x08\xac\x02\x10\x02\x1a\x08per user\x22\x04\x08\x29\x10\x05";
    let field = b"\x0a\x03x-a\x12\x01b";
    let framing = b"\x0a\x0econtent-length\x12\x019";
    let parts = [(0x12, &status[..]), (0x1a, field), (0x1a, framing)];
    let part = |(key, bytes): (u8, &[u8])| [&[key, bytes.len() as u8], bytes].concat();
    Say::Message([vec![0x08, 2], parts.map(part).concat()].concat())
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

/// A rate limit service. `say` gets the number of each question, from 0, and its message.
struct Limits {
    origin: Origin,
    asked: Arc<AtomicUsize>,
}

impl Limits {
    fn new(say: impl Fn(usize, &[u8]) -> Say + Send + Sync + 'static) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let origin = Origin::scripted(move |peer| {
            let Some(mut frames) = Frames::accept(peer, &[]) else { return };
            while let Some((stream, question)) = frames.request() {
                let number = count.fetch_add(1, Ordering::SeqCst);
                match say(number, &question) {
                    Say::Message(message) => {
                        let head = [(":status", "200"), ("content-type", "application/grpc")];
                        frames.headers(stream, &head, false);
                        frames.data(stream, &framed(&message), false);
                        frames.headers(stream, &[("grpc-status", "0")], true);
                    }
                    Say::Code(code) => {
                        frames.headers(stream, &[(":status", "200"), ("grpc-status", code)], true);
                    }
                    Say::Status(status) => frames.headers(stream, &[(":status", status)], true),
                    Say::Nothing => {}
                    Say::Close => break,
                }
            }
            peer.stream.shutdown(std::net::Shutdown::Both).ok();
        });
        Self { origin, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// The descriptors of most tests.
const DESCRIPTORS: &str = "descriptors: [[{header: x-user, key: user}, method], source]";

/// A proxy with one worker and a rule with a global limit, which asks the service at `address`.
/// `limit` has more of the limit, and `rule` more of the rule.
fn before(address: &str, limit: &str, rule: &str) -> (Proxy, u16, Origin) {
    let (port, app) = (free_port(), Origin::saying("hello"));
    let proxy = Proxy::start_with(
        &format!(
            "telemetry: {{access_log: {{path: stdout}}}}\n\
             listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
             routes:\n  \"*\":\n  - to: app\n    {rule}\n    rate_limit:\n\
             \x20   - {{service: limits, domain: shop, {DESCRIPTORS}{limit}}}\n\
             services:\n  app: {{endpoints: [\"{}\"]}}\n\
             \x20 limits: {{protocol: grpc, endpoints: [\"{address}\"]}}\n",
            app.address()
        ),
        1,
    );
    (proxy, port, app)
}

/// A time limit that only a test of a silent service reaches.
const PATIENT: &str = ", timeout: 30s";

fn get(port: u16, fields: &str) -> Response {
    Client::connect(port).request(format!("GET /x?y HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
}

#[track_caller]
fn counted(proxy: &Proxy, expected: [f64; 4]) {
    let names = ["ok", "over_limit", "errors", "failure_mode_allowed"];
    let counts = || {
        let count = |name| proxy.metric(&format!("ringway_global_rate_limit_{name}_total"));
        names.map(count)
    };
    eventually("the counters", || (counts() == expected).then_some(()));
    let all = proxy.metric("ringway_global_rate_limit_duration_seconds_count");
    assert_eq!(all, expected[..3].iter().sum::<f64>());
    assert_eq!(proxy.metric("ringway_worker_panics_total"), 0.0);
}

/// The line of the access log with this text.
fn logged(proxy: &Proxy, text: &str) -> String {
    eventually("a line of the access log", || {
        proxy.log().lines().find(|line| line.contains(text)).map(str::to_owned)
    })
}

fn contains(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

#[test]
fn a_request_passes_or_gets_429_as_the_service_says() {
    let limits = Limits::new(|number, question| {
        for part in ["shop", "user", "ada", "method", "GET", "remote_address", "127.0.0.1"] {
            assert!(contains(question, part), "{part} in {question:?}");
        }
        if number == 0 { pass() } else { over_limit() }
    });
    let (proxy, port, app) = before(&limits.origin.address(), PATIENT, "name: own");
    let answer = get(port, "x-user: ada\r\n");
    assert_eq!((answer.status, answer.text()), (200, "hello"));
    assert_eq!(answer.field("ratelimit"), None);
    let mut client = Client::connect(port);
    for _ in 0..2 {
        // The connection stays open.
        let answer = client.request("GET /x HTTP/1.1\r\nHost: a\r\nx-user: ada\r\n\r\n");
        assert_eq!(answer.status, 429);
        assert_eq!(answer.text(), "too many requests for the global rate limit of the route");
        assert_eq!(answer.field("x-envoy-ratelimited"), Some("true"));
        assert_eq!(answer.field("ratelimit-policy"), Some("\"per user\";q=300;w=60"));
        assert_eq!(answer.field("ratelimit"), Some("\"per user\";r=0;t=42"));
        assert_eq!((answer.field("retry-after"), answer.field("x-a")), (Some("42"), Some("b")));
    }
    assert_eq!((limits.asked(), limits.origin.accepted()), (3, 1), "one connection");
    assert_eq!(app.requests().len(), 1);
    counted(&proxy, [1.0, 2.0, 0.0, 0.0]);
    let line = logged(&proxy, "\"status\":429");
    assert!(line.contains("\"RL\""), "{line}");
    assert!(line.contains("global rate limit of route own ("), "{line}");
}

#[test]
fn a_response_that_passes_has_the_fields_of_the_service_too() {
    let limits = Limits::new(|_, _| match over_limit() {
        Say::Message(mut message) => {
            message[1] = 1;
            Say::Message(message)
        }
        other => other,
    });
    let headers = format!("{PATIENT}, headers: x-ratelimit");
    let (_proxy, port, _app) = before(&limits.origin.address(), &headers, "");
    let answer = get(port, "");
    assert_eq!((answer.status, answer.text(), answer.field("x-a")), (200, "hello", Some("b")));
    assert_eq!(answer.field("x-ratelimit-limit"), Some("300"));
    assert_eq!(answer.field("x-ratelimit-reset"), Some("42"));
    assert_eq!((answer.field("ratelimit"), answer.field("retry-after")), (None, None));
}

#[test]
fn a_grpc_client_gets_resource_exhausted() {
    let limits = Limits::new(|_, _| over_limit());
    let (proxy, port, _app) = before(&limits.origin.address(), PATIENT, "");
    let mut client = Frames::connect(port);
    client.call(1, &[("x-user", "ada")]);
    client.data(1, b"\0\0\0\0\x03abc", true);
    let head = client.next_of(kind::HEADERS).unwrap();
    assert!(head.flags & END_STREAM != 0);
    let series = "ringway_grpc_requests_total{service=\"app\",method=\"shop.Cart/Add\",\
                  grpc_status=\"8\"}";
    eventually("the status 8", || (proxy.metric(series) == 1.0).then_some(()));
    counted(&proxy, [0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn a_request_without_the_header_has_one_descriptor_less_and_without_any_it_passes_unasked() {
    let limits = Limits::new(|_, question| {
        assert!(!contains(question, "user") && contains(question, "remote_address"));
        pass()
    });
    let (proxy, port, _app) = before(&limits.origin.address(), PATIENT, "");
    assert_eq!(get(port, "").status, 200);
    assert_eq!(limits.asked(), 1);
    counted(&proxy, [1.0, 0.0, 0.0, 0.0]);
    let text = std::fs::read_to_string(proxy.config_file()).unwrap();
    proxy.reload(&text.replace(", source]", "]"));
    assert_eq!(get(port, "").status, 200);
    assert_eq!(limits.asked(), 1);
    counted(&proxy, [1.0, 0.0, 0.0, 0.0]);
}

/// A service that does not answer, and the reason in the log.
type Failing = (fn() -> Say, &'static str);

const FAILURES: [Failing; 6] = [
    (|| Say::Nothing, "no answer within the timeout"),
    (|| Say::Code("13"), "grpc-status: 13, INTERNAL"),
    (|| Say::Status("503"), "no complete answer to a gRPC call"),
    (|| Say::Close, "closed before an answer"),
    (|| Say::Message(b"\x08".to_vec()), "the answer has no decision"),
    (|| Say::Message(Vec::new()), "the answer has no decision"),
];

#[test]
fn without_an_answer_a_request_passes() {
    for (say, reason) in FAILURES {
        let limits = Limits::new(move |_, _| say());
        let timeout = if reason.contains("timeout") { ", timeout: 50ms" } else { PATIENT };
        let (proxy, port, _app) = before(&limits.origin.address(), timeout, "");
        assert_eq!(get(port, "").text(), "hello", "{reason}");
        counted(&proxy, [0.0, 0.0, 1.0, 1.0]);
        logged(&proxy, reason);
    }
}

#[test]
fn without_an_answer_a_request_is_refused_if_the_limit_says_so() {
    for (say, reason) in FAILURES {
        let limits = Limits::new(move |_, _| say());
        let timeout = if reason.contains("timeout") { ", timeout: 50ms" } else { PATIENT };
        let deny = format!("{timeout}, on_failure: deny");
        let (proxy, port, app) = before(&limits.origin.address(), &deny, "");
        let answer = get(port, "");
        assert_eq!(answer.status, 503, "{reason}");
        assert_eq!(answer.text(), "the rate limit service did not answer");
        counted(&proxy, [0.0, 0.0, 1.0, 0.0]);
        logged(&proxy, reason);
        assert!(logged(&proxy, "\"status\":503").contains("\"RLSE\""));
        assert!(app.requests().is_empty());
    }
}

#[test]
fn a_service_that_is_away_is_an_error() {
    let address = free_listener().local_addr().unwrap().to_string();
    for (decision, status, allowed) in [("allow", 200, 1.0), ("deny", 503, 0.0)] {
        let limit = format!("{PATIENT}, on_failure: {decision}");
        let (proxy, port, _app) = before(&address, &limit, "");
        assert_eq!(get(port, "").status, status);
        counted(&proxy, [0.0, 0.0, 1.0, allowed]);
    }
}

#[test]
fn a_question_on_a_dead_connection_is_asked_again() {
    // The service closes each connection at its second question.
    let limits = Limits::new(|number, _| if number % 2 == 1 { Say::Close } else { pass() });
    let (proxy, port, _app) = before(&limits.origin.address(), PATIENT, "");
    for _ in 0..3 {
        assert_eq!(get(port, "").status, 200);
    }
    assert_eq!(limits.asked(), 5);
    counted(&proxy, [3.0, 0.0, 0.0, 0.0]);
}

#[test]
fn the_local_limits_are_asked_first() {
    let limits = Limits::new(|_, _| pass());
    let (proxy, port, _app) = before(&limits.origin.address(), PATIENT, "");
    let text = std::fs::read_to_string(proxy.config_file()).unwrap();
    let local = "rate_limit:\n    - {requests: 1, per: 1h}\n";
    proxy.reload(&text.replace("rate_limit:\n", local));
    assert_eq!([get(port, ""), get(port, "")].map(|answer| answer.status), [200, 429]);
    assert_eq!(limits.asked(), 1);
    counted(&proxy, [1.0, 0.0, 0.0, 0.0]);
    assert_eq!(proxy.metric("ringway_rate_limited_total"), 1.0);
}

#[test]
fn a_client_that_leaves_ends_its_question() {
    let limits = Limits::new(|_, _| Say::Nothing);
    let (proxy, port, app) = before(&limits.origin.address(), PATIENT, "");
    let mut client = Frames::connect(port);
    client.call(1, &[]);
    client.data(1, b"\0\0\0\0\0", true);
    eventually("the question", || (limits.asked() == 1).then_some(()));
    client.reset(1, code::CANCEL);
    let line = logged(&proxy, "\"DC\"");
    assert!(line.contains("the client left while the rate limit service was asked"), "{line}");
    assert!(app.requests().is_empty());
    let mut client = Client::connect(port);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the question", || (limits.asked() == 2).then_some(()));
    drop(client);
    let flagged = "ringway_service_response_flags_total{service=\"app\",flag=\"DC\"}";
    eventually("DC", || (proxy.metric(flagged) == 2.0).then_some(()));
    counted(&proxy, [0.0; 4]);
}

#[test]
fn the_deadline_of_the_request_holds() {
    let limits = Limits::new(|_, _| Say::Nothing);
    let (proxy, port, app) = before(&limits.origin.address(), PATIENT, "timeout: 50ms");
    assert_eq!(get(port, "").status, 504);
    assert!(logged(&proxy, "\"status\":504").contains("\"UT\""));
    assert!(app.requests().is_empty());
}

#[test]
fn a_listener_a_rule_and_a_service_ask_one_after_the_other() {
    let limits =
        Limits::new(
            |_, question| {
                if contains(question, "of the service") { over_limit() } else { pass() }
            },
        );
    let (port, app) = (free_port(), Origin::saying("hello"));
    let limit = |of: &str| {
        format!(
            "rate_limit: {{service: limits, domain: {of}, timeout: 30s, \
             descriptors: [[{{value: of the {of}}}, rule, service, path]]}}"
        )
    };
    let proxy = Proxy::start_with(
        &format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}, {}}}}}\n\
             routes: {{\"*\": [{{to: app, {}}}]}}\n\
             services:\n  app: {{endpoints: [\"{}\"], {}}}\n\
             \x20 limits: {{protocol: http2, endpoints: [\"{}\"]}}\n",
            limit("listener"),
            limit("rule"),
            app.address(),
            limit("service"),
            limits.origin.address()
        ),
        1,
    );
    let answer = get(port, "");
    assert_eq!(answer.text(), "too many requests for the global rate limit of the service");
    assert_eq!(limits.asked(), 3);
    counted(&proxy, [2.0, 1.0, 0.0, 0.0]);
}

/// A proxy that asks `limits`. `service` has more of the settings of this service.
fn before_service(limits: &Limits, service: &str) -> (Proxy, u16, Origin) {
    let (port, app) = (free_port(), Origin::saying("hello"));
    let config = format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes:\n  \"*\":\n  - to: app\n    rate_limit:\n\
         \x20   - {{service: limits, domain: shop, descriptors: [method]{PATIENT}}}\n\
         services:\n  app: {{endpoints: [\"{}\"]}}\n\
         \x20 limits: {{protocol: grpc, endpoints: [\"{}\"], {service}}}\n",
        app.address(),
        limits.origin.address()
    );
    (Proxy::start_with(&config, 1), port, app)
}

#[test]
fn a_client_without_patience_does_not_eject_the_service() {
    let limits = Limits::new(|_, _| Say::Nothing);
    let (proxy, port, _app) = before_service(
        &limits,
        "outlier_detection: {consecutive_5xx: 1, max_ejection_percent: 100%}",
    );
    for _ in 0..3 {
        assert_eq!(get(port, "x-envoy-upstream-rq-timeout-ms: 30\r\n").status, 504);
    }
    assert_eq!(limits.asked(), 3);
    assert_eq!(proxy.metric("ringway_service_outlier_ejections_total"), 0.0);
}

#[test]
fn the_service_may_have_an_adaptive_limit() {
    let limits = Limits::new(|_, _| pass());
    let (proxy, port, _app) = before_service(&limits, "concurrency: {probe_requests: 5}");
    let name = "ringway_service_concurrency_unloaded_seconds{service=\"limits\"}";
    eventually("a latency", || {
        assert_eq!(get(port, "").status, 200);
        (proxy.metric(name) > 0.0).then_some(())
    });
}
