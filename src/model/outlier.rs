//! Outlier detection: endpoints whose responses fail are ejected. They get no requests for a time.

use std::time::Duration;

use super::Item;

/// The outlier detection of a service. `None` means the default.
#[derive(Clone, Debug, Default)]
pub struct OutlierDetection {
    /// Ejects an endpoint after this many consecutive 5xx responses. 0 means that they are not
    /// counted.
    pub consecutive_5xx: Option<u32>,
    /// Ejects an endpoint after this many consecutive responses with status 502, 503 or 504. 0
    /// means that they are not counted.
    pub consecutive_gateway_errors: Option<u32>,
    /// Ejects an endpoint after this many consecutive attempts without a response. 0 means that
    /// they count as 5xx and as gateway errors.
    pub consecutive_local_failures: Option<u32>,
    /// The time over which rates are measured.
    pub interval: Option<Duration>,
    /// The duration of the first ejection. The second one is twice as long, the third one three
    /// times.
    pub base_ejection_time: Option<Duration>,
    /// The maximum duration of an ejection.
    pub max_ejection_time: Option<Item<Duration>>,
    /// The maximum percentage of endpoints that are ejected at the same time.
    pub max_ejection_percent: Option<Item<u8>>,
    /// If less than this percentage of the endpoints is healthy and not ejected, all endpoints get
    /// requests.
    pub panic_percent: Option<Item<u8>>,
    /// Ejection by success rate. `None` means no such ejections.
    pub success_rate: Option<SuccessRate>,
    /// Ejection by percentage of failures. `None` means no such ejections.
    pub failure_percentage: Option<FailurePercentage>,
}

/// Ejects endpoints whose success rate is far below the average. `None` means the default.
#[derive(Clone, Debug, Default)]
pub struct SuccessRate {
    /// The minimum number of endpoints with enough requests. With fewer, none is ejected.
    pub minimum_hosts: Option<u32>,
    /// The minimum number of requests in an interval. An endpoint with fewer is left out.
    pub request_volume: Option<u32>,
    /// Ejects an endpoint if its success rate is more than this many standard deviations below the
    /// average.
    pub stdev_factor: Option<f64>,
}

/// Ejects endpoints with too many failed requests. `None` means the default.
#[derive(Clone, Debug, Default)]
pub struct FailurePercentage {
    /// The percentage of failed requests that ejects an endpoint.
    pub threshold: Option<Item<u8>>,
    /// The minimum number of endpoints with enough requests. With fewer, none is ejected.
    pub minimum_hosts: Option<u32>,
    /// The minimum number of requests in an interval. An endpoint with fewer is left out.
    pub request_volume: Option<u32>,
}
