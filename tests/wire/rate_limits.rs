//! Rate limits: which requests pass, what the others get, and what reloads keep.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::frames::{Frames, kind};
use crate::support::http::{Client, Response};
use crate::support::origin::Origin;
use crate::support::peers::curl;
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

/// Configurations with one listener and one service.
pub(super) struct Settings {
    pub(super) port: u16,
    origin: Origin,
}

impl Settings {
    pub(super) fn new() -> Self {
        Self { port: free_port(), origin: Origin::saying("hello") }
    }

    /// `rule`, `service` and `listener` are more lines of their settings.
    fn text(&self, rule: &str, service: &str, listener: &str) -> String {
        format!(
            "telemetry: {{access_log: {{path: stdout}}}}\n\
             listeners: {{web: {{bind: 127.0.0.1:{}{listener}}}}}\n\
             routes:\n  a.test:\n  - {{match: {{path: /other}}, to: app}}\n  - {{to: app{rule}}}\n\
             services: {{app: {{endpoints: [\"{}\"]{service}}}}}\n",
            self.port,
            self.origin.address()
        )
    }

    pub(super) fn rule(&self, limit: &str) -> String {
        self.text(&format!(", rate_limit: {limit}"), "", "")
    }

    pub(super) fn ask(&self, target: &str, fields: &str) -> Response {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
        Client::connect(self.port).request(request)
    }

    /// The statuses of requests with these fields.
    fn statuses(&self, all: &[&str]) -> Vec<u16> {
        all.iter().map(|fields| self.ask("/", fields).status).collect()
    }
}

fn limited(proxy: &Proxy) -> f64 {
    proxy.metric("ringway_rate_limited_total")
}

#[test]
fn requests_beyond_the_limit_get_429_and_learn_when_to_come_back() {
    let settings = Settings::new();
    let proxy = Proxy::start(&settings.rule("{requests: 3, per: 1h}"));
    for left in ["2", "1", "0"] {
        let answer = settings.ask("/", "");
        assert_eq!((answer.status, answer.text()), (200, "hello"));
        assert_eq!(answer.field("ratelimit-policy"), Some("\"a.test#2\";q=3;w=3600"));
        let state = answer.field("ratelimit").unwrap();
        assert!(state.starts_with(&format!("\"a.test#2\";r={left};t=")), "{state}");
        assert_eq!(answer.field("retry-after"), None);
    }
    let mut client = Client::connect(settings.port);
    for _ in 0..2 {
        // The connection stays open.
        let answer = client.get("a.test", "/");
        assert_eq!(answer.status, 429);
        assert_eq!(answer.text(), "too many requests for the rate limit of the route");
        let wait: u32 = answer.field("retry-after").unwrap().parse().unwrap();
        assert!((1100..=1200).contains(&wait), "{wait}");
        assert!(answer.field("ratelimit").unwrap().contains(";r=0;t=3"), "{}", answer.head);
    }
    // Another rule has no limit.
    assert_eq!(client.get("a.test", "/other").status, 200);
    assert_eq!(settings.origin.requests().len(), 4);
    assert_eq!((limited(&proxy), proxy.metric("ringway_rate_limit_passed_total")), (2.0, 3.0));
    let series = "ringway_rate_limited_total{scope=\"route\",host=\"a.test\",name=\"a.test#2\"}";
    assert_eq!(proxy.metric(series), 2.0);
    eventually("a line of the access log", || {
        let log = proxy.log();
        let line = log.lines().find(|line| line.contains("\"status\":429"))?.to_owned();
        assert!(line.contains("\"RL\""), "{line}");
        assert!(line.contains("rate limit of route a.test#2 ("), "{line}");
        assert!(line.contains("ringway.yaml:6)"), "{line}");
        Some(())
    });
}

#[test]
fn each_value_of_a_header_has_its_own_limit() {
    let settings = Settings::new();
    let limit = "{requests: 1, per: 1h, burst: 1, by: {header: X-User}}";
    let proxy = Proxy::start(&settings.rule(limit));
    let (ada, bob) = ("x-user: ada\r\n", "X-USER: bob\r\n");
    assert_eq!(settings.statuses(&[ada, ada, ada, bob, bob, bob]), [200, 200, 429, 200, 200, 429]);
    // Requests without the field share one. To leave it out does not avoid the limit.
    assert_eq!(settings.statuses(&["", "", "", ada]), [200, 200, 429, 429]);
    assert_eq!(proxy.metric("ringway_rate_limit_keys"), 3.0);
}

