//! The grammar of `authorization:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::route::ValueMatch;
use crate::sources::files::values::{AtLeastOne, Entries, Placed};

/// Who may do what. `from`, `to` and `when` must all fit; of a list of `from` or `to`, one.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthorizationRule {
    /// Its name in logs and metrics. Default: authorization#N.
    pub name: Option<Placed<String>>,
    /// What it does with what it matches.
    pub action: AuthorizationAction,
    /// It only reports what it would have done. Default false.
    #[serde(default)]
    pub dry_run: Placed<bool>,
    /// Who asks. Default: anyone.
    #[serde(default)]
    pub from: AtLeastOne<Placed<Source>>,
    /// What is asked for. Default: anything.
    #[serde(default)]
    pub to: AtLeastOne<Placed<Operation>>,
    /// What must hold besides; of a list, all.
    #[serde(default)]
    pub when: AtLeastOne<Placed<When>>,
}

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthorizationAction {
    /// Lets it pass, unless a rule denies it. What no allow rule of its service matches is denied.
    Allow,
    /// Refuses it.
    Deny,
    /// Lets it pass and reports it.
    Audit,
}

/// Conditions on who asks; all of them must hold, and of a list one value. Names are `exact`,
/// `prefix*`, `*suffix` or `*` for any.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// SPIFFE IDs.
    pub identities: AtLeastOne<Placed<String>>,
    /// None of these SPIFFE IDs.
    pub not_identities: AtLeastOne<Placed<String>>,
    /// Namespaces: the NS of `spiffe://TRUST-DOMAIN/ns/NS/...`.
    pub namespaces: AtLeastOne<Placed<String>>,
    /// None of these namespaces.
    pub not_namespaces: AtLeastOne<Placed<String>>,
    /// Trust domains of SPIFFE IDs.
    pub trust_domains: AtLeastOne<Placed<String>>,
    /// None of these trust domains.
    pub not_trust_domains: AtLeastOne<Placed<String>>,
    /// The other end of the connection: `10.0.0.0/8`, `2001:db8::/32` or one address.
    pub ips: AtLeastOne<Placed<String>>,
    /// None of these addresses.
    pub not_ips: AtLeastOne<Placed<String>>,
    /// The client that a trusted hop has named.
    pub forwarded_ips: AtLeastOne<Placed<String>>,
    /// None of these clients.
    pub not_forwarded_ips: AtLeastOne<Placed<String>>,
}

/// Conditions on what is asked for; all of them must hold, and of a list one value.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Operation {
    /// Services: `exact`, `prefix*`, `*suffix` or `*`.
    pub service: AtLeastOne<Placed<String>>,
    /// Local ports; of captured connections the ports that they are meant for.
    pub ports: AtLeastOne<Placed<u16>>,
    /// None of these ports.
    pub not_ports: AtLeastOne<Placed<u16>>,
    /// Addresses that captured connections are meant for: `10.0.0.0/8` or one address.
    pub ips: AtLeastOne<Placed<String>>,
    /// None of these addresses.
    pub not_ips: AtLeastOne<Placed<String>>,
    /// Hosts without ports, whatever the case: `exact`, `prefix*`, `*suffix` or `*`.
    pub hosts: AtLeastOne<Placed<String>>,
    /// None of these hosts.
    pub not_hosts: AtLeastOne<Placed<String>>,
    /// Methods.
    pub methods: AtLeastOne<Placed<String>>,
    /// None of these methods.
    pub not_methods: AtLeastOne<Placed<String>>,
    /// Paths: `/exact`, `/prefix/*`, `*suffix`, `*` or `~regex`.
    pub paths: AtLeastOne<Placed<String>>,
    /// None of these paths.
    pub not_paths: AtLeastOne<Placed<String>>,
}

/// What must hold besides.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct When {
    /// Header fields, by name.
    pub headers: Entries<Placed<ValueMatch>>,
    /// Claims of the request's token, by name or path (`realm_access.roles`). Of a list one element
    /// must fit.
    pub claims: Entries<Placed<ValueMatch>>,
}
