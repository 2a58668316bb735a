//! Retries of failed requests.

use std::time::Duration;

use super::Item;

/// When and how often requests are sent again. `None` means the default.
#[derive(Clone, Debug, Default)]
pub struct Retries {
    /// How often one request may be sent again.
    pub attempts: Option<u32>,
    /// The conditions: Envoy's names, statuses, or gRPC codes in lower case.
    pub on: Option<Vec<Item<String>>>,
    /// The time limit of one attempt, from the open connection to the head of its response.
    pub per_try_timeout: Option<Item<Duration>>,
    /// The wait before the first retry.
    pub backoff_base: Option<Item<Duration>>,
    /// The longest wait before a retry.
    pub backoff_max: Option<Item<Duration>>,
    /// The share of retries, in percent of the requests of the service.
    pub budget_percent: Option<Item<u8>>,
    /// The number of retries that is always allowed.
    pub budget_min: Option<u32>,
    /// The methods of requests that may be sent twice. Empty means the idempotent methods.
    pub methods: Vec<Item<String>>,
    /// The limit on the request body that is kept for a retry.
    pub replay_bytes: Option<usize>,
    /// Endpoints get the number of the attempt with a request.
    pub attempt_count_in_request: bool,
    /// Clients get the number of the attempt with a response.
    pub attempt_count_in_response: bool,
}
