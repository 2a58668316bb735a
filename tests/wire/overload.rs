//! Overload of the process: near a limit, it refuses the least important requests first.

use std::net::TcpStream;

use crate::support::cgroup::Cgroup;
use crate::support::frames::Frames;
use crate::support::http::{Client, Response};
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{free_port, skipped, until};

/// The configuration of a proxy in front of `origin`. `overload` is more keys of the section.
fn configuration(port: u16, origin: &Origin, overload: &str) -> String {
    format!(
        "overload:\n  priority: {{header: X-Priority, high: [critical, 1], low: batch}}\n{overload}\
         listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes:\n  \"*\":\n  - {{match: {{path: /local}}, respond: {{body: ok}}}}\n  \
         - {{match: {{path: /batch}}, to: app, priority: low}}\n  \
         - {{match: {{path: /pay}}, to: app, priority: high}}\n  - {{to: app}}\n\
         services: {{app: {{endpoints: [\"{}\"]}}}}\n",
        origin.address()
    )
}

fn level(proxy: &Proxy, resource: &str) -> f64 {
    proxy.metric(&format!("ringway_overload_level{{resource=\"{resource}\"}}"))
}

fn shed(proxy: &Proxy, priority: &str) -> f64 {
    proxy.metric(&format!("ringway_overload_shed_requests_total{{priority=\"{priority}\"}}"))
}

/// The limit on descriptors at which the proxy uses this part of them.
fn limit_at(proxy: &Proxy, used: f64) -> f64 {
    let metric =
        |name: &str| proxy.metric(&format!("ringway_overload_{name}{{resource=\"descriptors\"}}"));
    (metric("used_ratio") * metric("limit") / used).round()
}

/// Requests by path and value of the field.
const REQUESTS: [(&str, &str); 6] = [
    ("/", "batch"),
    ("/batch", "critical"), // the rule has precedence
    ("/", ""),
    ("/", "other"),
    ("/", "critical"),
    ("/pay", "batch"),
];

fn ask(client: &mut Client, path: &str, priority: &str) -> Response {
    client.request(format!("GET {path} HTTP/1.1\r\nHost: a\r\nx-priority: {priority}\r\n\r\n"))
}

/// The statuses of all requests, each on a connection that was opened before.
fn statuses(clients: &mut [Client]) -> Vec<u16> {
    let requests = REQUESTS.into_iter().zip(clients);
    requests.map(|((path, priority), client)| ask(client, path, priority).status).collect()
}

#[test]
fn the_least_important_requests_are_refused_first_and_all_are_served_after_it() {
    let origin = Origin::saying("hello");
    let port = free_port();
    let config = |limit: f64, thresholds: &str| {
        configuration(port, &origin, &format!("  descriptors: {limit}\n{thresholds}"))
    };
    let proxy = Proxy::start(&config(100_000.0, ""));
    let connect = || REQUESTS.map(|_| Client::connect(port));
    until(|| limit_at(&proxy, 1.0) > 1.0);
    assert_eq!(statuses(&mut connect()), [200; 6]);
    let wide = "  shed: 50%\n  stop_accepting: 90%\n";
    let half = limit_at(&proxy, 0.7);
    proxy.reload(&config(half, wide));
    until(|| level(&proxy, "descriptors") == 1.0);
    let mut clients = connect();
    assert_eq!(statuses(&mut clients), [503, 503, 200, 200, 200, 200], "{}", proxy.log());
    let refused = ask(&mut clients[0], "/batch", "");
    assert_eq!(refused.field("x-ringway-overloaded"), Some("true"));
    assert_eq!(refused.field("retry-after"), Some("1"));
    assert!(refused.text().contains("near a limit"), "{}", refused.text());
    assert_eq!((shed(&proxy, "low"), shed(&proxy, "normal")), (3.0, 0.0));
    assert!(proxy.log().contains("requests of low priority are refused"));
    proxy.reload(&config((half / 2.0).round(), wide));
    until(|| level(&proxy, "descriptors") == 2.0);
    // The connections of before are idle, so they close: there are few descriptors left.
    for client in &mut clients {
        assert!(client.closes_within(std::time::Duration::from_secs(10)));
    }
    let mut clients = connect();
    assert_eq!(statuses(&mut clients), [503, 503, 503, 503, 200, 200], "{}", proxy.log());
    assert!(shed(&proxy, "normal") >= 2.0);
    // An answer of the proxy itself costs nothing, so a probe by it never fails.
    assert_eq!(Client::connect(port).get("a", "/local").status, 200);
    assert_eq!(proxy.admin("/ready").status, 200);
    let page = proxy.admin("/overload");
    assert!(page.text().contains("stop_accepting"), "{}", page.text());
    proxy.reload(&config(100_000.0, wide));
    until(|| level(&proxy, "descriptors") == 0.0);
    assert_eq!(statuses(&mut connect()), [200; 6]);
    assert!(proxy.log().contains("all requests are served again"));
}

