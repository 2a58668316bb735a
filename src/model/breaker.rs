//! Circuit breaker of a service.

use super::Item;

/// Limits of a service, over all workers. `None` means the default.
#[derive(Clone, Debug, Default)]
pub struct CircuitBreaker {
    /// The maximum number of connections to the endpoints.
    pub max_connections: Option<Item<u32>>,
    /// The maximum number of requests that wait for a connection.
    pub max_pending_requests: Option<Item<u32>>,
    /// The maximum number of requests in progress.
    pub max_requests: Option<Item<u32>>,
    /// The maximum number of retries in progress.
    pub max_retries: Option<u32>,
}
