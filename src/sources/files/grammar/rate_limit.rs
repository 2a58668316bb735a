//! The grammar of `rate_limit:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{OneOrMany, Placed, Size, Time};

/// A limit on requests, on the bytes of their bodies, or on both. A request beyond the limit gets
/// 429; a gRPC call gets RESOURCE_EXHAUSTED. A body beyond the limit is slowed down. All workers
/// share the limit, and it is exact. With `service`, the limit is
/// global: a rate limit service counts the requests of many proxies. A list has several limits: a
/// request must pass all of them.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimit {
    /// The number of requests that pass in each `per`.
    pub requests: Option<Placed<u32>>,
    /// The number of bytes of bodies that pass in each `per`, counted for each direction
    /// separately.
    pub bytes: Option<Placed<Size>>,
    /// The period of `requests` and `bytes`. Default 1s.
    pub per: Option<Placed<Time>>,
    /// The number of requests that may arrive at the same time as the first one. Default:
    /// `requests` less 1, so that `requests` may arrive at the same time.
    pub burst: Option<Placed<u32>>,
    /// The property of a request by which limits are counted separately: `{header: NAME}`,
    /// `identity` or `source`. Default: one limit for all requests.
    pub by: Option<Placed<LimitBy>>,
    /// The name of the limit in `ratelimit-policy`. Default: the name of the rule, service or
    /// listener; in a list, with the number of the limit from the second one on.
    pub name: Option<Placed<String>>,
    /// The fields of responses that describe the limit. Default `ratelimit`.
    pub headers: LimitHeaders,
    /// The rate limit service that decides: a service with `protocol: grpc`. It implements Envoy's
    /// `envoy.service.ratelimit.v3`.
    pub service: Option<Placed<String>>,
    /// The domain: the set of limits in the configuration of the rate limit service.
    pub domain: Option<Placed<String>>,
    /// The descriptors of a request, which the service compares with its limits. Each is a list of
    /// entries.
    pub descriptors: Vec<Placed<OneOrMany<Placed<DescriptorEntry>>>>,
    /// The time limit of a question to the service. Default 20ms.
    pub timeout: Option<Placed<Time>>,
    /// The decision when the service is slow or away. Default `allow`.
    pub on_failure: Option<Placed<OnFailure>>,
}

/// An entry of a descriptor.
#[derive(Clone, Debug)]
pub struct DescriptorEntry {
    /// The key. `None` means the default of the value.
    pub key: Option<Placed<String>>,
    /// The source of the value. `None` means that there is not exactly one.
    pub value: Option<EntryValue>,
}

/// Where the value of a descriptor entry comes from.
#[derive(Clone, Debug)]
pub enum EntryValue {
    /// The value of this header field, or else another text.
    Header(Placed<String>, Option<String>),
    /// This text.
    Text(Placed<String>),
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// The request passes.
    #[default]
    Allow,
    /// The request gets 503, or UNAVAILABLE if it is a gRPC call.
    Deny,
}

/// The property of a request by which limits are counted separately.
#[derive(Clone, Debug)]
pub enum LimitBy {
    /// The value of this header field.
    Header(Placed<String>),
    /// The SPIFFE ID of the client.
    Identity,
    /// The address of the client.
    Source,
}

/// The fields of responses that describe a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LimitHeaders {
    /// `ratelimit` and `ratelimit-policy` (draft-ietf-httpapi-ratelimit-headers).
    #[default]
    Ratelimit,
    /// `x-ratelimit-limit`, `x-ratelimit-remaining` and `x-ratelimit-reset`, as Envoy.
    XRatelimit,
    /// The fields of `ratelimit` and those of `x-ratelimit`.
    Both,
    /// No such fields. A refused request still gets `retry-after`.
    None,
}
