//! Zones, and the preference for near endpoints.

use super::Item;

/// A zone: `REGION`, `REGION/ZONE` or `REGION/ZONE/SUBZONE`.
pub type Zone = Box<str>;

/// The preference of a service for near endpoints. `None` means the default value.
#[derive(Clone, Debug, Default)]
pub struct Locality {
    /// The leading part of the proxy's zone that an endpoint must have to be near. `None` means the
    /// whole zone.
    pub prefer: Option<Prefer>,
    /// The percentage of requests that stays in the zone of the proxy.
    pub local_percent: Option<Item<u8>>,
    /// The failover order: a zone of proxies, and the other zones in the order in which they get
    /// requests.
    pub failover: Vec<(Item<Zone>, Vec<Item<Zone>>)>,
    /// A level gets all requests while its healthy share of endpoints, times this factor, is at
    /// least 1.
    pub overprovisioning_factor: Option<Item<f64>>,
}

/// The leading part of a zone that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefer {
    /// No part: zones are ignored.
    None,
    /// The region.
    Region,
    /// The region and the zone.
    Zone,
    /// The region, the zone and the sub-zone.
    SubZone,
}
