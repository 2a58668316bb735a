//! All counters of `/metrics` after a mixed load. Each counter has the exact number of its events,
//! and every other counter is 0.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::TcpStream;

use crate::support::frames::{Frames, code};
use crate::support::http::Client;
use crate::support::origin::{Origin, Peer};
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::tls::{self, TlsClient};
use crate::support::{eventually, free_listener, free_port};

/// Answers with the status in the path. The answer to `/cut` is incomplete, and `/slow` gets none.
fn by_path(peer: &mut Peer) {
    while let Some(request) = peer.request() {
        let path = request.split(' ').nth(1).unwrap_or_default();
        match path.get(1..4) {
            Some("cut") => {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx");
                return peer.reset();
            }
            Some("slo") => _ = peer.until_closed(),
            Some(status) => {
                peer.send(format!("HTTP/1.1 {status} S\r\nContent-Length: 1\r\n\r\nx"));
            }
            None => return,
        }
    }
}

/// The ports of the listeners.
struct Ports {
    web: u16,
    tls: u16,
    raw: u16,
    broken: u16,
    few: u16,
    proxied: u16,
}

fn config(ports: &Ports, pki: &Pki, addresses: [String; 4]) -> String {
    let Ports { web, tls, raw, broken, few, proxied } = ports;
    let [app, echo, resets, dead] = addresses;
    format!(
        "listeners:\n  web: {{bind: 127.0.0.1:{web}}}\n\
         \x20 tls: {{bind: 127.0.0.1:{tls}, tls: {{cert: {}, key: {}}}}}\n\
         \x20 raw: {{bind: 127.0.0.1:{raw}, protocol: tcp, service: raw}}\n\
         \x20 broken: {{bind: 127.0.0.1:{broken}, protocol: tcp, service: broken}}\n\
         \x20 few: {{bind: 127.0.0.1:{few}, connections: 1}}\n\
         \x20 proxied: {{bind: 127.0.0.1:{proxied}, proxy_protocol: true}}\n\
         routes:\n  app: [{{to: app}}]\n  dead: [{{to: dead}}]\n\
         \x20 fixed: [{{respond: {{status: 200, body: fixed}}}}]\n\
         \x20 localhost: [{{respond: {{status: 200, body: secure}}}}]\n\
         services:\n  app: {{endpoints: [\"{app}\"]}}\n  dead: {{endpoints: [\"{dead}\"]}}\n\
         \x20 raw: {{protocol: tcp, endpoints: [\"{echo}\"]}}\n\
         \x20 broken: {{protocol: tcp, endpoints: [\"{resets}\"]}}\n\
         authorization: [{{name: no, action: deny, to: {{service: app, paths: [/denied]}}}}]\n\
         telemetry: {{access_log: {{filter: none}}}}\n",
        pki.path("web.pem"),
        pki.path("web.key"),
    )
}

/// Sends requests by HTTP/1 and HTTP/2. Each ends before the next begins.
fn requests(proxy: &Proxy, ports: &Ports) {
    let mut client = Client::connect(ports.web);
    for (host, target, status, times) in [
        ("app", "/200", 200, 5),
        ("app", "/503", 503, 2),
        ("fixed", "/", 200, 3),
        ("nobody", "/", 404, 1),
        ("app", "/denied", 403, 1),
        ("dead", "/", 503, 2),
    ] {
        for _ in 0..times {
            assert_eq!(client.get(host, target).status, status, "{host}{target}");
        }
    }
    let upload = "POST /200 HTTP/1.1\r\nHost: app\r\nContent-Length: 10\r\n\r\n0123456789";
    assert_eq!(client.request(upload).status, 200);
    // Nobody gets these bytes: the body of an answer to HEAD, and the body of a request to a
    // service that is down.
    client.send("HEAD / HTTP/1.1\r\nHost: fixed\r\n\r\n");
    assert_eq!(client.head_response().status, 200);
    let nowhere = "POST / HTTP/1.1\r\nHost: dead\r\nContent-Length: 4\r\n\r\n0123";
    assert_eq!(client.request(nowhere).status, 503);
    drop(client);
    Client::connect(ports.web).send("NOT HTTP\r\n\r\n").rest();
    Client::connect(ports.web).send("GET /cut HTTP/1.1\r\nHost: app\r\n\r\n").rest();
    let left = |times: f64| {
        eventually("the client to be gone", || {
            let left =
                proxy.metric("ringway_service_response_flags_total{service=\"app\",flag=\"DC\"");
            (left == times).then_some(())
        });
    };
    let active = || {
        let active = "ringway_service_requests_active{service=\"app\"";
        eventually("the request", || (proxy.metric(active) == 1.0).then_some(()));
    };
    let mut client = Client::connect(ports.web);
    client.send("GET /slow HTTP/1.1\r\nHost: app\r\n\r\n");
    active();
    drop(client);
    left(1.0);
    let mut streams = Frames::connect(ports.web);
    let fields =
        |path| [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "app")];
    for stream in [1, 3, 5] {
        streams.headers(stream, &fields("/200"), true);
        while !streams.next().unwrap().ends() {}
    }
    streams.headers(7, &fields("/slow"), true);
    active();
    streams.reset(7, code::CANCEL);
    left(2.0);
}

