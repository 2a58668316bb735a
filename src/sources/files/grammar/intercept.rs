//! The grammar of the rules that catch traffic. Its comments are the descriptions in the JSON
//! Schema.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer};

use crate::intercept::plan::{Interface, PortRange};
use crate::net::Network;
use crate::sources::files::values::{OneOrMany, Placed, text_value};

/// What `ringway intercept` and `run --intercept` do, beside `inbound.intercept` and
/// `outbound.intercept`. Read when the rules are installed, not on a reload; what they leave alone
/// and is captured all the same is refused.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Intercept {
    /// The mark (SO_MARK) of what the proxy itself sends, which is left alone. Default 1338.
    pub mark: Option<Placed<u32>>,
    /// What is left alone.
    pub exclude: Exclude,
    /// UDP ports that are captured, in the directions that have `udp`: `443`, `8000-8100`, `all`;
    /// one or a list. Default `all`.
    pub udp: OneOrMany<Ports>,
    /// The user that the proxy runs as, by name or number. Default: `ringway` where there is one;
    /// `none` when its mark is enough.
    pub user: Option<String>,
    /// The group that the proxy runs as, by name or number. Default: none.
    pub group: Option<String>,
    /// What becomes of captured traffic while no proxy runs. Default `closed`.
    pub when_dead: WhenDead,
}

/// What is left alone.
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

/// What is left alone in one direction.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Side {
    /// Ports that are connected to: `22`, `8000-8100`; one or a list.
    pub ports: OneOrMany<Ports>,
    /// Addresses of the others: `10.0.0.0/8`, `2001:db8::1`; one or a list.
    pub cidrs: OneOrMany<Cidr>,
    /// Interfaces: `eth1`, or `docker+` for all whose names begin so; one or a list.
    pub interfaces: OneOrMany<InterfaceName>,
}

/// What becomes of captured traffic while no proxy runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenDead {
    /// It is refused.
    #[default]
    Closed,
    /// It passes by the proxy.
    Open,
}

text_value!(
    /// A port, or a range of them.
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
