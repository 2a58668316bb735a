//! Circuit breaking and adaptive concurrency.

use std::time::Duration;

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

/// An adaptive limit on the requests in flight to a service. `None` means the default.
#[derive(Clone, Debug, Default)]
pub struct Concurrency {
    /// The smallest limit.
    pub min: Option<Item<u32>>,
    /// The largest limit.
    pub max: Option<Item<u32>>,
    /// The percentile of the latencies that is compared.
    pub percentile: Option<Item<u32>>,
    /// The time between two updates of the limit.
    pub interval: Option<Item<Duration>>,
    /// The time between two probes.
    pub probe_interval: Option<Item<Duration>>,
    /// The number of requests of a probe.
    pub probe_requests: Option<Item<u32>>,
}
