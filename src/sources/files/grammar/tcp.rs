//! The grammar of `tcp:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{Placed, Time, TimeOrNone};

/// How the kernel detects that the other side of a TCP connection is gone.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tcp {
    /// Probes on a silent connection. Default `{time: 60s, interval: 10s, probes: 6}`. `none`: no
    /// probes.
    pub keepalive: Option<Placed<Keepalive>>,
    /// How long sent bytes may wait for their acknowledgement, or for a peer that reads them
    /// (TCP_USER_TIMEOUT). Then the connection is closed. Default 2m. `none`: the kernel's default.
    pub user_timeout: Option<Placed<TimeOrNone>>,
}

/// Probes on a silent connection. `None` means no probes.
#[derive(Clone, Debug)]
pub struct Keepalive(pub Option<KeepaliveMap>);

/// TCP keep-alive.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeepaliveMap {
    /// The silence before the first probe. Default 60s.
    pub time: Option<Time>,
    /// The time between two probes. Default 10s.
    pub interval: Option<Time>,
    /// The number of probes without an answer that ends the connection. With `user_timeout`, the
    /// kernel ends it at that time instead. Default 6.
    pub probes: Option<u32>,
}
