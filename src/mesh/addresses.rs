//! The services and endpoints behind destination addresses.

use std::net::SocketAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::cluster::{Destination, Service};
use crate::net::Address;
use crate::route::Rule;

/// The target of an address.
#[derive(Debug)]
pub enum Leads {
    /// A virtual address of a service. Any endpoint of the service is used, by this rule.
    Service(Destination, Arc<Rule>),
    /// An endpoint of a service. This endpoint is used, with the settings of the service. The
    /// fields are indices into `Snapshot::services` and `Service::endpoints`.
    Endpoint {
        /// The index of the service.
        service: u32,
        /// The index of the endpoint.
        endpoint: u32,
    },
}

/// The addresses of services and their endpoints.
#[derive(Debug, Default)]
pub struct Addresses(FxHashMap<SocketAddr, Leads>);

impl Addresses {
    /// All addresses of `services`. A virtual address wins over an endpoint. If several services
    /// have the same endpoint, the first service gets it. `rule` makes the rule of a virtual
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

    /// The rules of all virtual addresses, in any order.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.0.values().filter_map(|leads| match leads {
            Leads::Service(_, rule) => Some(rule),
            Leads::Endpoint { .. } => None,
        })
    }

    /// The target of `address`.
    pub fn find(&self, address: SocketAddr) -> Option<&Leads> {
        self.0.get(&canonical(address))
    }
}

/// The address without flow label and scope. An IPv4-mapped IPv6 address becomes IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
