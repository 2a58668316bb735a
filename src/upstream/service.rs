//! The state that one worker has of a service: its endpoints, of which only those are created that
//! the worker has used.

use std::cell::{Cell, LazyCell, OnceCell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::families::UnreachableFamilies;
use super::limited::Limited;
use super::pool::{EndpointState, PoolTerms, Waiting};
use crate::balance::{Balancer, Load};
use crate::cluster::{Endpoint, Endpoints, Service, ServiceCandidates};
use crate::grpc::methods::KnownMethods;
use crate::net::Address;
use crate::resilience::Latencies;
use crate::runtime::io::Io;
use crate::time::Time;
use crate::wire::Wire;

/// The state of an endpoint in one worker.
pub type LocalEndpoint<I> = Rc<EndpointState<Wire<<I as Io>::Stream>>>;

/// The state of an endpoint, which is created when the endpoint is used first.
type Slot<I> = OnceCell<LocalEndpoint<I>>;

/// The state that one worker has of a service.
pub struct LocalService<I: Io> {
    /// The name of the service.
    pub name: Rc<str>,
    /// The configuration in the current snapshot.
    pub config: Arc<Service>,
    /// The gRPC methods of the service that this worker has already counted.
    pub methods: KnownMethods,
    worker: usize,
    terms: PoolTerms,
    waiting: Waiting<Wire<I::Stream>>,
    /// The endpoints. `None` until the first one is chosen: in a large configuration, most services
    /// are not used.
    current: RefCell<Option<Current<I>>>,
    /// Whether a later snapshot has replaced this service.
    replaced: Cell<bool>,
    /// The service of the current snapshot that has taken over the connections of this one.
    pub(super) latest: Rc<Latest<I>>,
    /// The address families for which this host currently has no route.
    pub unreachable: UnreachableFamilies,
    /// The connections that wait for a slot in the circuit breaker.
    pub limited: Rc<Limited>,
    /// The recent latencies by version, of requests that may be hedged after a percentile.
    latencies: Rc<RefCell<LatenciesByVersion>>,
}

/// A service of the current snapshot, for a connection that is older. The connection keeps no
/// snapshot.
pub(super) struct Latest<I: Io>(RefCell<Weak<LocalService<I>>>);

impl<I: Io> Default for Latest<I> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<I: Io> Latest<I> {
    /// The service. `None` if it was removed.
    pub fn get(&self) -> Option<Rc<LocalService<I>>> {
        self.0.borrow().upgrade()
    }

    fn set(&self, service: &Rc<LocalService<I>>) {
        *self.0.borrow_mut() = Rc::downgrade(service);
    }
}

/// The latencies of the versions that were used. One version may be slower than another one.
type LatenciesByVersion = Vec<(Box<str>, Rc<RefCell<Latencies>>)>;

/// The endpoints among which a worker chooses.
struct Current<I: Io> {
    /// The version of the endpoint set.
    version: u64,
    endpoints: Arc<Endpoints>,
    /// The state of each endpoint.
    slots: Vec<Slot<I>>,
    /// The balancer of each subset.
    balancers: Rc<[Balancer]>,
    /// The load of an endpoint that was not used yet.
    unused: Load,
}

impl<I: Io> LocalService<I> {
    /// Creates the state of a service. Endpoints that `before` has used keep their state.
    pub fn new(
        worker: usize,
        config: Arc<Service>,
        terms: PoolTerms,
        waiting: &Waiting<Wire<I::Stream>>,
        before: Option<&Self>,
    ) -> Self {
        let name = before.map_or_else(|| Rc::from(&*config.name), |before| Rc::clone(&before.name));
        let current = before.and_then(|before| {
            let old = before.current.borrow();
            old.as_ref().map(|old| Current::of(&config, Some((old, &before.config))))
        });
        let latencies = before.map(|before| Rc::clone(&before.latencies)).unwrap_or_default();
        if !latencies.borrow().is_empty() {
            let endpoints = config.endpoints.load();
            let is_left = |name: &str| endpoints.subsets.iter().any(|it| *it.version == *name);
            latencies.borrow_mut().retain(|(version, _)| is_left(version));
        }
        Self {
            name,
            config,
            methods: KnownMethods::default(),
            worker,
            terms,
            waiting: waiting.clone(),
            current: RefCell::new(current),
            replaced: Cell::new(false),
            latest: before.map(|before| Rc::clone(&before.latest)).unwrap_or_default(),
            unreachable: UnreachableFamilies::default(),
            limited: before.map(|before| Rc::clone(&before.limited)).unwrap_or_default(),
            latencies,
        }
    }

    /// Creates a service with the settings of `whole`, but with only one endpoint: the first one
    /// for which `is_it` returns true. Both services share the state of this endpoint. Returns
    /// `None` if there is no such endpoint.
    pub fn narrowed(whole: &Self, is_it: impl Fn(&Address) -> bool) -> Option<Self> {
        whole.take_in();
        let current = whole.current.borrow();
        let current = current.as_ref()?;
        let list = &current.endpoints.list;
        let index = list.iter().position(|endpoint| is_it(&endpoint.address))?;
        let state = Rc::clone(whole.state(current, index));
        let config = Arc::new(whole.config.narrowed(Arc::clone(&list[index])));
        let terms = whole.terms;
        let narrowed = Self::new(whole.worker, config, terms, &whole.waiting, None);
        let alone = Current::of(&narrowed.config, None);
        alone.slots[0].get_or_init(|| state);
        let (limited, latest) = (Rc::clone(&whole.limited), Rc::clone(&whole.latest));
        Some(Self { current: RefCell::new(Some(alone)), limited, latest, ..narrowed })
    }

    /// Chooses the endpoint for the next request. Prefers an endpoint that is not in `avoid` and
    /// for whose address this host has a route. Otherwise takes another endpoint that is not in
    /// `avoid`. Chooses an endpoint in `avoid` only if there is no other. Returns `None` if no
    /// endpoint is available.
    pub fn pick(
        &self,
        subset: usize,
        key: Option<u64>,
        avoid: &[LocalEndpoint<I>],
        now: Time,
        random: &mut fastrand::Rng,
    ) -> Option<LocalEndpoint<I>> {
        self.take_in();
        let current = self.current.borrow();
        let current = current.as_ref()?;
        let avoid: Vec<_> = avoid.iter().filter_map(|state| current.index_of(state)).collect();
        let candidates = ServiceCandidates { service: &self.config, endpoints: &current.endpoints };
        let load = |index| current.load(index);
        let balancer = current.balancers.get(subset)?;
        let mut picked = None;
        if self.unreachable.is_any(now) {
            let list = current.endpoints.list.iter().zip(0..);
            let last = list.filter(|(it, _)| self.unreachable.includes(&it.address, now));
            let worse: Vec<_> = avoid.iter().copied().chain(last.map(|(_, index)| index)).collect();
            // If there is no better endpoint, do not call the balancer twice: each call changes its
            // state.
            if worse.len() < current.endpoints.list.len() {
                picked = balancer.pick(&candidates, load, key, &worse, now, random);
                picked = picked.filter(|index| !worse.contains(index));
            }
        }
        let pick = || balancer.pick(&candidates, load, key, &avoid, now, random);
        let picked = picked.or_else(pick)?;
        Some(Rc::clone(self.state(current, picked as usize)))
    }

    /// Updates the endpoints of the service, if they have changed. Remaining endpoints keep their
    /// state; connections to removed ones are drained.
    #[inline]
    pub fn take_in(&self) {
        let known = self.current.borrow().as_ref().map(|current| current.version);
        if known != Some(self.config.endpoints.version()) {
            self.take_in_changed();
        }
    }

    #[cold]
    fn take_in_changed(&self) {
        let old = self.current.take();
        let new = Current::of(&self.config, old.as_ref().map(|old| (old, &*self.config)));
        self.configure(&new);
        if let Some(old) = old {
            old.retire_except(Some(&new));
        }
        *self.current.borrow_mut() = Some(new);
    }

    /// The recent latencies of a version: those of the endpoints in `subset`. Only services with
    /// hedged requests allocate them.
    pub fn latencies(&self, subset: usize) -> Rc<RefCell<Latencies>> {
        let current = self.current.borrow();
        let subset = current.as_ref().and_then(|current| current.endpoints.subsets.get(subset));
        let version = subset.map_or("", |subset| &*subset.version);
        let mut all = self.latencies.borrow_mut();
        if let Some((_, known)) = all.iter().find(|(name, _)| **name == *version) {
            return Rc::clone(known);
        }
        let new = Rc::default();
        all.push((version.into(), Rc::clone(&new)));
        new
    }

    /// Whether this worker has already used the service.
    pub fn is_used(&self) -> bool {
        self.current.borrow().is_some()
    }

    /// Whether at least one endpoint has idle connections.
    pub fn has_idle(&self) -> bool {
        let current = self.current.borrow();
        current.iter().flat_map(Current::states).any(|state| state.has_idle())
    }

    /// Closes an idle connection to one of the endpoints. Returns false if there is none.
    pub fn close_idle(&self) -> bool {
        let current = self.current.borrow();
        current.iter().flat_map(Current::states).any(|state| state.close_idle())
    }

    /// Puts this service into use, in place of `before`. `before` may have used more endpoints
    /// since this service was created, so their states are taken over.
    pub fn begin(self: &Rc<Self>, before: &Self) {
        self.latest.set(self);
        if let Some(old) = &*before.current.borrow() {
            let prepared = self.current.borrow().iter().flat_map(Current::states).count();
            if old.states().count() != prepared {
                let old = Some((old, &*before.config));
                *self.current.borrow_mut() = Some(Current::of(&self.config, old));
            }
        }
        if let Some(current) = &*self.current.borrow() {
            self.configure(current);
        }
    }

    /// Announces this service, which takes over nothing, to the connections that it will open.
    pub fn announce(self: &Rc<Self>) {
        self.latest.set(self);
    }

    /// Ends the use of this service. Drains the connections to all endpoints whose state `next`
    /// does not contain.
    pub fn end(&self, next: Option<&Self>) {
        self.replaced.set(true);
        let next = next.map(|next| next.current.borrow());
        if let Some(current) = &*self.current.borrow() {
            current.retire_except(next.as_ref().and_then(|next| next.as_ref()));
        }
    }

    fn configure(&self, current: &Current<I>) {
        for (slot, config) in current.slots.iter().zip(&current.endpoints.list) {
            if let Some(state) = slot.get() {
                state.reconfigure(Arc::clone(config), self.terms);
            }
        }
    }

    fn state<'c>(&self, current: &'c Current<I>, index: usize) -> &'c LocalEndpoint<I> {
        current.slots[index].get_or_init(|| {
            let config = Arc::clone(&current.endpoints.list[index]);
            let state = EndpointState::new(self.worker, config, self.terms, &self.waiting);
            if self.replaced.get() {
                // The exchange began before a reload. No later exchange can use the connection, so
                // drain it.
                state.retire();
            }
            state
        })
    }
}