#[test]
fn a_full_table_forgets_the_oldest_key() {
    let settings = Settings::new();
    let limit = settings.rule("{requests: 1, per: 1h, by: {header: x-user}}");
    let proxy = Proxy::start(&format!("limits: {{rate_limit_keys: 2}}\n{limit}"));
    let [a, b, c] = ["x-user: a\r\n", "x-user: b\r\n", "x-user: c\r\n"];
    assert_eq!(settings.statuses(&[a, b, c, c, b, a]), [200, 200, 200, 429, 429, 200]);
    assert_eq!(proxy.metric("ringway_rate_limit_keys"), 2.0);
    assert_eq!(proxy.metric("ringway_rate_limit_evicted_keys_total"), 2.0);
}

#[test]
fn the_source_is_the_client_that_trusted_proxies_report() {
    let settings = Settings::new();
    let rule = ", rate_limit: {requests: 1, per: 1h, by: source}";
    let _proxy = Proxy::start(&settings.text(rule, "", ", trusted_hops: 1"));
    let [a, b] = ["x-forwarded-for: 10.0.0.1\r\n", "x-forwarded-for: 9.9.9.9, 10.0.0.2\r\n"];
    assert_eq!(settings.statuses(&[a, b, "", a, b, ""]), [200, 200, 200, 429, 429, 429]);
}

#[test]
fn a_service_has_one_limit_for_all_its_rules_and_a_listener_counts_every_request() {
    let settings = Settings::new();
    let proxy = Proxy::start(&settings.text("", ", rate_limit: {requests: 2, per: 1h}", ""));
    let statuses = ["/", "/other", "/"].map(|target| settings.ask(target, "").status);
    assert_eq!(statuses, [200, 200, 429]);
    let answer = settings.ask("/other", "");
    assert_eq!(answer.text(), "too many requests for the rate limit of the service");
    assert!(answer.field("retry-after").is_some());
    assert!(answer.field("ratelimit").unwrap().starts_with("\"app\";r=0;"), "{}", answer.head);
    let series = "ringway_rate_limited_total{scope=\"service\",host=\"\",name=\"app\"}";
    assert_eq!(proxy.metric(series), 2.0);
    // The kernel may still hold the port of a proxy that was killed.
    let settings = Settings::new();
    let _proxy = Proxy::start(&settings.text("", "", ", rate_limit: {requests: 2, per: 1h}"));
    let get = |host| Client::connect(settings.port).get(host, "/").status;
    assert_eq!([get("a.test"), get("unknown.test"), get("a.test")], [200, 404, 429]);
}

#[test]
fn a_request_meets_all_limits_and_the_client_learns_of_each() {
    let settings = Settings::new();
    let limit = |count, headers| {
        format!(", rate_limit: {{requests: {count}, per: 1h, headers: {headers}}}")
    };
    let text = settings.text(&limit(9, "both"), &limit(5, "both"), &limit(7, "ratelimit"));
    let _proxy = Proxy::start(&text);
    let answer = settings.ask("/", "");
    let lines = |name: &str| answer.head.lines().filter(|line| line.starts_with(name)).count();
    assert_eq!((lines("ratelimit:"), lines("ratelimit-policy:")), (3, 3));
    assert_eq!(answer.field("x-ratelimit-limit"), Some("5"));
    assert_eq!(answer.field("x-ratelimit-remaining"), Some("4"));
    assert_eq!((lines("x-ratelimit-reset"), answer.status), (1, 200));
}

#[test]
fn fields_are_those_that_were_asked_for() {
    for (headers, standard, envoy) in
        [("ratelimit", true, false), ("x-ratelimit", false, true), ("none", false, false)]
    {
        let settings = Settings::new();
        let limit = format!("{{requests: 1, per: 500ms, name: 'a \"b\"', headers: {headers}}}");
        let _proxy = Proxy::start(&settings.rule(&limit));
        let answer = settings.ask("/", "");
        let policy = standard.then_some("\"a \\\"b\\\"\";q=1");
        assert_eq!(answer.field("ratelimit-policy"), policy, "{headers}");
        assert_eq!(answer.field("ratelimit").is_some(), standard, "{headers}");
        assert_eq!(answer.field("x-ratelimit-limit"), envoy.then_some("1"), "{headers}");
        assert_eq!(answer.field("x-ratelimit-reset"), envoy.then_some("1"), "{headers}");
    }
}

