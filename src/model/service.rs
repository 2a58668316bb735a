//! Services and their endpoints.

use std::net::SocketAddr;
use std::time::Duration;

use super::{
    CircuitBreaker, ClientTls, Concurrency, HealthCheck, Http2, Item, OutlierDetection, RateLimit,
    Retries, SlowStart, Tcp, TokenDemand,
};
use crate::net::{Address, DnsName};

/// A service: its endpoints and their settings.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// The name.
    pub name: Item<String>,
    /// The protocol of the endpoints.
    pub protocol: ServiceProtocol,
    /// Virtual addresses. Captured connections to them go to any endpoint.
    pub addresses: Vec<Item<SocketAddr>>,
    /// The endpoints. A missing list is an error; an empty list is not.
    pub endpoints: Option<Endpoints>,
    /// TLS to the endpoints.
    pub tls: Option<Item<ClientTls>>,
    /// The SPIFFE IDs that endpoints must prove.
    pub identities: Vec<Item<String>>,
    /// The token requirement.
    pub jwt: Option<Item<TokenDemand>>,
    /// The load balancing policy.
    pub balance: Balance,
    /// The time limit of connecting. `None` means the default.
    pub connect_timeout: Option<Duration>,
    /// When connecting takes this long, another endpoint is tried at the same time. `None` means
    /// the default.
    pub connect_hedge: Option<Duration>,
    /// The time from the request to the end of the response. `None` means no limit.
    pub timeout: Option<Duration>,
    /// Retries of failed requests. `None`: a request is sent again only if it was not processed.
    pub retries: Option<Item<Retries>>,
    /// Limits on what the service may have at one time. `None` means no limits.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// An adaptive limit on the requests in flight. `None` means no limit.
    pub concurrency: Option<Item<Concurrency>>,
    /// A limit on the requests to the service.
    pub rate_limit: Option<Item<RateLimit>>,
    /// How long an idle connection is kept. `None` means the default.
    pub idle_timeout: Option<Duration>,
    /// The maximum number of idle connections for each endpoint. `None` means the default.
    pub max_idle_connections: Option<u32>,
    /// How the kernel detects that an endpoint is gone.
    pub tcp: Tcp,
    /// The PROXY protocol header at the start of each connection.
    pub send_proxy_protocol: SendProxyProtocol,
    /// HTTP/2 settings for endpoints.
    pub http2: Http2,
    /// Active health checks. `None` means no health checks.
    pub health_check: Option<Item<HealthCheck>>,
    /// Outlier detection. `None` means that no endpoint is ejected.
    pub outlier_detection: Option<Item<OutlierDetection>>,
    /// Slow start. `None` means that an endpoint has its whole share at once.
    pub slow_start: Option<Item<SlowStart>>,
}

/// The endpoints of a service.
#[derive(Clone, Debug)]
pub enum Endpoints {
    /// A list of endpoints.
    List(Vec<Item<Endpoint>>),
    /// Lists of endpoints, by version.
    Versions(Vec<(Item<String>, Vec<Item<Endpoint>>)>),
    /// The addresses of a name in DNS.
    Name(Item<DnsName>),
}

/// An instance of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address.
    pub address: Address,
    /// The share of traffic relative to the others.
    pub weight: u32,
    /// The zone.
    pub zone: Option<Box<str>>,
}

/// The protocol of endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceProtocol {
    /// The result of ALPN with TLS, else HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// gRPC over HTTP/2.
    Grpc,
    /// Opaque bytes.
    Tcp,
}

/// The form of a PROXY protocol header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SendProxyProtocol {
    /// No header.
    #[default]
    None,
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// The load balancing policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The less loaded of two random endpoints.
    #[default]
    LeastRequest,
    /// Round robin.
    RoundRobin,
    /// Random.
    Random,
    /// The better of two random endpoints, by recent latency and load.
    PeakEwma,
    /// The same endpoint for the same key.
    Hash(HashBy),
}

/// The key of a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashBy {
    /// The value of this header field.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// The client's IP address.
    SourceIp,
}
