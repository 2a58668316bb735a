//! The counters and other states that survive reloads. A reload finds them again by name.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use rustc_hash::FxHashMap;

use crate::authz;
use crate::balance::Level;
use crate::cells::{Count, PerWorker};
use crate::cluster::{EndpointCells, Endpoints, ServiceCells, ZoneCells};
use crate::grpc::methods::Methods;
use crate::health::{Changes, OutlierGroup, OutlierHub};
use crate::jwt::KeysWanted;
use crate::jwt::ProviderCells;
use crate::mesh::CaptureCells;
use crate::mesh::{Destinations, PassedState};
use crate::quic::Keys;
use crate::resilience::{
    Buckets, GlobalLimitCells, InFlight, InUse, LimitBy, Rate, RateLimitCells, RetryBudget, Scope,
    ShiftPlan, ShiftState, Sources,
};
use crate::route::{self, Turns};
use crate::snapshot::ListenerCells;
use crate::standard::Store;
use crate::tls::{ClientTls, EarlySessionStores, TicketKeys};

/// All counters of the process. A counter exists as long as a snapshot refers to it. If a new
/// configuration has the same name during this time, it uses the same counter.
pub struct Registry {
    workers: usize,
    listeners: Family<String, ListenerCells>,
    captures: Family<String, CaptureCells>,
    passed: HashMap<String, Weak<PassedState>>,
    destinations: Family<String, Destinations>,
    routes: Family<(String, String), route::RuleCells>,
    turns: Family<((String, String), String, usize), Count>,
    authorization: Family<String, authz::RuleCells>,
    jwt: Family<String, ProviderCells>,
    passthrough: Family<String, EndpointCells>,
    zones: Family<(Box<str>, Box<str>, Level), ZoneCells>,
    sources: HashMap<String, Weak<Sources>>,
    rate_limits: Family<LimitId, RateLimitCells>,
    global_limits: Family<LimitId, GlobalLimitCells>,
    buckets: HashMap<LimitId, (LimitTerms, Weak<Buckets>)>,
    shifts: HashMap<String, Weak<ShiftState>>,
    services: FxHashMap<Box<str>, OfService>,
    /// The keys of QUIC. They survive reloads.
    pub quic: Keys,
    /// The keys of TLS session tickets. They survive reloads.
    pub tickets: TicketKeys,
    /// The sessions of listeners that accept early data. They survive reloads.
    pub early_sessions: EarlySessionStores,
    /// The services with ejected endpoints. The control thread uses it to end ejections.
    pub outliers: Arc<OutlierHub>,
    /// The series of the standard metrics. They survive reloads.
    pub series: Arc<Store>,
    /// For each URL of token keys, the signal that newer keys are needed. They survive reloads.
    keys_wanted: HashMap<String, KeysWanted>,
}

/// Random keys of QUIC.
fn quic_keys() -> Keys {
    let mut secret = [0; 32];
    // Without random bytes, TLS does not work either, and says so.
    aws_lc_rs::rand::fill(&mut secret).ok();
    Keys::derive(&secret)
}

