//! Rate limits.

use std::time::Duration;

use super::Item;

/// A limit on requests, or on the bytes of their bodies. `None` means the default.
#[derive(Clone, Debug, Default)]
pub struct RateLimit {
    /// How many requests pass in each `per`. A limit without requests and bytes is an error.
    pub requests: Option<Item<u32>>,
    /// How many bytes of bodies pass in each `per`, counted for each direction separately.
    pub bytes: Option<Item<usize>>,
    /// The period in which `requests` requests or `bytes` bytes pass.
    pub per: Option<Item<Duration>>,
    /// How many requests may arrive at the same time as the first one. More are refused.
    pub burst: Option<Item<u32>>,
    /// The property that selects the bucket of a request. `None` means one bucket for all requests.
    pub by: Option<LimitBy>,
    /// The name of the limit in the `ratelimit-policy` field of responses.
    pub name: Option<String>,
    /// The fields of responses that describe the limit.
    pub headers: LimitHeaders,
}

/// The property that selects the bucket of a request. Requests with an equal value share a bucket.
#[derive(Clone, Debug)]
pub enum LimitBy {
    /// The value of this header field.
    Header(Item<String>),
    /// The SPIFFE ID of the client.
    Identity,
    /// The address of the client.
    Source,
}

/// The fields of responses that describe a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitHeaders {
    /// `ratelimit` and `ratelimit-policy`.
    #[default]
    Standard,
    /// `x-ratelimit-limit`, `x-ratelimit-remaining` and `x-ratelimit-reset`.
    Envoy,
    /// The fields of `Standard` and those of `Envoy`.
    Both,
    /// No fields. A refused request still gets `retry-after`.
    None,
}
