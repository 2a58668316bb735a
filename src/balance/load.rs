//! How busy an endpoint is, as one worker sees it.

use std::cell::Cell;
use std::time::Duration;

use crate::time::Time;

/// What an endpoint that was never measured is taken for (linkerd's default).
pub const DEFAULT_RTT: Duration = Duration::from_millis(30);

/// How long a measured latency counts: after this time its weight is 1/e (linkerd's default).
pub const EWMA_DECAY: Duration = Duration::from_secs(10);

/// Requests under way at an endpoint, and how long they took of late.
#[derive(Debug)]
pub struct Load {
    active: Cell<u32>,
    latency_us: Cell<f64>,
    measured: Cell<Time>,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            active: Cell::new(0),
            latency_us: Cell::new(DEFAULT_RTT.as_micros() as f64),
            measured: Cell::default(),
        }
    }
}

impl Load {
    /// A request begins.
    pub fn started(&self) {
        self.active.set(self.active.get() + 1);
    }

    /// A request is over after `latency`. A latency above the average counts at once, one below
    /// it gradually: an endpoint that gets slow is noticed with the first slow answer.
    pub fn finished(&self, now: Time, latency: Duration) {
        self.active.set(self.active.get().saturating_sub(1));
        let latency_us = latency.as_micros() as f64;
        let average = self.latency_us.get();
        let elapsed = now.since(self.measured.get()).as_secs_f64();
        let kept = (-elapsed / EWMA_DECAY.as_secs_f64()).exp();
        let new = match latency_us > average {
            true => latency_us,
            false => average * kept + latency_us * (1.0 - kept),
        };
        self.latency_us.set(new);
        self.measured.set(now);
    }

    /// A request is over, and its duration says nothing about the endpoint.
    pub fn abandoned(&self) {
        self.active.set(self.active.get().saturating_sub(1));
    }

    /// Requests under way.
    pub fn active(&self) -> u32 {
        self.active.get()
    }

    /// The peak-sensitive average latency at `now`, in microseconds. It fades while there is no
    /// new measurement, so that an endpoint which was slow once is tried again.
    pub fn latency_us(&self, now: Time) -> f64 {
        let elapsed = now.since(self.measured.get()).as_secs_f64();
        self.latency_us.get() * (-elapsed / EWMA_DECAY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_counts_at_once_and_fades() {
        let load = Load::default();
        let at = |seconds: u64| Time::from_micros(seconds * 1_000_000);
        load.started();
        load.finished(at(1), Duration::from_millis(500));
        assert_eq!(load.latency_us(at(1)), 500_000.0);
        assert!(load.latency_us(at(11)) < 200_000.0);
        load.started();
        load.finished(at(2), Duration::from_millis(1));
        let average = load.latency_us(at(2));
        assert!((400_000.0..500_000.0).contains(&average), "{average}");
        assert_eq!(load.active(), 0);
    }
}
