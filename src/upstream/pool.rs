//! One worker's connections to one endpoint.
//!
//! The pool is last in, first out: the most recently used connection is the most likely to be
//! alive. Connections that are not needed stay unused and close after the idle timeout. Before a
//! pooled connection is used, a poll of the socket shows whether the endpoint has closed it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use super::limited::ConnectionSlot;
use super::queue::Queue;
use super::shared::Shared;
use crate::balance::Load;
use crate::cells::PerWorker;
use crate::cluster::Endpoint;
use crate::cluster::EndpointCells;
use crate::runtime::alarm::Alarm;
use crate::runtime::io::{Quiet, Stream};
use crate::time::Time;

/// The state of an endpoint on one worker. It outlives reloads while the endpoint stays.
pub struct EndpointState<S: Stream> {
    /// The configuration of the endpoint, from the last reload.
    pub config: RefCell<Arc<Endpoint>>,
    /// The load that the balancer compares.
    pub load: Load,
    stats: Arc<PerWorker<EndpointCells>>,
    worker: usize,
    idle: RefCell<VecDeque<Idle<S>>>,
    /// The HTTP/2 connections, which exchanges share.
    pub shared: Shared,
    /// The requests that wait for a connection.
    pub queue: Queue<S>,
    idle_max: Cell<usize>,
    idle_timeout: Cell<Duration>,
    /// The worker's endpoints with idle connections. `listed` says whether this endpoint is in the
    /// list.
    waiting: Weak<List<S>>,
    listed: Cell<bool>,
    /// The endpoint was removed from the service.
    gone: Cell<bool>,
}

/// A worker's endpoints with idle connections. Only these endpoints are checked each second.
pub struct Waiting<S: Stream>(Rc<List<S>>);

type List<S> = RefCell<Vec<Rc<EndpointState<S>>>>;

impl<S: Stream> Clone for Waiting<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S: Stream> Default for Waiting<S> {
    fn default() -> Self {
        Self(Rc::default())
    }
}

impl<S: Stream> Waiting<S> {
    /// Closes the connections that have been idle for too long, and those that their peer has
    /// closed.
    pub fn sweep(&self, now: Time) {
        self.0.borrow_mut().retain(|endpoint| {
            endpoint.sweep(now);
            let waits = endpoint.has_idle();
            endpoint.listed.set(waits);
            waits
        });
    }
}

/// The settings of a service for the connections to its endpoints, on one worker.
#[derive(Clone, Copy, Debug)]
pub struct PoolTerms {
    /// Idle connections kept for each endpoint.
    pub idle_max: usize,
    /// How long a connection may be idle.
    pub idle_timeout: Duration,
}

struct Idle<S> {
    stream: S,
    alarm: Alarm,
    open: OpenGuard,
    since: Time,
}

/// A connection to an endpoint, in use by one exchange.
pub struct Upstream<S: Stream> {
    /// The connection.
    pub stream: S,
    /// The deadline.
    pub alarm: Alarm,
    /// The endpoint.
    pub endpoint: Rc<EndpointState<S>>,
    /// Whether the connection has carried an exchange before.
    pub reused: bool,
    /// Whether the connection serves one client alone. It never goes back to the pool.
    pub private: Cell<bool>,
    /// `None` means a stream of a shared connection.
    open: Option<OpenGuard>,
}

/// Counts an open connection for as long as it lives.
pub struct OpenGuard {
    stats: Arc<PerWorker<EndpointCells>>,
    worker: usize,
    /// The slot of the circuit breaker, if the service has one.
    taken: Option<ConnectionSlot>,
}

/// The result of asking the pool for a connection.
pub struct Taken<S: Stream> {
    /// A live connection, if there was one.
    pub upstream: Option<Upstream<S>>,
    /// The number of dead connections that were dropped during the search.
    pub stale: u64,
}

