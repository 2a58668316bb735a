//! What one worker has: the snapshot in use, its endpoints and connections, its scratch memory.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::originals::Originals;
use super::registry::{ConnectionState, Registry};
use super::tokens::Tokens;
use super::workspace::Workspaces;
use crate::balance::Balancer;
use crate::cluster::{Address, Destination, Service};
use crate::http2::held_bytes;
use crate::runtime::io::Io;
use crate::runtime::mailbox::{Loads, ReportKind};
use crate::snapshot::Snapshot;
use crate::telemetry::counters::{PerWorker, WorkerCells};
use crate::telemetry::grpc::KnownMethods;
use crate::telemetry::log_buffer::LogBuffer;
use crate::tls::{ClientTls, Wire};
use crate::upstream::EndpointState;

/// Lines a second that one worker logs about what peers do.
pub const COMPLAINTS_MAX: u64 = 10;

/// How often idle connections to endpoints are looked over.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// One worker. Everything in it belongs to its thread, except what is behind an `Arc`.
pub struct Worker<I: Io> {
    /// Access to the world.
    pub io: I,
    /// Which worker this is, from 0.
    pub index: usize,
    /// Connections a worker, of all workers.
    pub loads: Loads,
    /// Open connections, for draining.
    pub registry: Registry,
    /// Tokens verified lately.
    pub tokens: Tokens,
    /// Heads and scratch buffers.
    pub workspaces: Workspaces,
    /// Randomness for balancing and request ids.
    pub random: RefCell<fastrand::Rng>,
    /// Lines for the access log that the control thread has not got yet.
    pub log: LogBuffer,
    stats: Arc<PerWorker<WorkerCells>>,
    current: RefCell<Rc<Local<I>>>,
    prepared: RefCell<Option<Rc<Local<I>>>>,
    draining: Cell<bool>,
    /// The second, what was logged in it, and what was suppressed.
    complaints: Cell<(u64, u64, u64)>,
}

/// A snapshot together with this worker's state of its services.
pub struct Local<I: Io> {
    /// The configuration.
    pub snapshot: Arc<Snapshot>,
    /// One for each of the snapshot's services.
    pub services: Vec<LocalService<I>>,
    /// Where captured connections were meant to go, as far as no service names it.
    pub originals: Originals<I>,
}

impl<I: Io> Local<I> {
    /// The service that `to` names; `original` is where the connection was meant to go.
    pub fn service<'s>(
        &'s self,
        to: Destination,
        original: Option<&'s LocalService<I>>,
    ) -> Option<&'s LocalService<I>> {
        match to == Destination::ORIGINAL {
            true => original,
            false => self.services.get(to.service as usize),
        }
    }
}

/// A service as one worker sees it.
pub struct LocalService<I: Io> {
    /// The configuration.
    pub config: Arc<Service>,
    /// One for each endpoint of the service.
    pub endpoints: Vec<LocalEndpoint<I>>,
    /// One for each subset of the service.
    pub balancers: Vec<Balancer>,
    /// The methods of gRPC that this worker has seen called there.
    pub methods: KnownMethods,
}

/// An endpoint as one worker knows it.
pub type LocalEndpoint<I> = Rc<EndpointState<Wire<<I as Io>::Stream>>>;

/// Endpoints by service and address.
type Known<I> = HashMap<(Box<str>, Address), LocalEndpoint<I>>;

/// What a worker is made of.
pub struct WorkerParts {
    /// Which worker this is, from 0.
    pub index: usize,
    /// Counters of all workers.
    pub stats: Arc<PerWorker<WorkerCells>>,
    /// Loads of all workers.
    pub loads: Loads,
    /// Seed of the worker's randomness.
    pub seed: u64,
    /// Where the log goes.
    pub reports: Option<crate::runtime::mailbox::Reports>,
}

impl<I: Io> Worker<I> {
    /// A worker that serves nothing until a snapshot is committed.
    pub fn new(io: I, parts: WorkerParts) -> Rc<Self> {
        let snapshot = Arc::new(Snapshot::empty());
        let nothing = Local { snapshot, services: Vec::new(), originals: Originals::default() };
        Rc::new(Self {
            io,
            index: parts.index,
            loads: parts.loads,
            registry: Registry::default(),
            tokens: Tokens::default(),
            workspaces: Workspaces::default(),
            random: RefCell::new(fastrand::Rng::with_seed(parts.seed)),
            log: LogBuffer::new(parts.index, parts.reports),
            stats: parts.stats,
            current: RefCell::new(Rc::new(nothing)),
            prepared: RefCell::new(None),
            draining: Cell::new(false),
            complaints: Cell::default(),
        })
    }

    /// This worker's own counters.
    pub fn cells(&self) -> &WorkerCells {
        self.stats.worker(self.index)
    }

    /// The snapshot in use. An exchange keeps what it got here until it is over.
    pub fn local(&self) -> Rc<Local<I>> {
        Rc::clone(&self.current.borrow())
    }

    /// Whether the process is about to end.
    pub fn draining(&self) -> bool {
        self.draining.get()
    }

    /// Calls `log` unless this worker has complained [`COMPLAINTS_MAX`] times in this second: peers
    /// decide how often. It is told how many were suppressed before.
    pub fn complain(&self, log: impl FnOnce(u64)) {
        let second = self.io.recent().as_micros() / 1_000_000;
        let (since, said, suppressed) = self.complaints.get();
        if since == second && said >= COMPLAINTS_MAX {
            return self.complaints.set((since, said, suppressed + 1));
        }
        log(suppressed);
        let said = if since == second { said + 1 } else { 1 };
        self.complaints.set((second, said, 0));
    }

