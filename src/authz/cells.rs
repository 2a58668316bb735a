//! The counters of an authorization rule.

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
    /// Requests and connections that a dry-run rule would have allowed.
    pub dry_run_allowed: Count,
    /// Requests and connections that a dry-run rule would have denied.
    pub dry_run_denied: Count,
}
