//! Decides whether the client gets a response or the request is sent again, and which requests get
//! a fault. Pure: no I/O, no clock.

mod budget;
mod fault;
mod mirror;
mod retry;
mod verdict;

pub use budget::{BUDGET_WINDOW_S, RetryBudget};
pub use fault::{Abort, Chance, FaultPolicy, Injected};
pub use mirror::{MIRROR_BYTES, MIRROR_TIMEOUT, MirrorPolicy, Mirrored};
pub use retry::{
    ATTEMPTS, Asked, BACKOFF_BASE, BACKOFF_MAX_FACTOR, BUDGET_MIN, BUDGET_PERCENT, Condition,
    Failed, REPLAY_BYTES, Repeatable, Response, RetryPolicy,
};
pub use verdict::{Circumstances, Heard, REPEATS_MAX, Verdict, verdict};
