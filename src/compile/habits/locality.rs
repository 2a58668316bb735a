//! The keys of locality and priorities in other proxies.

use super::Word;
use super::words::{ENDPOINT, SERVICE, TOP};

const LOCALITY_MAP: &str = "local_share";

const LOCALITY: &str = "leave it out: with `zone: eu/a` at the top of the file and in `endpoints`, \
    the nearest healthy ones get the requests; `locality` has more";
const FAILOVER: &str = "write `locality: {failover: {{failover=ZONE: [ZONE]}}}`";
const CHAIN: &str = "write `failover: {ZONE: [ZONE, ZONE]}`, an own zone and the others in order";
const FACTOR: &str = "write `locality: {overprovisioning_factor: 1.4}`; Envoy writes 140 for 1.4";
const SHARE: &str = "write `local_share: {localshare=N%}`: the rest goes to all other zones";
const ZONE: &str = "write `zone: REGION/ZONE`, such as `zone: eu/a`";

#[rustfmt::skip] // one line for each word
/// Each key, the map that it is written in, and the advice.
pub(super) const WORDS: &[Word] = &[
    ("locality_lb_setting", SERVICE, LOCALITY),
    ("locality_lb", SERVICE, LOCALITY),
    ("locality_lb_config", SERVICE, LOCALITY),
    ("locality_weighted_lb_config", SERVICE, LOCALITY),
    ("zone_aware_lb_config", SERVICE, LOCALITY),
    ("prefer_local", SERVICE, LOCALITY),
    ("failover", SERVICE, FAILOVER),
    ("local_share", SERVICE, "write `locality: {local_share: {*=80%}}`"),
    ("overprovisioning_factor", SERVICE, FACTOR),
    ("distribute", LOCALITY_MAP, SHARE),
    ("failover_priority", LOCALITY_MAP, CHAIN),
    ("enabled", LOCALITY_MAP, "leave it out; `locality: none` ignores zones"),
    ("region", ENDPOINT, "write `zone: {*=eu}/ZONE`"),
    ("locality", ENDPOINT, "write `zone: {*=eu/a}`"),
    ("availability_zone", ENDPOINT, "write `zone: REGION/{*=a}`"),
    ("locality", TOP, ZONE),
    ("region", TOP, "write `zone: {*=eu}/ZONE`"),
];
