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
}

impl Source {
    pub(super) fn holds(&self, facts: &Facts<'_>, certainty: Certainty) -> bool {
        let name = |pattern: &Pattern, value: &str, _| pattern.fits(value);
        let address = |network: &Network, ip, _| network.contains(ip);
        let identity = facts.identity;
        self.identities.holds(identity.map(|i| i.name), certainty, name)
            && self.namespaces.holds(identity.and_then(|i| i.namespace), certainty, name)
            && self.trust_domains.holds(identity.map(|i| i.trust_domain), certainty, name)
            && self.ips.holds(facts.ip, certainty, address)
            && self.forwarded_ips.holds(facts.forwarded_ip, certainty, address)
    }
}
