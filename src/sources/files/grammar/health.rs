//! The grammar of `health_check:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{AtLeastOne, Percent, Placed, Time};

/// Health checks of endpoints. Set exactly one of `http`, `grpc` and `tcp`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthCheck {
    /// An HTTP request: its path, or a map with `path`.
    pub http: Option<Placed<HttpCheck>>,
    /// A gRPC call of `grpc.health.v1.Health/Check`: `true` for the whole server, or a map with
    /// `service`.
    pub grpc: Option<Placed<GrpcCheck>>,
    /// `true`: open a connection, with a TLS handshake if the service uses TLS.
    pub tcp: Option<Placed<bool>>,
    /// The time from the end of one check to the start of the next, with a jitter of one tenth.
    /// Default 2s.
    pub interval: Option<Time>,
    /// The time limit of one check. Default 1s.
    pub timeout: Option<Time>,
    /// The number of consecutive successes that makes an unhealthy endpoint healthy. One success is
    /// enough in the first check of an endpoint. Default 2.
    pub healthy: Option<Placed<u32>>,
    /// The number of consecutive failures that makes a healthy endpoint unhealthy. A response that
    /// reports a failure makes it unhealthy at once. Default 3.
    pub unhealthy: Option<Placed<u32>>,
    /// If less than this percentage of the endpoints is healthy, all endpoints get requests.
    /// Default 50%. With 0%, requests get 503 when no endpoint is healthy.
    pub panic_threshold: Option<Percent>,
}

/// An HTTP request of a health check.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpCheckMap {
    /// The path, with an optional query.
    pub path: Placed<String>,
    /// `GET` or `HEAD`. Default GET.
    #[serde(default)]
    pub method: CheckMethod,
    /// The Host field. Default: `tls.sni`, or the name of the service.
    pub host: Option<Placed<String>>,
    /// The statuses that count as success, one or a list: `200`, `200-299`. Default 200.
    #[serde(default)]
    pub status: AtLeastOne<Placed<String>>,
}

/// The request of a health check: [`HttpCheckMap`], or only its path.
#[derive(Clone, Debug, Default)]
pub struct HttpCheck(pub HttpCheckMap);

/// The method of a health check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum CheckMethod {
    /// GET.
    #[default]
    Get,
    /// HEAD.
    Head,
}

/// A gRPC call of a health check.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcCheckMap {
    /// The full name of the checked service. Default: the whole server.
    pub service: Option<Placed<String>>,
    /// The `:authority` field. Default: `tls.sni`, or the name of the service.
    pub authority: Option<Placed<String>>,
}

/// The gRPC call of a health check: [`GrpcCheckMap`], or `true`.
#[derive(Clone, Debug, Default)]
pub struct GrpcCheck(pub GrpcCheckMap);
