//! Services and their endpoints.

use std::net::SocketAddr;
use std::time::Duration;

use super::{ClientTls, HealthCheck, Http2, Item, TokenDemand};
use crate::net::Address;

/// A service: endpoints, and how to reach them.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// Its name.
    pub name: Item<String>,
    /// What its endpoints speak.
    pub protocol: ServiceProtocol,
    /// Virtual addresses. Captured connections to them go to any endpoint.
    pub addresses: Vec<Item<SocketAddr>>,
    /// Its endpoints. A service without them is a fault; an empty list is not.
    pub endpoints: Option<Endpoints>,
    /// TLS to its endpoints.
    pub tls: Option<Item<ClientTls>>,
    /// The SPIFFE IDs that endpoints must prove.
    pub identities: Vec<Item<String>>,
    /// The token that requests must carry.
    pub jwt: Option<Item<TokenDemand>>,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// Time limit for connecting; `None` for the default.
    pub connect_timeout: Option<Duration>,
    /// From the request to the end of the response; `None` for no limit.
    pub timeout: Option<Duration>,
    /// The life of an unused connection; `None` for the default.
    pub idle_timeout: Option<Duration>,
    /// Unused connections for each endpoint; `None` for the default.
    pub max_idle_connections: Option<u32>,
    /// The PROXY protocol header at the beginning of each connection.
    pub send_proxy_protocol: SendProxyProtocol,
    /// How HTTP/2 is spoken with its endpoints.
    pub http2: Http2,
    /// Active health checks; `None` for none.
    pub health_check: Option<Item<HealthCheck>>,
}

/// The endpoints of a service.
#[derive(Clone, Debug)]
pub enum Endpoints {
    /// These.
    List(Vec<Item<Endpoint>>),
    /// These, by version.
    Versions(Vec<(Item<String>, Vec<Item<Endpoint>>)>),
    /// The addresses of `HOST:PORT` in DNS.
    Name(Item<String>),
}

/// An instance of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: Address,
    /// Its share of traffic relative to the others.
    pub weight: u32,
    /// Its zone.
    pub zone: Option<Box<str>>,
}

/// What endpoints speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceProtocol {
    /// Through TLS the result of ALPN; else HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// gRPC over HTTP/2.
    Grpc,
    /// Bytes.
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

/// How an endpoint is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The less loaded of two random ones.
    #[default]
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// At random.
    Random,
    /// The better of two by recent latency and load.
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
