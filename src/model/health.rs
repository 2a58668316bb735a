//! Active health checks of endpoints.

use std::time::Duration;

use super::Item;

/// The health check of a service. Except for `probe`, `None` means the default value.
#[derive(Clone, Debug, Default)]
pub struct HealthCheck {
    /// The probe. A check without exactly one probe is an error.
    pub probe: Option<HealthProbe>,
    /// The time from the end of one check to the start of the next.
    pub interval: Option<Duration>,
    /// The time limit of one check.
    pub timeout: Option<Duration>,
    /// The number of consecutive successes that makes an unhealthy endpoint healthy.
    pub healthy: Option<Item<u32>>,
    /// The number of consecutive failures that makes a healthy endpoint unhealthy.
    pub unhealthy: Option<Item<u32>>,
    /// If less than this percentage of the endpoints is healthy, all endpoints get requests.
    pub panic_percent: Option<u8>,
}

/// The probe of a health check.
#[derive(Clone, Debug)]
pub enum HealthProbe {
    /// An HTTP request.
    Http(HttpProbe),
    /// A gRPC call of `grpc.health.v1.Health/Check`.
    Grpc(Item<GrpcProbe>),
    /// A TCP connection, with a TLS handshake if the service uses TLS.
    Tcp,
}

/// An HTTP request of a health check.
#[derive(Clone, Debug)]
pub struct HttpProbe {
    /// The path, with an optional query.
    pub path: Item<String>,
    /// Whether the method is HEAD instead of GET.
    pub head: bool,
    /// The value of `host`. `None` means the SNI or the name of the service.
    pub host: Option<Item<String>>,
    /// The ranges of statuses that count as success, each as (first, last). Empty means 200.
    pub statuses: Vec<(u16, u16)>,
}

/// A gRPC call of a health check.
#[derive(Clone, Debug, Default)]
pub struct GrpcProbe {
    /// The full name of the checked service. `None` means the whole server.
    pub service: Option<Item<String>>,
    /// The value of `:authority`. `None` means the SNI or the name of the service.
    pub authority: Option<Item<String>>,
}
