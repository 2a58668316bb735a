//! Active health checks of endpoints.

use std::time::Duration;

use super::Item;

/// How endpoints are checked; `None` for the default of each value.
#[derive(Clone, Debug, Default)]
pub struct HealthCheck {
    /// The question. A check without exactly one is a fault.
    pub probe: Option<HealthProbe>,
    /// Between two checks of an endpoint.
    pub interval: Option<Duration>,
    /// For one check in all.
    pub timeout: Option<Duration>,
    /// Good answers in a row until an unhealthy endpoint is healthy.
    pub healthy: Option<Item<u32>>,
    /// Failed checks in a row until a healthy endpoint is unhealthy.
    pub unhealthy: Option<Item<u32>>,
    /// With a smaller part of healthy endpoints, all take requests.
    pub panic_percent: Option<u8>,
}

/// The question to an endpoint.
#[derive(Clone, Debug)]
pub enum HealthProbe {
    /// A request for a resource.
    Http(HttpProbe),
    /// A call of `grpc.health.v1.Health/Check`.
    Grpc(Item<GrpcProbe>),
    /// A connection.
    Tcp,
}

/// A request for a resource.
#[derive(Clone, Debug)]
pub struct HttpProbe {
    /// Its path and query.
    pub path: Item<String>,
    /// HEAD instead of GET.
    pub head: bool,
    /// The host; `None` for the SNI or the name of the service.
    pub host: Option<Item<String>>,
    /// Good statuses, as ranges; empty for 200.
    pub statuses: Vec<(u16, u16)>,
}

/// A call of the health service of gRPC.
#[derive(Clone, Debug, Default)]
pub struct GrpcProbe {
    /// The full name of a service; `None` for the server as a whole.
    pub service: Option<Item<String>>,
    /// The authority; `None` for the SNI or the name of the service.
    pub authority: Option<Item<String>>,
}
