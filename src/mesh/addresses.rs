//! What stands behind an address that a client connects to.

use std::net::SocketAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::cluster::{Destination, Service};
use crate::net::Address;
use crate::route::Rule;

/// What an address leads to.
#[derive(Debug)]
pub enum Leads {
    /// It is a virtual address of a service: to any endpoint of it, by this rule.
    Service(Destination, Arc<Rule>),
    /// It is an endpoint of a service: to that one, on the service's terms. Indices into
    /// `Snapshot::services` and `Service::endpoints`.
    Endpoint {
        /// Which service.
        service: u32,
        /// Which of its endpoints.
        endpoint: u32,
    },
}

/// Addresses of services and their endpoints.
#[derive(Debug, Default)]
pub struct Addresses(FxHashMap<SocketAddr, Leads>);

impl Addresses {
    /// All addresses of `services`. A virtual address goes before an endpoint, and of several
    /// services with the same endpoint the first one has it. `rule` makes the rule of a virtual
    /// address.
    pub fn new(
        services: &[Arc<Service>],
        mut rule: impl FnMut(&Service, Destination) -> Arc<Rule>,
    ) -> Self {
        let mut known = FxHashMap::default();
        for (service, config) in (0..).zip(services) {
            for (endpoint, target) in (0..).zip(&config.endpoints) {
                if let Address::Tcp(address) = &target.address {
                    let address = canonical(*address);
                    known.entry(address).or_insert(Leads::Endpoint { service, endpoint });
                }
            }
        }
        for (service, config) in (0..).zip(services) {
            let destination = Destination { service, subset: 0 };
            for address in &config.addresses {
                let rule = rule(config, destination);
                known.insert(canonical(*address), Leads::Service(destination, rule));
            }
        }
        Self(known)
    }

    /// The rules of all virtual addresses, in no particular order.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.0.values().filter_map(|leads| match leads {
            Leads::Service(_, rule) => Some(rule),
            Leads::Endpoint { .. } => None,
        })
    }

    /// What stands behind `address`.
    pub fn find(&self, address: SocketAddr) -> Option<&Leads> {
        self.0.get(&canonical(address))
    }
}

/// The address without what does not tell destinations apart: IPv4 in IPv6, flow label and scope.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
