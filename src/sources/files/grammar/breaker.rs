//! The grammar of `circuit_breaker:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::Placed;

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
