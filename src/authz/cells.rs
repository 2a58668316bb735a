//! The counters of a rule.

use crate::cells::Count;

/// The counters of one authorization rule, for one worker.
#[derive(Debug, Default)]
pub struct RuleCells {
    /// Requests and connections that it allowed.
    pub allowed: Count,
    /// Those that it denied; for an allow rule those denied by default, when it was the first of
    /// the rules of which none matched.
    pub denied: Count,
    /// Those that an audit rule matched.
    pub audited: Count,
    /// Those that it would have allowed, were it not on trial.
    pub dry_run_allowed: Count,
    /// Those that it would have denied, were it not on trial.
    pub dry_run_denied: Count,
}
