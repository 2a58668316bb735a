//! The counters of services and endpoints.

use crate::cells::{Count, FineHistogram, Histogram};
use crate::error::Flag;
use crate::http2::Flood;
use crate::resilience::{Hedged, Limit, Mirrored};

/// The counters of one service, for one worker.
#[derive(Debug, Default)]
pub struct ServiceCells {
    /// Requests by status class: 1xx to 5xx at index 0 to 4. Index 5 counts requests without a
    /// response.
    pub status_class: [Count; 6],
    /// Requests in progress (gauge).
    pub active: Count,
    /// Requests with a response flag, by `Flag::index`.
    pub flags: [Count; Flag::ALL.len()],
    /// The time from the head of the request to the end of the response.
    pub duration: Histogram,
    /// The same durations, for percentiles.
    pub latency: FineHistogram,
    /// Requests that were sent on a reused connection.
    pub pool_reused: Count,
    /// Pooled connections that turned out to be closed when a request needed them.
    pub pool_stale: Count,
    /// Endpoints that are reached over TCP for a time, because QUIC has failed.
    pub quic_fallbacks: Count,
    /// Requests that were sent again on another connection, because a reused one was closed.
    pub repeated: Count,
    /// Retries by the retry policy.
    pub retries: Count,
    /// Requests that were not retried because the retry budget was used up.
    pub retries_over_budget: Count,
    /// Requests that failed after the last allowed retry.
    pub retries_exhausted: Count,
    /// Hedged requests by result, at the index `Hedged::index`.
    pub hedged: [Count; Hedged::ALL.len()],
    /// Requests that wait for a connection now (gauge).
    pub pending: Count,
    /// How often a request reached a limit of the circuit breaker, by `Limit::index`.
    pub overflows: [Count; Limit::ALL.len()],
    /// How often a request reached the adaptive concurrency limit.
    pub concurrency_overflows: Count,
    /// Requests that were mirrored to the service, by `Mirrored::index`.
    pub mirrored: [Count; Mirrored::ALL.len()],
    /// Bytes of bodies sent to the service.
    pub sent_bytes: Count,
    /// Bytes of bodies received from the service.
    pub received_bytes: Count,
    /// HTTP/2 connections that were closed because the endpoint exceeded a limit, by
    /// `Flood::index`.
    pub http2_floods: [Count; Flood::ALL.len()],
}

/// The counters of one endpoint, for one worker.
#[derive(Debug, Default)]
pub struct EndpointCells {
    /// Requests or L4 connections to the endpoint.
    pub requests: Count,
    /// Responses with status 5xx, and requests without a response.
    pub failures: Count,
    /// Complete responses by status class: 1xx to 5xx at index 0 to 4.
    pub status_class: [Count; 5],
    /// The sum of the durations of the complete responses, in microseconds.
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
