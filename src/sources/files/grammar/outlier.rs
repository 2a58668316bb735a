//! The grammar of `outlier_detection:` and `slow_start:`. Its comments are the descriptions in the
//! JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{Factor, Percent, Placed, Time};

/// Outlier detection: an endpoint whose responses fail is ejected. It gets no requests for a time.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OutlierDetection {
    /// Ejects an endpoint after this many consecutive failures: 5xx statuses, gRPC codes of a
    /// server error, and attempts without a response. 0 for never. Default 5.
    pub consecutive_5xx: Option<u32>,
    /// Ejects an endpoint after this many consecutive responses with status 502, 503 or 504.
    /// Attempts without a response count, too. Default: never.
    pub consecutive_gateway_errors: Option<u32>,
    /// Ejects an endpoint after this many consecutive attempts without a response: no connection, a
    /// reset, or a timeout. If it is set, such attempts do not count as 5xx or gateway errors.
    /// Default: never.
    pub consecutive_local_failures: Option<u32>,
    /// The time over which rates are measured. For each interval without an ejection, the next
    /// ejection of the endpoint is shorter by `base_ejection_time`. Default 10s.
    pub interval: Option<Time>,
    /// The duration of the first ejection. The second one is twice as long, the third one three
    /// times. Default 30s.
    pub base_ejection_time: Option<Time>,
    /// The maximum duration of an ejection. Default 300s, or `base_ejection_time` if that is
    /// longer.
    pub max_ejection_time: Option<Placed<Time>>,
    /// The maximum percentage of endpoints that are ejected at the same time. One endpoint may
    /// always be ejected. Default 10%.
    pub max_ejection_percent: Option<Placed<Percent>>,
    /// If less than this percentage of the endpoints is healthy and not ejected, all endpoints get
    /// requests. Default: that of `health_check`, or 50%.
    pub panic_threshold: Option<Placed<Percent>>,
    /// Ejects endpoints whose success rate in an interval is far below the average. Default: off;
    /// `{}` for its defaults.
    pub success_rate: Option<SuccessRate>,
    /// Ejects endpoints with too many failed requests in an interval. Default: off; `{}` for its
    /// defaults.
    pub failure_percentage: Option<FailurePercentage>,
}

/// Ejects endpoints whose success rate is far below the average.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SuccessRate {
    /// The minimum number of endpoints with at least `request_volume` requests. With fewer, none is
    /// ejected. Default 5.
    pub minimum_hosts: Option<u32>,
    /// The minimum number of requests in an interval. An endpoint with fewer is left out. Default
    /// 100.
    pub request_volume: Option<u32>,
    /// Ejects an endpoint if its success rate is more than this many standard deviations below the
    /// average. Default 1.9.
    pub stdev_factor: Option<Factor>,
}

/// Ejects endpoints with too many failed requests.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FailurePercentage {
    /// The percentage of failed requests that ejects an endpoint. Default 85%.
    pub threshold: Option<Placed<Percent>>,
    /// The minimum number of endpoints with at least `request_volume` requests. With fewer, none is
    /// ejected. Default 5.
    pub minimum_hosts: Option<u32>,
    /// The minimum number of requests in an interval. An endpoint with fewer is left out. Default
    /// 50.
    pub request_volume: Option<u32>,
}

/// Slow start of new and recovered endpoints.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowStartMap {
    /// The duration of the slow start. During this time the traffic of an endpoint grows to its
    /// full share.
    pub window: Time,
    /// The shape of the growth: 1 is linear, and a larger value gives more traffic early. Default
    /// 1.
    #[serde(default)]
    pub aggression: Option<Factor>,
    /// The part of its traffic that an endpoint gets at first. Default 10%.
    #[serde(default)]
    pub min_weight_percent: Option<Percent>,
}

/// The slow start of a service: [`SlowStartMap`], or only its `window`.
#[derive(Clone, Debug)]
pub struct SlowStart(pub SlowStartMap);
