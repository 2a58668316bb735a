//! The state of a worker that serves requests: its snapshot, connections and reusable memory.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::record::RequestPool;
use super::record::buffer::LogBuffer;
use super::registry::{ConnectionState, Registry};
use super::retired::RetiredListeners;
use super::tokens::Tokens;
use super::workspace::Workspaces;
use crate::cells::PerWorker;
use crate::http2::held_bytes;
use crate::observe::Observers;
use crate::observe::story::Ordinary;
use crate::resilience::Overload;
use crate::runtime::core::{Core, WorkerCells};
use crate::runtime::io::Io;
use crate::snapshot::{DrainStep, Snapshot};
use crate::standard;
use crate::upstream::Local;

/// The interval in which idle connections to endpoints are checked.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The state of a worker. It belongs to the worker's thread; only values in an `Arc` are shared
/// with other threads.
pub struct Worker<I: Io> {
    core: Rc<Core<I>>,
    /// The open client connections, so that they can be drained and closed.
    pub registry: Registry,
    /// The cache of verified tokens.
    pub tokens: Tokens,
    /// The memory for exchanges, for reuse.
    pub workspaces: Workspaces,
    /// The series of the standard metrics that this worker has used.
    pub standard: standard::Cache,
    /// The level of overload of the process.
    pub overload: Arc<Overload>,
    /// Access log lines that were not passed to the writing thread yet.
    pub log: LogBuffer,
    /// The taps and stories of all workers.
    pub observers: Arc<Observers>,
    /// The limit on stories of ordinary exchanges.
    pub ordinary: Ordinary,
    /// The memory for copies of requests, for reuse.
    pub requests: RequestPool,
    current: RefCell<Rc<Local<I>>>,
    prepared: RefCell<Option<Rc<Local<I>>>>,
    retired: RetiredListeners<I>,
    draining: Cell<Option<DrainStep>>,
}

impl<I: Io> Deref for Worker<I> {
    type Target = Rc<Core<I>>;

    fn deref(&self) -> &Self::Target {
        &self.core
    }
}

/// The values from which a worker is created.
pub struct WorkerParts {
    /// The index of the worker, from 0.
    pub index: usize,
    /// The counters of all workers.
    pub stats: Arc<PerWorker<WorkerCells>>,
    /// The seed of the worker's random numbers.
    pub seed: u64,
    /// The level of overload of the process.
    pub overload: Arc<Overload>,
    /// The buffer for access log lines.
    pub log: LogBuffer,
    /// The taps and stories of all workers.
    pub observers: Arc<Observers>,
}

impl<I: Io> Worker<I> {
    /// Creates a worker. It serves nothing until a snapshot is committed.
    pub fn new(io: I, parts: WorkerParts) -> Rc<Self> {
        Rc::new(Self {
            core: Rc::new(Core::new(io, parts.index, parts.stats, parts.seed)),
            registry: Registry::default(),
            tokens: Tokens::default(),
            workspaces: Workspaces::default(),
            standard: standard::Cache::default(),
            overload: parts.overload,
            log: parts.log,
            observers: parts.observers,
            ordinary: Ordinary::default(),
            requests: RequestPool::default(),
            current: RefCell::new(Rc::new(Local::empty())),
            prepared: RefCell::new(None),
            retired: RetiredListeners::default(),
            draining: Cell::new(None),
        })
    }

    /// The part of the worker that `upstream` needs.
    pub fn core(&self) -> &Rc<Core<I>> {
        &self.core
    }

    /// The current snapshot. Do not keep it for longer than one exchange.
    pub fn local(&self) -> Rc<Local<I>> {
        Rc::clone(&self.current.borrow())
    }

    /// The snapshot for connections of the listener called `name`: the current one, or the last one
    /// with this listener if a reload has removed it.
    pub fn local_of(&self, name: &str) -> Rc<Local<I>> {
        let local = self.local();
        if local.snapshot.listener(name).is_some() {
            return local;
        }
        self.retired.find(name).unwrap_or(local)
    }

    /// Whether connections of the listener called `name` must close after their next exchange.
    pub fn is_leaving(&self, name: &str) -> bool {
        let current = self.current.borrow();
        match (current.snapshot.listener(name), self.draining.get()) {
            (None, _) | (_, Some(DrainStep::All)) => true,
            (Some(listener), Some(DrainStep::Inbound)) => !listener.is_outbound(),
            (Some(_), None) => false,
        }
    }

    /// The current step of the drain. `None` if there is no drain.
    pub fn draining(&self) -> Option<DrainStep> {
        self.draining.get()
    }

