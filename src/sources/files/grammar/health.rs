//! `health_check:` of services, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{OneOrMany, Percent, Placed, Time};

/// How endpoints are asked whether they are fit for requests. It has exactly one of `http`, `grpc`
/// and `tcp`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthCheck {
    /// For a path, or a map with `path`.
    pub http: Option<Placed<HttpCheck>>,
    /// By `grpc.health.v1.Health/Check`: `true` after the server, or a map with `service`.
    pub grpc: Option<Placed<GrpcCheck>>,
    /// `true`: for a connection, and a TLS handshake where the service has TLS.
    pub tcp: Option<Placed<bool>>,
    /// Between two checks of an endpoint, give or take a tenth. Default 2s.
    pub interval: Option<Time>,
    /// How long a check may take in all. Default 1s.
    pub timeout: Option<Time>,
    /// Good answers in a row until an unhealthy endpoint is healthy; the first check decides
    /// alone. Default 2.
    pub healthy: Option<Placed<u32>>,
    /// Checks in a row without an answer until a healthy endpoint is unhealthy; an answer that says
    /// no counts at once. Default 3.
    pub unhealthy: Option<Placed<u32>>,
    /// When fewer endpoints than this are healthy, all take requests. Default 50%; with 0% there
    /// is 503 when none is healthy.
    pub panic_threshold: Option<Percent>,
}

/// A resource that is asked for.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpCheckMap {
    /// Its path, with a query if it has one.
    pub path: Placed<String>,
    /// `GET` or `HEAD`. Default GET.
    #[serde(default)]
    pub method: CheckMethod,
    /// The Host field. Default: `tls.sni`, or the name of the service.
    pub host: Option<Placed<String>>,
    /// The statuses that are good: `200`, `200-299`; one or a list. Default 200.
    #[serde(default)]
    pub status: OneOrMany<Placed<String>>,
}

/// [`HttpCheckMap`], or its path alone.
#[derive(Clone, Debug, Default)]
pub struct HttpCheck(pub HttpCheckMap);

/// With which method a resource is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum CheckMethod {
    /// With its body.
    #[default]
    Get,
    /// Without.
    Head,
}

/// What a server of gRPC is asked.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcCheckMap {
    /// The full name of the service asked after. Default: the server as a whole.
    pub service: Option<Placed<String>>,
    /// The `:authority` field. Default: `tls.sni`, or the name of the service.
    pub authority: Option<Placed<String>>,
}

/// [`GrpcCheckMap`], or `true`.
#[derive(Clone, Debug, Default)]
pub struct GrpcCheck(pub GrpcCheckMap);
