//! The grammar of `rate_limit:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{Placed, Size, Time};

/// A limit on requests, on the bytes of their bodies, or on both. A request beyond it gets 429, or
/// RESOURCE_EXHAUSTED if it is a gRPC call. A body beyond it becomes slower. The limit is exact
/// over all workers.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimit {
    /// How many requests pass in each `per`.
    pub requests: Option<Placed<u32>>,
    /// How many bytes of bodies pass in each `per`, in each direction.
    pub bytes: Option<Placed<Size>>,
    /// The time for that many requests or bytes. Default 1s.
    pub per: Option<Placed<Time>>,
    /// How many requests may come at once with the first one. Default: `requests` less 1, so that
    /// `requests` may come at once.
    pub burst: Option<Placed<u32>>,
    /// The requests that share a limit: `{header: NAME}`, `identity` or `source`. Default: all
    /// requests.
    pub by: Option<Placed<LimitBy>>,
    /// The name of the limit in `ratelimit-policy`. Default: the name of the rule, service or
    /// listener.
    pub name: Option<Placed<String>>,
    /// The fields about the limit in responses. Default `ratelimit`.
    pub headers: LimitHeaders,
}

/// The requests that share a limit.
#[derive(Clone, Debug)]
pub enum LimitBy {
    /// Requests with the same value of this header field.
    Header(Placed<String>),
    /// Requests of the same SPIFFE ID.
    Identity,
    /// Requests of the same client address.
    Source,
}

/// The fields about a limit in responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LimitHeaders {
    /// `ratelimit` and `ratelimit-policy` (draft-ietf-httpapi-ratelimit-headers).
    #[default]
    Ratelimit,
    /// `x-ratelimit-limit`, `x-ratelimit-remaining` and `x-ratelimit-reset`, as Envoy.
    XRatelimit,
    /// Both.
    Both,
    /// None. A refused request has `retry-after` nevertheless.
    None,
}
