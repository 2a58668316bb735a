//! Injected faults.

use std::time::Duration;

use super::Item;
use crate::matching::ValueMatch;

/// The faults that a rule injects into its requests.
#[derive(Clone, Debug, Default)]
pub struct InjectedFault {
    /// Conditions on header fields, by name.
    pub headers: Vec<(Item<String>, ValueMatch)>,
    /// The wait before a request is forwarded.
    pub delay: Option<Item<Delay>>,
    /// The answer in place of the endpoint's.
    pub abort: Option<Item<Abort>>,
    /// The limit on the body of the response.
    pub bandwidth: Option<Item<Bandwidth>>,
}

/// A delay.
#[derive(Clone, Debug, Default)]
pub struct Delay {
    /// The length. It is required.
    pub duration: Option<Duration>,
    /// The share of the requests, in [`SHARE_PARTS`] of a whole. `None` means all.
    pub share: Option<u32>,
}

/// An abort. It has either a status or a gRPC status.
#[derive(Clone, Debug, Default)]
pub struct Abort {
    /// The HTTP status.
    pub status: Option<Item<u16>>,
    /// The gRPC status: a name in capitals, or a number.
    pub grpc_status: Option<Item<String>>,
    /// The share of the requests, in [`SHARE_PARTS`] of a whole. `None` means all.
    pub share: Option<u32>,
}

/// A limit on the bandwidth of responses.
#[derive(Clone, Debug, Default)]
pub struct Bandwidth {
    /// The bytes per second. It is required.
    pub bytes_per_second: Option<Item<usize>>,
    /// The share of the requests, in [`SHARE_PARTS`] of a whole. `None` means all.
    pub share: Option<u32>,
}

/// The number of parts of a whole, for shares of requests.
pub const SHARE_PARTS: u32 = 1_000_000;
