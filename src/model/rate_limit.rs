//! Rate limits.

use std::time::Duration;

use super::Item;

/// A limit on requests, or on the bytes of their bodies. `None` means the default.
#[derive(Clone, Debug, Default)]
pub struct RateLimit {
    /// How many requests pass in each `per`. A limit without requests and bytes is an error.
    pub requests: Option<Item<u32>>,
    /// How many bytes of bodies pass in each `per`, in each direction.
    pub bytes: Option<Item<usize>>,
    /// The time for that many requests or bytes.
    pub per: Option<Item<Duration>>,
    /// How many requests may come at once with the first one.
    pub burst: Option<Item<u32>>,
    /// The requests that share a bucket. `None` means all.
    pub by: Option<LimitBy>,
    /// The name that clients see.
    pub name: Option<String>,
    /// The header fields of responses.
    pub headers: LimitHeaders,
}

/// The requests that share a bucket.
#[derive(Clone, Debug)]
pub enum LimitBy {
    /// Requests with the same value of this header field.
    Header(Item<String>),
    /// Requests of the same SPIFFE ID.
    Identity,
    /// Requests of the same client address.
    Source,
}

/// The header fields about a limit in responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitHeaders {
    /// `ratelimit` and `ratelimit-policy`.
    #[default]
    Standard,
    /// `x-ratelimit-limit`, `x-ratelimit-remaining` and `x-ratelimit-reset`.
    Envoy,
    /// Both.
    Both,
    /// None.
    None,
}
