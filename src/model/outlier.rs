//! Outlier detection: endpoints whose responses fail get no requests for a time.

use std::time::Duration;

use super::Item;

/// The outlier detection of a service. `None` means the default.
#[derive(Clone, Debug, Default)]
pub struct OutlierDetection {
    /// Responses of 5xx in a row. 0 means that they are not counted.
    pub consecutive_5xx: Option<u32>,
    /// Responses of 502, 503 and 504 in a row. 0 means that they are not counted.
    pub consecutive_gateway_errors: Option<u32>,
    /// Attempts without a response in a row. 0 means that they count as 5xx and gateway errors.
    pub consecutive_local_failures: Option<u32>,
    /// The interval.
    pub interval: Option<Duration>,
    /// The length of the first ejection.
    pub base_ejection_time: Option<Duration>,
    /// The length of the longest ejection.
    pub max_ejection_time: Option<Item<Duration>>,
    /// The part of the endpoints that may be ejected at the same time.
    pub max_ejection_percent: Option<Item<u8>>,
    /// If fewer endpoints than this percentage are healthy, all endpoints get requests.
    pub panic_percent: Option<Item<u8>>,
    /// Ejection by success rate. `None`: it is off.
    pub success_rate: Option<SuccessRate>,
    /// Ejection by percentage of failures. `None`: it is off.
    pub failure_percentage: Option<FailurePercentage>,
}

/// Ejects endpoints whose success rate is far below the average. `None` means the default.
#[derive(Clone, Debug, Default)]
pub struct SuccessRate {
    /// So many endpoints must have enough requests.
    pub minimum_hosts: Option<u32>,
    /// An endpoint with fewer requests in an interval is left out.
    pub request_volume: Option<u32>,
    /// The number of standard deviations.
    pub stdev_factor: Option<f64>,
}

/// Ejects endpoints of whose requests too many fail. `None` means the default.
#[derive(Clone, Debug, Default)]
pub struct FailurePercentage {
    /// The percentage of failures.
    pub threshold: Option<Item<u8>>,
    /// So many endpoints must have enough requests.
    pub minimum_hosts: Option<u32>,
    /// An endpoint with fewer requests in an interval is left out.
    pub request_volume: Option<u32>,
}
