//! The grammar of `tcp:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{Placed, Time, TimeOrNone};

/// How the kernel detects a dead TCP peer.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tcp {
    /// TCP keep-alive probes on an idle connection. Default `{time: 60s, interval: 10s, probes:
    /// 6}`. `none`: no probes.
    pub keepalive: Option<Placed<Keepalive>>,
    /// How long sent bytes may stay unacknowledged, also because the peer does not read them
    /// (TCP_USER_TIMEOUT). Then the connection is closed. Default 2m. `none`: the default of the
    /// kernel.
    pub user_timeout: Option<Placed<TimeOrNone>>,
}

/// TCP keep-alive probes on an idle connection. `None` means no probes.
#[derive(Clone, Debug)]
pub struct Keepalive(pub Option<KeepaliveMap>);

/// TCP keep-alive.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeepaliveMap {
    /// The idle time before the first probe. Default 60s.
    pub time: Option<Time>,
    /// The time between two probes. Default 10s.
    pub interval: Option<Time>,
    /// The number of unanswered probes after which the connection is closed. If `user_timeout` is
    /// set, it decides instead. Default 6.
    pub probes: Option<u32>,
}
