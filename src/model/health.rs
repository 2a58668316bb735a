//! Active health checks of endpoints.

use std::time::Duration;

use super::Item;

/// The health check of a service. Except for `probe`, `None` means the default value.
#[derive(Clone, Debug, Default)]
pub struct HealthCheck {
    /// The probe. A check without exactly one probe is an error.
    pub probe: Option<HealthProbe>,
    /// The interval of checks.
    pub interval: Option<Duration>,
    /// The time limit of one check.
    pub timeout: Option<Duration>,
    /// Successes in a row until an unhealthy endpoint becomes healthy.
    pub healthy: Option<Item<u32>>,
    /// Failures in a row until a healthy endpoint becomes unhealthy.
    pub unhealthy: Option<Item<u32>>,
    /// If fewer endpoints than this percentage are healthy, all endpoints get requests.
    pub panic_percent: Option<u8>,
}

/// The probe of a health check.
#[derive(Clone, Debug)]
pub enum HealthProbe {
    /// An HTTP request.
    Http(HttpProbe),
    /// A gRPC call of `grpc.health.v1.Health/Check`.
    Grpc(Item<GrpcProbe>),
    /// Opening a connection.
    Tcp,
}

/// An HTTP request of a health check.
#[derive(Clone, Debug)]
pub struct HttpProbe {
    /// The path and query.
    pub path: Item<String>,
    /// Whether to use HEAD instead of GET.
    pub head: bool,
    /// The host. `None` means the SNI or the name of the service.
    pub host: Option<Item<String>>,
    /// The statuses that count as success, as ranges. Empty means 200.
    pub statuses: Vec<(u16, u16)>,
}

/// A gRPC call of a health check.
#[derive(Clone, Debug, Default)]
pub struct GrpcProbe {
    /// The full name of the checked service. `None` means the whole server.
    pub service: Option<Item<String>>,
    /// The authority. `None` means the SNI or the name of the service.
    pub authority: Option<Item<String>>,
}
