//! Health of endpoints: the probe (`check`), the evaluation of results (`verdict`, `grpc`), and the
//! state that workers read (`state`). `outlier` judges endpoints by the responses to requests.
//! Pure: `control/checks` sends the probes, and `control/outliers` ends ejections.

mod check;
pub mod grpc;
mod outlier;
mod state;
mod verdict;

pub use check::{Ask, Check, Statuses};
pub use outlier::{
    BASE_EJECTION_TIME, CONSECUTIVE_5XX, EJECTION_INTERVAL, EjectionReason, Heard,
    MAX_EJECTION_PERCENT, MAX_EJECTION_TIME, OutlierDetection, OutlierEvent, OutlierGroup,
    OutlierHub, OutlierPolicy, OutlierState,
};
pub use state::{Account, Changes, HealthState};
pub use verdict::{Eligible, Judge, Reason, State, Thresholds, eligible};
