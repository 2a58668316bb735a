//! Health of endpoints: what is checked (`check`), the evaluation of results (`verdict`, `grpc`),
//! and the state that workers read (`state`). `outlier` ejects endpoints by the responses to
//! requests. Pure: `control/checks` sends the checks, and `control/outliers` ends ejections.

mod check;
pub mod grpc;
mod outlier;
mod slow_start;
mod state;
mod verdict;

pub use check::{Ask, Check, Statuses};
pub use outlier::{
    BASE_EJECTION_TIME, CONSECUTIVE_5XX, EJECTION_INTERVAL, EjectionReason, FAILURE_PERCENT,
    FAILURE_PERCENTAGE_VOLUME, FailurePercentage, Heard, MAX_EJECTION_PERCENT, MAX_EJECTION_TIME,
    MINIMUM_HOSTS, OutlierDetection, OutlierEvent, OutlierGroup, OutlierHub, OutlierPolicy,
    OutlierState, STDEV_FACTOR, SUCCESS_RATE_VOLUME, SuccessRate,
};
pub use slow_start::{AGGRESSION, MIN_WEIGHT_PERCENT, SlowStart, Warmup};
pub use state::{Account, Changes, HealthState};
pub use verdict::{Eligible, Judge, Reason, State, Thresholds, eligible};
