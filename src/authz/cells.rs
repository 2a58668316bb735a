//! The counters of a rule.

use crate::cells::Count;

/// The counters of one authorization rule, for one worker.
#[derive(Debug, Default)]
pub struct RuleCells {
    /// Requests and connections that the rule allowed.
    pub allowed: Count,
    /// Requests and connections that the rule denied. If no allow rule matches, the first allow
    /// rule of the service counts the denial.
    pub denied: Count,
    /// Requests and connections that an audit rule matched.
    pub audited: Count,
    /// Requests and connections that the rule would have allowed without `dry_run`.
    pub dry_run_allowed: Count,
    /// Requests and connections that the rule would have denied without `dry_run`.
    pub dry_run_denied: Count,
}
