//! The grammar of `outlier_detection:` and `slow_start:`. Its comments are the descriptions in the
//! JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{Factor, Percent, Placed, Time};

/// Outlier detection: an endpoint whose responses fail is ejected. It gets no requests for a time.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OutlierDetection {
    /// How many failures in a row eject an endpoint: statuses of 5xx, gRPC codes of a server error,
    /// and attempts without a response. 0 for never. Default 5.
    pub consecutive_5xx: Option<u32>,
    /// How many of the statuses 502, 503 and 504 in a row eject an endpoint. Attempts without a
    /// response count, too. Default: never.
    pub consecutive_gateway_errors: Option<u32>,
    /// How many attempts without a response in a row eject an endpoint: no connection, a reset, or
    /// a timeout. They do not count as 5xx or gateway errors then. Default: never.
    pub consecutive_local_failures: Option<u32>,
    /// The time over which rates are measured. After each interval without an ejection, the next
    /// one is shorter by `base_ejection_time`. Default 10s.
    pub interval: Option<Time>,
    /// The length of the first ejection. The second takes twice as long, and so on. Default 30s.
    pub base_ejection_time: Option<Time>,
    /// The length of the longest ejection. Default 300s, or `base_ejection_time` if that is longer.
    pub max_ejection_time: Option<Placed<Time>>,
    /// The part of the endpoints that may be ejected at the same time. One endpoint always may.
    /// Default 10%.
    pub max_ejection_percent: Option<Placed<Percent>>,
    /// If fewer endpoints than this are healthy and not ejected, all endpoints get requests.
    /// Default: that of `health_check`, or 50%.
    pub panic_threshold: Option<Placed<Percent>>,
    /// Eject endpoints whose success rate in an interval is far below the average. Default: off;
    /// `{}` for its defaults.
    pub success_rate: Option<SuccessRate>,
    /// Eject endpoints if this part of their requests in an interval fails. Default: off; `{}` for
    /// its defaults.
    pub failure_percentage: Option<FailurePercentage>,
}

/// Ejects endpoints whose success rate is far below the average.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SuccessRate {
    /// So many endpoints must have `request_volume`, or none is ejected. Default 5.
    pub minimum_hosts: Option<u32>,
    /// An endpoint with fewer requests in an interval is left out. Default 100.
    pub request_volume: Option<u32>,
    /// An endpoint is ejected if its success rate is below the average by more than so many
    /// standard deviations. Default 1.9.
    pub stdev_factor: Option<Factor>,
}

/// Ejects endpoints of whose requests too many fail.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FailurePercentage {
    /// The part of the requests. Default 85%.
    pub threshold: Option<Placed<Percent>>,
    /// So many endpoints must have `request_volume`, or none is ejected. Default 5.
    pub minimum_hosts: Option<u32>,
    /// An endpoint with fewer requests in an interval is left out. Default 50.
    pub request_volume: Option<u32>,
}

/// Slow start of new and recovered endpoints.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowStartMap {
    /// How long an endpoint gets less traffic.
    pub window: Time,
    /// The shape of the growth: 1 is linear, and a larger value gives more traffic early. Default
    /// 1.
    #[serde(default)]
    pub aggression: Option<Factor>,
    /// The share at the beginning, as a part of the full weight. Default 10%.
    #[serde(default)]
    pub min_weight_percent: Option<Percent>,
}

/// [`SlowStartMap`], or its window alone.
#[derive(Clone, Debug)]
pub struct SlowStart(pub SlowStartMap);