/// Opens connections with TLS, connections with opaque bytes, and connections that are refused.
fn connections(pki: &Pki, ports: &Ports) {
    let secure = tls::client(pki, None);
    for resumed in [false, true] {
        let mut client = TlsClient::connect(&secure, ports.tls);
        assert_eq!(client.get().unwrap(), "secure");
        assert_eq!(client.resumed(), resumed);
    }
    Client::connect(ports.tls).send("no TLS at all").rest();
    for _ in 0..3 {
        let mut client = Client::connect(ports.raw);
        client.send("PING");
        assert_eq!(client.exactly(4).unwrap(), b"PING");
    }
    Client::connect(ports.broken).send("abc").rest();
    let mut first = Client::connect(ports.few);
    assert_eq!(first.get("fixed", "/").status, 200);
    Client::connect(ports.few).rest();
    drop(first);
    Client::connect(ports.proxied).send("no PROXY header\r\n").rest();
    let mut proxied = Client::connect(ports.proxied);
    proxied.send("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
    assert_eq!(proxied.get("fixed", "/").status, 200);
    // A connection without a byte is no request.
    drop(TcpStream::connect(("127.0.0.1", ports.web)).unwrap().flush());
}

/// The counters that are not zero, summed over all workers and endpoints.
fn counters(proxy: &Proxy) -> BTreeMap<String, u64> {
    let page = proxy.admin("/metrics");
    let mut kinds = BTreeMap::new();
    let mut found = BTreeMap::new();
    for line in page.text().lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            kinds.insert(name.to_owned(), kind.to_owned());
            continue;
        }
        let Some((series, value)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let name = series.split('{').next().unwrap();
        let counted = |name: &str| kinds.get(name).map(String::as_str);
        let is_count = counted(name) == Some("counter")
            || name.strip_suffix("_count").is_some_and(|name| counted(name).is_some());
        if is_count && value != "0" {
            let labels = series.strip_prefix(name).unwrap().trim_matches(['{', '}']);
            let kept = labels.split(',').filter(|label| {
                !["worker=", "endpoint="].iter().any(|name| label.starts_with(name))
            });
            let kept: Vec<&str> = kept.filter(|label| !label.is_empty()).collect();
            let name = name.strip_prefix("ringway_").unwrap_or(name);
            let series = [&[name], &kept[..]].concat().join(" ");
            *found.entry(series).or_default() += value.parse::<u64>().unwrap();
        }
    }
    found
}

