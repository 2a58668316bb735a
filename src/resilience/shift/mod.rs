//! Gradual releases: a plan moves the traffic of a rule from one version to another, step by step
//! by the clock, and back if the new version is bad.

mod progress;
mod state;

use std::fmt;
use std::time::Duration;

pub use progress::{ShiftAbort, ShiftCounts, ShiftEvent, ShiftFault, ShiftPhase, ShiftProgress};
pub use state::{ShiftEnding, ShiftSide, ShiftState};

use super::Chance;

/// The requests to the new version that a step needs before it can be judged.
pub const SHIFT_MIN_REQUESTS: u64 = 100;

/// The shortest time between two steps.
pub const SHIFT_EVERY_MIN: Duration = Duration::from_millis(100);

/// A time of the wall clock, in milliseconds since 1970. Several proxies compare it.
pub type UnixMs = u64;

/// The plan of a shift. Shares are in [`Chance::PARTS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShiftPlan {
    /// The share of the new version before the first step.
    pub first: u32,
    /// The growth of its share with each step. It is not 0.
    pub step: u32,
    /// The time between two steps. It is [`SHIFT_EVERY_MIN`] or longer.
    pub every: Duration,
    /// The time of the first step. `None` means the next multiple of `every` on the clock.
    pub start: Option<UnixMs>,
    /// The reasons to go back. `None` means that the plan always runs to its end.
    pub abort_if: Option<AbortIf>,
}

/// The reasons to go back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbortIf {
    /// More than this share of the requests fails.
    pub error_rate: Option<u32>,
    /// More than one request in a hundred waits longer than this for its response.
    pub p99: Option<Duration>,
    /// The requests of a step that are needed to judge it.
    pub min_requests: u64,
}

impl ShiftPlan {
    /// The number of steps to the whole traffic.
    pub fn steps(&self) -> u32 {
        (Chance::PARTS - self.first).div_ceil(self.step)
    }

    /// The share of the new version after `steps` steps.
    pub fn share(&self, steps: u32) -> u32 {
        let grown = u64::from(self.step) * u64::from(steps) + u64::from(self.first);
        grown.min(u64::from(Chance::PARTS)) as u32
    }

    /// The time between two steps.
    fn every_ms(&self) -> u64 {
        u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// The time of the first step after `now`, by the clock.
    fn next_multiple(&self, now: UnixMs) -> UnixMs {
        let every = self.every_ms();
        (now / every).saturating_add(1).saturating_mul(every)
    }
}

impl fmt::Display for ShiftPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} every {:?}", Chance::of_parts(self.step), self.every)?;
        if self.first > 0 {
            write!(f, " after {}", Chance::of_parts(self.first))?;
        }
        match self.start {
            Some(start) => write!(f, ", start {}", UnixTime(start))?,
            None => f.write_str(", start at the next multiple of that time")?,
        }
        let Some(abort_if) = &self.abort_if else { return f.write_str(", never back") };
        f.write_str(", back if ")?;
        if let Some(rate) = abort_if.error_rate {
            write!(f, "more than {} fail", Chance::of_parts(rate))?;
        }
        if let Some(p99) = abort_if.p99 {
            let or = if abort_if.error_rate.is_some() { " or " } else { "" };
            write!(f, "{or}p99 is over {p99:?}")?;
        }
        write!(f, ", of at least {} requests in a step", abort_if.min_requests)
    }
}

/// A time of the wall clock as text: `2026-12-01T09:00:00Z`.
pub struct UnixTime(pub UnixMs);

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Year 9999 is the last one with four digits.
        let seconds = (self.0 / 1000).min(253_402_300_799);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// Year, month and day of the day number `days` since 1970.
fn date(days: u64) -> (u64, u64, u64) {
    let (mut year, mut left) = (1970, days);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while left >= 365 + u64::from(is_leap(year)) {
        left -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(first: u32, step: u32) -> ShiftPlan {
        let (every, start, abort_if) = (Duration::from_secs(300), None, None);
        ShiftPlan { first, step, every, start, abort_if }
    }

    #[test]
    fn the_last_step_reaches_the_whole() {
        for (first, step, steps) in [
            (0, 100_000, 10),
            (0, 1_000_000, 1),
            (0, 300_000, 4),
            (500_000, 300_000, 2),
            (999_999, 1_000_000, 1),
            (0, 1, 1_000_000),
        ] {
            let plan = plan(first, step);
            assert_eq!(plan.steps(), steps, "{plan}");
            assert_eq!(plan.share(0), first);
            assert_eq!(plan.share(steps), Chance::PARTS);
            assert!(plan.share(steps - 1) < Chance::PARTS);
        }
    }

    #[test]
    fn times_and_plans_are_told() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_735_689_599_999, "2024-12-31T23:59:59Z"),
            (1_796_115_600_000, "2026-12-01T09:00:00Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(UnixTime(ms).to_string(), text);
        }
        let abort_if = AbortIf {
            error_rate: Some(20_000),
            p99: Some(Duration::from_millis(500)),
            min_requests: 100,
        };
        let plan = ShiftPlan { abort_if: Some(abort_if), ..plan(50_000, 100_000) };
        assert_eq!(
            plan.to_string(),
            "10% every 300s after 5%, start at the next multiple of that time, \
             back if more than 2% fail or p99 is over 500ms, of at least 100 requests in a step"
        );
    }
}
