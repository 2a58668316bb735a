//! Counters that outlive reloads: found again by name.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use crate::authz;
use crate::cells::PerWorker;
use crate::cluster::{EndpointCells, ServiceCells};
use crate::grpc::methods::Methods;
use crate::health::{Changes, HealthState};
use crate::jwt::KeysWanted;
use crate::jwt::ProviderCells;
use crate::mesh::CaptureCells;
use crate::mesh::Destinations;
use crate::net::Address;
use crate::route;
use crate::snapshot::ListenerCells;
use crate::tls::TicketKeys;

/// All counters of the process, by what they count. A counter lives as long as a snapshot refers
/// to it; when its name comes back while it still lives, it goes on from where it was.
pub struct Registry {
    workers: usize,
    listeners: Family<String, ListenerCells>,
    captures: Family<String, CaptureCells>,
    destinations: Family<String, Destinations>,
    routes: Family<(String, String), route::RuleCells>,
    authorization: Family<String, authz::RuleCells>,
    jwt: Family<String, ProviderCells>,
    services: Family<String, ServiceCells>,
    methods: HashMap<String, Weak<Methods>>,
    endpoints: Family<(String, Address), EndpointCells>,
    changes: HashMap<String, Weak<Changes>>,
    standings: HashMap<(String, Address), Weak<HealthState>>,
    /// Keys of session tickets, which outlive reloads too.
    pub tickets: TicketKeys,
    /// By URL: who asks for newer keys there, through reloads.
    keys_wanted: HashMap<String, KeysWanted>,
}

impl Registry {
    /// An empty registry for `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            listeners: Family::default(),
            captures: Family::default(),
            destinations: Family::default(),
            routes: Family::default(),
            authorization: Family::default(),
            jwt: Family::default(),
            services: Family::default(),
            methods: HashMap::new(),
            endpoints: Family::default(),
            changes: HashMap::new(),
            standings: HashMap::new(),
            tickets: TicketKeys::default(),
            keys_wanted: HashMap::new(),
        }
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers.max(1)
    }

    /// The counters of a listener.
    pub fn listener(&mut self, name: &str) -> Arc<PerWorker<ListenerCells>> {
        self.listeners.find(name.to_owned(), self.workers)
    }

    /// The counters of a listener of captured connections.
    pub fn capture(&mut self, name: &str) -> Arc<PerWorker<CaptureCells>> {
        self.captures.find(name.to_owned(), self.workers)
    }

    /// The destinations that nobody has named, as seen by a listener of captured connections.
    pub fn destinations(&mut self, name: &str) -> Arc<PerWorker<Destinations>> {
        self.destinations.find(name.to_owned(), self.workers)
    }

    /// The counters of a rule.
    pub fn route(&mut self, host: &str, name: &str) -> Arc<PerWorker<route::RuleCells>> {
        self.routes.find((host.to_owned(), name.to_owned()), self.workers)
    }

    /// The counters of an authorization rule.
    pub fn authorization(&mut self, name: &str) -> Arc<PerWorker<authz::RuleCells>> {
        self.authorization.find(name.to_owned(), self.workers)
    }

    /// The counters of an issuer of tokens.
    pub fn jwt(&mut self, name: &str) -> Arc<PerWorker<ProviderCells>> {
        self.jwt.find(name.to_owned(), self.workers)
    }

    /// What rings when keys of `url` are needed.
    pub fn keys_wanted(&mut self, url: &str) -> KeysWanted {
        self.keys_wanted.entry(url.to_owned()).or_default().clone()
    }

    /// The counters of a service.
    pub fn service(&mut self, name: &str) -> Arc<PerWorker<ServiceCells>> {
        self.services.find(name.to_owned(), self.workers)
    }

    /// The methods of a service that have been called.
    pub fn methods(&mut self, service: &str) -> Arc<Methods> {
        let workers = self.workers;
        kept(&mut self.methods, service.to_owned(), || Methods::new(workers))
    }

    /// The counters of an endpoint of a service.
    pub fn endpoint(&mut self, service: &str, address: &Address) -> Arc<PerWorker<EndpointCells>> {
        self.endpoints.find((service.to_owned(), address.clone()), self.workers)
    }

    /// What counts changes of health among the endpoints of a service.
    pub fn changes(&mut self, service: &str) -> Arc<Changes> {
        kept(&mut self.changes, service.to_owned(), Changes::default)
    }

    /// What is known of the health of an endpoint of a service.
    pub fn health_state(&mut self, service: &str, address: &Address) -> Arc<HealthState> {
        let changes = self.changes(service);
        let key = (service.to_owned(), address.clone());
        kept(&mut self.standings, key, || HealthState::new(changes))
    }
}

/// Counters of one kind.
struct Family<K, T>(HashMap<K, Weak<PerWorker<T>>>);

impl<K, T> Default for Family<K, T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq, T: Default> Family<K, T> {
    fn find(&mut self, key: K, workers: usize) -> Arc<PerWorker<T>> {
        kept(&mut self.0, key, || PerWorker::new(workers))
    }
}

/// What `known` has under `key`, or something new.
fn kept<K: Hash + Eq, T>(
    known: &mut HashMap<K, Weak<T>>,
    key: K,
    new: impl FnOnce() -> T,
) -> Arc<T> {
    // Names that are gone are forgotten now and then, not at each look.
    if known.len() == known.capacity() {
        known.retain(|_, value| value.strong_count() > 0);
    }
    let known = known.entry(key).or_default();
    known.upgrade().unwrap_or_else(|| {
        let new = Arc::new(new());
        *known = Arc::downgrade(&new);
        new
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_counters_as_long_as_they_are_used() {
        let mut registry = Registry::new(2);
        let first = registry.listener("web");
        first.worker(0).connections.add(5);
        assert_eq!(registry.listener("web").sum(|cells| &cells.connections), 5);
        drop(first);
        assert_eq!(registry.listener("web").sum(|cells| &cells.connections), 0);
    }
}