#[test]
fn http2_and_grpc_clients_get_their_own_answer() {
    let settings = Settings::new();
    let _proxy = Proxy::start(&settings.rule("{requests: 1, per: 1h}"));
    let url = format!("http://127.0.0.1:{}/", settings.port);
    let http2 = |more: &[&str]| {
        let common = ["-si", "--http2-prior-knowledge", "-H", "host: a.test"];
        curl(&[&common, more, &[url.as_str()]].concat())
    };
    let first = http2(&[]);
    assert!(first.starts_with("HTTP/2 200"), "{first}");
    assert!(first.contains("ratelimit: \"a.test#2\";r=0;t=3600\r\n"), "{first}");
    let second = http2(&[]);
    assert!(second.starts_with("HTTP/2 429"), "{second}");
    assert!(second.contains("retry-after: 36") || second.contains("retry-after: 35"), "{second}");
    let call = http2(&["-X", "POST", "-H", "content-type: application/grpc", "-H", "te: trailers"]);
    assert!(call.starts_with("HTTP/2 200"), "{call}");
    assert!(call.contains("grpc-status: 8\r\n"), "{call}");
    assert!(call.contains("grpc-message: too many requests"), "{call}");
    assert!(call.contains("retry-after: 3"), "{call}");
}

#[test]
fn a_reload_keeps_the_buckets_of_limits_that_did_not_change() {
    let settings = Settings::new();
    let (one, two) = ("{requests: 1, per: 1h}", "{requests: 2, per: 1h}");
    let proxy = Proxy::start(&settings.rule(one));
    assert_eq!(settings.statuses(&["", ""]), [200, 429]);
    proxy.reload(&format!("{}\ndrain: 20s\n", settings.rule(one)));
    assert_eq!(settings.statuses(&[""]), [429]);
    proxy.reload(&settings.rule(two));
    assert_eq!(settings.statuses(&["", "", ""]), [200, 200, 429]);
    assert_eq!(limited(&proxy), 3.0);
}

#[test]
fn a_connection_that_carries_bytes_counts_as_a_request() {
    let settings = Settings::new();
    let raw = free_port();
    let text = settings.text("", ", rate_limit: {requests: 2, per: 1h, by: source}", "");
    let raw_listener = format!("{{bind: 127.0.0.1:{raw}, protocol: tcp, service: app}}");
    let text = text.replace("listeners: {", &format!("listeners: {{raw: {raw_listener}, "));
    let proxy = Proxy::start(&text);
    let get = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    for _ in 0..2 {
        assert_eq!(Client::connect(raw).request(get).status, 200);
    }
    assert_eq!(Client::connect(raw).send(get).rest(), b"");
    assert_eq!(settings.ask("/", "").status, 429);
    assert_eq!(limited(&proxy), 2.0);
}

#[test]
fn authorization_comes_before_the_limit_of_a_rule() {
    let settings = Settings::new();
    let text = settings.rule("{requests: 1, per: 1h}");
    let deny = "{action: deny, to: {service: app}, when: {headers: {x-bad: {present: true}}}}";
    let _proxy = Proxy::start(&format!("{text}authorization: [{deny}]\n"));
    assert_eq!(settings.statuses(&["x-bad: 1\r\n", "", "x-bad: 1\r\n", ""]), [403, 200, 403, 429]);
}

#[test]
fn each_identity_has_its_own_limit() {
    let pki = Pki::new();
    for name in ["me", "ada", "bob"] {
        let id = format!("spiffe://cluster.local/ns/demo/sa/{name}");
        pki.leaf(name, &Wanted { names: &[&id], ..Wanted::default() });
    }
    let settings = Settings::new();
    let limit = ", tls: mesh, rate_limit: {requests: 1, per: 1h, by: {identity: true}}";
    let file = |name: &str| pki.path(name);
    let _proxy = Proxy::start(&format!(
        "mesh: {{identity: {{cert: {}, key: {}, roots: {}}}}}\n{}",
        file("me.pem"),
        file("me.key"),
        file("ca.pem"),
        settings.text("", "", limit)
    ));
    let url = format!("https://127.0.0.1:{}/", settings.port);
    let status = |name: &str| {
        let (cert, key) = (file(&format!("{name}.pem")), file(&format!("{name}.key")));
        let common = ["-sk", "-o", "/dev/null", "-w", "%{http_code}", "-H", "host: a.test"];
        curl(&[&common[..], &["--cert", &cert, "--key", &key, &url]].concat())
    };
    assert_eq!(["ada", "ada", "bob", "bob"].map(status), ["200", "429", "200", "429"]);
}

