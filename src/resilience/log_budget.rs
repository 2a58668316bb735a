//! Limits the lines of the access log that a rate limit causes: a flood of refused requests must
//! not become a flood of lines.

use crate::cells::Count;
use crate::time::Time;

/// How many lines the refusals of one rate limit may have in each second, on each worker.
pub const REFUSAL_LINES_MAX: u64 = 10;

/// The lines of one rate limit, for one worker.
#[derive(Debug, Default)]
pub struct LogBudget {
    second: Count,
    lines: Count,
    left_out: Count,
}

impl LogBudget {
    /// Decides whether a refusal gets a line. Returns the number of refusals without one since the
    /// last line, or `None` if this one gets none.
    pub fn take(&self, now: Time) -> Option<u64> {
        let second = now.as_micros() / 1_000_000;
        if self.second.value() != second {
            self.second.set(second);
            self.lines.set(0);
        }
        if self.lines.value() >= REFUSAL_LINES_MAX {
            self.left_out.increment();
            return None;
        }
        self.lines.increment();
        let left_out = self.left_out.value();
        self.left_out.set(0);
        Some(left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_few_lines_and_the_next_line_counts_the_rest() {
        let budget = LogBudget::default();
        let at = |ms: u64| budget.take(Time::from_micros(ms * 1000));
        for ms in 0..10 {
            assert_eq!(at(5000 + ms), Some(0));
        }
        for ms in 0..7 {
            assert_eq!(at(5900 + ms), None);
        }
        assert_eq!((at(6000), at(6001)), (Some(7), Some(0)));
        for _ in 0..8 {
            at(6002);
        }
        assert_eq!((at(6999), at(9000)), (None, Some(1)));
    }
}
