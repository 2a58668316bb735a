//! The grammar of `retries:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{AtLeastOne, HedgeAfter, Percent, Placed, Size, Time};

/// Retries of failed requests.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// The maximum number of retries of one request; 0 for no retries. Default 2.
    pub attempts: Option<u32>,
    /// The conditions for a retry, one or a list: `connect-failure`, `refused-stream`, `reset`,
    /// `reset-before-request`, `5xx`, `gateway-error`, `retriable-4xx`, `envoy-ratelimited`, a
    /// status, or a gRPC code: `cancelled`, `deadline-exceeded`, `internal`, `resource-exhausted`,
    /// `unavailable`. Default: `[connect-failure, refused-stream]`, which mean that the endpoint
    /// did not process the request.
    pub on: Option<AtLeastOne<Placed<String>>>,
    /// The time limit of one attempt, from the open connection to the head of its response.
    /// Default: no limit.
    pub per_try_timeout: Option<Placed<Time>>,
    /// The wait before a retry.
    pub backoff: Backoff,
    /// The limit on the retries of a service.
    pub budget: Budget,
    /// The methods of requests that may be retried after they were sent, one or a list. Default:
    /// the idempotent methods GET, HEAD, OPTIONS, TRACE, PUT and DELETE.
    pub methods: Option<AtLeastOne<Placed<String>>>,
    /// The largest request body that is buffered for a retry. Default 64KiB.
    pub replay_bytes: Option<Size>,
    /// The messages that get the number of their attempt, in `x-envoy-attempt-count`. Default
    /// `none`.
    pub attempt_count: AttemptCount,
    /// Hedging: a slow request is also sent to a second endpoint. Default: no hedging.
    pub hedge: Option<Placed<Hedge>>,
}

/// Hedging: a slow request is also sent to a second endpoint. The first successful response is
/// used.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hedge {
    /// A percentile of the latency of the service, `p50` to `p99.9`, or a time. Default `p95`.
    pub after: Option<Placed<HedgeAfter>>,
}

/// The messages that get the number of their attempt, in `x-envoy-attempt-count`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AttemptCount {
    /// No messages.
    #[default]
    None,
    /// Requests to endpoints.
    Request,
    /// Responses to clients.
    Response,
    /// Requests to endpoints, and responses to clients.
    Both,
}

/// The wait before a retry: a random time from 0 to a limit. The limit doubles with each retry.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Backoff {
    /// The limit for the first retry. Default 25ms.
    pub base: Option<Placed<Time>>,
    /// The maximum of the limit. Default: ten times `base`.
    pub max: Option<Placed<Time>>,
}

/// The limit on the retries of a service in the last ten seconds, over all workers.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// The maximum share of retries, in percent of the requests of the service. Default 20%.
    pub percent: Option<Placed<Percent>>,
    /// The number of retries that is always allowed, whatever the share is. Default 3.
    pub min: Option<u32>,
}