#[test]
fn streams_of_http2_are_refused_by_themselves() {
    let origin = Origin::saying("hello");
    let port = free_port();
    let config = |limit: f64| {
        configuration(port, &origin, &format!("  descriptors: {limit}\n  shed: 50%\n"))
    };
    let proxy = Proxy::start(&config(100_000.0));
    until(|| limit_at(&proxy, 1.0) > 1.0);
    proxy.reload(&config(limit_at(&proxy, 0.7)));
    until(|| level(&proxy, "descriptors") == 1.0);
    let mut client = Frames::connect(port);
    for (stream, priority) in [(1, "batch"), (3, "1"), (5, "batch")] {
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", "/"),
            ("x-priority", priority),
        ];
        client.headers(stream, &fields, true);
        // All on one connection: HEADERS of each response.
        assert_eq!(client.next_of(1).map(|frame| frame.stream), Some(stream));
    }
    assert_eq!(shed(&proxy, "low"), 2.0);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn the_limit_of_the_process_on_descriptors_counts() {
    const LIMIT: usize = 256;
    let origin = Origin::saying("hello");
    let port = free_port();
    let limited = format!("--nofile={LIMIT}:{LIMIT}");
    let config = configuration(port, &origin, "");
    let proxy = Proxy::start_under(&["prlimit", &limited], "", &config);
    let (mut low, mut high) = (Client::connect(port), Client::connect(port));
    assert_eq!(ask(&mut low, "/", "batch").status, 200);
    assert_eq!(ask(&mut high, "/", "critical").status, 200);
    let open = proxy.metric("process_open_fds") as usize;
    // Between 90 and 97 percent.
    let more: Vec<_> = (open..LIMIT * 93 / 100)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    until(|| level(&proxy, "descriptors") == 1.0);
    assert_eq!(ask(&mut low, "/", "batch").status, 503, "{}", proxy.log());
    assert_eq!(ask(&mut high, "/", "critical").status, 200, "{}", proxy.log());
    drop(more);
    until(|| level(&proxy, "descriptors") == 0.0);
    assert_eq!(ask(&mut low, "/", "batch").status, 200);
}

#[test]
fn the_limit_of_the_control_group_on_memory_counts() {
    const LIMIT: usize = 256 << 20;
    let Some(group) = Cgroup::with_memory("ringway-overload", LIMIT) else {
        return skipped("no control group with a limit on memory can be made here");
    };
    let origin = Origin::saying("hello");
    let port = free_port();
    let enter = group.enter();
    let wrapper = ["sh", "-c", &enter, "sh"];
    let proxy = Proxy::start_under(&wrapper, "", &configuration(port, &origin, ""));
    let limit = "ringway_overload_limit{resource=\"memory\"}";
    until(|| proxy.metric(limit) == LIMIT as f64);
    assert_eq!(level(&proxy, "memory"), 0.0);
    drop(proxy);
    let config = configuration(port, &origin, "  memory: 1MiB\n");
    let proxy = Proxy::start_under(&wrapper, "", &config);
    until(|| level(&proxy, "memory") == 2.0);
    assert_eq!(ask(&mut Client::connect(port), "/", "").status, 503);
    assert_eq!(ask(&mut Client::connect(port), "/pay", "").status, 200);
}