    /// Tells the control thread.
    pub fn report(&self, kind: ReportKind) {
        self.log.report(kind);
    }

    /// Builds this worker's part of a snapshot and changes nothing that serves.
    pub fn prepare(&self, snapshot: Arc<Snapshot>) {
        let workers = self.stats.iter().count();
        let old = self.local();
        let mut known = HashMap::new();
        // A connection that was opened for other terms of TLS must not carry on under new ones.
        let same_terms = |service: &&LocalService<I>| {
            let new = snapshot.services.iter().find(|new| new.name == service.config.name);
            new.is_some_and(|new| terms(&new.tls) == terms(&service.config.tls))
        };
        for service in old.services.iter().filter(same_terms) {
            for state in &service.endpoints {
                let address = state.config.borrow().address.clone();
                known.insert((service.config.name.clone(), address), Rc::clone(state));
            }
        }
        let services = snapshot
            .services
            .iter()
            .map(|config| self.local_service(config, &known, workers))
            .collect();
        let originals = Originals::default();
        *self.prepared.borrow_mut() = Some(Rc::new(Local { snapshot, services, originals }));
    }

    fn local_service(
        &self,
        config: &Arc<Service>,
        known: &Known<I>,
        workers: usize,
    ) -> LocalService<I> {
        let idle_max = (config.max_idle_connections as usize).div_ceil(workers);
        let state = |endpoint: &Arc<crate::cluster::Endpoint>| {
            known.get(&(config.name.clone(), endpoint.address.clone())).map_or_else(
                || EndpointState::new(self.index, Arc::clone(endpoint), idle_max),
                Rc::clone,
            )
        };
        LocalService {
            config: Arc::clone(config),
            endpoints: config.endpoints.iter().map(state).collect(),
            methods: KnownMethods::default(),
            balancers: (0..config.subsets.len()).map(|i| Balancer::new(config, i)).collect(),
        }
    }

    /// Forgets what was prepared.
    pub fn abort(&self) {
        *self.prepared.borrow_mut() = None;
    }

    /// Uses the prepared snapshot from now on. Exchanges under way keep the old one; connections
    /// of listeners that are gone finish what they do and close. False when it was not prepared.
    pub fn commit(&self, version: u64) -> bool {
        let Some(new) = self.prepared.borrow_mut().take() else { return false };
        if new.snapshot.version != version {
            return false;
        }
        let old = self.current.replace(Rc::clone(&new));
        self.tokens.clear();
        let kept: std::collections::HashSet<_> =
            new.services.iter().flat_map(|s| s.endpoints.iter().map(Rc::as_ptr)).collect();
        for state in old.services.iter().flat_map(|service| &service.endpoints) {
            if !kept.contains(&Rc::as_ptr(state)) {
                state.retire();
            }
        }
        let workers = self.stats.iter().count();
        for service in &new.services {
            let idle_max = (service.config.max_idle_connections as usize).div_ceil(workers);
            for (state, config) in service.endpoints.iter().zip(&service.config.endpoints) {
                state.reconfigure(Arc::clone(config), idle_max);
            }
        }
        self.registry.cut(|listener, state| self.is_revoked(&new.snapshot, listener, state));
        self.registry.drain_unless(|name| {
            let (was, is) = (old.snapshot.listener(name), new.snapshot.listener(name));
            is.is_some_and(|is| was.is_none_or(|was| was.tls_terms() == is.tls_terms()))
        });
        true
    }

    /// Whether a revocation list names the client of a connection, or the endpoint that serves it
    /// now.
    fn is_revoked(&self, snapshot: &Snapshot, listener: &str, state: &ConnectionState) -> bool {
        let Some(listener) = snapshot.listener(listener) else { return false };
        let client = state.client.borrow();
        let verifier = listener.tls.as_ref().and_then(|tls| tls.verifier.as_ref());
        let revoked_client =
            client.as_ref().zip(verifier).and_then(|(issued, verifier)| verifier.revoked(issued));
        let endpoint = state.endpoint.borrow();
        let revoked_endpoint = endpoint.as_ref().and_then(|(was, issued)| {
            let service = snapshot.services.iter().find(|service| service.name == was.name);
            service?.tls.as_ref()?.verifier.revoked(issued)
        });
        let Some(revoked) = revoked_client.or(revoked_endpoint) else { return false };
        listener.stats.worker(self.index).revoked.increment();
        let who = if revoked_client.is_some() { "client" } else { "endpoint" };
        self.complain(|suppressed| {
            let listener = &*listener.name;
            tracing::warn!(
                listener,
                who,
                %revoked,
                suppressed,
                "connection cut: its peer's certificate is revoked"
            );
        });
        true
    }

    /// Lets every connection finish what it does and then close.
    pub fn drain(&self) {
        self.draining.set(true);
        self.registry.drain_unless(|_| false);
    }

    /// Closes idle connections to endpoints that have waited too long or were closed by the peer,
    /// and gives up memory that a past burst has left.
    pub fn sweep(&self) {
        let now = self.io.now();
        let local = self.local();
        local.originals.sweep(now);
        for service in &local.services {
            for endpoint in &service.endpoints {
                endpoint.sweep(now, service.config.idle_timeout);
            }
        }
        self.workspaces.trim();
        let buffers = self.io.buffers();
        buffers.trim();
        self.cells().buffers_used.set(buffers.used() as u64);
        self.cells().buffers_pooled.set(buffers.pooled() as u64);
        self.cells().http2_held_bytes.set(held_bytes() as u64);
    }
}

/// On what terms endpoints are trusted; `None` in the clear.
fn terms(tls: &Option<Arc<ClientTls>>) -> Option<u64> {
    tls.as_ref().map(|tls| tls.terms)
}