impl Registry {
    /// Creates an empty registry for `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            listeners: Family::default(),
            captures: Family::default(),
            passed: HashMap::default(),
            destinations: Family::default(),
            routes: Family::default(),
            turns: Family::default(),
            authorization: Family::default(),
            jwt: Family::default(),
            passthrough: Family::default(),
            zones: Family::default(),
            sources: HashMap::new(),
            rate_limits: Family::default(),
            global_limits: Family::default(),
            buckets: HashMap::new(),
            shifts: HashMap::new(),
            services: FxHashMap::default(),
            quic: quic_keys(),
            tickets: TicketKeys::default(),
            early_sessions: EarlySessionStores::default(),
            outliers: Arc::default(),
            series: Arc::new(Store::new(workers)),
            keys_wanted: HashMap::new(),
        }
    }

    /// The number of workers, at least 1.
    pub fn workers(&self) -> usize {
        self.workers.max(1)
    }

    /// The counters of a listener.
    pub fn listener(&mut self, name: &str) -> Arc<PerWorker<ListenerCells>> {
        self.listeners.find(name.to_owned(), self.workers)
    }

    /// The counters of a listener for captured traffic.
    pub fn capture(&mut self, name: &str) -> Arc<PerWorker<CaptureCells>> {
        self.captures.find(name.to_owned(), self.workers)
    }

    /// The state of a listener that passes QUIC through.
    pub fn passed(&mut self, name: &str) -> Arc<PassedState> {
        if let Some(known) = self.passed.get(name).and_then(Weak::upgrade) {
            return known;
        }
        let state = Arc::new(PassedState::new(self.workers));
        self.passed.retain(|_, known| known.strong_count() > 0);
        self.passed.insert(name.to_owned(), Arc::downgrade(&state));
        state
    }

    /// The counters of unknown destinations of a listener for captured traffic.
    pub fn destinations(&mut self, name: &str) -> Arc<PerWorker<Destinations>> {
        self.destinations.find(name.to_owned(), self.workers)
    }

    /// The counters of a rule.
    pub fn route(&mut self, host: &str, name: &str) -> Arc<PerWorker<route::RuleCells>> {
        self.routes.find((host.to_owned(), name.to_owned()), self.workers)
    }

    /// The positions of the workers in the sequence of a rule's weighted split. `nth` is the number
    /// of earlier rules with this host and name.
    pub fn turns(&mut self, (scope, host): (&str, &str), name: &str, nth: usize) -> Turns {
        let host = (scope.to_owned(), host.to_owned());
        self.turns.find((host, name.to_owned(), nth), self.workers)
    }

    /// The counters of an authorization rule.
    pub fn authorization(&mut self, name: &str) -> Arc<PerWorker<authz::RuleCells>> {
        self.authorization.find(name.to_owned(), self.workers)
    }

    /// The counters of a token issuer.
    pub fn jwt(&mut self, name: &str) -> Arc<PerWorker<ProviderCells>> {
        self.jwt.find(name.to_owned(), self.workers)
    }

    /// The signal that newer keys of `url` are needed.
    pub fn keys_wanted(&mut self, url: &str) -> KeysWanted {
        self.keys_wanted.entry(url.to_owned()).or_default().clone()
    }

    /// The counters of a service.
    pub fn service(&mut self, name: &str) -> Arc<PerWorker<ServiceCells>> {
        let workers = self.workers;
        living(&mut self.of_service(name).cells, || PerWorker::new(workers))
    }

    /// The counters of gRPC methods of a service.
    pub fn methods(&mut self, service: &str) -> Arc<Methods> {
        let workers = self.workers;
        living(&mut self.of_service(service).methods, || Methods::new(workers))
    }

    /// The retry budget of a service.
    pub fn retry_budget(&mut self, service: &str) -> Arc<RetryBudget> {
        let workers = self.workers;
        living(&mut self.of_service(service).retry_budget, || RetryBudget::new(workers))
    }

    /// The slots of the circuit breaker of a service that are taken.
    pub fn in_use(&mut self, service: &str) -> Arc<InUse> {
        let workers = self.workers();
        living(&mut self.of_service(service).in_use, || InUse::new(workers))
    }

    /// The number of requests in progress of a service with an adaptive concurrency limit.
    pub fn in_flight(&mut self, service: &str) -> Arc<InFlight> {
        let workers = self.workers();
        living(&mut self.of_service(service).in_flight, || InFlight::new(workers))
    }

    /// The state of outlier detection of a service.
    pub fn outlier_group(&mut self, service: &str) -> Arc<OutlierGroup> {
        let (changes, hub) = (self.changes(service), Arc::clone(&self.outliers));
        let new = || OutlierGroup::new(service, changes, hub);
        living(&mut self.of_service(service).outliers, new)
    }

    /// The endpoints of a service in the snapshots that are still in use, the latest first.
    pub fn endpoints(&mut self, service: &str) -> Vec<Arc<Endpoints>> {
        let known = &mut self.of_service(service).endpoints;
        known.retain(is_used);
        known.iter().rev().filter_map(Weak::upgrade).collect()
    }

    /// Records `endpoints` as the latest ones of a service.
    pub fn keep_endpoints(&mut self, service: &str, endpoints: &Arc<Endpoints>) {
        let known = &mut self.of_service(service).endpoints;
        let new = Arc::downgrade(endpoints);
        known.retain(|other| !other.ptr_eq(&new));
        known.push(new);
    }

    /// The latest TLS settings of a service. Returns `None` if no snapshot uses them or if their
    /// `inputs` differ.
    pub fn client_tls(&mut self, service: &str, inputs: u64) -> Option<Arc<ClientTls>> {
        self.of_service(service).tls.upgrade().filter(|tls| tls.inputs == inputs)
    }

    /// Records `tls` as the latest TLS settings of a service.
    pub fn keep_client_tls(&mut self, service: &str, tls: &Arc<ClientTls>) {
        self.of_service(service).tls = Arc::downgrade(tls);
    }

    /// The numbers of open connections of a listener, by client address.
    pub fn sources(&mut self, listener: &str) -> Arc<Sources> {
        forget(&mut self.sources, is_used);
        living(self.sources.entry(listener.to_owned()).or_default(), Sources::default)
    }

    /// The buckets of a rate limit that count `unit`. They are kept as long as the settings of the
    /// limit stay the same, because a fill level is only valid for the rate at which it was
    /// reached.
    pub fn buckets(
        &mut self,
        (id, unit): (&LimitId, Unit),
        rate: Rate,
        by: &LimitBy,
        keys_max: usize,
    ) -> Arc<Buckets> {
        let terms = LimitTerms { rate, by: by.clone(), keys_max };
        let id = &LimitId { unit, ..id.clone() };
        let known = self.buckets.get(id).filter(|(known, _)| *known == terms);
        known.and_then(|(_, buckets)| buckets.upgrade()).unwrap_or_else(|| {
            forget(&mut self.buckets, |(_, buckets)| is_used(buckets));
            let buckets = Arc::new(match by {
                LimitBy::All => Buckets::one(),
                _ => Buckets::keyed(keys_max),
            });
            self.buckets.insert(id.clone(), (terms, Arc::downgrade(&buckets)));
            buckets
        })
    }

    /// The state of a shift. `id` names its whole plan, so a changed plan begins anew.
    pub fn shift(&mut self, id: &str, plan: ShiftPlan) -> Arc<ShiftState> {
        forget(&mut self.shifts, is_used);
        let workers = self.workers();
        living(self.shifts.entry(id.to_owned()).or_default(), || ShiftState::new(id, plan, workers))
    }

    /// The counters of a rate limit.
    pub fn rate_limit(&mut self, id: &LimitId) -> Arc<PerWorker<RateLimitCells>> {
        self.rate_limits.find(id.clone(), self.workers)
    }

    /// The counters of a global rate limit.
    pub fn global_limit(&mut self, id: &LimitId) -> Arc<PerWorker<GlobalLimitCells>> {
        self.global_limits.find(id.clone(), self.workers)
    }

    /// The counters that all endpoints without a service share, if `listener` passes captured
    /// traffic to them.
    pub fn passthrough(&mut self, listener: &str) -> Arc<PerWorker<EndpointCells>> {
        self.passthrough.find(listener.to_owned(), self.workers)
    }

    /// The counters of the endpoints of a service in one zone and level.
    pub fn zone(&mut self, service: &str, zone: &str, level: Level) -> Arc<PerWorker<ZoneCells>> {
        self.zones.find((service.into(), zone.into(), level), self.workers)
    }

    /// The counter of health changes of the endpoints of a service. Workers detect a change by it.
    pub fn changes(&mut self, service: &str) -> Arc<Changes> {
        living(&mut self.of_service(service).changes, Changes::default)
    }

    fn of_service(&mut self, name: &str) -> &mut OfService {
        if !self.services.contains_key(name) {
            forget(&mut self.services, OfService::is_used);
        }
        self.services.entry(name.into()).or_default()
    }
}

