//! Finds the service or the endpoint that has a destination address.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::cluster::{Destination, Endpoints, Service};
use crate::net::Address;
use crate::route::Rule;

/// The target of a destination address. Indices are into `Snapshot::services`.
#[derive(Debug)]
pub enum Leads<'a> {
    /// The address is a virtual address of a service. Traffic goes to any endpoint of the service,
    /// and this rule applies.
    Service(Destination, &'a Arc<Rule>),
    /// The address is that of an endpoint. Traffic goes to this endpoint, with the settings of its
    /// service.
    Endpoint {
        /// The index of the service.
        service: u32,
    },
}

/// The virtual addresses of services and the addresses of their endpoints, for one listener.
#[derive(Debug)]
pub struct Addresses {
    services: FxHashMap<SocketAddr, (Destination, Arc<Rule>)>,
    endpoints: Arc<EndpointAddresses>,
}

impl Addresses {
    /// Collects the virtual addresses of `services`. `endpoints` is shared by all listeners. If a
    /// service and an endpoint have the same address, the virtual address has priority. `rule`
    /// creates the rule of a virtual address.
    pub fn new(
        services: &[Arc<Service>],
        endpoints: Arc<EndpointAddresses>,
        mut rule: impl FnMut(&Service, Destination) -> Arc<Rule>,
    ) -> Self {
        let mut known = FxHashMap::default();
        for (service, config) in (0..).zip(services) {
            let destination = Destination { service, subset: 0 };
            for address in &config.addresses {
                let rule = rule(config, destination);
                known.insert(canonical(*address), (destination, rule));
            }
        }
        Self { services: known, endpoints }
    }

    /// The rules of all virtual addresses, in any order.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.services.values().map(|(_, rule)| rule)
    }

    /// Returns the target of `address`, or `None` when no service has it.
    pub fn find(&self, address: SocketAddr) -> Option<Leads<'_>> {
        let address = canonical(address);
        if let Some((destination, rule)) = self.services.get(&address) {
            return Some(Leads::Service(*destination, rule));
        }
        self.endpoints.service(address).map(|service| Leads::Endpoint { service })
    }
}

/// The services, by the addresses of their endpoints. It is updated when endpoints change.
#[derive(Debug, Default)]
pub struct EndpointAddresses(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The service with this address. If several services have the address: the one with the lowest
    /// index.
    first: FxHashMap<SocketAddr, u32>,
    /// All services with an address, for each address that several services have.
    shared: FxHashMap<SocketAddr, BTreeSet<u32>>,
}

impl EndpointAddresses {
    /// Collects the addresses of the endpoints of `services`.
    pub fn new(services: &[Arc<Service>]) -> Self {
        let mut known = Known::default();
        for (service, config) in (0..).zip(services) {
            addresses(&config.endpoints.load()).for_each(|address| known.add(address, service));
        }
        Self(RwLock::new(known))
    }

    /// Replaces the `old` endpoints of a service by `new`. `commit` puts the new endpoints into
    /// use. Returns the added and the removed addresses. An address is removed here before `commit`
    /// and added after it. So a service that is found by an address has that endpoint, unless the
    /// endpoint was removed after the lookup.
    pub fn replace(
        &self,
        service: u32,
        old: &Endpoints,
        new: Arc<Endpoints>,
        commit: impl FnOnce(Arc<Endpoints>),
    ) -> Vec<SocketAddr> {
        let before: FxHashSet<SocketAddr> = addresses(old).collect();
        let after: FxHashSet<SocketAddr> = addresses(&new).collect();
        let gone = before.difference(&after);
        gone.clone().for_each(|&address| self.write().remove(address, service));
        commit(new);
        let come = after.difference(&before);
        come.clone().for_each(|&address| self.write().add(address, service));
        gone.chain(come).copied().collect()
    }

    /// Finds the service of `address`, which must be canonical.
    fn service(&self, address: SocketAddr) -> Option<u32> {
        self.read().first.get(&address).copied()
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn add(&mut self, address: SocketAddr, service: u32) {
        let first = *self.first.entry(address).or_insert(service);
        if first == service {
            return;
        }
        let all = self.shared.entry(address).or_insert_with(|| BTreeSet::from([first]));
        all.insert(service);
        self.first.insert(address, first.min(service));
    }

    fn remove(&mut self, address: SocketAddr, service: u32) {
        let Some(all) = self.shared.get_mut(&address) else {
            self.first.remove(&address);
            return;
        };
        all.remove(&service);
        if let Some(&first) = all.first() {
            self.first.insert(address, first);
        }
        if all.len() == 1 {
            self.shared.remove(&address);
        }
    }
}

/// Returns the addresses of `endpoints` in canonical form. An address may occur twice.
fn addresses(endpoints: &Endpoints) -> impl Iterator<Item = SocketAddr> {
    endpoints.list.iter().filter_map(|endpoint| match &endpoint.address {
        Address::Tcp(address) => Some(canonical(*address)),
        Address::Unix(_) => None,
    })
}

/// Returns the address without flow label and scope. An IPv4-mapped IPv6 address becomes IPv4.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 80).into()
    }

    #[test]
    fn of_several_services_with_an_address_the_first_one_has_it() {
        let known = EndpointAddresses::default();
        let found = |last| known.service(address(last));
        for service in [7, 3, 5] {
            known.write().add(address(1), service);
        }
        known.write().add(address(2), 5);
        assert_eq!((found(1), found(2), found(3)), (Some(3), Some(5), None));
        // (service that loses the address, service that is found after that)
        for (service, then) in [(5, Some(3)), (3, Some(7)), (7, None)] {
            known.write().remove(address(1), service);
            assert_eq!(found(1), then, "without {service}");
        }
        assert!(known.read().shared.is_empty());
        assert_eq!(found(2), Some(5));
    }
}
