//! The grammar of `fault:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::route::ValueMatch;
use crate::sources::files::values::{Entries, Placed, Portion, Size, Time};

/// Faults that are injected into requests, to test how their clients behave.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Fault {
    /// Header fields, by name. Only requests that match all get a fault. Default: all requests of
    /// the rule.
    pub headers: Entries<Placed<ValueMatch>>,
    /// A wait before a request is forwarded.
    pub delay: Option<Placed<Delay>>,
    /// An answer in place of the endpoint's.
    pub abort: Option<Placed<Abort>>,
    /// A limit on the body of the response.
    pub bandwidth: Option<Placed<Bandwidth>>,
}

/// A wait before a request is forwarded.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Delay {
    /// The length.
    pub duration: Option<Time>,
    /// The share of the requests: `5` or `0.5%`. Default: all.
    pub percent: Option<Portion>,
}

/// An answer in place of the endpoint's. Set either `status` or `grpc_status`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Abort {
    /// The status, 200 to 599. A gRPC call gets the gRPC status that belongs to it.
    pub status: Option<Placed<u16>>,
    /// The gRPC status, such as `UNAVAILABLE`. Other requests get the status that belongs to it.
    pub grpc_status: Option<Placed<String>>,
    /// The share of the requests: `5` or `0.5%`. Default: all.
    pub percent: Option<Portion>,
}

/// A limit on the body of the response.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Bandwidth {
    /// The bytes per second: `100KiB`.
    pub bytes_per_second: Option<Placed<Size>>,
    /// The share of the requests: `5` or `0.5%`. Default: all.
    pub percent: Option<Portion>,
}
