//! Lines of the access log as log records at a collector of OTLP.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::collector::Collector;
use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port, skipped};

const MISSING: &str = "Python with opentelemetry-proto and grpcio is missing";

fn config(port: u16, endpoint: &str, log: &str) -> String {
    format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes: {{good: [{{to: app}}], bad: [{{respond: {{status: 503}}}}]}}\n\
         services: {{app: {{endpoints: ['{endpoint}']}}}}\n\
         telemetry: {{access_log: {{{log}}}, tracing: {{sample: 0%, service: shop}}}}\n"
    )
}

#[test]
fn each_line_is_a_log_record_over_http_and_grpc() {
    let Some(collector) = Collector::start("normal") else { return skipped(MISSING) };
    let origin = Origin::saying("x");
    let (http, grpc, port) = (collector.http, collector.grpc, free_port());
    let over_http = format!("otlp: 'http://127.0.0.1:{http}'");
    let proxy = Proxy::start(&config(port, &origin.address(), &over_http));
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("traceparent: 00-{trace}-b7ad6b7169203331-00\r\n");
    Client::connect(port).request("GET /x?b=\u{fc} HTTP/1.1\r\nHost: bad\r\n\r\n");
    Client::connect(port).request(format!("GET /a HTTP/1.1\r\nHost: good\r\n{parent}\r\n"));
    Client::connect(port).get("bad", "/b");
    let records = collector.spans(3);
    let of = |body: &str| -> &Value {
        records
            .iter()
            .find(|record| record["body"] == body)
            .unwrap_or_else(|| panic!("{records:?}"))
    };
    let (good, bad) = (of("GET good/a"), of("GET bad/b"));
    assert_eq!((&good["severity"], &bad["severity"]), (&"INFO".into(), &"ERROR".into()));
    assert_eq!(good["attributes"]["status"], 200);
    assert_eq!((&good["attributes"]["service"], &good["trace"]), (&"app".into(), &trace.into()));
    assert_eq!((&good["resource"]["service.name"], &good["way"]), (&"shop".into(), &"http".into()));
    let (time, observed) = (good["time"].as_u64().unwrap(), good["observed"].as_u64().unwrap());
    assert!(time > 1_600_000_000_000_000_000 && time <= observed, "{good}");
    // Another collector, another format.
    let text = format!(
        "otlp: 'grpc://127.0.0.1:{grpc}', format: '%RESPONSE_CODE% %REQ(:PATH)%', service: me"
    );
    proxy.reload(&config(port, &origin.address(), &text));
    Client::connect(port).get("good", "/text");
    let last = collector.spans(4).pop().unwrap();
    assert_eq!((&last["body"], &last["way"]), (&"200 /text".into(), &"grpc".into()));
    assert_eq!(last["resource"]["service.name"], "me");
    // Lines that wait at the end are sent.
    Client::connect(port).get("good", "/last");
    let mut proxy = proxy;
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.wait().success());
    assert_eq!(collector.spans(5)[4]["body"], "200 /last");
    assert!(!proxy.log().contains("dropped"), "{}", proxy.log());
}

#[test]
fn a_collector_of_grpc_may_have_tls() {
    let pki = Pki::new();
    pki.leaf("collector", &Wanted::default());
    let Some(collector) = Collector::with_tls(&pki, "collector") else { return skipped(MISSING) };
    let origin = Origin::saying("x");
    let port = free_port();
    let url = format!("otlp: 'grpcs://localhost:{}'", collector.grpc);
    let proxy = Proxy::start(&config(
        port,
        &origin.address(),
        &format!("{url}, ca: {}", pki.path("ca.pem")),
    ));
    Client::connect(port).get("good", "/a");
    assert_eq!(collector.spans(1)[0]["body"], "GET good/a");
    // A collector that the CAs of this host do not know gets nothing, and its lines are counted.
    let others = Pki::new();
    let unknown = format!("{url}, ca: {}", others.path("ca.pem"));
    proxy.reload(&config(port, &origin.address(), &unknown));
    Client::connect(port).get("good", "/secret");
    let mut proxy = proxy;
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.wait().success());
    assert_eq!(collector.spans(1).len(), 1);
}

/// Lines in flight are not lost when the collector changes, or when the process ends.
#[test]
fn lines_in_flight_survive_a_reload_and_the_end() {
    let Some(slow) = Collector::start("slow") else { return skipped(MISSING) };
    let Some(other) = Collector::start("normal") else { return skipped(MISSING) };
    let origin = Origin::saying("x");
    let port = free_port();
    let to = |collector: &Collector| {
        let log = format!("otlp: 'http://127.0.0.1:{}'", collector.http);
        config(port, &origin.address(), &log)
    };
    let mut proxy = Proxy::start(&to(&slow));
    Client::connect(port).get("good", "/one");
    // It has them, and answers later.
    assert_eq!(slow.spans(1)[0]["body"], "GET good/one");
    proxy.reload(&to(&other));
    Client::connect(port).get("good", "/two");
    assert_eq!(other.spans(1)[0]["body"], "GET good/two");
    proxy.reload(&to(&slow));
    Client::connect(port).get("good", "/three");
    assert_eq!(slow.spans(2)[1]["body"], "GET good/three");
    assert_eq!(proxy.metric("ringway_access_log_dropped_lines_total"), 0.0);
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.wait().success());
    assert!(!proxy.log().contains("dropped"), "{}", proxy.log());
    assert_eq!((slow.spans(2).len(), other.spans(1).len()), (2, 1));
}

/// A bad collector costs counted lines, and no request waits.
#[test]
fn a_collector_that_is_wrong_or_silent_costs_only_counted_lines() {
    let origin = Origin::saying("x");
    for mode in ["partial", "garbage", "silent"] {
        let Some(collector) = Collector::start(mode) else { return skipped(MISSING) };
        let port = free_port();
        let log = format!("otlp: 'http://127.0.0.1:{}'", collector.http);
        let mut proxy = Proxy::start(&config(port, &origin.address(), &log));
        let mut client = Client::connect(port);
        (0..2).for_each(|_| assert_eq!(client.get("good", "/a").status, 200));
        if mode != "silent" {
            eventually(&format!("the loss of {mode}"), || {
                let dropped = proxy.metric("ringway_access_log_dropped_lines_total");
                (dropped >= 1.0).then_some(())
            });
        }
        assert_eq!(client.get("good", "/b").status, 200);
        proxy.signal(Signal::SIGTERM);
        assert!(proxy.wait().success(), "{mode}");
    }
}
