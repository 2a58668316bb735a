//! Locality: the nearest endpoints get the requests while enough of them are healthy.

use super::slow_start::Counting;
use crate::support::http::Client;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

/// One endpoint for each of `placed`: further keys of its map.
fn config(port: u16, placed: &[(&Counting, &str)], more: &str) -> String {
    let endpoint = |(it, keys): &(&Counting, &str)| {
        let separator = if keys.is_empty() { "" } else { ", " };
        format!("{{address: \"{}\"{separator}{keys}}}", it.origin.address())
    };
    let endpoints: Vec<String> = placed.iter().map(endpoint).collect();
    format!(
        "zone: eu/a\nlisteners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [{}]{more}}}}}\n",
        endpoints.join(", ")
    )
}

/// How many of `count` requests each of `origins` gets. All must succeed.
fn shares<const N: usize>(port: u16, count: usize, origins: [&Counting; N]) -> [usize; N] {
    let before = origins.map(Counting::requests);
    let mut client = Client::connect(port);
    (0..count).for_each(|_| assert_eq!(client.get("a", "/").status, 200));
    let mut shares = origins.map(Counting::requests);
    shares.iter_mut().zip(before).for_each(|(after, before)| *after -= before);
    shares
}

const CHECK: &str = ", health_check: {http: /healthz, interval: 20ms}";

#[test]
fn the_next_zone_takes_over_while_the_own_one_is_unhealthy() {
    let [near, next, far] = [Counting::new(), Counting::new(), Counting::new()];
    for balance in ["least-request", "round-robin", "random", "peak-ewma", "{hash: source-ip}"] {
        let port = free_port();
        let placed = [(&far, "zone: us/a"), (&next, "zone: eu/b"), (&near, "zone: eu/a")];
        let more = format!(", balance: {balance}{CHECK}");
        let proxy = Proxy::start_with(&config(port, &placed, &more), 1);
        let await_healthy = |count: f64| {
            let series = "ringway_endpoint_healthy";
            eventually("the health", || (proxy.metric(series) == count).then_some(()));
        };
        await_healthy(3.0);
        assert_eq!(shares(port, 30, [&near, &next, &far]), [30, 0, 0], "{balance}");
        near.says(503);
        await_healthy(2.0);
        assert_eq!(shares(port, 20, [&near, &next, &far]), [0, 20, 0], "{balance}");
        next.says(503);
        await_healthy(1.0);
        assert_eq!(shares(port, 10, [&near, &next, &far]), [0, 0, 10], "{balance}");
        near.says(200);
        await_healthy(2.0);
        assert_eq!(shares(port, 10, [&near, &next, &far]), [10, 0, 0], "{balance}");
        next.says(200);
        for (zone, distance, count) in [("eu/a", 0, 40.0), ("eu/b", 1, 20.0), ("us/a", 2, 10.0)] {
            let labels =
                format!("service=\"app\",zone=\"{zone}\",priority=\"0\",distance=\"{distance}\"");
            let series = format!("ringway_service_zone_requests_total{{{labels}}}");
            assert_eq!(proxy.metric(&series), count, "{series}");
        }
    }
}

#[test]
fn a_part_of_the_endpoints_of_a_zone_keeps_a_part_of_the_requests() {
    let origins: [Counting; 4] = std::array::from_fn(|_| Counting::new());
    let port = free_port();
    let [one, two, three, four] = &origins;
    let placed =
        [(one, "zone: eu/a"), (two, "zone: eu/a"), (three, "zone: eu/b"), (four, "priority: 1")];
    let more = ", balance: round-robin, \
        outlier_detection: {consecutive_5xx: 1, base_ejection_time: 1h, max_ejection_percent: 50%}";
    let proxy = Proxy::start_with(&config(port, &placed, more), 1);
    assert_eq!(shares(port, 10, [one, two, three, four]), [5, 5, 0, 0]);
    two.says(500);
    let mut client = Client::connect(port);
    assert!((0..2).any(|_| client.get("a", "/").status == 500));
    // Half of the zone is healthy, which is enough for 0.7 of the requests.
    assert_eq!(shares(port, 100, [one, two, three, four]), [70, 0, 30, 0]);
    let services = proxy.admin("/services");
    for part in ["\"zone\":\"eu/b\"", "\"priority\":1", "\"distance\":1", "71% of them"] {
        assert!(services.text().contains(part), "{part}: {}", services.text());
    }
}

#[test]
fn a_share_stays_local_and_a_reload_changes_it() {
    let [near, other, unknown] = [Counting::new(), Counting::new(), Counting::new()];
    let port = free_port();
    let placed = [(&near, "zone: eu/a"), (&other, "zone: us/a"), (&unknown, "")];
    let with = |locality: &str| {
        config(port, &placed, &format!(", balance: round-robin, locality: {locality}"))
    };
    let proxy = Proxy::start_with(&with("{local_share: 80%}"), 1);
    assert_eq!(shares(port, 50, [&near, &other, &unknown]), [40, 5, 5]);
    proxy.reload(&with("{local_share: 50%}"));
    assert_eq!(shares(port, 40, [&near, &other, &unknown]), [20, 10, 10]);
    proxy.reload(&with("none"));
    assert_eq!(shares(port, 30, [&near, &other, &unknown]), [10, 10, 10]);
    proxy.reload(&with("{failover: {eu: us}}"));
    assert_eq!(shares(port, 30, [&near, &other, &unknown]), [30, 0, 0]);
}

#[test]
fn a_retry_leaves_a_zone_without_another_endpoint() {
    let [near, other] = [Counting::new(), Counting::new()];
    let port = free_port();
    let placed = [(&near, "zone: eu/a"), (&other, "zone: us/a")];
    let retries = ", retries: {attempts: 1, on: [5xx]}";
    let _proxy = Proxy::start_with(&config(port, &placed, retries), 1);
    near.says(503);
    assert_eq!(shares(port, 3, [&near, &other]), [3, 3]);
}

/// A zone that comes back with one endpoint gets the part of its requests that it can take in its
/// slow start.
#[test]
fn a_cold_zone_does_not_get_its_whole_share_at_once() {
    let [near, far] = [Counting::new(), Counting::new()];
    let port = free_port();
    // In a window of a day, the part does not grow during the test.
    let more = ", balance: round-robin, slow_start: {window: 24h, min_weight_percent: 10%}";
    let proxy = Proxy::start_with(&config(port, &[(&far, "zone: eu/b")], more), 1);
    assert_eq!(shares(port, 10, [&near, &far]), [0, 10]);
    proxy.reload(&config(port, &[(&far, "zone: eu/b"), (&near, "zone: eu/a")], more));
    let [cold, warm] = shares(port, 100, [&near, &far]);
    assert!((9..=11).contains(&cold), "{cold} of {}", cold + warm);
}
