//! Time that an endpoint has not used itself is not its failure: short deadlines of clients, and
//! the waits of the proxy.

use super::*;

const SHIFT: &str = "
listeners: {web: {bind: 127.0.0.1:8080}}
routes:
  '*':
    - to: {shop/v1: 100, shop/v2: 0}
      shift:
        {from: v1, to: v2, every: 2s, step: 50%, abort_if: {error_rate: 2%, min_requests: 20}}
services: {shop: {versions: {v1: [10.0.0.1:80], v2: [10.0.0.2:80]}}}
";

/// Endpoints that need longer than a client without patience gives them.
const SLOW: &str = "endpoints: {shop: {latency: {p50: 200ms}}}";

/// Runs clients that give their requests `ms` milliseconds. `more` is the rest of the scenario.
fn hurried(config: &str, ms: u32, more: &str) -> Outcome {
    let scenario = format!(
        "duration: 12s\n{more}\n\
         requests: {{rate: 50, headers: {{x-envoy-upstream-rq-timeout-ms: \"{ms}\"}}}}\n"
    );
    let (configuration, scenario) = of_texts(config, &scenario).unwrap();
    outcome(&configuration, &scenario)
}

fn has_note(outcome: &Outcome, part: &str) -> bool {
    outcome.intervals.iter().flat_map(|it| &it.notes).any(|note| note.contains(part))
}

#[test]
fn a_client_without_patience_ejects_no_endpoint() {
    let config = shop(", outlier_detection: {consecutive_5xx: 3}");
    let all = hurried(&config, 1, SLOW);
    assert!(all.total().success() < 0.1, "{}", all.total().success());
    assert!(!has_note(&all, "is ejected"));
    // An endpoint that does not answer a patient client is ejected.
    let silent = "events: [{at: 1s, endpoints: \"10.0.0.1:80\", state: silent}]";
    assert!(has_note(&hurried(&config, 1500, silent), "10.0.0.1:80 is ejected"));
}

#[test]
fn a_client_without_patience_stops_no_release() {
    let all = hurried(SHIFT, 1, SLOW);
    assert!(all.total().success() < 0.1, "{}", all.total().success());
    assert!(has_note(&all, "is complete") && !has_note(&all, "all back"));
    let silent = "events: [{at: 1s, endpoints: shop/v2, state: silent}]";
    assert!(has_note(&hurried(SHIFT, 1500, silent), "all back"));
}

#[test]
fn a_delay_of_the_proxy_itself_stops_no_release() {
    let config =
        SHIFT.replace("      shift:", "      fault: {delay: {duration: 3s}}\n      shift:");
    let all = hurried(&config, 1500, "");
    assert!(all.total().success() < 0.1, "{}", all.total().success());
    assert!(has_note(&all, "is complete") && !has_note(&all, "all back"));
}

#[test]
fn a_delayed_request_takes_no_place_in_the_adaptive_limit() {
    let rule = "{to: shop, fault: {delay: {duration: 2s}}}";
    let config = shop(", concurrency: {min: 5, max: 5}").replace("{to: shop}", rule);
    let all = hurried(&config, 10_000, "");
    assert!(all.total().success() > 0.99, "{}", all.total().success());
}
