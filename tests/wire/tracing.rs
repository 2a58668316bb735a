//! Traces: contexts in the fields of requests, and spans at a collector that has the official
//! protobuf definitions (tests/probes/otlp.py).

use serde_json::Value;

use crate::support::collector::Collector;
use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port, skipped};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// An origin that answers with the fields of the request.
fn echo() -> Origin {
    Origin::scripted(|peer| {
        while let Some(request) = peer.request() {
            let body = request.to_lowercase();
            let length = body.len();
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"));
        }
    })
}

fn config(port: u16, to: &str, tracing: &str) -> String {
    format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes: {{\"*\": [{{name: all, to: app, retries: {{attempts: 2, on: [5xx], \
         backoff: {{base: 1ms}}}}}}]}}\n\
         services: {{app: {{endpoints: [\"{to}\"]}}}}\n\
         telemetry: {{tracing: {tracing}}}\n"
    )
}

/// The request that the origin got, for one with these fields.
fn got(port: u16, fields: &str) -> String {
    let request = format!("GET /a HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let answer = Client::connect(port).request(&request);
    String::from_utf8(answer.body).unwrap()
}

fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let start = format!("{name}: ");
    let mut found = text.lines().filter_map(|line| line.strip_prefix(&*start));
    let first = found.next();
    assert_eq!(found.next(), None, "one {name} in {text}");
    first
}

#[test]
fn contexts_of_requests_are_continued_or_begun_anew() {
    let origin = echo();
    let (port, address) = (free_port(), origin.address());
    let _proxy = Proxy::start(&config(port, &address, "{sample: 0%}"));
    // A valid parent is continued with another span, and with its state.
    let text =
        got(port, &format!("traceparent: {PARENT}\r\ntracestate: a=1\r\ntracestate: b=2\r\n"));
    let parent = field(&text, "traceparent").unwrap();
    assert!(parent.starts_with(&PARENT[..36]) && parent.ends_with("-01"), "{text}");
    assert_ne!(parent[36..52], PARENT[36..52]);
    assert!(text.contains("tracestate: a=1") && text.contains("b=2"), "{text}");
    // An invalid state is dropped, and the parent is kept.
    let text = got(port, &format!("traceparent: {PARENT}\r\ntracestate: A=1\r\n"));
    assert!(field(&text, "traceparent").unwrap().starts_with(&PARENT[..36]), "{text}");
    assert_eq!(field(&text, "tracestate"), None);
    // A malformed parent begins a new trace, which the rate decides.
    for malformed in [&PARENT[1..], "00-x", &PARENT.replace("0af7", "0AF7")] {
        let text = got(port, &format!("traceparent: {malformed}\r\ntracestate: a=1\r\n"));
        let parent = field(&text, "traceparent").unwrap();
        assert!(parent.len() == 55 && parent.ends_with("-00"), "{text}");
        assert!(!parent.contains("0af7651916cd43dd"), "{text}");
        assert_eq!(field(&text, "tracestate"), None, "{text}");
    }
    // B3 is continued in its own form, and services get that of W3C, too.
    let b3 = "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90";
    let text = got(port, &format!("b3: {b3}\r\n"));
    let single = field(&text, "b3").unwrap();
    assert!(single.starts_with(&b3[..33]) && single.contains("-1-"), "{text}");
    assert!(field(&text, "traceparent").unwrap().starts_with(&format!("00-{}", &b3[..32])));
    let multi = "X-B3-TraceId: 64fe8b2a57d3eff7\r\nX-B3-SpanId: e457b5a2e4d86bd1\r\n";
    let text = got(port, &format!("{multi}X-B3-Sampled: 0\r\n"));
    assert_eq!(field(&text, "x-b3-traceid"), Some("000000000000000064fe8b2a57d3eff7"));
    assert_eq!(field(&text, "x-b3-sampled"), Some("0"));
    assert_ne!(field(&text, "x-b3-spanid"), Some("e457b5a2e4d86bd1"));
    // Without tracing, the fields pass unread.
    let port = free_port();
    let plain = config(port, &address, "{}").replace("telemetry: {tracing: {}}\n", "");
    let _proxy = Proxy::start(&plain);
    let text = got(port, "traceparent: odd\r\ntracestate: a=1\r\n");
    assert_eq!(
        (field(&text, "traceparent"), field(&text, "tracestate")),
        (Some("odd"), Some("a=1"))
    );
}

/// The attributes of the span of the exchange at the first proxy.
fn has_the_attributes_of_its_request(span: &Value) {
    let attributes = &span["attributes"];
    for (key, value) in [
        ("http.request.method", Value::from("GET")),
        ("url.path", "/cart".into()),
        ("url.query", "x=1".into()),
        ("url.scheme", "http".into()),
        ("server.address", "shop".into()),
        ("server.port", 80.into()),
        ("client.address", "127.0.0.1".into()),
        ("network.protocol.version", "1.1".into()),
        ("http.response.status_code", 200.into()),
        ("ringway.rule", "all".into()),
        ("ringway.service", "app".into()),
        ("ringway.request_id", "id-1".into()),
        ("tenant", "blue".into()),
        ("env", "test".into()),
    ] {
        assert_eq!(attributes[key], value, "{key} of {attributes}");
    }
}

/// A client span, and two proxies in a row: each has a span for its side and one for each
/// attempt, with the right parents. Over HTTP and over gRPC.
#[test]
fn the_spans_of_a_call_through_two_proxies_have_the_right_parents() {
    let Some(collector) = Collector::start("normal") else {
        return skipped("Python with opentelemetry-proto and grpcio is missing");
    };
    let fails = std::sync::atomic::AtomicUsize::new(0);
    let origin = Origin::scripted(move |peer| {
        while peer.request().is_some() {
            let first = fails.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
            let status = if first { "503 Sad" } else { "200 OK" };
            peer.send(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok"));
        }
    });
    let (outer, inner) = (free_port(), free_port());
    let tracing = |url: &str, service: &str| {
        format!(
            "{{otlp: \"{url}\", sample: 0%, service: {service}, \
             custom_tags: {{tenant: '%REQ(X-TENANT)%', env: test}}}}"
        )
    };
    let (http, grpc) = (collector.http, collector.grpc);
    let second = tracing(&format!("grpc://127.0.0.1:{grpc}"), "inner");
    let _second = Proxy::start(&config(inner, &origin.address(), &second));
    let first = tracing(&format!("http://127.0.0.1:{http}"), "outer");
    let first = config(outer, &format!("127.0.0.1:{inner}"), &first);
    let proxy = Proxy::start(&first);
    let fields = format!(
        "traceparent: {PARENT}\r\ntracestate: a=1\r\nX-Tenant: blue\r\nX-Request-Id: id-1\r\n"
    );
    let request = format!("GET /cart?x=1 HTTP/1.1\r\nHost: shop:80\r\n{fields}\r\n");
    assert_eq!(Client::connect(outer).request(&request).status, 200);
    let spans = collector.spans(5);
    let of = |service: &str, kind: u64| {
        let is =
            |span: &&Value| span["resource"]["service.name"] == service && span["kind"] == kind;
        let mut found: Vec<_> = spans.iter().filter(is).collect();
        found.sort_by_key(|span| span["begin"].as_u64());
        found
    };
    let (server, client) = (of("outer", 2), of("outer", 3));
    let (server2, client2) = (of("inner", 2), of("inner", 3));
    assert_eq!([server.len(), client.len(), server2.len(), client2.len()], [1, 1, 1, 2]);
    assert!(spans.iter().all(|span| span["trace"] == PARENT[3..35] && span["state"] == "a=1"));
    assert_eq!(server[0]["parent"], PARENT[36..52]);
    assert_eq!(client[0]["parent"], server[0]["span"]);
    assert_eq!(server2[0]["parent"], client[0]["span"]);
    assert_eq!(
        (&client2[0]["parent"], &client2[1]["parent"]),
        (&server2[0]["span"], &server2[0]["span"])
    );
    assert_ne!(client2[0]["span"], client2[1]["span"]);
    assert_eq!((&server[0]["way"], &server2[0]["way"]), (&"http".into(), &"grpc".into()));
    assert_eq!((&server[0]["flags"], &client[0]["flags"]), (&0x301.into(), &0x101.into()));
    has_the_attributes_of_its_request(server[0]);
    assert_eq!(server[0]["name"], "GET all");
    let failed = &client2[0];
    assert_eq!(
        (&failed["status"], &failed["attributes"]["error.type"]),
        (&2.into(), &"503".into())
    );
    let port: u16 = origin.address().rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!(failed["attributes"]["server.port"], port);
    assert_eq!(client2[1]["attributes"]["http.request.resend_count"], 1);
    assert_eq!(client2[1]["status"], 0);
    for span in &spans {
        assert!(span["begin"].as_u64() <= span["end"].as_u64(), "{span}");
        assert!(span["begin"].as_u64() > Some(1_600_000_000_000_000_000), "{span}");
    }
    eventually("the count", || (proxy.metric("ringway_trace_spans_total") == 2.0).then_some(()));
    assert_eq!(proxy.metric("ringway_trace_dropped_spans_total"), 0.0);
}

/// A bad collector costs counted spans, and no request waits.
#[test]
fn a_collector_that_is_away_wrong_or_silent_costs_only_counted_spans() {
    let origin = echo();
    let address = origin.address();
    for (mode, dropped) in [("partial", 1.0), ("garbage", 2.0), ("silent", 2.0), ("away", 2.0)] {
        let collector = Collector::start(mode);
        let Some(collector) = collector else {
            return skipped("Python with opentelemetry-proto and grpcio is missing");
        };
        let http = if mode == "away" { free_port() } else { collector.http };
        let port = free_port();
        let tracing = format!("{{otlp: \"http://127.0.0.1:{http}\", sample: 100%}}");
        let mut proxy = Proxy::start(&config(port, &address, &tracing));
        assert!(got(port, "").contains("-01\r\n"), "{mode}");
        let recorded = || proxy.metric("ringway_trace_spans_total");
        eventually("the spans", || (recorded() >= 2.0).then_some(()));
        assert!(got(port, "traceparent: x\r\n").contains("-01\r\n"), "{mode}");
        if mode == "partial" || mode == "garbage" {
            eventually("the loss", || {
                (proxy.metric("ringway_trace_dropped_spans_total") >= dropped).then_some(())
            });
        }
        proxy.signal(nix::sys::signal::Signal::SIGTERM);
        assert!(proxy.wait().success(), "{mode}");
    }
}
