//! Retries of failed requests.

use std::time::Duration;

use super::Item;

/// When and how often requests are retried. `None` means the default.
#[derive(Clone, Debug, Default)]
pub struct Retries {
    /// The maximum number of retries of one request.
    pub attempts: Option<u32>,
    /// The conditions: Envoy's names, statuses, or gRPC codes in lower case.
    pub on: Option<Vec<Item<String>>>,
    /// The time limit of one attempt, from the open connection to the head of its response.
    pub per_try_timeout: Option<Item<Duration>>,
    /// The limit on the random wait before the first retry. The limit doubles with each retry.
    pub backoff_base: Option<Item<Duration>>,
    /// The maximum of that limit.
    pub backoff_max: Option<Item<Duration>>,
    /// The retry budget: the maximum number of retries, in percent of the requests of the service.
    pub budget_percent: Option<Item<u8>>,
    /// The number of retries that the budget always allows.
    pub budget_min: Option<u32>,
    /// The methods of requests that may be retried after they were sent. Empty means the idempotent
    /// methods.
    pub methods: Vec<Item<String>>,
    /// The largest request body that is buffered for a retry, in bytes.
    pub replay_bytes: Option<usize>,
    /// Whether requests to endpoints get `x-envoy-attempt-count`, the number of the attempt.
    pub attempt_count_in_request: bool,
    /// Whether responses to clients get `x-envoy-attempt-count`, the number of the attempt.
    pub attempt_count_in_response: bool,
    /// Hedging of slow requests. `None` means no hedging.
    pub hedge_after: Option<Item<HedgeAfter>>,
}

/// The time after which a slow request is also sent to a second endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeAfter {
    /// A percentile of the service's latency, in tenths of a percent.
    Percentile(u16),
    /// A fixed time.
    Time(Duration),
}
