//! The grammar of `locality:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{Entries, Factor, OneOrMany, Percent, Placed};

/// The preference for near endpoints.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LocalityMap {
    /// The leading part of `zone` that an endpoint must have to be near. Default: the whole zone.
    pub prefer: Option<Placed<Prefer>>,
    /// The percentage of requests that stays in the zone of the proxy. The others go to the
    /// endpoints of all other zones. Default: the nearest level with enough healthy endpoints gets
    /// all requests.
    pub local_share: Option<Placed<Percent>>,
    /// The zones that get requests when the zone of the proxy has too few healthy endpoints: a map
    /// of that zone to the others, in order. Default: by distance.
    pub failover: Entries<OneOrMany<Placed<String>>>,
    /// A level gets all requests while its healthy share of endpoints, times this factor, is at
    /// least 1. Default 1.4: 72 % must be healthy.
    pub overprovisioning_factor: Option<Placed<Factor>>,
}

/// The leading part of a zone that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Prefer {
    /// No part: zones are ignored.
    None,
    /// The region: `eu` of `eu/a/rack1`.
    Region,
    /// Region and zone: `eu/a` of `eu/a/rack1`.
    Zone,
    /// The whole zone: all of `eu/a/rack1`.
    SubZone,
}

/// [`LocalityMap`], or `prefer` alone.
#[derive(Clone, Debug)]
pub struct Locality(pub LocalityMap);
