//! Authorization policies.

use super::Item;
use crate::matching::ValueMatch;

/// An authorization policy. `from`, `to` and `when` must all match. A list of `from` or `to`
/// matches if one of its entries matches.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The name. `None` means `authorization#N`.
    pub name: Option<Item<String>>,
    /// The action for matching requests.
    pub action: PolicyAction,
    /// Whether the policy only reports its result, without effect on requests.
    pub dry_run: Item<bool>,
    /// Whether the policy is only about traffic of others to this workload.
    pub inbound_only: bool,
    /// Conditions on the client. Empty means any client.
    pub from: Vec<Item<PolicySource>>,
    /// Conditions on the request. Empty means any request.
    pub to: Vec<Item<PolicyOperation>>,
    /// Further conditions. All must match.
    pub when: Vec<Item<PolicyCondition>>,
}

/// The effect of a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PolicyAction {
    /// Matching requests are allowed, unless another policy denies them.
    Allow,
    /// Matching requests are denied.
    #[default]
    Deny,
    /// Matching requests are reported and not affected.
    Audit,
}

/// The accepted and the refused values of one property. If both are empty, any value matches.
#[derive(Clone, Debug, Default)]
pub struct Choices<T = String> {
    /// The value must be one of these.
    pub wanted: Vec<Item<T>>,
    /// The value must be none of these.
    pub unwanted: Vec<Item<T>>,
}

impl<T> Choices<T> {
    /// Whether there is no condition, so that any value matches.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.unwanted.is_empty()
    }
}

/// Conditions on the client. All must match. Names are `exact`, `prefix*`, `*suffix` or `*`.
#[derive(Clone, Debug, Default)]
pub struct PolicySource {
    /// SPIFFE IDs.
    pub identities: Choices,
    /// Namespaces of SPIFFE IDs.
    pub namespaces: Choices,
    /// Trust domains of SPIFFE IDs.
    pub trust_domains: Choices,
    /// Peer addresses: `10.0.0.0/8` or one address.
    pub ips: Choices,
    /// Client addresses that a trusted proxy reported.
    pub forwarded_ips: Choices,
    /// Client addresses that a trusted proxy reported, or else peer addresses.
    pub remote_ips: Choices,
}

/// Conditions on the request. All must match.
#[derive(Clone, Debug, Default)]
pub struct PolicyOperation {
    /// Services: `exact`, `prefix*`, `*suffix` or `*`.
    pub services: Vec<Item<String>>,
    /// Local ports, or original destination ports of captured connections.
    pub ports: Choices<u16>,
    /// Original destination addresses of captured connections.
    pub ips: Choices,
    /// Hosts without ports: `exact`, `prefix*`, `*suffix` or `*`.
    pub hosts: Choices,
    /// Methods.
    pub methods: Choices,
    /// Paths: `/exact`, `/prefix/*`, `*suffix`, `*` or `~regex`.
    pub paths: Choices,
}

/// Further conditions on the request. All must match.
#[derive(Clone, Debug, Default)]
pub struct PolicyCondition {
    /// Conditions on header fields, by name.
    pub headers: Vec<(Item<String>, ValueMatch)>,
    /// Conditions on claims of the token, by name or path.
    pub claims: Vec<(Item<String>, ValueMatch)>,
    /// Conditions on header fields that a request must not match, by name.
    pub not_headers: Vec<(Item<String>, ValueMatch)>,
    /// Conditions on claims of the token that a request must not match, by name or path.
    pub not_claims: Vec<(Item<String>, ValueMatch)>,
    /// The accepted values of `ISSUER/SUBJECT` of the token. Empty means any.
    pub principals: Vec<ValueMatch>,
    /// The refused values of `ISSUER/SUBJECT` of the token.
    pub not_principals: Vec<ValueMatch>,
}
