//! Computes when the next request is due. Reads no clock: the caller passes the time.

use std::time::{Duration, Instant};

/// The schedule of requests between a start and an end.
#[derive(Debug)]
pub(super) struct Pace {
    start: Instant,
    end: Instant,
    rate: Option<f64>,
    /// The number of requests that were taken so far.
    taken: u64,
}

impl Pace {
    /// Creates a schedule of `rate` requests per second, at equal intervals. Without a rate (closed
    /// loop), a request is always due.
    pub(super) fn new(start: Instant, duration: Duration, rate: Option<f64>) -> Self {
        Self { start, end: start + duration, rate, taken: 0 }
    }

    /// Takes the next request if it is due at `now`. Returns the time from which its latency
    /// counts. This time may be far in the past, because no due request is skipped.
    pub(super) fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.next_due().unwrap_or(now);
        if due > now || due >= self.end {
            return None;
        }
        self.taken += 1;
        Some(due)
    }

    /// The time at which the next request is due. Returns `None` in the closed loop.
    pub(super) fn next_due(&self) -> Option<Instant> {
        // Multiply instead of adding up, so that rounding errors do not accumulate over a long run.
        self.rate.map(|rate| self.start + Duration::from_secs_f64(self.taken as f64 / rate))
    }

    /// Whether no more requests will be due.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.next_due().unwrap_or(now) >= self.end
    }

    /// The time after which no request is started.
    pub(super) fn end(&self) -> Instant {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_schedule_is_even_and_skips_nothing() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 10 * MS, Some(500.0));
        assert_eq!(pace.take(start), Some(start));
        assert_eq!(pace.take(start + MS), None);
        assert_eq!(pace.next_due(), Some(start + 2 * MS));
        // The client was busy until 7 ms. Three requests are due, each with its own start time.
        let late = start + 7 * MS;
        let due: Vec<_> = std::iter::from_fn(|| pace.take(late)).collect();
        assert_eq!(due, [start + 2 * MS, start + 4 * MS, start + 6 * MS]);
        assert!(!pace.is_over(late));
        assert_eq!(pace.take(start + 20 * MS), Some(start + 8 * MS));
        assert_eq!(pace.take(start + 20 * MS), None, "10 ms is the end, not a moment of it");
        assert!(pace.is_over(start + 8 * MS));
    }

    #[test]
    fn the_closed_loop_is_always_due_until_its_end() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 10 * MS, None);
        assert_eq!(pace.take(start + MS), Some(start + MS));
        assert_eq!(pace.take(start + MS), Some(start + MS));
        assert!(!pace.is_over(start + 9 * MS));
        assert_eq!(pace.take(start + 10 * MS), None);
        assert!(pace.is_over(start + 10 * MS));
    }
}
