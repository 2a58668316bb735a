//! The load of an endpoint, as one worker measures it.

use std::cell::Cell;
use std::time::Duration;

use crate::time::Time;

/// The assumed latency of an endpoint without a measurement (linkerd's default).
pub const DEFAULT_RTT: Duration = Duration::from_millis(30);

/// The decay time of a latency measurement. After this time the weight of the measurement is 1/e
/// (linkerd's default).
pub const EWMA_DECAY: Duration = Duration::from_secs(10);

/// The minimum latency that is recorded for a failure.
pub const FAILURE_LATENCY: Duration = Duration::from_secs(1);

/// The number of active requests of an endpoint, and its recent latency.
#[derive(Debug)]
pub struct Load {
    active: Cell<u32>,
    latency_us: Cell<f64>,
    measured: Cell<Time>,
    /// The number of requests in a row that another endpoint has answered first, and the value of
    /// `measured` after the last one.
    outrun: Cell<(u32, Time)>,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            active: Cell::new(0),
            latency_us: Cell::new(DEFAULT_RTT.as_micros() as f64),
            measured: Cell::default(),
            outrun: Cell::default(),
        }
    }
}

impl Load {
    /// Counts a request that begins.
    pub fn started(&self) {
        self.active.set(self.active.get() + 1);
    }

    /// Counts a request that ended after `latency`. A latency above the average replaces the
    /// average; a lower one changes it gradually. So the first slow response of an endpoint has an
    /// effect at once.
    pub fn finished(&self, now: Time, latency: Duration) {
        self.active.set(self.active.get().saturating_sub(1));
        let latency_us = latency.as_micros() as f64;
        let average = self.latency_us.get();
        let new = match latency_us > average {
            true => latency_us,
            false => {
                let kept = self.kept(now);
                average * kept + latency_us * (1.0 - kept)
            }
        };
        self.latency_us.set(new);
        self.measured.set(now);
    }

    /// Counts a request that failed after `latency`. An immediate refusal must not count as a fast
    /// response.
    pub fn failed(&self, now: Time, latency: Duration) {
        self.finished(now, latency.max(FAILURE_LATENCY));
    }

    /// Counts a request that ended, but whose duration does not show the latency of the endpoint.
    pub fn abandoned(&self) {
        self.active.set(self.active.get().saturating_sub(1));
    }

    /// Counts a request that another endpoint has answered first. This endpoint had not answered
    /// after `waited`, so its latency is at least that. Returns the number of such requests in a
    /// row, without an answer or a failure between them.
    pub fn outrun(&self, now: Time, waited: Duration) -> u32 {
        let before = match self.outrun.get() {
            (before, measured) if measured == self.measured.get() => before,
            _ => 0,
        };
        match waited.as_micros() as f64 > self.latency_us(now) {
            true => self.finished(now, waited),
            false => self.abandoned(),
        }
        let in_a_row = before.saturating_add(1);
        self.outrun.set((in_a_row, self.measured.get()));
        in_a_row
    }

    /// The number of active requests.
    pub fn active(&self) -> u32 {
        self.active.get()
    }

    /// The average latency at `now`, in microseconds, in which peaks count at once. It decays
    /// without new measurements, so that an endpoint with one slow response is tried again.
    pub fn latency_us(&self, now: Time) -> f64 {
        self.latency_us.get() * self.kept(now)
    }

    /// The part of the average that is left at `now`: e^-x after x times the decay time.
    fn kept(&self, now: Time) -> f64 {
        let decays = now.since(self.measured.get()).as_secs_f64() / EWMA_DECAY.as_secs_f64();
        match decays {
            // Almost nothing has decayed since the last request, so use the series. Its error is
            // below 1e-12.
            ..1e-4 => 1.0 - decays + decays * decays / 2.0,
            _ => (-decays).exp(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_no_fast_answer() {
        let (failing, slow) = (Load::default(), Load::default());
        let now = Time::from_micros(1_000_000);
        failing.started();
        failing.failed(now, Duration::from_micros(50));
        slow.started();
        slow.finished(now, Duration::from_millis(200));
        assert!(failing.latency_us(now) > slow.latency_us(now));
        assert_eq!(failing.active(), 0);
    }

    #[test]
    fn an_endpoint_that_is_outrun_is_at_least_as_slow_as_it_was_until_then() {
        let at = |ms: u64| Time::from_micros(ms * 1000);
        let load = Load::default();
        let outrun = |now, waited| {
            load.started();
            load.outrun(at(now), Duration::from_millis(waited))
        };
        assert_eq!(outrun(1000, 80), 1);
        assert_eq!((load.latency_us(at(1000)), load.active()), (80_000.0, 0));
        // A shorter wait says nothing.
        assert_eq!(outrun(1000, 10), 2);
        assert_eq!(load.latency_us(at(1000)), 80_000.0);
        assert_eq!(outrun(2000, 90), 3);
        load.started();
        load.finished(at(2100), Duration::from_millis(5));
        assert_eq!(outrun(2200, 10), 1, "an answer ends the row");
    }

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
