//! The grammar of `mirror:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{Placed, Portion, Size, Time};

/// A mirror: another service gets a copy of each request, or of a share of the requests. The
/// response to the copy is discarded.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mirror {
    /// The destination of the copies: `SERVICE` or `SERVICE/VERSION`.
    pub to: Option<Placed<String>>,
    /// The share of requests that are mirrored: `10` or `0.5%`. Default: all.
    pub percent: Option<Portion>,
    /// The largest request body that is mirrored. A request with a larger body has no copy. Default
    /// 64KiB.
    pub mirror_bytes: Option<Size>,
    /// The time limit of a mirrored request. Default 15s.
    pub timeout: Option<Time>,
    /// Whether the host of a mirrored request ends with `-shadow`, as in Envoy. Default true.
    pub shadow_host: Option<bool>,
}
