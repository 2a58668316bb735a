//! The words with which other proxies limit connections and requests, with the advice for each.

use super::Word;

const SERVICE: &str = "max_idle_connections";
const LISTENER: &str = "trusted_hops";
const LIMITS: &str = "header_bytes";
const CONCURRENCY_MAP: &str = "probe_requests";
const OVERLOAD_MAP: &str = "stop_accepting";
const TOP: &str = "listeners";
const BREAKER_MAP: &str = "max_pending_requests";

const BREAKER_CONNECTIONS: &str = "write `circuit_breaker: {max_connections: {#=1024}}`; \
    `max_idle_connections` is for unused ones, and `connections` of a listener for clients";
const CONNECTION_POOL: &str = "write its parts here: connect_timeout, idle_timeout, and \
    circuit_breaker: {max_connections: {max_connections=1024}}";
const BREAKER_PENDING: &str = "write `circuit_breaker: {max_pending_requests: {#=1024}}`";
const BREAKER_REQUESTS: &str = "write `circuit_breaker: {max_requests: {#=1024}}`";
const CONNECTIONS: &str = "write it beside `overload`: limits: {connections: {#=100000}}";
const ADAPTIVE: &str = "write `concurrency: adaptive`";
const BREAKER: &str = "write `circuit_breaker: {max_connections: {max_connections=1024}, \
    max_pending_requests: {max_pending_requests=1024}, max_requests: {max_requests=1024}}`";

/// Each key, the map in which it is written, and the advice.
pub(super) const WORDS: &[Word] = &[
    // Keys of a listener, and of the limits of all listeners.
    ("max_connections", LISTENER, "write `connections: {#=10000}`"),
    ("maxconn", LISTENER, "write `connections: {#=10000}`"),
    ("max_connections", LIMITS, "write `connections: {#=100000}`"),
    ("maxconn", LIMITS, "write `connections: {#=100000}`"),
    // Keys of a service.
    ("connection_pool", SERVICE, CONNECTION_POOL),
    ("max_connections", SERVICE, BREAKER_CONNECTIONS),
    ("maxconn", SERVICE, BREAKER_CONNECTIONS),
    ("max_conns", SERVICE, BREAKER_CONNECTIONS),
    ("max_requests", SERVICE, BREAKER_REQUESTS),
    ("in_flight_req", SERVICE, BREAKER_REQUESTS),
    ("max_pending_requests", SERVICE, BREAKER_PENDING),
    ("maxqueue", SERVICE, BREAKER_PENDING),
    ("queue", SERVICE, BREAKER_PENDING),
    ("circuit_breakers", SERVICE, BREAKER),
    ("adaptive_concurrency", SERVICE, ADAPTIVE),
    ("concurrency_limit", SERVICE, ADAPTIVE),
    ("gradient_controller", SERVICE, ADAPTIVE),
    ("gradient_controller_config", SERVICE, ADAPTIVE),
    // Keys of overload protection.
    ("overload_manager", TOP, "write `overload: {memory: auto, shed: 90%, stop_accepting: 97%}`"),
    ("max_heap_size_bytes", OVERLOAD_MAP, "write `memory: {#=536870912}`, or `auto`"),
    ("fixed_heap", OVERLOAD_MAP, "write `memory: auto`, or a size such as 512MiB"),
    ("max_active_downstream_connections", OVERLOAD_MAP, CONNECTIONS),
    ("refresh_interval", OVERLOAD_MAP, "leave it out: the use is read every half second"),
    ("cpu_utilization", OVERLOAD_MAP, "write `cpu: auto`"),
    // Keys of an adaptive concurrency limit.
    ("min_concurrency", CONCURRENCY_MAP, "write `min: {#=3}`"),
    ("max_concurrency_limit", CONCURRENCY_MAP, "write `max: {#=1000}`"),
    ("sample_aggregate_percentile", CONCURRENCY_MAP, "write `percentile: {#=50}`"),
    ("concurrency_update_interval", CONCURRENCY_MAP, "write `interval: {~=100ms}`"),
    ("request_count", CONCURRENCY_MAP, "write `probe_requests: {#=50}`"),
    (
        "buffer",
        CONCURRENCY_MAP,
        "leave it out: the latency may be a quarter above the unloaded one",
    ),
    ("jitter", CONCURRENCY_MAP, "leave it out: a random part of up to 15% is always added"),
    // Keys of a circuit breaker.
    ("concurrency", BREAKER_MAP, "write it beside `circuit_breaker`: concurrency: adaptive"),
    ("thresholds", BREAKER_MAP, "leave it out: the limits are keys of `circuit_breaker`"),
    ("maxconn", BREAKER_MAP, "write `max_connections: {#=1024}`"),
    ("connections", BREAKER_MAP, "write `max_connections: {#=1024}`"),
    ("maxqueue", BREAKER_MAP, "write `max_pending_requests: {#=1024}`"),
    ("max_pending", BREAKER_MAP, "write `max_pending_requests: {#=1024}`"),
    ("http1_max_pending_requests", BREAKER_MAP, "write `max_pending_requests: {#=1024}`"),
    ("http2_max_requests", BREAKER_MAP, "write `max_requests: {#=1024}`"),
    ("expression", BREAKER_MAP, "leave it out: a circuit breaker here has limits on numbers"),
];
