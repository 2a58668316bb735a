//! Computes when the next request is due. The caller passes the time.

use std::time::{Duration, Instant};

/// The schedule of requests between a start and an end.
#[derive(Debug)]
pub(super) struct Pace {
    start: Instant,
    end: Instant,
    rate: Option<f64>,
    /// Requests taken so far.
    taken: u64,
}

impl Pace {
    /// Creates a schedule of `rate` requests per second, evenly spaced. Without a rate, a request
    /// is always due.
    pub(super) fn new(start: Instant, duration: Duration, rate: Option<f64>) -> Self {
        Self { start, end: start + duration, rate, taken: 0 }
    }

    /// Takes the next request if one is due at `now`. Returns the start time for its latency, which
    /// may be far in the past: no due request is skipped.
    pub(super) fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.next_due().unwrap_or(now);
        if due > now || due >= self.end {
            return None;
        }
        self.taken += 1;
        Some(due)
    }

    /// The moment of the next request on the schedule. Returns `None` in the closed loop.
    pub(super) fn next_due(&self) -> Option<Instant> {
        // Multiplied, not added up: rounding does not accumulate over a long run.
        self.rate.map(|rate| self.start + Duration::from_secs_f64(self.taken as f64 / rate))
    }

    /// Whether no more requests will be due.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.next_due().unwrap_or(now) >= self.end
    }

    /// The latest start of a request.
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
        // The client was late until 7 ms: three requests are due, each with its own start time.
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
