//! The circuit breaker and the adaptive concurrency limit of a service.

use std::time::Duration;

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

/// A limit on the requests in flight to a service, which follows its latency. `None` means the
/// default.
#[derive(Clone, Debug, Default)]
pub struct Concurrency {
    /// The minimum of the limit.
    pub min: Option<Item<u32>>,
    /// The maximum of the limit.
    pub max: Option<Item<u32>>,
    /// The percentile of the latencies that is compared with that without load, 1 to 99.
    pub percentile: Option<Item<u32>>,
    /// The time between two updates of the limit.
    pub interval: Option<Item<Duration>>,
    /// The time between two probes, which measure the latency without load.
    pub probe_interval: Option<Item<Duration>>,
    /// The number of requests after which a probe ends.
    pub probe_requests: Option<Item<u32>>,
}
