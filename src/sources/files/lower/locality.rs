//! Lowers zones and `locality:` of services to the model.

use super::super::grammar::locality::{Locality, LocalityMap, Prefer};
use super::super::values::Placed;
use super::{Lower, origin};
use crate::model::{self, Item, Zone};

/// The maximum number of parts of a zone: region, zone and sub-zone.
const PARTS_MAX: usize = 3;

/// Lowers a zone. Returns `None` for an empty text, which results from an unset variable.
pub(super) fn zone(lower: &mut Lower<'_>, written: Placed<String>) -> Option<Item<Zone>> {
    let Placed { place, value } = written;
    if value.is_empty() {
        return None;
    }
    let is_part = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_graphic());
    let parts = value.split('/').count();
    if parts > PARTS_MAX || !value.split('/').all(is_part) {
        let message = format!("{value:?} is not a zone");
        let help = "write REGION, REGION/ZONE or REGION/ZONE/SUBZONE, such as eu/a";
        lower.mistake_with_help(place, message, help);
        return None;
    }
    Some(Item::new(value.into(), origin(place)))
}

pub(super) fn locality(lower: &mut Lower<'_>, written: Placed<Locality>) -> Item<model::Locality> {
    let Placed { place, value: Locality(map) } = written;
    let LocalityMap { prefer, local_share, failover, overprovisioning_factor } = map;
    let mut chains = Vec::with_capacity(failover.0.len());
    for (from, to) in failover.0 {
        let from = zone(lower, from);
        let to: Vec<_> = to.0.into_iter().filter_map(|to| zone(lower, to)).collect();
        chains.extend(from.map(|from| (from, to)));
    }
    let locality = model::Locality {
        prefer: prefer.map(|prefer| match prefer.value {
            Prefer::None => model::Prefer::None,
            Prefer::Region => model::Prefer::Region,
            Prefer::Zone => model::Prefer::Zone,
            Prefer::SubZone => model::Prefer::SubZone,
        }),
        local_percent: local_share.map(|it| Item::new(it.value.0, origin(it.place))),
        failover: chains,
        overprovisioning_factor: overprovisioning_factor
            .map(|it| Item::new(it.value.0, origin(it.place))),
    };
    Item::new(locality, origin(place))
}
