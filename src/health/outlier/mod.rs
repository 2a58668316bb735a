//! Outlier detection: endpoints with failed responses get no requests for some time.
//!
//! Workers report the result of each attempt to the endpoint's [`OutlierState`]. The worker whose
//! attempt reaches the limit of consecutive failures ejects the endpoint at once, under the lock of
//! the service's [`OutlierGroup`]. So the limit on ejected endpoints holds whatever the workers do
//! at the same time. The control thread ends ejections, and writes the log. It also compares the
//! success rates of the endpoints, at the end of an interval that begins with a failure.

mod group;
mod hub;
mod policy;
mod rates;
mod state;

pub use group::{OutlierEvent, OutlierGroup};
pub use hub::OutlierHub;
pub use policy::{
    BASE_EJECTION_TIME, CONSECUTIVE_5XX, EJECTION_INTERVAL, EjectionReason, MAX_EJECTION_PERCENT,
    MAX_EJECTION_TIME, OutlierDetection, OutlierPolicy,
};
pub use rates::{
    FAILURE_PERCENT, FAILURE_PERCENTAGE_VOLUME, FailurePercentage, MINIMUM_HOSTS, STDEV_FACTOR,
    SUCCESS_RATE_VOLUME, Sample, SuccessRate,
};
pub use state::{Heard, OutlierState};
