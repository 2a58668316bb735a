//! Circuit breaking.

use super::Item;

/// Limits on what a service may have at one time, over all workers. `None` means the default.
#[derive(Clone, Debug, Default)]
pub struct CircuitBreaker {
    /// Connections to endpoints.
    pub max_connections: Option<Item<u32>>,
    /// Requests that wait for a connection.
    pub max_pending_requests: Option<Item<u32>>,
    /// Requests in progress.
    pub max_requests: Option<Item<u32>>,
    /// Requests in progress that were sent again by the retry policy.
    pub max_retries: Option<u32>,
}