/// Identifies a rate limit: the listener, service or rule that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LimitId {
    /// The kind of the owner.
    pub scope: Scope,
    /// The host of a rule. Empty for a listener or service.
    pub host: Box<str>,
    /// The name of the owner.
    pub name: Box<str>,
    /// The number of earlier rules with the same host and name.
    pub nth: usize,
    /// The index of the limit among those of its owner.
    pub limit: usize,
    /// The name of the limit, for its counters. Empty for buckets.
    pub which: Box<str>,
    /// The unit that the buckets count.
    pub unit: Unit,
}

/// The unit that the buckets of a rate limit count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Requests.
    #[default]
    Requests,
    /// Bytes from clients.
    BytesUp,
    /// Bytes to clients.
    BytesDown,
}

/// The settings of a rate limit. Buckets are kept while these stay the same.
#[derive(Debug, PartialEq, Eq)]
struct LimitTerms {
    rate: Rate,
    by: LimitBy,
    keys_max: usize,
}

/// The counters and states of one service.
#[derive(Default)]
struct OfService {
    cells: Weak<PerWorker<ServiceCells>>,
    methods: Weak<Methods>,
    retry_budget: Weak<RetryBudget>,
    in_use: Weak<InUse>,
    in_flight: Weak<InFlight>,
    changes: Weak<Changes>,
    outliers: Weak<OutlierGroup>,
    /// The endpoints in the snapshots that are still in use, the latest last. They own their
    /// counters. So an endpoint that is removed and added again later starts with new counters.
    endpoints: Vec<Weak<Endpoints>>,
    tls: Weak<ClientTls>,
}

