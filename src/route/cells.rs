//! The counters of a rule.

use crate::cells::Count;

/// The counters of one route rule, for one worker.
#[derive(Debug, Default)]
pub struct RuleCells {
    /// Requests by status class: 1xx..5xx at 0..=4; 5 counts those that ended without an answer.
    pub status_class: [Count; 6],
    /// The place in the weighted sequence of destinations (state, not a metric).
    pub turn: Count,
}
