//! Decides whether a request is sent, whether it is sent again, and whether the client gets a
//! response. Pure: no I/O, no clock.

mod breaker;
mod budget;
mod retry;
mod verdict;

pub use breaker::{
    CircuitBreaker, InUse, Limit, MAX_CONNECTIONS, MAX_PENDING_REQUESTS, MAX_REQUESTS, MAX_RETRIES,
    Slot, Wanting,
};
pub use budget::{BUDGET_WINDOW_S, RetryBudget};
pub use retry::{
    ATTEMPTS, Asked, BACKOFF_BASE, BACKOFF_MAX_FACTOR, BUDGET_MIN, BUDGET_PERCENT, Condition,
    Failed, REPLAY_BYTES, Repeatable, Response, RetryPolicy,
};
pub use verdict::{Circumstances, Heard, REPEATS_MAX, Verdict, verdict};
