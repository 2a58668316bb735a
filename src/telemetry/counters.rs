//! Counters that cost a plain add: each worker writes its own, the control thread sums on scrape.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Flag;
use crate::http2::Flood;
use crate::jwt::Rejection;
use crate::mesh::{Misled, OUTCOMES, UdpRefusal};
use crate::tls::reason::Failure;

/// A monotonic count or a gauge, written by one worker only and read by anyone.
///
/// Adding is a load and a store, not a locked add: the single writer is what makes that exact.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`. Only the owning worker may call this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Adds one. Only the owning worker may call this.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Takes one away (gauges). Only the owning worker may call this.
    #[inline]
    pub fn decrement(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
    }

    /// Sets a gauge. Only the owning worker may call this.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value now.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One `T` for each worker, far enough apart that no two share a cache line.
#[derive(Debug)]
pub struct PerWorker<T>(Box<[Padded<T>]>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> PerWorker<T> {
    /// Cells for `workers` workers, all zero.
    pub fn new(workers: usize) -> Self {
        Self((0..workers.max(1)).map(|_| Padded::default()).collect())
    }
}

impl<T> PerWorker<T> {
    /// The cell of worker `index`; every worker index is below the count given to `new`.
    #[inline]
    pub fn worker(&self, index: usize) -> &T {
        &self.0[index].0
    }

    /// All cells, worker 0 first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &padded.0)
    }

    /// The sum over all workers of one count.
    pub fn sum(&self, count: impl Fn(&T) -> &Count) -> u64 {
        self.iter().map(|cells| count(cells).value()).fold(0, u64::wrapping_add)
    }
}

/// Upper bounds of the latency buckets in milliseconds: Envoy's, so that dashboards carry over.
/// A last, implicit bucket is +Inf.
pub const LATENCY_BUCKETS_MS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// A histogram of durations over [`LATENCY_BUCKETS_MS`].
#[derive(Debug, Default)]
pub struct Histogram {
    /// One count for each bucket (not cumulative), the last is +Inf.
    pub buckets: [Count; LATENCY_BUCKETS_MS.len() + 1],
    /// Sum of all durations in microseconds.
    pub sum_us: Count,
}

impl Histogram {
    /// Counts one duration, given in microseconds.
    #[inline]
    pub fn observe_us(&self, duration_us: u64) {
        let bucket = LATENCY_BUCKETS_MS
            .iter()
            .position(|bound| duration_us as f64 <= bound * 1000.0)
            .unwrap_or(LATENCY_BUCKETS_MS.len());
        self.buckets[bucket].increment();
        self.sum_us.add(duration_us);
    }
}

/// What one worker counts for one listener.
#[derive(Debug, Default)]
pub struct ListenerCells {
    /// Connections accepted.
    pub connections: Count,
    /// Connections open now (gauge).
    pub active: Count,
    /// Connections closed at once because a limit was reached.
    pub overflow: Count,
    /// Requests refused before a route was looked up (bad syntax, limits, header timeout).
    pub refused: Count,
    /// Full TLS handshakes.
    pub tls_handshakes: Count,
    /// TLS handshakes that went on from an earlier connection.
    pub tls_resumed: Count,
    /// Connections cut because a peer's certificate was revoked.
    pub revoked: Count,
    /// TLS handshakes refused, by kind of failure.
    pub tls_failures: [Count; Failure::ALL.len()],
    /// Connections of HTTP/2 ended at a limit, by `Flood::index`.
    pub http2_floods: [Count; Flood::ALL.len()],
    /// Bytes read from clients.
    pub received_bytes: Count,
    /// Bytes written to clients.
    pub sent_bytes: Count,
}

