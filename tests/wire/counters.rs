//! The counters of a mixed load add up to exactly what was sent.

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_listener, free_port};

#[test]
fn the_counters_of_a_mixed_load_are_what_was_sent() {
    let good = Origin::saying("x");
    let bad = Origin::scripted(|peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let echo = Origin::scripted(|peer| {
        while let Some(portion) = peer.portion() {
            peer.send(portion);
        }
    });
    // This listener is closed at once, so its port refuses connections.
    let dead = free_listener().local_addr().unwrap();
    let (web, raw) = (free_port(), free_port());
    let proxy = Proxy::start(&format!(
        "listeners:\n  web: {{bind: 127.0.0.1:{web}}}\n\
         \x20 raw: {{bind: 127.0.0.1:{raw}, protocol: tcp, service: raw}}\n\
         routes:\n  good: [{{to: good}}]\n  bad: [{{to: bad}}]\n  dead: [{{to: dead}}]\n\
         services:\n  good: {{endpoints: [\"{}\"]}}\n  bad: {{endpoints: [\"{}\"]}}\n\
         \x20 dead: {{endpoints: [\"{dead}\"]}}\n\
         \x20 raw: {{protocol: tcp, endpoints: [\"{}\"]}}\n",
        good.address(),
        bad.address(),
        echo.address()
    ));
    let mut client = Client::connect(web);
    for (host, times, status) in
        [("good", 5, 200), ("bad", 3, 500), ("dead", 2, 503), ("no", 4, 404)]
    {
        for _ in 0..times {
            assert_eq!(client.get(host, "/").status, status, "{host}");
        }
    }
    drop(client);
    for _ in 0..3 {
        let mut client = Client::connect(raw);
        client.send("PING");
        assert_eq!(client.exactly(4).unwrap(), b"PING");
    }
    eventually("the end of all connections", || {
        (proxy.metric("ringway_listener_connections_active") == 0.0).then_some(())
    });
    for (series, count) in [
        ("ringway_listener_connections_total{listener=\"web\"", 1.0),
        ("ringway_listener_connections_total{listener=\"raw\"", 3.0),
        ("ringway_worker_accepted_total", 4.0),
        ("ringway_service_requests_total{service=\"good\"", 5.0),
        ("ringway_service_requests_total{service=\"good\",class=\"2xx\"", 5.0),
        ("ringway_service_requests_total{service=\"bad\",class=\"5xx\"", 3.0),
        ("ringway_service_requests_total{service=\"dead\",class=\"5xx\"", 2.0),
        ("ringway_response_flags_total{flag=\"NR\"", 4.0),
        ("ringway_response_flags_total", 4.0),
        ("ringway_service_response_flags_total{service=\"dead\",flag=\"UF\"", 2.0),
        ("ringway_service_response_flags_total", 2.0),
        ("ringway_endpoint_requests_total{service=\"good\"", 5.0),
        ("ringway_endpoint_requests_total{service=\"bad\"", 3.0),
        ("ringway_endpoint_requests_total{service=\"raw\"", 3.0),
        ("ringway_endpoint_responses_total{service=\"good\"", 5.0),
        ("ringway_endpoint_responses_total{service=\"bad\"", 3.0),
        ("ringway_endpoint_responses_total", 8.0),
        ("ringway_endpoint_response_duration_seconds_count", 8.0),
        ("ringway_endpoint_failures_total{service=\"good\"", 0.0),
        ("ringway_endpoint_failures_total{service=\"bad\"", 3.0),
        ("ringway_endpoint_failures_total{service=\"raw\"", 0.0),
        ("ringway_endpoint_connect_failures_total{service=\"dead\"", 2.0),
        ("ringway_endpoint_connect_failures_total", 2.0),
    ] {
        assert_eq!(proxy.metric(series), count, "{series}");
    }
}