impl<I: Io> Current<I> {
    /// Creates the endpoints of a service. Endpoints that `old` also has keep their state. `old` is
    /// given with its service. If the endpoints, the panic threshold, the slow start and the
    /// locality have not changed, the balancers are kept, too, with their state.
    fn of(config: &Service, old: Option<(&Self, &Service)>) -> Self {
        let (version, endpoints) = config.endpoints.load_versioned();
        let slots = match old {
            Some((old, _)) => old.carried(&endpoints),
            None => endpoints.list.iter().map(|_| Slot::<I>::new()).collect(),
        };
        let candidates = ServiceCandidates { service: config, endpoints: &endpoints };
        let unchanged = old.filter(|(old, before)| {
            Arc::ptr_eq(&old.endpoints, &endpoints)
                && before.panic_percent == config.panic_percent
                && before.slow_start == config.slow_start
                && before.locality == config.locality
        });
        let new = |subset| Balancer::new(&candidates, subset);
        let balancers = match unchanged {
            Some((old, _)) => Rc::clone(&old.balancers),
            None => (0..endpoints.subsets.len()).map(new).collect(),
        };
        Self { version, slots, balancers, unused: Load::default(), endpoints }
    }

    /// The states of `endpoints`, as far as they exist in `self`.
    fn carried(&self, endpoints: &Endpoints) -> Vec<Slot<I>> {
        // Most endpoints keep their index. For the others, the map makes the search fast.
        let by_identity = LazyCell::new(|| {
            let identity =
                |endpoint: &Arc<Endpoint>| (endpoint.address.clone(), endpoint.version.clone());
            let places = self.endpoints.list.iter().map(identity).zip(0..);
            places.collect::<FxHashMap<_, usize>>()
        });
        let place = |index: usize, endpoint: &Arc<Endpoint>| {
            let here = self.endpoints.list.get(index).filter(|old| old.is_same(endpoint));
            if here.is_some() {
                return Some(index);
            }
            let identity = (endpoint.address.clone(), endpoint.version.clone());
            by_identity.get(&identity).copied()
        };
        let slot = |(index, endpoint)| {
            let state = place(index, endpoint).and_then(|place| self.slots[place].get());
            state.map_or_else(Slot::<I>::new, |state| Slot::<I>::from(Rc::clone(state)))
        };
        endpoints.list.iter().enumerate().map(slot).collect()
    }

    fn states(&self) -> impl Iterator<Item = &LocalEndpoint<I>> {
        self.slots.iter().filter_map(OnceCell::get)
    }

    fn load(&self, index: u32) -> &Load {
        self.slots[index as usize].get().map_or(&self.unused, |state| &state.load)
    }

    /// The index of the endpoint that has this state.
    fn index_of(&self, state: &LocalEndpoint<I>) -> Option<u32> {
        let is_it = |slot: &Slot<I>| slot.get().is_some_and(|other| Rc::ptr_eq(other, state));
        self.slots.iter().position(is_it).map(|index| index as u32)
    }

    /// Drains the connections to all endpoints whose state `next` does not contain.
    fn retire_except(&self, next: Option<&Self>) {
        let kept: FxHashSet<_> = next.into_iter().flat_map(Self::states).map(Rc::as_ptr).collect();
        let gone = self.states().filter(|state| !kept.contains(&Rc::as_ptr(state)));
        gone.for_each(|state| state.retire());
    }
}