    /// Prepares a snapshot for this worker, without using it.
    pub fn prepare(&self, snapshot: Arc<Snapshot>) {
        let prepared = Local::prepare(&self.core, &self.local(), snapshot);
        *self.prepared.borrow_mut() = Some(Rc::new(prepared));
    }

    /// Drops the prepared snapshot, because another worker could not prepare it.
    pub fn abort(&self) {
        *self.prepared.borrow_mut() = None;
    }

    /// Uses the prepared snapshot from now on. Exchanges in progress keep their plan. A connection
    /// closes after its current exchange if its listener was removed or has other TLS settings.
    /// Requests on connections of a removed listener are served until the drain time has passed.
    /// Returns false if the version `version` was not prepared.
    pub fn commit(&self, version: u64) -> bool {
        let Some(new) = self.prepared.borrow_mut().take() else { return false };
        if new.snapshot.version != version {
            return false;
        }
        let old = self.current.replace(Rc::clone(&new));
        self.tokens.clear();
        new.replace(&old);
        self.retired.add(&old, &new, self.io.now());
        self.registry.cut(|listener, state| self.is_revoked(&new.snapshot, listener, state));
        self.registry.drain_unless(|name| {
            let (was, is) = (old.snapshot.listener(name), new.snapshot.listener(name));
            is.is_some_and(|is| was.is_none_or(|was| was.tls_terms() == is.tls_terms()))
        });
        true
    }

    /// Uses the new addresses of the service with the index `service` in the snapshot `version`.
    /// Does nothing if another snapshot is in use, because a later snapshot already has the new
    /// addresses.
    pub fn endpoints_changed(&self, version: u64, service: usize, addresses: &[SocketAddr]) {
        let local = self.local();
        if local.snapshot.version == version {
            local.endpoints_changed(service, addresses);
        }
    }

    /// Whether a revocation list revokes the certificate of the client or of the endpoint in use.
    /// If so, counts and logs it. For a client of a removed listener, the lists of all listeners
    /// are used.
    fn is_revoked(&self, snapshot: &Snapshot, name: &str, state: &ConnectionState) -> bool {
        let listener = snapshot.listener(name);
        let client = state.client.borrow();
        let revoked_client = client.as_ref().and_then(|issued| {
            let asked = listener.map_or(&*snapshot.listeners, std::slice::from_ref);
            let verifiers = asked.iter().filter_map(|it| it.tls.as_ref()?.verifier.as_ref());
            verifiers.into_iter().find_map(|verifier| verifier.revoked(issued))
        });
        let endpoint = state.endpoint.borrow();
        let revoked_endpoint = endpoint.as_ref().and_then(|(was, issued)| {
            let service = snapshot.service(was);
            service?.tls.as_ref()?.verifier.revoked(issued)
        });
        let Some(revoked) = revoked_client.or(revoked_endpoint) else { return false };
        if let Some(listener) = listener {
            listener.stats.worker(self.index).revoked.increment();
        }
        let who = if revoked_client.is_some() { "client" } else { "endpoint" };
        self.log_limited(|suppressed| {
            let message = match state.is_stream {
                false => "connection closed: the peer's certificate is revoked",
                true => "HTTP/2 stream reset: the peer's certificate is revoked",
            };
            tracing::warn!(listener = name, peer_role = who, %revoked, suppressed, "{message}");
        });
        true
    }

    /// Drains the connections of the listeners of `step`: each closes after its current exchange.
    /// The idle connections to endpoints that no other listener needs close at once.
    pub fn drain(&self, step: DrainStep) {
        self.draining.set(Some(step));
        self.registry.drain_unless(|name| !self.is_leaving(name));
        self.local().drain_pools(|listener| !self.is_leaving(&listener.name));
    }

    /// Closes endpoint connections that were idle for too long or that the endpoint has closed.
    /// Frees memory that is no longer needed.
    pub fn sweep(&self) {
        let now = self.io.now();
        if self.overload.is_short_of_descriptors() {
            self.registry.close_idle();
        }
        self.local().sweep(now);
        self.retired.sweep(now, |name| self.registry.has(name));
        self.workspaces.trim();
        let buffers = self.io.buffers();
        buffers.trim();
        self.cells().buffers_used.set(buffers.used() as u64);
        self.cells().buffers_pooled.set(buffers.pooled() as u64);
        if let Some(bytes) = self.overload.buffer_bytes() {
            buffers.limit(bytes);
            self.cells().buffer_bytes_max.set(bytes as u64);
        }
        self.cells().buffer_bytes.set(buffers.used_bytes() as u64);
        self.cells().buffer_pauses.set(buffers.pauses());
        self.cells().http2_held_bytes.set(held_bytes() as u64);
    }
}
