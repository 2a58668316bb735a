//! The grammar of `authorization:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::route::ValueMatch;
use crate::sources::files::values::{AtLeastOne, Entries, Placed};

/// An authorization rule. `from`, `to` and `when` must all match. A list of `from` or `to` matches
/// if one of its entries matches.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthorizationRule {
    /// The name of the rule in logs and metrics. Default: authorization#N.
    pub name: Option<Placed<String>>,
    /// The action for matching requests.
    pub action: AuthorizationAction,
    /// Whether the rule only reports its result, without effect on requests. Default false.
    #[serde(default)]
    pub dry_run: Placed<bool>,
    /// Conditions on the client. Default: any client.
    #[serde(default)]
    pub from: AtLeastOne<Placed<Source>>,
    /// Conditions on the request. Default: any request.
    #[serde(default)]
    pub to: AtLeastOne<Placed<Operation>>,
    /// Further conditions. All entries of a list must match.
    #[serde(default)]
    pub when: AtLeastOne<Placed<When>>,
}

/// The action of a rule for matching requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthorizationAction {
    /// Allow the request, unless a rule denies it. A request that matches no allow rule of its
    /// service is denied.
    Allow,
    /// Deny the request.
    Deny,
    /// Allow the request and report it.
    Audit,
}

/// Conditions on the client. All must match; a list matches if one of its values matches. Names are
/// `exact`, `prefix*`, `*suffix` or `*` for any.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// SPIFFE IDs of clients. `spiffe://` may be left out.
    pub identities: AtLeastOne<Placed<String>>,
    /// SPIFFE IDs that the client must not have.
    pub not_identities: AtLeastOne<Placed<String>>,
    /// Namespaces: the NS of `spiffe://TRUST-DOMAIN/ns/NS/...`.
    pub namespaces: AtLeastOne<Placed<String>>,
    /// Namespaces that the client must not have.
    pub not_namespaces: AtLeastOne<Placed<String>>,
    /// Trust domains of SPIFFE IDs.
    pub trust_domains: AtLeastOne<Placed<String>>,
    /// Trust domains that the client must not have.
    pub not_trust_domains: AtLeastOne<Placed<String>>,
    /// The peer address of the connection: `10.0.0.0/8`, `2001:db8::/32` or one address.
    pub ips: AtLeastOne<Placed<String>>,
    /// Addresses that must not match.
    pub not_ips: AtLeastOne<Placed<String>>,
    /// The client address that a trusted proxy reported.
    pub forwarded_ips: AtLeastOne<Placed<String>>,
    /// Reported client addresses that must not match.
    pub not_forwarded_ips: AtLeastOne<Placed<String>>,
}

/// Conditions on the request. All must match; a list matches if one of its values matches.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Operation {
    /// Services: `exact`, `prefix*`, `*suffix` or `*`.
    pub service: AtLeastOne<Placed<String>>,
    /// Local ports. For captured connections: original destination ports.
    pub ports: AtLeastOne<Placed<u16>>,
    /// Ports that the request must not have.
    pub not_ports: AtLeastOne<Placed<u16>>,
    /// Original destination addresses of captured connections: `10.0.0.0/8` or one address.
    pub ips: AtLeastOne<Placed<String>>,
    /// Addresses that must not match.
    pub not_ips: AtLeastOne<Placed<String>>,
    /// Hosts without ports, case-insensitive: `exact`, `prefix*`, `*suffix` or `*`.
    pub hosts: AtLeastOne<Placed<String>>,
    /// Hosts that the request must not have.
    pub not_hosts: AtLeastOne<Placed<String>>,
    /// HTTP methods, such as `GET`.
    pub methods: AtLeastOne<Placed<String>>,
    /// Methods that the request must not have.
    pub not_methods: AtLeastOne<Placed<String>>,
    /// Paths: `/exact`, `/prefix/*`, `*suffix`, `*` or `~regex`.
    pub paths: AtLeastOne<Placed<String>>,
    /// Paths that the request must not have.
    pub not_paths: AtLeastOne<Placed<String>>,
}

/// Further conditions on the request. All must match.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct When {
    /// Header fields, by name.
    pub headers: Entries<Placed<ValueMatch>>,
    /// Claims of the request's token, by name or path (`realm_access.roles`). If the claim is a
    /// list, one of its elements must match.
    pub claims: Entries<Placed<ValueMatch>>,
}