impl<S: Stream> EndpointState<S> {
    /// The state of an endpoint that `worker` has not known before.
    pub fn new(
        worker: usize,
        config: Arc<Endpoint>,
        terms: PoolTerms,
        waiting: &Waiting<S>,
    ) -> Rc<Self> {
        Rc::new(Self {
            stats: Arc::clone(&config.stats),
            config: RefCell::new(config),
            load: Load::default(),
            worker,
            idle: RefCell::default(),
            shared: Shared::default(),
            queue: Queue::default(),
            idle_max: Cell::new(terms.idle_max),
            idle_timeout: Cell::new(terms.idle_timeout),
            waiting: Rc::downgrade(&waiting.0),
            listed: Cell::new(false),
            gone: Cell::new(false),
        })
    }

    /// Sets a newer configuration of the same endpoint.
    pub fn reconfigure(&self, config: Arc<Endpoint>, terms: PoolTerms) {
        *self.config.borrow_mut() = config;
        self.idle_max.set(terms.idle_max);
        self.idle_timeout.set(terms.idle_timeout);
    }

    /// Marks the endpoint as removed. Idle connections close now; connections in use close after
    /// their exchange.
    pub fn retire(&self) {
        self.gone.set(true);
        self.drop_idle(usize::MAX);
        self.shared.close();
    }

    /// The index of this worker.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// This worker's counters of the endpoint.
    pub fn cells(&self) -> &EndpointCells {
        self.stats.worker(self.worker)
    }

    /// Takes the most recently used connection that is still alive from the pool, and drops dead
    /// connections.
    pub fn take(self: &Rc<Self>) -> Taken<S> {
        let mut stale = 0;
        loop {
            let Some(Idle { stream, alarm, open, .. }) = self.idle.borrow_mut().pop_back() else {
                return Taken { upstream: None, stale };
            };
            self.cells().idle.decrement();
            if stream.quiet() == Quiet::Quiet {
                let endpoint = Rc::clone(self);
                let open = Some(open);
                let upstream = Upstream {
                    stream,
                    alarm,
                    endpoint,
                    reused: true,
                    private: Cell::new(false),
                    open,
                };
                return Taken { upstream: Some(upstream), stale };
            }
            // The endpoint has closed the connection or has sent bytes without a request.
            stale += 1;
        }
    }

    /// Counts and wraps a connection that was just opened. `taken` is its slot of the circuit
    /// breaker.
    pub fn opened(
        self: &Rc<Self>,
        stream: S,
        alarm: Alarm,
        taken: Option<ConnectionSlot>,
    ) -> Upstream<S> {
        self.cells().connections.increment();
        self.cells().active.increment();
        let open = OpenGuard { stats: Arc::clone(&self.stats), worker: self.worker, taken };
        let (endpoint, open) = (Rc::clone(self), Some(open));
        Upstream { stream, alarm, endpoint, reused: false, private: Cell::new(false), open }
    }

    /// Wraps a stream of a shared connection.
    pub fn multiplexed(self: &Rc<Self>, stream: S, alarm: Alarm, reused: bool) -> Upstream<S> {
        let endpoint = Rc::clone(self);
        Upstream { stream, alarm, endpoint, reused, private: Cell::new(false), open: None }
    }

    /// Gives free streams to the requests that wait for one. While requests still wait, the end of
    /// a stream wakes the task of its connection, which calls this again.
    pub fn serve_streams(&self) {
        self.queue.give_streams(|| self.shared.slot());
        self.shared.wanted().set(!self.queue.is_empty());
    }

    /// Closes the connection that has been idle longest, or a shared connection without streams.
    /// Returns false if there is none.
    pub fn close_idle(&self) -> bool {
        if self.has_idle() {
            self.drop_idle(1);
            return true;
        }
        // A request that waits for this endpoint takes a stream of the connection.
        self.serve_streams();
        self.shared.close_idle()
    }