impl OfService {
    fn is_used(&self) -> bool {
        is_used(&self.cells)
            || is_used(&self.methods)
            || is_used(&self.retry_budget)
            || is_used(&self.in_use)
            || is_used(&self.in_flight)
            || is_used(&self.changes)
            || is_used(&self.outliers)
            || is_used(&self.tls)
            || self.endpoints.iter().any(is_used)
    }
}

/// All counters of one kind, by key.
struct Family<K, T>(HashMap<K, Weak<PerWorker<T>>>);

impl<K, T> Default for Family<K, T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq, T: Default> Family<K, T> {
    fn find(&mut self, key: K, workers: usize) -> Arc<PerWorker<T>> {
        if !self.0.contains_key(&key) {
            forget(&mut self.0, is_used);
        }
        living(self.0.entry(key).or_default(), || PerWorker::new(workers))
    }
}

fn is_used<T>(cell: &Weak<T>) -> bool {
    cell.strong_count() > 0
}

/// Removes unused entries before `known` would grow. So the cost of removal is spread over many
/// insertions.
fn forget<K: Hash + Eq, V, S>(known: &mut HashMap<K, V, S>, used: impl Fn(&V) -> bool) {
    if known.len() == known.capacity() {
        known.retain(|_, value| used(value));
    }
}

/// Returns the value of `cell` if it is still in use. Otherwise creates a new value.
fn living<T>(cell: &mut Weak<T>, new: impl FnOnce() -> T) -> Arc<T> {
    cell.upgrade().unwrap_or_else(|| {
        let new = Arc::new(new());
        *cell = Arc::downgrade(&new);
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

    #[test]
    fn services_and_endpoints_that_left_are_forgotten() {
        let mut registry = Registry::new(1);
        let kept = Arc::new(Endpoints::default());
        registry.keep_endpoints("shop", &kept);
        for number in 0..1000 {
            let passing = Arc::new(Endpoints::default());
            registry.keep_endpoints("shop", &passing);
            assert!(Arc::ptr_eq(&registry.endpoints("shop")[0], &passing), "the latest is first");
            registry.keep_endpoints(&number.to_string(), &passing);
        }
        assert!(registry.services.len() < 100, "{}", registry.services.len());
        let known = registry.endpoints("shop");
        assert!(known.len() == 1 && Arc::ptr_eq(&known[0], &kept));
    }
}