#[test]
fn explain_shows_the_limits() {
    let settings = Settings::new();
    let rule = ", rate_limit: {requests: 100, burst: 50, by: {header: x-user}}";
    let text = settings.text(rule, ", rate_limit: {bytes: 1MiB, per: 10s}", "");
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(file.path(), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    let output = command.args(["explain", "-c"]).arg(file.path()).args(["GET", "http://a.test/"]);
    let said = String::from_utf8(output.output().unwrap().stdout).unwrap();
    for line in [
        "  rate limit 100 requests per 1s, burst 50, by header x-user\n",
        "    rate limit 1048576 bytes per 10s in each direction\n",
    ] {
        assert!(said.contains(line), "{said}");
    }
}

/// Sends requests on several connections to two workers. In each time, as many pass as the rate
/// says.
#[test]
fn the_rate_is_exact_over_two_workers() {
    const TIME: Duration = Duration::from_secs(4);
    for by in ["", ", by: {header: x-user}"] {
        let settings = Settings::new();
        let limit = format!("{{requests: 100, per: 1s, burst: 99{by}}}");
        let text = settings.rule(&limit).replace("{path: stdout}", "{filter: none}");
        let proxy = Proxy::start(&text);
        let (passed, refused) = (AtomicU64::new(0), AtomicU64::new(0));
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut client = Client::connect(settings.port);
                    while began.elapsed() < TIME {
                        let request = "GET / HTTP/1.1\r\nHost: a.test\r\nX-User: ada\r\n\r\n";
                        match client.request(request).status {
                            200 => passed.fetch_add(1, Ordering::Relaxed),
                            429 => refused.fetch_add(1, Ordering::Relaxed),
                            other => panic!("{other}"),
                        };
                    }
                });
            }
        });
        let most = 100.0 + began.elapsed().as_secs_f64() * 100.0;
        let passed = passed.into_inner() as f64;
        assert!(passed <= most + 1.0, "{passed} of at most {most}");
        // The burst is one second. So a client may pause that long and lose nothing.
        assert!(passed >= TIME.as_secs_f64() * 100.0 * 0.98, "{passed} in {TIME:?}");
        assert_eq!(limited(&proxy), refused.into_inner() as f64);
        for worker in 0..2 {
            let served =
                proxy.metric(&format!("ringway_worker_requests_total{{worker=\"{worker}\"}}"));
            assert!(served > 0.0, "worker {worker} has served nothing");
        }
    }
}

#[test]
fn an_address_has_a_number_of_connections_over_all_workers() {
    let settings = Settings::new();
    let proxy = Proxy::start(&settings.text("", "", ", connections_per_source: 5"));
    let mut open: Vec<Client> = (0..5).map(|_| Client::connect(settings.port)).collect();
    for client in &mut open {
        assert_eq!(client.get("a.test", "/").status, 200);
    }
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    for _ in 0..3 {
        assert_eq!(Client::connect(settings.port).send(request).rest(), b"");
    }
    assert_eq!(proxy.metric("ringway_listener_source_overflow_total"), 3.0);
    // A reload keeps the count.
    proxy.reload(&settings.text("", "", ", connections_per_source: 5, connections: 1000"));
    assert_eq!(Client::connect(settings.port).send(request).rest(), b"");
    drop(open.pop());
    eventually("room for another connection", || {
        let mut client = Client::connect(settings.port);
        client.send(request).try_response(false).is_ok().then_some(())
    });
    eventually("a line of the access log", || {
        proxy.log().contains("connections_per_source").then_some(())
    });
}

#[test]
fn a_connection_ends_after_its_number_of_requests() {
    let settings = Settings::new();
    let proxy = Proxy::start(&settings.text("", "", ", requests_per_connection: 3"));
    let mut client = Client::connect(settings.port);
    for last in [false, false, true] {
        let answer = client.get("a.test", "/");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.field("connection") == Some("close"), last, "{}", answer.head);
    }
    assert_eq!(client.rest(), b"");
    let mut frames = Frames::connect(settings.port);
    let fields =
        [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/")];
    for stream in [1, 3, 5] {
        frames.headers(stream, &fields, true);
    }
    assert!(frames.next_of(kind::GOAWAY).is_some());
    frames.until_closed();
    assert_eq!(proxy.metric("ringway_listener_connections_total"), 2.0);
    assert_eq!(settings.origin.requests().len(), 6);
}

