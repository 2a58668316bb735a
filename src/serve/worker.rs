//! The state of one worker: its snapshot, endpoints, connections and spare memory.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::record::buffer::LogBuffer;
use super::registry::{ConnectionState, Registry};
use super::tokens::Tokens;
use super::workspace::Workspaces;
use crate::cells::PerWorker;
use crate::http2::held_bytes;
use crate::runtime::core::{Core, WorkerCells};
use crate::runtime::io::Io;
use crate::snapshot::Snapshot;
use crate::upstream::Local;

/// How often idle connections to endpoints are checked.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// One worker. All of it belongs to its thread, except the values in an `Arc`.
pub struct Worker<I: Io> {
    core: Rc<Core<I>>,
    /// Open connections, for draining.
    pub registry: Registry,
    /// Verified tokens.
    pub tokens: Tokens,
    /// Heads and scratch buffers.
    pub workspaces: Workspaces,
    /// Access log lines that were not sent to the control thread yet.
    pub log: LogBuffer,
    current: RefCell<Rc<Local<I>>>,
    prepared: RefCell<Option<Rc<Local<I>>>>,
    draining: Cell<bool>,
}

impl<I: Io> Deref for Worker<I> {
    type Target = Rc<Core<I>>;

    fn deref(&self) -> &Self::Target {
        &self.core
    }
}

/// The parts of a worker.
pub struct WorkerParts {
    /// The index of the worker, from 0.
    pub index: usize,
    /// The counters of all workers.
    pub stats: Arc<PerWorker<WorkerCells>>,
    /// The seed of the worker's random numbers.
    pub seed: u64,
    /// The buffer for access log lines.
    pub log: LogBuffer,
}

impl<I: Io> Worker<I> {
    /// A worker that serves nothing until a snapshot is committed.
    pub fn new(io: I, parts: WorkerParts) -> Rc<Self> {
        Rc::new(Self {
            core: Rc::new(Core::new(io, parts.index, parts.stats, parts.seed)),
            registry: Registry::default(),
            tokens: Tokens::default(),
            workspaces: Workspaces::default(),
            log: parts.log,
            current: RefCell::new(Rc::new(Local::empty())),
            prepared: RefCell::new(None),
            draining: Cell::new(false),
        })
    }

    /// The core of the worker, for the modules below.
    pub fn core(&self) -> &Rc<Core<I>> {
        &self.core
    }

    /// The snapshot in use. Do not keep it for longer than one exchange.
    pub fn local(&self) -> Rc<Local<I>> {
        Rc::clone(&self.current.borrow())
    }

    /// Whether the process is draining.
    pub fn draining(&self) -> bool {
        self.draining.get()
    }

    /// Prepares a snapshot for this worker. The snapshot in use does not change.
    pub fn prepare(&self, snapshot: Arc<Snapshot>) {
        let prepared = Local::prepare(&self.core, &self.local(), snapshot);
        *self.prepared.borrow_mut() = Some(Rc::new(prepared));
    }

    /// Drops the prepared snapshot.
    pub fn abort(&self) {
        *self.prepared.borrow_mut() = None;
    }

    /// Uses the prepared snapshot from now on. Running exchanges keep their plan. Connections of
    /// removed or changed listeners close after their exchange. Returns false if this version was
    /// not prepared.
    pub fn commit(&self, version: u64) -> bool {
        let Some(new) = self.prepared.borrow_mut().take() else { return false };
        if new.snapshot.version != version {
            return false;
        }
        let old = self.current.replace(Rc::clone(&new));
        self.tokens.clear();
        new.replace(&old);
        self.registry.cut(|listener, state| self.is_revoked(&new.snapshot, listener, state));
        self.registry.drain_unless(|name| {
            let (was, is) = (old.snapshot.listener(name), new.snapshot.listener(name));
            is.is_some_and(|is| was.is_none_or(|was| was.tls_terms() == is.tls_terms()))
        });
        true
    }

    /// Uses the new endpoints of a service of the snapshot number `version`. Does nothing if
    /// another snapshot is in use: a later snapshot already has the new endpoints.
    pub fn endpoints_changed(&self, version: u64, service: usize, addresses: &[SocketAddr]) {
        let local = self.local();
        if local.snapshot.version == version {
            local.endpoints_changed(service, addresses);
        }
    }

    /// Whether a revocation list revokes the certificate of the client, or of the endpoint in use.
    fn is_revoked(&self, snapshot: &Snapshot, listener: &str, state: &ConnectionState) -> bool {
        let Some(listener) = snapshot.listener(listener) else { return false };
        let client = state.client.borrow();
        let verifier = listener.tls.as_ref().and_then(|tls| tls.verifier.as_ref());
        let revoked_client =
            client.as_ref().zip(verifier).and_then(|(issued, verifier)| verifier.revoked(issued));
        let endpoint = state.endpoint.borrow();
        let revoked_endpoint = endpoint.as_ref().and_then(|(was, issued)| {
            let service = snapshot.service(was);
            service?.tls.as_ref()?.verifier.revoked(issued)
        });
        let Some(revoked) = revoked_client.or(revoked_endpoint) else { return false };
        listener.stats.worker(self.index).revoked.increment();
        let who = if revoked_client.is_some() { "client" } else { "endpoint" };
        self.log_limited(|suppressed| {
            let listener = &*listener.name;
            tracing::warn!(
                listener,
                who,
                %revoked,
                suppressed,
                "connection closed: the peer's certificate is revoked"
            );
        });
        true
    }

    /// Lets every connection finish its exchange and then close.
    pub fn drain(&self) {
        self.draining.set(true);
        self.registry.drain_unless(|_| false);
    }

    /// Closes idle endpoint connections that waited too long or were closed by the peer, and frees
    /// the memory of past bursts.
    pub fn sweep(&self) {
        let now = self.io.now();
        self.local().sweep(now);
        self.workspaces.trim();
        let buffers = self.io.buffers();
        buffers.trim();
        self.cells().buffers_used.set(buffers.used() as u64);
        self.cells().buffers_pooled.set(buffers.pooled() as u64);
        self.cells().http2_held_bytes.set(held_bytes() as u64);
    }
}
