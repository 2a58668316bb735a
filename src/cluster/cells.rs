//! The counters of services and endpoints.

use crate::cells::{Count, Histogram};
use crate::error::Flag;
use crate::http2::Flood;
use crate::resilience::{Limit, Mirrored};

/// The counters of one service, for one worker.
#[derive(Debug, Default)]
pub struct ServiceCells {
    /// Requests by status class, 1xx to 5xx at 0..=4. Index 5 counts requests without an answer.
    pub status_class: [Count; 6],
    /// Requests in progress (gauge).
    pub active: Count,
    /// Response flags, indexed by `Flag::index`.
    pub flags: [Count; Flag::ALL.len()],
    /// Time from request head to the end of the response.
    pub duration: Histogram,
    /// Requests that were sent on a reused connection.
    pub pool_reused: Count,
    /// Pooled connections that were dead when a request needed them.
    pub pool_stale: Count,
    /// Requests that were sent again on another connection.
    pub repeated: Count,
    /// Requests that were sent again by the retry policy.
    pub retries: Count,
    /// Requests that were not sent again because the retry budget was used up.
    pub retries_over_budget: Count,
    /// Requests that failed after the last allowed retry.
    pub retries_exhausted: Count,
    /// Requests that wait for a connection now (gauge).
    pub pending: Count,
    /// Requests that found a limit of the circuit breaker reached, by `Limit::index`.
    pub overflows: [Count; Limit::ALL.len()],
    /// Requests that found the adaptive limit on concurrency reached.
    pub concurrency_overflows: Count,
    /// Requests mirrored to the service, by `Mirrored::index`.
    pub mirrored: [Count; Mirrored::ALL.len()],
    /// Body bytes sent to the service.
    pub sent_bytes: Count,
    /// Body bytes received from the service.
    pub received_bytes: Count,
    /// HTTP/2 connections closed at a limit, by `Flood::index`.
    pub http2_floods: [Count; Flood::ALL.len()],
}

/// The counters of one endpoint, for one worker.
#[derive(Debug, Default)]
pub struct EndpointCells {
    /// Requests or L4 connections to the endpoint.
    pub requests: Count,
    /// Answers with 5xx, and requests without an answer.
    pub failures: Count,
    /// Complete responses by status class, 1xx to 5xx at 0..=4.
    pub status_class: [Count; 5],
    /// The sum of the durations of these responses, in microseconds.
    pub duration_us: Count,
    /// Connections opened.
    pub connections: Count,
    /// Connections that could not be opened.
    pub connect_failures: Count,
    /// Connections open now (gauge).
    pub active: Count,
    /// Idle connections in the pool (gauge).
    pub idle: Count,
}

/// The counters of the endpoints of a service that have the same zone and level, for one worker.
#[derive(Debug, Default)]
pub struct ZoneCells {
    /// Requests and L4 connections to the endpoints.
    pub requests: Count,
}
