//! The grammar of `shift:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{Moment, Placed, Portion, Time};

/// A gradual release: the traffic of the rule moves from one version to another, step by step, and
/// back if the new version is bad.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Shift {
    /// The old version, one of the destinations in `to` of the rule: `v1`, or `SERVICE/v1`.
    pub from: Option<Placed<String>>,
    /// The new version, another one of them.
    pub to: Option<Placed<String>>,
    /// The growth of the new version's share with each step: `10%`.
    pub step: Option<Placed<Portion>>,
    /// The time between two steps: `5m`.
    pub every: Option<Placed<Time>>,
    /// The time of the first step: `2026-12-01T09:00:00Z`. Default: the next multiple of `every` on
    /// the clock.
    pub start: Option<Moment>,
    /// The reasons to go back to the old version. Default: none.
    pub abort_if: Option<Placed<AbortIf>>,
}

/// The reasons to go back to the old version.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AbortIf {
    /// The largest share of failed requests to the new version in a step: `2%`.
    pub error_rate: Option<Placed<Portion>>,
    /// The time to the response that 99 of 100 requests to the new version may take: `500ms`.
    pub p99: Option<Placed<Time>>,
    /// The requests to the new version that a step needs before it is judged. Default 100.
    pub min_requests: Option<Placed<u32>>,
}