/// A body takes as long as its bytes say, less those that may come at once.
#[test]
fn bodies_in_both_directions_have_the_rate_of_bytes() {
    let origin = Origin::scripted(|peer| {
        while let Some(request) = peer.request() {
            let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let length = 400_000 - body.len();
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"));
            peer.send("x".repeat(length));
        }
    });
    let settings = Settings { port: free_port(), origin };
    let proxy = Proxy::start(&settings.rule("{bytes: 200KB, per: 1s, by: {header: x-user}}"));
    let body = "y".repeat(399_999);
    let up = format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 399999\r\n\r\n{body}");
    let down = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n".to_owned();
    for (name, request, bytes) in [("down", down, 400_000), ("up", up, 1)] {
        let began = Instant::now();
        let answer = Client::connect(settings.port).request(&request);
        assert_eq!((answer.status, answer.body.len()), (200, bytes), "{name}");
        // 200 KB come at once, and the rest takes a second, less the last portion.
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(800), "{name} took {took:?}");
    }
    assert!(proxy.metric("ringway_rate_limit_delays_total") >= 2.0);
    // Another user does not wait for them.
    let mut client = Client::connect(settings.port);
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\nX-User: ada\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 200"));
}

/// Responses of one portion each share the rate, too.
#[test]
fn small_bodies_wait_for_each_other() {
    let origin = Origin::saying(&"x".repeat(10_000));
    let settings = Settings { port: free_port(), origin };
    let _proxy = Proxy::start(&settings.rule("{bytes: 50KB, per: 1s}"));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = Client::connect(settings.port);
                for _ in 0..5 {
                    assert_eq!(client.get("a.test", "/").body.len(), 10_000);
                }
            });
        }
    });
    // 50 KB come at once, and 50 KB in a second.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(990), "{took:?}");
}

/// A request whose first bytes would wait for an hour ends with its timeout, or with its client.
#[test]
fn a_request_that_waits_for_its_bytes_ends_with_its_timeout_and_with_its_client() {
    let settings = Settings::new();
    let limits = ", rate_limit: {bytes: 1000, per: 1h}";
    let upload =
        format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9000\r\n\r\n{:9000}", "");
    let timeout = ", timeout: 300ms, outlier_detection: {consecutive_5xx: 1}";
    let proxy = Proxy::start(&settings.text(limits, timeout, ""));
    let answer = Client::connect(settings.port).request(&upload);
    assert_eq!(answer.status, 504, "{}", answer.text());
    let detail = "timeout of the request passed while its body waited at a limit on bytes";
    eventually("its line", || proxy.log().contains(detail).then_some(()));
    assert_eq!(proxy.metric("ringway_service_outlier_ejections_total"), 0.0);
    assert_eq!(settings.origin.requests().len(), 0);
    let breaker = ", circuit_breaker: {max_requests: 1}";
    proxy.reload(&settings.text(limits, breaker, ""));
    let in_use = || {
        let series =
            "ringway_service_circuit_breaker_in_use{service=\"app\",limit=\"max_requests\"}";
        proxy.metric(series)
    };
    let mut leaver = Client::connect(settings.port);
    leaver.send(&upload);
    eventually("the request waits", || (in_use() == 1.0).then_some(()));
    drop(leaver);
    eventually("its slot is given back", || (in_use() == 0.0).then_some(()));
}

/// The endpoint sends its whole response at once, and the proxy is the slow one.
#[test]
fn an_endpoint_is_not_blamed_for_a_limit_on_bytes() {
    let service = ", timeout: 500ms, outlier_detection: {consecutive_5xx: 1}";
    for rule in
        [", rate_limit: {bytes: 50KB, per: 1s}", ", fault: {bandwidth: {bytes_per_second: 50000}}"]
    {
        let origin = Origin::saying(&"x".repeat(400_000));
        let settings = Settings { port: free_port(), origin };
        let proxy = Proxy::start(&settings.text(rule, service, ""));
        let mut client = Client::connect(settings.port);
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert!(client.rest().len() < 400_000, "{rule}");
        let detail = "the timeout of the request passed while the proxy slowed its body to a limit";
        eventually("its line", || proxy.log().contains(detail).then_some(()));
        assert_eq!(proxy.metric("ringway_service_outlier_ejections_total"), 0.0, "{rule}");
        assert_eq!(proxy.metric("ringway_endpoint_failures_total"), 0.0, "{rule}");
    }
}

