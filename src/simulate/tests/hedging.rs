//! Hedged requests under load: the attempts stay within the retry budget, and slow responses become
//! rare.

use super::*;
use crate::simulate::result::Interval;

const DURATION_S: usize = 40;

/// The window of the budget, in seconds.
const WINDOW_S: usize = 10;

/// The number of seeds that `cargo test` runs. `SIM_SEEDS=n` sets another.
const SEEDS: u64 = 4;

/// One in ten responses is slow. For a time, some endpoints are slower, fail or do not respond.
fn scenario(seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut events = String::new();
    for endpoint in 0..3 {
        let change = match random.u8(..4) {
            0 => format!("errors: {}%", random.u8(5..=60)),
            1 => "latency: {p50: 100ms, p99: 2s}".to_owned(),
            2 => "state: silent".to_owned(),
            _ => continue,
        };
        let (at, lasts) = (random.u8(5..20), random.u8(1..10));
        let address = format!("10.0.0.{}:80", endpoint + 1);
        events +=
            &format!("  - {{at: {at}s, for: {lasts}s, endpoints: \"{address}\", {change}}}\n");
    }
    format!(
        "duration: {DURATION_S}s\nseed: {seed}\nrequests: {{rate: 100}}\n\
         endpoints: {{shop: {{latency: {{p50: 10ms, p99: 800ms}}}}}}\n\
         events:\n{events}  - {{at: 39s, endpoints: shop, errors: 0%}}\n"
    )
}

#[test]
fn hedged_requests_stay_in_their_budget_and_make_slow_responses_rarer() {
    let seeds = std::env::var("SIM_SEEDS").map_or(SEEDS, |text| text.parse().unwrap());
    let (mut hedged, mut slow) = (0, [Duration::ZERO; 2]);
    for seed in 0..seeds {
        let policies = [("", 0), (", retries: {attempts: 1, on: reset, hedge: {after: p90}}", 1)];
        for (index, (retries, hedges)) in policies.into_iter().enumerate() {
            let config = shop(&format!(", timeout: 5s{retries}"));
            let (configuration, scenario) = of_texts(&config, &scenario(seed)).unwrap();
            let outcome = outcome(&configuration, &scenario);
            let sum =
                |window: &[Interval], of: fn(&Interval) -> u64| window.iter().map(of).sum::<u64>();
            for window in outcome.intervals.windows(WINDOW_S) {
                let requests = sum(window, |it| it.requests);
                let attempts = sum(window, |it| it.attempts);
                // A request counts in the window in which it ends. It may have begun in the window
                // before.
                let most = requests + hedges * requests / 5 + 100;
                assert!(attempts <= most, "seed {seed}: {attempts} attempts, {requests} requests");
            }
            let total = outcome.total();
            hedged += hedges * total.attempts.saturating_sub(total.requests);
            slow[index] += total.quantile(0.97);
        }
    }
    assert!(hedged > 0, "no request was hedged");
    assert!(slow[1] < slow[0], "{slow:?}");
}

#[test]
fn an_endpoint_that_hangs_is_ejected_although_each_request_leaves_it() {
    let more = ", outlier_detection: {}, retries: {hedge: {after: p90}, budget: {percent: 100%}}";
    let scenario = "duration: 30s\nrequests: {rate: 100}\n\
                    endpoints: {shop: {latency: {p50: 10ms, p99: 60ms}}}\n\
                    events: [{at: 5s, endpoints: \"10.0.0.1:80\", \
                    latency: {p50: 100s, p99: 100s}}]\n";
    let (configuration, scenario) = of_texts(&shop(more), scenario).unwrap();
    let outcome = outcome(&configuration, &scenario);
    let (_, requests, _) = &outcome.endpoints[0];
    // It gets about 170 requests until it hangs, and would get 800 after that.
    assert!(*requests < 400, "{:?}", outcome.endpoints);
    let total = outcome.total();
    assert!(total.quantile(0.99) < Duration::from_millis(300), "{:?}", total.quantile(0.99));
}
