//! The counters of a route rule.

use crate::cells::Count;

/// The counters of one route rule, for one worker.
#[derive(Debug, Default)]
pub struct RuleCells {
    /// Requests by status class: 1xx to 5xx at index 0 to 4. Index 5 counts requests that ended
    /// without a response.
    pub status_class: [Count; 6],
    /// Requests with an injected delay.
    pub delays: Count,
    /// Requests with an injected response.
    pub aborts: Count,
    /// Requests whose response had an injected bandwidth limit.
    pub bandwidths: Count,
}
