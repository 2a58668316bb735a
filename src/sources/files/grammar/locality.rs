//! The grammar of `locality:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{Entries, Factor, OneOrMany, Percent, Placed};

/// The preference for near endpoints.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LocalityMap {
    /// The part of the zone that must be the same for an endpoint to be near. Default: all parts
    /// that `zone` has.
    pub prefer: Option<Placed<Prefer>>,
    /// The part of the requests that stays in the own zone; the rest goes to all others. Default:
    /// the nearest level with enough healthy endpoints gets all requests.
    pub local_share: Option<Placed<Percent>>,
    /// The zones that get requests when too few endpoints of the own zone are healthy: the own
    /// zone, and the others in their order. Default: by distance.
    pub failover: Entries<OneOrMany<Placed<String>>>,
    /// A level gets all requests while its healthy part times this number is 1 or more. Default
    /// 1.4, so 72 %.
    pub overprovisioning_factor: Option<Placed<Factor>>,
}

/// The part of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Prefer {
    /// No part: zones are ignored.
    None,
    /// `eu` of `eu/a/rack1`.
    Region,
    /// `eu/a` of `eu/a/rack1`.
    Zone,
    /// All of `eu/a/rack1`.
    SubZone,
}

/// [`LocalityMap`], or `prefer` alone.
#[derive(Clone, Debug)]
pub struct Locality(pub LocalityMap);
