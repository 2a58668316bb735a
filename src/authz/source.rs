//! Conditions on the client.

use super::facts::Facts;
use super::pattern::{Certainty, Choice};
use crate::matching::Pattern;
use crate::net::Network;

/// Conditions on a peer (Istio's `from.source`). All must match.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The SPIFFE ID, without `spiffe://`.
    pub identities: Choice<Pattern>,
    /// The namespace in the SPIFFE ID.
    pub namespaces: Choice<Pattern>,
    /// The trust domain of the SPIFFE ID.
    pub trust_domains: Choice<Pattern>,
    /// The peer address of the connection.
    pub ips: Choice<Network>,
    /// The client address that a trusted proxy reported.
    pub forwarded_ips: Choice<Network>,
    /// The client address that a trusted proxy reported, or else the peer address.
    pub remote_ips: Choice<Network>,
}

impl Source {
    /// Returns the name of the first field that does not match.
    pub(super) fn mismatch(&self, facts: &Facts<'_>, certainty: Certainty) -> Option<&'static str> {
        let name = |pattern: &Pattern, value: &str, _| pattern.fits(value);
        let address = |network: &Network, ip, _| network.contains(ip);
        let identity = facts.identity;
        if !self.identities.holds(identity.map(|i| i.name), certainty, name) {
            return Some(self.identities.field(["identities", "not_identities"]));
        }
        if !self.namespaces.holds(identity.and_then(|i| i.namespace), certainty, name) {
            return Some(self.namespaces.field(["namespaces", "not_namespaces"]));
        }
        if !self.trust_domains.holds(identity.map(|i| i.trust_domain), certainty, name) {
            return Some(self.trust_domains.field(["trust_domains", "not_trust_domains"]));
        }
        if !self.ips.holds(facts.ip, certainty, address) {
            return Some(self.ips.field(["ips", "not_ips"]));
        }
        if !self.forwarded_ips.holds(facts.forwarded_ip, certainty, address) {
            return Some(self.forwarded_ips.field(["forwarded_ips", "not_forwarded_ips"]));
        }
        if !self.remote_ips.holds(facts.remote_ip, certainty, address) {
            return Some(self.remote_ips.field(["remoteIpBlocks", "notRemoteIpBlocks"]));
        }
        None
    }
}
