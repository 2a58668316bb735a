//! Rate limits.

use std::time::Duration;

use super::Item;

/// A limit on requests, or on the bytes of their bodies. `None` means the default. With a service,
/// it is a global limit.
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
    /// The rate limit service of a global limit.
    pub service: Option<Item<String>>,
    /// The domain of a global limit.
    pub domain: Option<Item<String>>,
    /// The descriptors of a global limit.
    pub descriptors: Vec<Item<Vec<Item<DescriptorEntry>>>>,
    /// The time limit of a question to the service.
    pub timeout: Option<Item<Duration>>,
    /// The decision when the service is slow or away.
    pub on_failure: Option<Item<OnFailure>>,
}

/// An entry of a descriptor of a global limit.
#[derive(Clone, Debug)]
pub struct DescriptorEntry {
    /// The key. `None` means the default of the fact.
    pub key: Option<Item<String>>,
    /// The source of the value. `None` means that there is not exactly one.
    pub fact: Option<EntryFact>,
}

/// The source of the value of an entry.
#[derive(Clone, Debug)]
pub enum EntryFact {
    /// The value of this header field, or else another text.
    Header(Item<String>, Option<String>),
    /// This text.
    Text(Item<String>),
    /// The address of the client.
    Source,
    /// The SPIFFE ID of the client.
    Identity,
    /// The method.
    Method,
    /// The path, without the query.
    Path,
    /// The name of the rule.
    Rule,
    /// The name of the service.
    Service,
}

/// The decision when the rate limit service is slow or away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// The request passes.
    #[default]
    Allow,
    /// The request is refused.
    Deny,
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