/// What one worker counts for one listener of captured traffic, beside its [`ListenerCells`].
#[derive(Debug, Default)]
pub struct CaptureCells {
    /// Connections by what they were found to speak (`mesh::outcome_index`).
    pub detected: [Count; OUTCOMES],
    /// From the accept until that was known.
    pub detection: Histogram,
    /// Connections onward that were opened before it was known, because the client was silent.
    pub early: Count,
    /// Connections that could not be served at all, by `Misled::index`.
    pub misled: [Count; Misled::ALL.len()],
    /// Requests of orchestrators that needed no identity.
    pub probes: Count,
    /// Flows of UDP opened.
    pub flows: Count,
    /// Flows of UDP open now (gauge).
    pub flows_active: Count,
    /// Flows of UDP not carried, by `UdpRefusal::index`; their datagrams, to be exact.
    pub flows_refused: [Count; UdpRefusal::ALL.len()],
    /// Datagrams sent on to destinations.
    pub datagrams_out: Count,
    /// Datagrams sent back to clients.
    pub datagrams_in: Count,
    /// Bytes of them.
    pub datagram_bytes_out: Count,
    /// Bytes of them.
    pub datagram_bytes_in: Count,
    /// Datagrams that the kernel had no room for.
    pub datagrams_lost: Count,
}

/// What one worker counts for one route rule.
#[derive(Debug, Default)]
pub struct RouteCells {
    /// Requests by status class: 1xx..5xx at 0..=4; 5 counts those that ended without an answer.
    pub status_class: [Count; 6],
    /// The place in the weighted sequence of destinations (state, not a metric).
    pub turn: Count,
}

/// What one worker counts for one authorization rule.
#[derive(Debug, Default)]
pub struct AuthorizationCells {
    /// Requests and connections that it allowed.
    pub allowed: Count,
    /// Those that it denied; for an allow rule those denied by default, when it was the first of
    /// the rules of which none matched.
    pub denied: Count,
    /// Those that an audit rule matched.
    pub audited: Count,
    /// Those that it would have allowed, were it not on trial.
    pub dry_run_allowed: Count,
    /// Those that it would have denied, were it not on trial.
    pub dry_run_denied: Count,
}

/// What one worker counts for one issuer of tokens.
#[derive(Debug, Default)]
pub struct JwtCells {
    /// Requests whose token was accepted.
    pub accepted: Count,
    /// Requests that were turned away, by reason.
    pub rejected: [Count; Rejection::ALL.len()],
}

/// What one worker counts for one service.
#[derive(Debug, Default)]
pub struct ServiceCells {
    /// Requests by status class, as in [`RouteCells::status_class`].
    pub status_class: [Count; 6],
    /// Requests under way (gauge).
    pub active: Count,
    /// Response flags, indexed by `Flag::index`.
    pub flags: [Count; Flag::ALL.len()],
    /// Time from request head to the end of the response.
    pub duration: Histogram,
    /// Requests that went out on a pooled connection.
    pub pool_reused: Count,
    /// Pooled connections found closed when they were about to be used.
    pub pool_stale: Count,
    /// Requests sent again on a fresh connection after a pooled one died.
    pub repeated: Count,
    /// Bytes sent to the service.
    pub sent_bytes: Count,
    /// Bytes received from the service.
    pub received_bytes: Count,
    /// Connections of HTTP/2 ended at a limit, by `Flood::index`.
    pub http2_floods: [Count; Flood::ALL.len()],
}

/// What one worker counts for one endpoint.
#[derive(Debug, Default)]
pub struct EndpointCells {
    /// Requests (or L4 connections) sent there.
    pub requests: Count,
    /// Answers with 5xx, and requests without an answer.
    pub failures: Count,
    /// Connections opened.
    pub connections: Count,
    /// Connections that could not be opened.
    pub connect_failures: Count,
    /// Connections open now (gauge).
    pub active: Count,
    /// Of them idle in the pool (gauge).
    pub idle: Count,
}

/// What one worker counts for itself.
#[derive(Debug, Default)]
pub struct WorkerCells {
    /// Connections accepted by this worker.
    pub accepted: Count,
    /// Connections handed to a less loaded worker.
    pub handed_over: Count,
    /// Connections open now (gauge).
    pub active: Count,
    /// Requests served.
    pub requests: Count,
    /// Requests that failed before a service was known, by `Flag::index`.
    pub flags: [Count; Flag::ALL.len()],
    /// Panics caught at a connection's boundary.
    pub panics: Count,
    /// accept(2) failures for want of descriptors or memory.
    pub accept_errors: Count,
    /// Buffers in use (gauge) and kept for reuse (gauge).
    pub buffers_used: Count,
    /// Buffers kept for reuse (gauge).
    pub buffers_pooled: Count,
    /// Bytes said to peers of HTTP/2 that are not written yet (gauge).
    pub http2_held_bytes: Count,
}
