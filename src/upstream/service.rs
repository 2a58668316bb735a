//! A service as one worker sees it: the state of the endpoints that the worker has used.

use std::cell::{Cell, LazyCell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::pool::{EndpointState, PoolTerms, Waiting};
use crate::balance::{Balancer, Load};
use crate::cluster::{Endpoint, Endpoints, Service, ServiceCandidates};
use crate::grpc::methods::KnownMethods;
use crate::net::Address;
use crate::runtime::io::Io;
use crate::time::Time;
use crate::wire::Wire;

/// An endpoint as one worker knows it.
pub type LocalEndpoint<I> = Rc<EndpointState<Wire<<I as Io>::Stream>>>;

/// The state of an endpoint, from its first use on.
type Slot<I> = OnceCell<LocalEndpoint<I>>;

/// A service as one worker sees it.
pub struct LocalService<I: Io> {
    /// Its name.
    pub name: Rc<str>,
    /// The configuration.
    pub config: Arc<Service>,
    /// The methods of gRPC that this worker has seen called there.
    pub methods: KnownMethods,
    worker: usize,
    terms: PoolTerms,
    waiting: Waiting<Wire<I::Stream>>,
    /// `None` until the first choice: most services of a large configuration are not used.
    current: RefCell<Option<Current<I>>>,
    /// A later snapshot has taken its place.
    replaced: Cell<bool>,
}

/// The endpoints that a worker chooses among.
struct Current<I: Io> {
    /// The version of the set that they come from.
    version: u64,
    endpoints: Arc<Endpoints>,
    /// One for each endpoint.
    slots: Vec<Slot<I>>,
    /// One for each subset.
    balancers: Vec<Balancer>,
    /// The load of endpoints that were not used yet.
    unused: Load,
}

impl<I: Io> LocalService<I> {
    /// The state of a service. Endpoints that `before` has used, too, keep their state.
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
            old.as_ref().map(|old| Current::of(&config, Some(old)))
        });
        Self {
            name,
            config,
            methods: KnownMethods::default(),
            worker,
            terms,
            waiting: waiting.clone(),
            current: RefCell::new(current),
            replaced: Cell::new(false),
        }
    }

    /// `whole` with one endpoint alone, whose state both share: the first one for which `is_it`
    /// holds. `None` when the service has none.
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
        Some(Self { current: RefCell::new(Some(alone)), ..narrowed })
    }

    /// The endpoint for the next request, or `None` when there is none to take it. `avoid` is not
    /// chosen as long as there is another.
    pub fn pick(
        &self,
        subset: usize,
        key: Option<u64>,
        avoid: Option<&LocalEndpoint<I>>,
        now: Time,
        random: &mut fastrand::Rng,
    ) -> Option<LocalEndpoint<I>> {
        self.take_in();
        let current = self.current.borrow();
        let current = current.as_ref()?;
        let avoid = avoid.and_then(|avoid| current.index_of(avoid));
        let candidates = ServiceCandidates { service: &self.config, endpoints: &current.endpoints };
        let load = |index| current.load(index);
        let balancer = current.balancers.get(subset)?;
        let picked = balancer.pick(&candidates, load, key, avoid, now, random)?;
        Some(Rc::clone(self.state(current, picked as usize)))
    }

    /// Takes in a change of the endpoints, if there was one: those that stay keep their state, and
    /// connections to those that left are drained.
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
        let new = Current::of(&self.config, old.as_ref());
        self.configure(&new);
        if let Some(old) = old {
            old.retire_except(Some(&new));
        }
        *self.current.borrow_mut() = Some(new);
    }

    /// Whether this worker has looked at the endpoints.
    pub fn is_used(&self) -> bool {
        self.current.borrow().is_some()
    }

    /// Whether connections wait to be used.
    pub fn has_idle(&self) -> bool {
        let current = self.current.borrow();
        current.iter().flat_map(Current::states).any(|state| state.has_idle())
    }

    /// The configuration of this service is in use from now on. `before` is the state that it was
    /// made of, and may have used more endpoints since then.
    pub fn begin(&self, before: Option<&Self>) {
        if let Some(before) = before
            && let Some(old) = &*before.current.borrow()
        {
            let prepared = self.current.borrow().iter().flat_map(Current::states).count();
            if old.states().count() != prepared {
                *self.current.borrow_mut() = Some(Current::of(&self.config, Some(old)));
            }
        }
        if let Some(current) = &*self.current.borrow() {
            self.configure(current);
        }
    }

    /// Ends its use: connections are drained, except those to endpoints whose state `next` has.
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
                // An exchange that began before a reload: nobody else would use the connection.
                state.retire();
            }
            state
        })
    }
}

impl<I: Io> Current<I> {
    /// The current endpoints of a service. Those that `old` has, too, keep their state.
    fn of(config: &Service, old: Option<&Self>) -> Self {
        let (version, endpoints) = config.endpoints.load_versioned();
        let slots = match old {
            Some(old) => old.carried(&endpoints),
            None => endpoints.list.iter().map(|_| Slot::<I>::new()).collect(),
        };
        let candidates = ServiceCandidates { service: config, endpoints: &endpoints };
        let balancers =
            (0..endpoints.subsets.len()).map(|subset| Balancer::new(&candidates, subset)).collect();
        Self { version, slots, balancers, unused: Load::default(), endpoints }
    }

    /// A slot for each of `endpoints`, with the state that this one has of it.
    fn carried(&self, endpoints: &Endpoints) -> Vec<Slot<I>> {
        // Mostly nothing has moved. If something has, an index keeps the search short.
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

    /// The index of the endpoint with this state.
    fn index_of(&self, state: &LocalEndpoint<I>) -> Option<u32> {
        let is_it = |slot: &Slot<I>| slot.get().is_some_and(|other| Rc::ptr_eq(other, state));
        self.slots.iter().position(is_it).map(|index| index as u32)
    }

    /// Drains the connections to all endpoints whose state `next` does not have.
    fn retire_except(&self, next: Option<&Self>) {
        let kept: FxHashSet<_> = next.into_iter().flat_map(Self::states).map(Rc::as_ptr).collect();
        let gone = self.states().filter(|state| !kept.contains(&Rc::as_ptr(state)));
        gone.for_each(|state| state.retire());
    }
}
