//! The grammar of `fault:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::route::ValueMatch;
use crate::sources::files::values::{Entries, Placed, Portion, Size, Time};

/// Faults that are injected into requests, to test the behaviour of clients.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Fault {
    /// Header fields, by name. Only requests that match all of them get a fault. Default: all
    /// requests of the rule.
    pub headers: Entries<Placed<ValueMatch>>,
    /// A delay before a request is forwarded.
    pub delay: Option<Placed<Delay>>,
    /// A response that replaces that of the endpoint.
    pub abort: Option<Placed<Abort>>,
    /// A limit on the bandwidth of the response body.
    pub bandwidth: Option<Placed<Bandwidth>>,
}

/// A delay before a request is forwarded.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Delay {
    /// The duration of the delay.
    pub duration: Option<Time>,
    /// The share of requests that are delayed: `5` or `0.5%`. Default: all.
    pub percent: Option<Portion>,
}

/// A response that replaces that of the endpoint. Set either `status` or `grpc_status`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Abort {
    /// The HTTP status, 200 to 599. A gRPC call gets the corresponding gRPC status.
    pub status: Option<Placed<u16>>,
    /// The gRPC status, such as `UNAVAILABLE`. Any other request gets the corresponding HTTP
    /// status.
    pub grpc_status: Option<Placed<String>>,
    /// The share of requests that get this response: `5` or `0.5%`. Default: all.
    pub percent: Option<Portion>,
}

/// A limit on the bandwidth of the response body.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Bandwidth {
    /// The bandwidth in bytes per second: `100KiB`.
    pub bytes_per_second: Option<Placed<Size>>,
    /// The share of requests that are limited: `5` or `0.5%`. Default: all.
    pub percent: Option<Portion>,
}