#[test]
fn a_connection_that_carries_bytes_has_the_rate_of_bytes() {
    let origin = Origin::scripted(|peer| {
        peer.request();
        peer.send("x".repeat(600_000));
        peer.until_closed();
    });
    let settings = Settings { port: free_port(), origin };
    let raw = free_port();
    let text = settings.text("", ", rate_limit: {bytes: 300KB, per: 1s}", "");
    let raw_listener = format!("{{bind: 127.0.0.1:{raw}, protocol: tcp, service: app}}");
    let _proxy =
        Proxy::start(&text.replace("listeners: {", &format!("listeners: {{raw: {raw_listener}, ")));
    let began = Instant::now();
    let mut client = Client::connect(raw);
    let body = client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").exactly(600_000).unwrap();
    assert_eq!(body.len(), 600_000);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(850), "{took:?}");
}

#[test]
fn a_limit_on_bytes_that_owes_too_much_refuses_and_a_client_that_leaves_gives_bytes_back() {
    let body = "x".repeat(30_000);
    let origin = Origin::saying(&body);
    let settings = Settings { port: free_port(), origin };
    // 60 times `per` is 60 000 bytes: two responses fit.
    let proxy = Proxy::start(&settings.rule("{bytes: 1000, per: 1h}"));
    let begin = || {
        let mut client = Client::connect(settings.port);
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        client
    };
    let waiting = |count: f64| {
        let delays = || proxy.metric("ringway_rate_limit_delays_total");
        eventually("a response that waits", || (delays() == count).then_some(()));
    };
    let mut clients = Vec::new();
    for count in [1.0, 2.0, 3.0] {
        clients.push(begin());
        waiting(count);
    }
    let answer = settings.ask("/", "");
    assert_eq!(answer.status, 429);
    assert_eq!(answer.text(), "too many requests for the rate limit of the route");
    let wait: u32 = answer.field("retry-after").unwrap().parse().unwrap();
    assert!((28 * 3600..=30 * 3600).contains(&wait), "{wait}");
    assert_eq!(limited(&proxy), 1.0);
    drop(clients.pop());
    let flagged = "ringway_service_response_flags_total{service=\"app\",flag=\"DC\"}";
    eventually("the client is gone", || (proxy.metric(flagged) == 1.0).then_some(()));
    clients.push(begin());
    waiting(4.0);
    assert_eq!(limited(&proxy), 1.0);
}

#[test]
fn a_flood_of_refused_requests_is_not_a_flood_of_lines() {
    let settings = Settings::new();
    let text = settings.rule("{requests: 1, per: 1h}");
    let text = text.replace("path: stdout", "path: stdout, filter: failed");
    let proxy = Proxy::start_with(&text, 1);
    let mut client = Client::connect(settings.port);
    assert_eq!(client.get("a.test", "/").status, 200);
    let mut refused = 0;
    let suppressed = eventually("a line that counts others", || {
        for _ in 0..50 {
            assert_eq!(client.get("a.test", "/").status, 429);
            refused += 1;
        }
        let log = proxy.log();
        let line = log.lines().find(|line| line.contains("\"suppressed\":"))?;
        let count = line.split("\"suppressed\":").nth(1)?.split([',', '}']).next()?;
        count.parse::<u64>().ok()
    });
    let lines = proxy.log().lines().filter(|line| line.contains("\"status\":429")).count() as u64;
    assert!(suppressed > 0 && lines + suppressed <= refused, "{lines}, {suppressed}, {refused}");
    assert_eq!(limited(&proxy), refused as f64);
    // A log of all requests has all lines.
    let settings = Settings::new();
    let text = settings.rule("{requests: 1, per: 1h}");
    let proxy = Proxy::start_with(&text.replace("path: stdout", "path: stdout, filter: all"), 1);
    let mut client = Client::connect(settings.port);
    for _ in 0..50 {
        client.get("a.test", "/");
    }
    let lines = || proxy.log().lines().filter(|line| line.contains("\"status\":429")).count();
    eventually("all lines", || (lines() == 49).then_some(()));
}
