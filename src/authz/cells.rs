//! The counters of a rule.

use crate::cells::Count;

/// The counters of one authorization rule, for one worker.
#[derive(Debug, Default)]
pub struct RuleCells {
    /// Requests and connections that the rule allowed.
    pub allowed: Count,
    /// Those that the rule denied. Those denied by default count for the first allow rule of the
    /// service.
    pub denied: Count,
    /// Those that an audit rule matched.
    pub audited: Count,
    /// Those that the rule would have allowed without `dry_run`.
    pub dry_run_allowed: Count,
    /// Those that the rule would have denied without `dry_run`.
    pub dry_run_denied: Count,
}
