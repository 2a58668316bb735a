//! Faults that a rule injects into its requests.

use std::time::Duration;

use super::Item;
use crate::matching::ValueMatch;

/// The faults that a rule injects into its requests.
#[derive(Clone, Debug, Default)]
pub struct InjectedFault {
    /// Conditions on header fields, by name. Only requests that match all of them get a fault.
    pub headers: Vec<(Item<String>, ValueMatch)>,
    /// The delay before a request is forwarded.
    pub delay: Option<Item<Delay>>,
    /// The response that replaces that of the endpoint.
    pub abort: Option<Item<Abort>>,
    /// The limit on the bandwidth of the response body.
    pub bandwidth: Option<Item<Bandwidth>>,
}

/// A delay before a request is forwarded.
#[derive(Clone, Debug, Default)]
pub struct Delay {
    /// The duration of the delay. `None` is an error.
    pub duration: Option<Duration>,
    /// The share of the requests, in millionths ([`SHARE_PARTS`]). `None` means all.
    pub share: Option<u32>,
}

/// A response that replaces that of the endpoint. It has either a status or a gRPC status.
#[derive(Clone, Debug, Default)]
pub struct Abort {
    /// The HTTP status, 200 to 599.
    pub status: Option<Item<u16>>,
    /// The gRPC status: a name in capitals, or a number.
    pub grpc_status: Option<Item<String>>,
    /// The share of the requests, in millionths ([`SHARE_PARTS`]). `None` means all.
    pub share: Option<u32>,
}

/// A limit on the bandwidth of responses.
#[derive(Clone, Debug, Default)]
pub struct Bandwidth {
    /// The bandwidth in bytes per second. `None` is an error.
    pub bytes_per_second: Option<Item<usize>>,
    /// The share of the requests, in millionths ([`SHARE_PARTS`]). `None` means all.
    pub share: Option<u32>,
}

/// The unit of a share of requests: a whole has this many parts.
pub const SHARE_PARTS: u32 = 1_000_000;
