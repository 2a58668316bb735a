//! The result of a simulation, as a list of intervals.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The largest latency that the histogram can record, in microseconds. No client waits longer.
const LONGEST_US: u64 = 120_000_000;

/// The results of the requests that ended in one interval.
#[derive(Clone, Debug)]
pub struct Interval {
    /// The beginning of the interval.
    pub from: Duration,
    /// The number of requests that ended.
    pub requests: u64,
    /// The number of requests without a response, or with a status of 500 or more.
    pub failed: u64,
    /// The number of requests that endpoints received. Each retry counts.
    pub attempts: u64,
    /// Latencies of the requests, in microseconds. A request without a response counts until it
    /// ended.
    latencies_us: Histogram<u64>,
    /// The events of the scenario and of the proxy in this interval, as text.
    pub notes: Vec<String>,
}

impl Default for Interval {
    fn default() -> Self {
        let latencies_us = Histogram::new_with_bounds(1, LONGEST_US, 2).expect("valid bounds");
        let notes = Vec::new();
        Self { from: Duration::ZERO, requests: 0, failed: 0, attempts: 0, latencies_us, notes }
    }
}

impl Interval {
    /// Adds a request. `status` is `None` if there was no response.
    pub fn add(&mut self, status: Option<u16>, took: Duration) {
        self.requests += 1;
        self.failed += u64::from(status.is_none_or(|status| status >= 500));
        self.latencies_us.saturating_record(took.as_micros() as u64);
    }

    /// Adds all results of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.attempts += other.attempts;
        // The addition cannot fail: both histograms have the same bounds.
        self.latencies_us.add(&other.latencies_us).ok();
    }

    /// The share of successful requests, from 0 to 1.
    pub fn success(&self) -> f64 {
        1.0 - self.failed as f64 / self.requests.max(1) as f64
    }

    /// The latency that this share of the requests did not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.latencies_us.value_at_quantile(share))
    }

    /// The number of attempts per request.
    pub fn attempts_per_request(&self) -> f64 {
        self.attempts as f64 / self.requests.max(1) as f64
    }
}

/// The result of a simulation.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// All intervals, in order.
    pub intervals: Vec<Interval>,
    /// The endpoints: the address, the number of requests, and the number of those that failed.
    pub endpoints: Vec<(String, u64, u64)>,
}

impl Outcome {
    /// The sum of all intervals.
    pub fn total(&self) -> Interval {
        let mut total = Interval::default();
        self.intervals.iter().for_each(|interval| total.merge(interval));
        total
    }
}
