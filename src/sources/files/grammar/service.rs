//! The grammar of `services:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::breaker::{CircuitBreaker, Concurrency};
use super::health::HealthCheck;
use super::http2::Http2;
use super::jwt::JwtDemand;
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
    /// The protocol of the endpoints. Default `auto`: with TLS the result of ALPN, else HTTP/1.1.
    /// Behind a `tcp` listener it is opaque bytes.
    pub protocol: ServiceProtocol,
    /// Virtual addresses, `IP:PORT`: one or a list. Captured connections to them go to any
    /// endpoint.
    pub addresses: OneOrMany<Placed<String>>,
    /// The endpoints.
    pub endpoints: Option<Vec<Placed<Endpoint>>>,
    /// TLS to the endpoints. `mesh`: this workload's identity, and endpoints must prove theirs.
    pub tls: Option<Placed<ServiceTls>>,
    /// The SPIFFE IDs that endpoints must prove with `tls: mesh`; one or a list. Default: any ID of
    /// the trusted domains.
    pub identity: AtLeastOne<Placed<String>>,
    /// The token that requests must have: a provider of `jwt`, or a map. Default: none.
    pub jwt: Option<Placed<JwtDemand>>,
    /// The endpoints of each version.
    pub versions: Option<Entries<Vec<Placed<Endpoint>>>>,
    /// `HOST:PORT`: the addresses of the host in DNS are the endpoints. Or a map with `family`.
    pub dns: Option<Placed<DnsName>>,
    /// The load balancing policy. Default `least-request`.
    pub balance: Balance,
    /// The time limit of connecting. Default 5s.
    pub connect_timeout: Option<Time>,
    /// When connecting takes this long, another endpoint is tried at the same time; `none` for
    /// never. Default 250ms.
    pub connect_hedge: Option<TimeOrNone>,
    /// The time from the request to the end of the response. Default `none`.
    pub timeout: Option<TimeOrNone>,
    /// Retries of failed requests. Default: a request is sent again only if it was not processed.
    pub retries: Option<Placed<Retries>>,
    /// Limits on what the service may have at one time, over all workers. Default: no limits.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// `adaptive`: a limit on the requests in flight that follows the latency of the service. Or a
    /// map. Default: no limit.
    pub concurrency: Option<Placed<Concurrency>>,
    /// A limit on the requests to the service, from all rules together. Default: none.
    pub rate_limit: Option<Placed<RateLimit>>,
    /// How long an idle connection to an endpoint is kept. Default 60s.
    pub idle_timeout: Option<Time>,
    /// The maximum number of idle connections for each endpoint. Default 1024.
    pub max_idle_connections: Option<u32>,
    /// TCP connections to endpoints. Default: the section `tcp`.
    pub tcp: Tcp,
    /// The PROXY protocol header at the start of each connection to an endpoint. Default `none`.
    pub send_proxy_protocol: SendProxyProtocol,
    /// HTTP/2 settings for endpoints.
    pub http2: Http2,
    /// Health checks of the endpoints. Unhealthy endpoints get no requests. Default: no checks.
    pub health_check: Option<Placed<HealthCheck>>,
    /// Outlier detection: endpoints whose responses fail get no requests for a time. Default: none.
    pub outlier_detection: Option<Placed<OutlierDetection>>,
    /// Slow start: how long a new or recovered endpoint gets a growing part of its traffic. Or a
    /// map. Default: it has its whole share at once.
    pub slow_start: Option<Placed<SlowStart>>,
}

/// A name in DNS: `HOST:PORT`, or a map.
#[derive(Clone, Debug, Default)]
pub struct DnsName {
    /// `HOST:PORT`.
    pub address: String,
    /// The families of addresses.
    pub family: Family,
}

/// The families of addresses.
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
    /// With TLS, HTTP/2 or HTTP/1.1 as ALPN selects; without TLS, HTTP/1.1; behind a `tcp`
    /// listener, opaque bytes.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2. Without TLS, with prior knowledge.
    Http2,
    /// gRPC over HTTP/2. Local answers always have a gRPC status.
    Grpc,
    /// Opaque bytes.
    Tcp,
}

/// The form of a PROXY protocol header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SendProxyProtocol {
    /// No header.
    #[default]
    None,
    /// The text form.
    V1,
    /// The binary form.
    V2,
}

/// The load balancing policy.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
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

/// The key of the hash policy.
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
    /// The share of traffic relative to the others.
    pub weight: u32,
    /// The zone.
    pub zone: Option<String>,
}
