//! The counters of a rule.

use crate::cells::Count;

/// The counters of one route rule, for one worker.
#[derive(Debug, Default)]
pub struct RuleCells {
    /// Requests by status class: 1xx to 5xx at 0..=4. Entry 5 counts requests that ended without a
    /// response.
    pub status_class: [Count; 6],
    /// Requests that got an injected delay.
    pub delays: Count,
    /// Requests that got an injected answer.
    pub aborts: Count,
    /// Requests whose response got an injected limit.
    pub bandwidths: Count,
}
