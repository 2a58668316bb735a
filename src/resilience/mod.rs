//! Limits and policies of requests: circuit breakers, rate limits, injected faults, retries and
//! mirrors. No I/O, no clock.

mod breaker;
mod bucket;
mod buckets;
mod budget;
mod concurrency;
mod fault;
mod global;
mod gradient;
mod hedge;
mod limit_list;
mod log_budget;
mod mirror;
mod overload;
mod rate_limit;
mod retry;
mod shift;
mod sources;
mod two_ways;
mod verdict;

pub use breaker::{
    CircuitBreaker, InUse, Limit, MAX_CONNECTIONS, MAX_PENDING_REQUESTS, MAX_REQUESTS, MAX_RETRIES,
    Slot, Wanting,
};
pub use bucket::{Bucket, FILL_TIME_MAX, Rate, RateError, Taken};
pub use buckets::{Buckets, KeyHash, Keyed, RATE_LIMIT_KEYS};
pub use budget::{BUDGET_WINDOW_S, RetryBudget};
pub use concurrency::{Concurrency, Flight, InFlight};
pub use fault::{Abort, Bandwidth, Chance, FaultPolicy, Injected};
pub use global::{
    DESCRIPTORS_MAX, Descriptor, Entry, Fact, Facts, GLOBAL_TIMEOUT, GlobalLimit, GlobalLimitCells,
    OnFailure, RateLimits,
};
pub use gradient::{
    CONCURRENCY_MAX, CONCURRENCY_MIN, ConcurrencyTerms, PERCENTILE, PROBE_INTERVAL, PROBE_REQUESTS,
    UPDATE_INTERVAL,
};
pub use hedge::{HEDGE_SAMPLES_MIN, HEDGE_WINDOW, HedgeAfter, Hedged, Latencies};
pub use limit_list::{Keys, LIMITS_MAX, LimitList, admit};
pub use log_budget::{LogBudget, REFUSAL_LINES_MAX};
pub use mirror::{MIRROR_BYTES, MIRROR_TIMEOUT, MirrorPolicy, Mirrored};
pub use overload::{
    Level, Overload, OverloadTerms, Pressure, Priority, PriorityBy, Resource, SHED_PERCENT,
    STOP_PERCENT, Watched,
};
pub use rate_limit::{
    ByteLimit, LimitBy, LimitFields, Quota, RATE_PER, RateLimit, RateLimitCells, RequestLimit,
    Scope, Way, quoted,
};
pub use retry::{
    ATTEMPTS, Asked, AttemptCount, BACKOFF_BASE, BACKOFF_MAX_FACTOR, BUDGET_MIN, BUDGET_PERCENT,
    Condition, Failed, REPLAY_BYTES, Repeatable, Response, RetryPolicy,
};
pub use shift::{
    AbortIf, SHIFT_EVERY_MIN, SHIFT_MIN_REQUESTS, ShiftAbort, ShiftCounts, ShiftEnding, ShiftEvent,
    ShiftFault, ShiftPhase, ShiftPlan, ShiftProgress, ShiftSide, ShiftState, UnixMs, UnixTime,
};
pub use sources::{Counted, Sources};
pub use two_ways::{Due, QUIC_RETRY_AFTER, Silence, TwoWays};
pub use verdict::{Circumstances, REPEATS_MAX, Verdict, verdict};
