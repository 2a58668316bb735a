//! A mesh of fifty services whose endpoints fail, are slow, or change their state often. Retries
//! stay within their budget in every window. One ejection time after the last event, no request
//! fails.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// The sums of one seed.
struct Sums {
    requests: u64,
    attempts: u64,
    success: f64,
    /// The maximum of attempts for each request in a window.
    peak: f64,
}

/// Runs the mesh of `seed`, and checks it.
fn check(config: &str, seed: u64) -> Sums {
    let (configuration, scenario) = of_texts(config, &scenario(seed)).unwrap();
    let outcome = outcome(&configuration, &scenario);
    assert_eq!(outcome.intervals.len(), DURATION_S);
    let sum = |window: &[Interval], of: fn(&Interval) -> u64| window.iter().map(of).sum::<u64>();
    let mut peak = 0.0_f64;
    for window in outcome.intervals.windows(WINDOW_S) {
        let requests = sum(window, |it| it.requests);
        let attempts = sum(window, |it| it.attempts);
        // The maximum of the retry budget: a fifth of the requests, or the minimum of each service.
        let most = requests + requests / 5 + 3 * SERVICES as u64;
        assert!(attempts <= most, "seed {seed}: {attempts} attempts, {requests} requests");
        peak = peak.max(attempts as f64 / requests as f64);
    }
    let total = outcome.total();
    assert!(total.success() > 0.97, "seed {seed}: {}", total.success());
    // An attempt that began before the end of the events may still run until its timeout.
    let well = &outcome.intervals[QUIET_FROM_S + EJECTION_S + 5..];
    let failed = sum(well, |it| it.failed);
    assert_eq!(failed, 0, "seed {seed}: {failed} failed after the last ejection");
    Sums { requests: total.requests, attempts: total.attempts, success: total.success(), peak }
}

#[test]
fn retries_stay_in_their_budget_and_all_is_well_one_ejection_later() {
    let config = config();
    let seeds = std::env::var("SIM_SEEDS").map_or(SEEDS, |text| text.parse().unwrap());
    let (next, all) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let run = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            let sums = check(&config, seed);
            all.lock().unwrap().push(sums);
        }
    };
    // The seeds do not depend on each other, so each CPU runs its own.
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..cpus).for_each(|_| drop(scope.spawn(run))));
    let all = all.into_inner().unwrap();
    assert_eq!(all.len() as u64, seeds);
    let requests: u64 = all.iter().map(|sums| sums.requests).sum();
    let attempts: u64 = all.iter().map(|sums| sums.attempts).sum();
    assert!(attempts > requests, "no request was retried");
    let peak = all.iter().map(|sums| sums.peak).fold(0.0, f64::max);
    let success = all.iter().map(|sums| sums.success).fold(1.0, f64::min);
    eprintln!(
        "{seeds} seeds: {attempts} attempts for {requests} requests, at most {peak:.3} for each \
         in {WINDOW_S} s; at least {:.2} % succeed",
        100.0 * success
    );
}
