//! The grammar of `services:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::breaker::{CircuitBreaker, Concurrency};
use super::health::HealthCheck;
use super::http2::Http2;
use super::jwt::JwtDemand;
use super::locality::Locality;
use super::outlier::{OutlierDetection, SlowStart};
use super::rate_limit::RateLimit;
use super::retry::Retries;
use super::tcp::Tcp;
use super::tls::ServiceTls;
use crate::sources::files::values::{AtLeastOne, Entries, OneOrMany, Placed, Time, TimeOrNone};

/// A service. Set exactly one of `endpoints`, `versions` and `dns`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Service {
    /// The protocol of the endpoints. Default `auto`: with TLS the protocol that ALPN selects, else
    /// HTTP/1.1. Behind a `tcp` listener it is opaque bytes.
    pub protocol: ServiceProtocol,
    /// Virtual addresses, `IP:PORT`: one or a list. A captured connection to one of them goes to
    /// any endpoint.
    pub addresses: OneOrMany<Placed<String>>,
    /// The endpoints, if the service has no versions.
    pub endpoints: Option<Vec<Placed<Endpoint>>>,
    /// TLS to the endpoints. `mesh` means that the proxy presents this workload's identity, and
    /// that endpoints must present theirs.
    pub tls: Option<Placed<ServiceTls>>,
    /// The SPIFFE IDs that are accepted from endpoints with `tls: mesh`; one or a list. Default:
    /// any ID of the trusted domains.
    pub identity: AtLeastOne<Placed<String>>,
    /// The token that requests must have: a provider of `jwt`, or a map. Default: none.
    pub jwt: Option<Placed<JwtDemand>>,
    /// The endpoints of each version, by the name of the version.
    pub versions: Option<Entries<Vec<Placed<Endpoint>>>>,
    /// `HOST:PORT`: the addresses of the host in DNS are the endpoints. Or a map with `family`.
    pub dns: Option<Placed<DnsName>>,
    /// The load balancing policy. Default `least-request`.
    pub balance: Balance,
    /// The preference for near endpoints: `none`, `region`, `zone` or `sub_zone`, or a map.
    /// Default: if this proxy and the endpoints have a zone, the nearest endpoints get the
    /// requests.
    pub locality: Option<Placed<Locality>>,
    /// The time limit for opening a connection. Default 5s.
    pub connect_timeout: Option<Time>,
    /// If an endpoint has not accepted a connection after this time, another endpoint is tried in
    /// parallel; `none` for never. Default 250ms.
    pub connect_hedge: Option<TimeOrNone>,
    /// The time from the request to the end of the response. Default `none`.
    pub timeout: Option<TimeOrNone>,
    /// Retries of failed requests. Default: a request is retried only if it was not processed.
    pub retries: Option<Placed<Retries>>,
    /// The circuit breaker: limits over all workers. Default: no limits.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// The adaptive concurrency limit: a limit on the requests in flight that follows the latency
    /// of the service. `adaptive`, or a map. Default: no limit.
    pub concurrency: Option<Placed<Concurrency>>,
    /// A limit on the requests to the service, counted over all rules together. A list may contain
    /// one local and one global limit. Default: no limit.
    pub rate_limit: OneOrMany<Placed<RateLimit>>,
    /// The longest time in which no byte of an exchange passes, in either direction; `none` for no
    /// limit. Default: `timeouts.stream_idle` of the listener.
    pub stream_idle_timeout: Option<TimeOrNone>,
    /// How long an idle connection to an endpoint is kept. Default 60s.
    pub idle_timeout: Option<Time>,
    /// The maximum number of idle connections for each endpoint. Default 1024.
    pub max_idle_connections: Option<u32>,
    /// TCP settings for connections to endpoints. Default: the section `tcp`.
    pub tcp: Tcp,
    /// The PROXY protocol header at the start of each connection to an endpoint. Default `none`.
    pub send_proxy_protocol: SendProxyProtocol,
    /// HTTP/2 settings for endpoints.
    pub http2: Http2,
    /// Whether requests go over HTTP/3 to endpoints that offer it by the field `alt-svc`. Default
    /// true, with verified TLS and `protocol: auto`.
    pub alt_svc: Option<Placed<bool>>,
    /// Health checks of the endpoints. Unhealthy endpoints get no requests. Default: no checks.
    pub health_check: Option<Placed<HealthCheck>>,
    /// Outlier detection: endpoints whose responses fail are ejected. They get no requests for a
    /// time. Default: none.
    pub outlier_detection: Option<Placed<OutlierDetection>>,
    /// Slow start: the time in which the traffic of a new or recovered endpoint grows to its full
    /// share. Or a map. Default: the endpoint gets its full traffic at once.
    pub slow_start: Option<Placed<SlowStart>>,
}

/// A name in DNS: `HOST:PORT`, or a map.
#[derive(Clone, Debug, Default)]
pub struct DnsName {
    /// `HOST:PORT`.
    pub address: String,
    /// The address families that are looked up.
    pub family: Family,
    /// The zone of all addresses of the DNS name.
    pub zone: Option<Placed<String>>,
}

/// The address families that are looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4 and IPv6.
    #[default]
    Any,
    /// Only IPv4.
    Ipv4,
    /// Only IPv6.
    Ipv6,
}

/// The protocol of endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceProtocol {
    /// With TLS, HTTP/2 or HTTP/1.1: ALPN selects. Without TLS, HTTP/1.1. Behind a `tcp` listener,
    /// opaque bytes.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2. Without TLS, it is used with prior knowledge (RFC 9113 3.3).
    Http2,
    /// gRPC over HTTP/2. Responses of the proxy itself always have a gRPC status.
    Grpc,
    /// HTTP/3 over QUIC (RFC 9114). It needs `tls`.
    Http3,
    /// Opaque bytes.
    Tcp,
}

/// The version of the PROXY protocol header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
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
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
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
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HashBy {
    /// The value of this header field.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// The client's IP address.
    SourceIp,
}

/// An instance of a service: `IP:PORT` or `unix:/path`, or a map with more settings.
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    /// `IP:PORT` or `unix:/path`.
    pub address: String,
    /// The weight: the share of traffic relative to that of the other endpoints.
    pub weight: u32,
    /// The zone.
    pub zone: Option<Placed<String>>,
    /// The priority.
    pub priority: u32,
}