    /// Whether the endpoint was removed from its service.
    pub fn is_gone(&self) -> bool {
        self.gone.get()
    }

    /// Whether the pool has idle connections.
    pub fn has_idle(&self) -> bool {
        !self.idle.borrow().is_empty()
    }

    /// Closes the connections that have been idle for too long, and those that their peer has
    /// closed.
    pub fn sweep(&self, now: Time) {
        let idle_timeout = self.idle_timeout.get();
        let expired = {
            let idle = self.idle.borrow();
            idle.iter().take_while(|idle| now.since(idle.since) >= idle_timeout).count()
        };
        self.drop_idle(expired);
        let before = self.idle.borrow().len();
        self.idle
            .borrow_mut()
            .retain(|idle| idle.stream.quiet() == Quiet::Quiet && !idle.open.is_wanted());
        let closed = before - self.idle.borrow().len();
        (0..closed).for_each(|_| self.cells().idle.decrement());
    }

    /// Drops the `n` connections that have been idle longest.
    fn drop_idle(&self, n: usize) {
        let mut idle = self.idle.borrow_mut();
        let n = n.min(idle.len());
        idle.drain(..n).for_each(|_| self.cells().idle.decrement());
    }
}

impl<S: Stream> Upstream<S> {
    /// Replaces the stream of the connection by the result of `change`.
    pub fn with_stream(self, change: impl FnOnce(S) -> S) -> Self {
        Self { stream: change(self.stream), ..self }
    }

    /// Whether this is a stream of a shared connection.
    pub fn is_stream(&self) -> bool {
        self.open.is_none()
    }

    /// Splits a connection that will be shared into its stream and the guard that counts it as
    /// open.
    pub fn into_parts(self) -> (S, Option<OpenGuard>) {
        (self.stream, self.open)
    }

    /// Gives the connection back after a complete exchange: to a request that waits for one, or to
    /// the pool.
    pub fn release(mut self, now: Time) {
        if self.is_stream() || self.endpoint.idle_max.get() == 0 {
            return;
        }
        self.reused = true;
        self.supply(now);
    }

    /// Gives a connection to a request that waits for one, or to the pool.
    pub fn supply(self, now: Time) {
        self.alarm.clear();
        let endpoint = Rc::clone(&self.endpoint);
        let left = match endpoint.queue.is_empty() {
            true => Some(self),
            false => endpoint.queue.give(self, now),
        };
        if let Some(left) = left {
            left.keep(now);
        }
    }

    /// Puts the connection into the pool.
    fn keep(self, now: Time) {
        let Self { stream, alarm, endpoint, open, .. } = self;
        let Some(open) = open else { return };
        if endpoint.gone.get() || endpoint.idle_max.get() == 0 || open.is_wanted() {
            return;
        }
        open.say_idle();
        endpoint.cells().idle.increment();
        endpoint.idle.borrow_mut().push_back(Idle { stream, alarm, open, since: now });
        if !endpoint.listed.replace(true)
            && let Some(waiting) = endpoint.waiting.upgrade()
        {
            waiting.borrow_mut().push(Rc::clone(&endpoint));
        }
        let over = endpoint.idle.borrow().len().saturating_sub(endpoint.idle_max.get());
        if over > 0 {
            endpoint.drop_idle(over);
        }
    }
}

impl OpenGuard {
    /// Whether the connection should close instead of being idle, because its slot is wanted.
    pub(super) fn is_wanted(&self) -> bool {
        self.taken.as_ref().is_some_and(ConnectionSlot::is_wanted)
    }

    /// Whether the connection has a slot of a circuit breaker, so that it may be wanted.
    pub(super) fn is_limited(&self) -> bool {
        self.taken.is_some()
    }

    /// Tells the openings of this worker that the connection is idle.
    pub(super) fn say_idle(&self) {
        if let Some(taken) = &self.taken {
            taken.say_idle();
        }
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.stats.worker(self.worker).active.decrement();
    }
}