#[test]
fn each_counter_of_a_mixed_load_has_what_was_sent_and_no_other_has_moved() {
    let app = Origin::scripted(by_path);
    let echo = Origin::scripted(|peer| {
        while let Some(portion) = peer.portion() {
            peer.send(portion);
        }
    });
    let resets = Origin::scripted(|peer| {
        peer.portion();
        peer.reset();
    });
    let dead = free_listener().local_addr().unwrap().to_string();
    let pki = Pki::new();
    pki.leaf("web", &Wanted::default());
    let [web, tls, raw, broken, few, proxied] = [(); 6].map(|()| free_port());
    let ports = Ports { web, tls, raw, broken, few, proxied };
    let addresses = [app.address(), echo.address(), resets.address(), dead];
    let proxy = Proxy::start_with(&config(&ports, &pki, addresses), 1);
    requests(&proxy, &ports);
    connections(&pki, &ports);
    eventually("the end of all connections", || {
        let accepted = proxy.metric("ringway_worker_accepted_total") == 16.0;
        let active = proxy.metric("ringway_listener_connections_active");
        (accepted && active == 0.0).then_some(())
    });
    let closed = "connection closed: too many are open; the limits are limits.connections and \
                  `connections` of the listener listener=\"few\"";
    eventually("the line about it", || proxy.log().contains(closed).then_some(()));
    let found = counters(&proxy).into_iter().map(|(name, count)| format!("{name} {count}"));
    let found: BTreeSet<String> = found.collect();
    let wanted: BTreeSet<String> = WANTED.trim().lines().map(str::to_owned).collect();
    let wrong = found.symmetric_difference(&wanted);
    assert!(found == wanted, "found or wanted alone: {:#?}", wrong.collect::<Vec<_>>());
}

/// Each line: the metric without `ringway_`, the labels, and the count.
const WANTED: &str = r#"
authorization_requests_total rule="no" result="denied" 1
config_reloads_total result="success" 1
endpoint_connect_failures_total service="dead" 3
endpoint_connections_total service="app" 3
endpoint_connections_total service="broken" 1
endpoint_connections_total service="raw" 3
endpoint_failures_total service="app" 3
endpoint_failures_total service="broken" 1
endpoint_failures_total service="dead" 3
endpoint_requests_total service="app" 14
endpoint_requests_total service="broken" 1
endpoint_requests_total service="dead" 3
endpoint_requests_total service="raw" 3
endpoint_response_duration_seconds_count service="app" 11
endpoint_responses_total service="app" class="2xx" 9
endpoint_responses_total service="app" class="5xx" 2
listener_connections_total listener="broken" 1
listener_connections_total listener="few" 1
listener_connections_total listener="proxied" 2
listener_connections_total listener="raw" 3
listener_connections_total listener="tls" 3
listener_connections_total listener="web" 6
listener_overflow_total listener="few" 1
listener_received_bytes_total listener="broken" 3
listener_received_bytes_total listener="raw" 12
listener_received_bytes_total listener="web" 14
listener_refused_total listener="proxied" 1
listener_refused_total listener="web" 1
listener_sent_bytes_total listener="few" 5
listener_sent_bytes_total listener="proxied" 5
listener_sent_bytes_total listener="raw" 12
listener_sent_bytes_total listener="tls" 12
listener_sent_bytes_total listener="web" 206
listener_tls_failures_total listener="tls" reason="not_tls" 1
listener_tls_handshakes_total listener="tls" 1
listener_tls_resumed_total listener="tls" 1
response_flags_total flag="DPE" 3
response_flags_total flag="NR" 1
response_flags_total flag="UAEX" 1
route_requests_total host="app" route="app#1" class="2xx" 10
route_requests_total host="app" route="app#1" class="4xx" 1
route_requests_total host="app" route="app#1" class="5xx" 2
route_requests_total host="app" route="app#1" class="none" 2
route_requests_total host="dead" route="dead#1" class="5xx" 3
route_requests_total host="fixed" route="fixed#1" class="2xx" 6
route_requests_total host="localhost" route="localhost#1" class="2xx" 2
service_pool_reused_total service="app" 11
service_received_bytes_total service="app" 12
service_received_bytes_total service="raw" 12
service_request_duration_seconds_count service="app" 14
service_request_duration_seconds_count service="broken" 1
service_request_duration_seconds_count service="dead" 3
service_request_duration_seconds_count service="raw" 3
service_requests_total service="app" class="2xx" 10
service_requests_total service="app" class="5xx" 2
service_requests_total service="app" class="none" 2
service_requests_total service="broken" class="none" 1
service_requests_total service="dead" class="5xx" 3
service_requests_total service="raw" class="none" 3
service_response_flags_total service="app" flag="DC" 2
service_response_flags_total service="app" flag="UC" 1
service_response_flags_total service="broken" flag="UC" 1
service_response_flags_total service="dead" flag="UF" 3
service_sent_bytes_total service="app" 10
service_sent_bytes_total service="broken" 3
service_sent_bytes_total service="raw" 12
worker_accepted_total 16
worker_requests_total 34
"#;
