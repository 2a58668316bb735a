//! The grammar of the capture rules. Its comments are the descriptions in the JSON Schema.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer};

use crate::intercept::plan::{Interface, PortRange};
use crate::net::Network;
use crate::sources::files::values::{OneOrMany, Placed, text_value};

/// Settings of the capture rules that `ringway intercept` and `run --intercept` install. A reload
/// does not change installed rules. If excluded traffic is captured anyway, the proxy refuses it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Intercept {
    /// The mark (SO_MARK) of the proxy's own packets, which are not captured. Default 1338.
    pub mark: Option<Placed<u32>>,
    /// Traffic that is not captured.
    pub exclude: Exclude,
    /// The UDP ports to capture, in each direction that has `udp`: `443`, `8000-8100`, `all`; one
    /// or a list. Default `all`.
    pub udp: OneOrMany<Ports>,
    /// The user of the proxy, by name or number. Default: `ringway` if it exists. `none`: only the
    /// mark identifies the packets of the proxy.
    pub user: Option<String>,
    /// The group of the proxy, by name or number. Default: none.
    pub group: Option<String>,
    /// How captured traffic is handled while no proxy runs. Default `closed`.
    pub when_dead: WhenDead,
}

/// Traffic that is not captured.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Exclude {
    /// Connections to this host.
    pub inbound: Side,
    /// Connections from this host.
    pub outbound: Side,
    /// Users whose connections are not captured, by name or number; one or a list.
    pub users: OneOrMany<String>,
    /// Groups whose connections are not captured, by name or number; one or a list.
    pub groups: OneOrMany<String>,
}

/// Traffic in one direction that is not captured.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Side {
    /// Destination ports: `22`, `8000-8100`; one or a list.
    pub ports: OneOrMany<Ports>,
    /// Addresses of the other side: `10.0.0.0/8`, `2001:db8::1`; one or a list.
    pub cidrs: OneOrMany<Cidr>,
    /// Interfaces: `eth1`, or `docker+` for all names that begin with `docker`; one or a list.
    pub interfaces: OneOrMany<InterfaceName>,
}

/// How captured traffic is handled while no proxy runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenDead {
    /// Traffic is refused.
    #[default]
    Closed,
    /// Traffic bypasses the proxy.
    Open,
}

text_value!(
    /// A port or a range of ports.
    Ports(PortRange),
    str::parse,
    { "type": ["string", "integer"] }
);

text_value!(
    /// A range of addresses.
    Cidr(Network),
    |text| Network::parse(text).map_err(|error| format!("{}\n{}", error.message, error.help)),
    { "type": ["string", "integer"] }
);

text_value!(
    /// The name of an interface.
    InterfaceName(Interface),
    str::parse,
    { "type": ["string", "integer"] }
);
