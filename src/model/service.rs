//! Services and their endpoints.

use std::net::SocketAddr;
use std::time::Duration;

use super::{
    CircuitBreaker, ClientTls, Concurrency, HealthCheck, Http2, Item, Locality, OutlierDetection,
    RateLimit, Retries, SlowStart, Tcp, TokenDemand, Zone,
};
use crate::net::{Address, DnsName};

/// A service: its endpoints and their settings.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// The name, to which rules refer.
    pub name: Item<String>,
    /// The protocol of the endpoints.
    pub protocol: ServiceProtocol,
    /// Virtual addresses. A captured connection to one of them goes to any endpoint.
    pub addresses: Vec<Item<SocketAddr>>,
    /// The endpoints. A missing list is an error; an empty list is not.
    pub endpoints: Option<Endpoints>,
    /// The status of the response to a request while there are no endpoints. `None` means 503.
    pub empty_status: Option<u16>,
    /// TLS to the endpoints. `None` means plain text.
    pub tls: Option<Item<ClientTls>>,
    /// The SPIFFE IDs that are accepted from endpoints. Empty means any ID of the trusted domains.
    pub identities: Vec<Item<String>>,
    /// The token that requests must have. `None` means no token.
    pub jwt: Option<Item<TokenDemand>>,
    /// The load balancing policy.
    pub balance: Balance,
    /// The zone of all addresses of the DNS name.
    pub dns_zone: Option<Zone>,
    /// The preference for near endpoints. `None` means the default: the nearest healthy endpoints.
    pub locality: Option<Item<Locality>>,
    /// The time limit for opening a connection. `None` means the default.
    pub connect_timeout: Option<Duration>,
    /// If an endpoint has not accepted after this time, a connection to another endpoint is opened
    /// in parallel. `None` means the default.
    pub connect_hedge: Option<Duration>,
    /// The time from the request to the end of the response. `None` means no limit.
    pub timeout: Option<Duration>,
    /// Retries of failed requests. `None` means that a request is retried only if it was not
    /// processed.
    pub retries: Option<Item<Retries>>,
    /// The circuit breaker. `None` means no limits.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// The adaptive concurrency limit. `None` means no limit.
    pub concurrency: Option<Item<Concurrency>>,
    /// A limit on the requests to the service.
    pub rate_limits: Vec<Item<RateLimit>>,
    /// The longest time in which no byte of an exchange passes, in either direction. `None` means
    /// the time of the listener.
    pub stream_idle_timeout: Option<Duration>,
    /// How long an idle connection is kept. `None` means the default.
    pub idle_timeout: Option<Duration>,
    /// The maximum number of idle connections for each endpoint. `None` means the default.
    pub max_idle_connections: Option<u32>,
    /// How the kernel detects a dead TCP peer, for connections to endpoints.
    pub tcp: Tcp,
    /// The PROXY protocol header at the start of each connection.
    pub send_proxy_protocol: SendProxyProtocol,
    /// HTTP/2 settings for endpoints.
    pub http2: Http2,
    /// Whether endpoints may offer HTTP/3 in their responses. `None` means that they may, if their
    /// certificates are verified.
    pub alt_svc: Option<Item<bool>>,
    /// Active health checks. `None` means no health checks.
    pub health_check: Option<Item<HealthCheck>>,
    /// Outlier detection. `None` means that no endpoint is ejected.
    pub outlier_detection: Option<Item<OutlierDetection>>,
    /// Slow start. `None` means that a new endpoint gets its full traffic at once.
    pub slow_start: Option<Item<SlowStart>>,
}

/// Where the endpoints of a service come from.
#[derive(Clone, Debug)]
pub enum Endpoints {
    /// A list of endpoints.
    List(Vec<Item<Endpoint>>),
    /// Lists of endpoints, by version.
    Versions(Vec<(Item<String>, Vec<Item<Endpoint>>)>),
    /// The addresses of a name in DNS.
    Name(Item<DnsName>),
    /// The instances of the service with this name in Consul.
    Consul(Item<String>),
    /// The endpoints of a port of a service of Kubernetes: `NAMESPACE/NAME/PORT`, with the name of
    /// the port.
    Slices(Item<String>),
    /// Those that an xDS server will send.
    Awaited,
}

/// An instance of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address: IP and port, or the path of a Unix-domain socket.
    pub address: Address,
    /// The weight: the share of traffic relative to that of the other endpoints.
    pub weight: u32,
    /// The zone. `None` means unknown.
    pub zone: Option<Zone>,
    /// The priority. Lower numbers get requests first.
    pub priority: u32,
}

/// The protocol of endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceProtocol {
    /// With TLS, the protocol that ALPN selects. Without TLS, HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// gRPC over HTTP/2.
    Grpc,
    /// HTTP/3 over QUIC (RFC 9114). It needs `tls`.
    Http3,
    /// Opaque bytes.
    Tcp,
}

/// The version of the PROXY protocol header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SendProxyProtocol {
    /// No header.
    #[default]
    None,
    /// Version 1, which is text.
    V1,
    /// Version 2, which is binary.
    V2,
}

/// The load balancing policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Of two random endpoints, the one with the lower load.
    #[default]
    LeastRequest,
    /// The next endpoint in turn, as often as its weight says.
    RoundRobin,
    /// A random endpoint, with a probability according to its weight.
    Random,
    /// Of two random endpoints, the one with the lower product of recent latency and load.
    PeakEwma,
    /// The endpoint that a hash of the key selects. Equal keys get the same endpoint.
    Hash(HashBy),
}

/// The property of a request that is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashBy {
    /// The value of this header field.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// The client's IP address.
    SourceIp,
}
