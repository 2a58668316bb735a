//! The grammar of `outlier_detection:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{Percent, Placed, Time};

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
    /// The time without an ejection after which the next one is shorter by `base_ejection_time`.
    /// Default 10s.
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
}
