//! A mesh of fifty services whose endpoints fail, are slow, or change their state often. Retries
//! stay within their budget in every window. One ejection time after the last event, no request
//! fails.

use std::fmt::Write as _;

use super::*;
use crate::simulate::result::Interval;

const SERVICES: usize = 50;

const ENDPOINTS: usize = 3;

/// The time at which all events have ended, in seconds.
const QUIET_FROM_S: usize = 25;

/// The maximum duration of an ejection, in seconds.
const EJECTION_S: usize = 5;

const DURATION_S: usize = 40;

/// The window of the retry budget, in seconds.
const WINDOW_S: usize = 10;

/// The number of seeds that `cargo test` runs. The variable `SIM_SEEDS` sets another number.
const SEEDS: u64 = 3;

fn address(service: usize, endpoint: usize) -> String {
    format!("10.0.{service}.{endpoint}:80")
}

fn config() -> String {
    let (mut routes, mut services) = (String::new(), String::new());
    for service in 0..SERVICES {
        writeln!(routes, "  s{service}: [{{to: s{service}}}]").unwrap();
        let endpoints: Vec<_> =
            (0..ENDPOINTS).map(|it| format!("\"{}\"", address(service, it))).collect();
        writeln!(
            services,
            "  s{service}:\n    endpoints: [{}]\n    timeout: 5s\n    connect_timeout: 1s\n    \
             retries: {{on: [connect-failure, reset, gateway-error], per_try_timeout: 1s}}\n    \
             outlier_detection: {{consecutive_5xx: 3, base_ejection_time: {EJECTION_S}s, \
             max_ejection_time: {EJECTION_S}s, max_ejection_percent: 34%}}",
            endpoints.join(", ")
        )
        .unwrap();
    }
    format!("listeners: {{web: {{bind: 127.0.0.1:80}}}}\nroutes:\n{routes}services:\n{services}")
}

fn scenario(seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut events = String::new();
    for service in 0..SERVICES {
        let at = address(service, random.usize(..ENDPOINTS));
        let change = match random.u8(..4) {
            0 => format!("errors: {}%", random.u8(20..=100)),
            1 => "latency: {p50: 500ms, p99: 3s}".to_owned(),
            2 => "state: refuses".to_owned(),
            _ => "state: silent".to_owned(),
        };
        // The endpoint fails several times for a short time.
        let times = random.usize(1..=3);
        for time in 0..times {
            let lasts_s = (QUIET_FROM_S - 1) / times;
            let from_s = 1 + time * lasts_s;
            let lasts_ms = random.usize(500..=lasts_s * 1000);
            let at = format!("at: {from_s}s, for: {lasts_ms}ms, endpoints: \"{at}\"");
            writeln!(events, "  - {{{at}, {change}}}").unwrap();
        }
    }
    let mix: Vec<_> =
        (0..SERVICES).map(|service| format!("\"GET http://s{service}/\": 1")).collect();
    let mix = mix.join(", ");
    format!(
        "duration: {DURATION_S}s\nseed: {seed}\nrequests: {{rate: 250, mix: {{{mix}}}}}\n\
         events:\n{events}"
    )
}

#[test]
fn retries_stay_in_their_budget_and_all_is_well_one_ejection_later() {
    let config = config();
    let seeds = std::env::var("SIM_SEEDS").map_or(SEEDS, |text| text.parse().unwrap());
    let mut retried = 0;
    for seed in 0..seeds {
        let (configuration, scenario) = of_texts(&config, &scenario(seed)).unwrap();
        let outcome = outcome(&configuration, &scenario);
        assert_eq!(outcome.intervals.len(), DURATION_S);
        let sum =
            |window: &[Interval], of: fn(&Interval) -> u64| window.iter().map(of).sum::<u64>();
        for window in outcome.intervals.windows(WINDOW_S) {
            let requests = sum(window, |it| it.requests);
            let attempts = sum(window, |it| it.attempts);
            // The maximum of the retry budget: a fifth of the requests, or the minimum of each
            // service.
            let most = requests + requests / 5 + 3 * SERVICES as u64;
            assert!(attempts <= most, "seed {seed}: {attempts} attempts, {requests} requests");
        }
        let total = outcome.total();
        retried += total.attempts.saturating_sub(total.requests);
        assert!(total.success() > 0.97, "seed {seed}: {}", total.success());
        // An attempt that began before the end of the events may still run until its timeout.
        let well = &outcome.intervals[QUIET_FROM_S + EJECTION_S + 5..];
        let failed = sum(well, |it| it.failed);
        assert_eq!(failed, 0, "seed {seed}: {failed} failed after the last ejection");
    }
    assert!(retried > 0, "no request was retried");
}
