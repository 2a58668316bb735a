//! The grammar of `circuit_breaker:` and `concurrency:`. Its comments are the descriptions in the
//! JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{Placed, Time};

/// Limits of a service, over all workers. A request beyond a limit gets 503 at once.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CircuitBreaker {
    /// The maximum number of connections to endpoints. A request that needs one more waits. Default
    /// 1024.
    pub max_connections: Option<Placed<u32>>,
    /// The maximum number of requests that wait for a connection: one that is being opened, or one
    /// that is in use. Default 1024.
    pub max_pending_requests: Option<Placed<u32>>,
    /// The maximum number of requests in progress. Default 1024.
    pub max_requests: Option<Placed<u32>>,
    /// The maximum number of retries in progress. Default 3.
    pub max_retries: Option<u32>,
}

/// A limit on the requests in flight to a service, over all workers. It follows the latency of the
/// service. A request beyond the limit gets 503 at once.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConcurrencyMap {
    /// The minimum of the limit. It is also the limit during a probe. Default 3.
    pub min: Option<Placed<u32>>,
    /// The maximum of the limit. Default 1000.
    pub max: Option<Placed<u32>>,
    /// The percentile of the latencies that is compared with that without load, from 1 to 99.
    /// Default 50.
    pub percentile: Option<Placed<u32>>,
    /// The time between two updates of the limit. Default 100ms.
    pub interval: Option<Placed<Time>>,
    /// The time between two probes, which measure the latency without load. A random part of up to
    /// 15% is added. Default 1m.
    pub probe_interval: Option<Placed<Time>>,
    /// The number of requests of a probe. Default 50.
    pub probe_requests: Option<Placed<u32>>,
}

/// An adaptive concurrency limit: `adaptive`, or [`ConcurrencyMap`].
#[derive(Clone, Debug)]
pub struct Concurrency(pub ConcurrencyMap);
