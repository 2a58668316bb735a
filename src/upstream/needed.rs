//! The services that listeners can reach. During a drain, the idle connections of all others close.

use std::collections::BTreeSet;

use crate::resilience::GlobalLimit;
use crate::route::{Action, Rule};
use crate::snapshot::{Listener, Serves, Snapshot};

/// The services that some listeners can reach.
pub(super) enum Needed {
    /// All of them, and all original destinations.
    All,
    /// Those with these indices.
    Some(BTreeSet<usize>),
}

impl Needed {
    /// Finds the services that `listeners` can reach.
    pub fn by<'a>(snapshot: &Snapshot, listeners: impl Iterator<Item = &'a Listener>) -> Self {
        let mut found = BTreeSet::new();
        for listener in listeners {
            found.extend(limiter(listener.global_limit.as_deref()));
            match &listener.serves {
                // The workload may connect to the address of any service.
                Serves::Captured(_) => return Self::All,
                Serves::Tcp(to) => found.extend([to.service as usize]),
                Serves::Quic(passed) => {
                    found.extend(passed.other.map(|to| to.service as usize));
                    passed.routes.rules().for_each(|rule| found.extend(of_rule(rule)));
                }
                Serves::Http(table) | Serves::Tls(table) => {
                    table.rules().for_each(|rule| found.extend(of_rule(rule)));
                }
            }
        }
        let limits =
            |index: &usize| limiter(snapshot.services.get(*index)?.global_limit.as_deref());
        let limiters: Vec<usize> = found.iter().filter_map(limits).collect();
        found.extend(limiters);
        Self::Some(found)
    }

    /// Whether the service at `index` is one of them.
    pub fn has(&self, index: usize) -> bool {
        match self {
            Self::All => true,
            Self::Some(found) => found.contains(&index),
        }
    }
}

/// The services that a rule uses.
fn of_rule(rule: &Rule) -> impl Iterator<Item = usize> {
    let split = match &rule.action {
        Action::Forward(split) => Some(split),
        Action::Redirect(_) | Action::Respond(_) => None,
    };
    let versions = split.into_iter().flat_map(|split| split.destinations());
    let mirror = rule.mirror.iter().map(|mirror| mirror.to);
    let services = versions.chain(mirror).map(|to| to.service as usize);
    services.chain(limiter(rule.global_limit.as_deref()))
}

fn limiter(limit: Option<&GlobalLimit>) -> Option<usize> {
    limit.map(|limit| limit.service as usize)
}
