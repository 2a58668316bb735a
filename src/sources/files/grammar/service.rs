//! The grammar of `services:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::health::HealthCheck;
use super::http2::Http2;
use super::jwt::JwtDemand;
use super::tls::ServiceTls;
use crate::sources::files::values::{Entries, OneOrMany, Placed, Time, TimeOrNone};

/// Where requests go. It has exactly one of `endpoints`, `versions` and `dns`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Service {
    /// What the endpoints speak. Default `auto`: through TLS what they choose, HTTP/1.1 in the
    /// clear (or bytes behind a `tcp` listener).
    pub protocol: ServiceProtocol,
    /// Virtual addresses, `IP:PORT`: one or a list. Captured connections to them go to
    /// any endpoint.
    pub addresses: OneOrMany<Placed<String>>,
    /// The endpoints.
    pub endpoints: Option<Vec<Placed<Endpoint>>>,
    /// TLS to the endpoints. `mesh`: this workload's identity, and theirs is checked.
    pub tls: Option<Placed<ServiceTls>>,
    /// The SPIFFE IDs that endpoints must prove with `tls: mesh`; one or a list. Default: any of
    /// the trusted domains.
    pub identity: OneOrMany<Placed<String>>,
    /// The token that requests must carry: a provider of `jwt`, or a map. Default: none.
    pub jwt: Option<Placed<JwtDemand>>,
    /// The endpoints of each version.
    pub versions: Option<Entries<Vec<Placed<Endpoint>>>>,
    /// `HOST:PORT`: the addresses of the host are the endpoints.
    pub dns: Option<Placed<String>>,
    /// How an endpoint is chosen. Default `least-request`.
    pub balance: Balance,
    /// How long connecting may take. Default 1s.
    pub connect_timeout: Option<Time>,
    /// From the request to the end of the response. Default `none`.
    pub timeout: Option<TimeOrNone>,
    /// How long an unused connection to an endpoint is kept. Default 60s.
    pub idle_timeout: Option<Time>,
    /// Unused connections kept for each endpoint. Default 1024.
    pub max_idle_connections: Option<u32>,
    /// The PROXY protocol header that begins each connection to an endpoint. Default `none`.
    pub send_proxy_protocol: SendProxyProtocol,
    /// How HTTP/2 is spoken with endpoints.
    pub http2: Http2,
    /// How endpoints are checked; those that fail get no requests. Default: they are not.
    pub health_check: Option<Placed<HealthCheck>>,
}

/// What endpoints speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceProtocol {
    /// Through TLS HTTP/2 or HTTP/1.1, as each endpoint chooses by ALPN; HTTP/1.1 in the clear;
    /// bytes behind a `tcp` listener.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; in the clear with prior knowledge.
    Http2,
    /// gRPC: HTTP/2, and local answers with a gRPC status whatever the request says of itself.
    Grpc,
    /// Bytes.
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

/// How an endpoint is chosen.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// The less loaded of two chosen at random.
    #[default]
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// At random.
    Random,
    /// The better of two by recent latency and load.
    PeakEwma,
    /// Always the same for the same key.
    Hash(HashBy),
}

/// What is hashed.
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

/// An instance of a service: `IP:PORT` or `unix:/path`, alone or with more about it.
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    /// `IP:PORT` or `unix:/path`.
    pub address: String,
    /// Its share of traffic relative to the others.
    pub weight: u32,
    /// Its zone.
    pub zone: Option<String>,
}
