//! The connections of one worker to one endpoint.
//!
//! The pool is last in, first out, because the most recently used connection is the most likely to
//! be still open. Connections that are not needed stay idle, and close after the idle timeout.
//! Before a pooled connection is used, a poll of its socket shows whether the endpoint has closed
//! it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Deref;
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

/// The state of an endpoint in one worker. It is kept over reloads as long as the endpoint exists.
pub struct EndpointState<S: Stream> {
    /// The configuration of the endpoint in the current snapshot.
    pub config: RefCell<Arc<Endpoint>>,
    /// The load of the endpoint, which the balancer compares.
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
    /// The list of the worker's endpoints that have idle connections. `listed` is whether this
    /// endpoint is in the list.
    waiting: Weak<List<S>>,
    listed: Cell<bool>,
    /// Whether the endpoint was removed from its service.
    gone: Cell<bool>,
}

/// The endpoints of a worker that have idle connections. Only these are checked each second.
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
    /// Closes the connections that were idle for too long, those that their endpoint has closed,
    /// and those whose slots other requests wait for.
    pub fn sweep(&self, now: Time) {
        self.0.borrow_mut().retain(|endpoint| {
            endpoint.sweep(now);
            let waits = endpoint.has_idle();
            endpoint.listed.set(waits);
            waits
        });
    }
}

/// The settings for connections to the endpoints of a service, for one worker.
#[derive(Clone, Copy, Debug)]
pub struct PoolTerms {
    /// The maximum number of idle connections for each endpoint.
    pub idle_max: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
}

struct Idle<S> {
    link: Box<Link<S>>,
    since: Time,
}

/// A connection to an endpoint, which one exchange uses.
pub struct Upstream<S: Stream> {
    /// The endpoint, with its pool.
    pub endpoint: Rc<EndpointState<S>>,
    /// Boxed: a request moves its connection a dozen times between the pool and its future.
    link: Box<Link<S>>,
}

/// The state of a connection to an endpoint.
pub struct Link<S> {
    /// The stream to the endpoint.
    pub stream: S,
    /// The timer for the deadline of the current operation.
    pub alarm: Alarm,
    /// Whether the connection has already carried an exchange.
    pub reused: bool,
    /// Whether only one client may use the connection. Then it is not returned to the pool.
    pub private: Cell<bool>,
    /// Counts the connection as open. `None` for a stream of a shared connection.
    open: Option<OpenGuard>,
}

impl<S> Link<S> {
    fn new(stream: S, alarm: Alarm, reused: bool, open: Option<OpenGuard>) -> Box<Self> {
        Box::new(Self { stream, alarm, reused, private: Cell::new(false), open })
    }

    /// Whether the connection should close instead of becoming idle, because its slot is needed.
    fn is_wanted(&self) -> bool {
        self.open.as_ref().is_some_and(OpenGuard::is_wanted)
    }
}

impl<S: Stream> Deref for Upstream<S> {
    type Target = Link<S>;

    fn deref(&self) -> &Link<S> {
        &self.link
    }
}

/// Counts a connection as open until it is dropped.
pub struct OpenGuard {
    stats: Arc<PerWorker<EndpointCells>>,
    worker: usize,
    /// The slot in the circuit breaker, if the service has one.
    taken: Option<ConnectionSlot>,
}

/// The result of taking a connection from the pool.
pub struct Taken<S: Stream> {
    /// An open connection. `None` if the pool has none.
    pub upstream: Option<Upstream<S>>,
    /// The number of closed connections that were dropped from the pool.
    pub stale: u64,
}

impl<S: Stream> EndpointState<S> {
    /// Creates the state of an endpoint that is new for `worker`.
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

    /// Sets the configuration that the endpoint has in a new snapshot.
    pub fn reconfigure(&self, config: Arc<Endpoint>, terms: PoolTerms) {
        *self.config.borrow_mut() = config;
        self.idle_max.set(terms.idle_max);
        self.idle_timeout.set(terms.idle_timeout);
    }

    /// Marks the endpoint as removed. Idle connections are closed now; the others are closed after
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

    /// Takes the most recently used open connection from the pool. Drops those that are closed.
    pub fn take(self: &Rc<Self>) -> Taken<S> {
        let mut stale = 0;
        loop {
            let Some(Idle { link, .. }) = self.idle.borrow_mut().pop_back() else {
                return Taken { upstream: None, stale };
            };
            self.cells().idle.decrement();
            if link.stream.quiet() == Quiet::Quiet {
                let upstream = Upstream { endpoint: Rc::clone(self), link };
                return Taken { upstream: Some(upstream), stale };
            }
            // The endpoint has closed the connection, or has sent bytes although there is no
            // request.
            stale += 1;
        }
    }

    /// Counts and wraps a connection that was just opened. `taken` is its slot in the circuit
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
        let link = Link::new(stream, alarm, false, Some(open));
        Upstream { endpoint: Rc::clone(self), link }
    }

    /// Wraps a stream of a shared connection.
    pub fn multiplexed(self: &Rc<Self>, stream: S, alarm: Alarm, reused: bool) -> Upstream<S> {
        Upstream { endpoint: Rc::clone(self), link: Link::new(stream, alarm, reused, None) }
    }

    /// Gives free streams to the requests that wait for one. If requests still wait after that, the
    /// end of a stream wakes the task of its connection, and the task calls this function again.
    pub fn serve_streams(&self) {
        self.queue.give_streams(|| self.shared.slot());
        self.shared.wanted().set(!self.queue.is_empty());
    }

    /// Closes the connection that has been idle for the longest time, or a shared connection
    /// without streams. Returns false if there is none.
    pub fn close_idle(&self) -> bool {
        if self.has_idle() {
            self.drop_idle(1);
            return true;
        }
        // Before closing a shared connection, offer its streams to requests that wait for this
        // endpoint.
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

    /// Closes the connections that were idle for too long, those that their endpoint has closed,
    /// and those whose slots other requests wait for.
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
            .retain(|idle| idle.link.stream.quiet() == Quiet::Quiet && !idle.link.is_wanted());
        let closed = before - self.idle.borrow().len();
        (0..closed).for_each(|_| self.cells().idle.decrement());
    }

    /// Drops the `n` connections that have been idle for the longest time.
    fn drop_idle(&self, n: usize) {
        let mut idle = self.idle.borrow_mut();
        let n = n.min(idle.len());
        idle.drain(..n).for_each(|_| self.cells().idle.decrement());
    }
}

impl<S: Stream> Upstream<S> {
    /// Replaces the stream of the connection with the result of `change`.
    pub fn with_stream(self, change: impl FnOnce(S) -> S) -> Self {
        let Self { endpoint, link } = self;
        let link = *link;
        Self { endpoint, link: Box::new(Link { stream: change(link.stream), ..link }) }
    }

    /// The connection for a further exchange.
    pub fn again(mut self) -> Self {
        self.link.reused = true;
        self
    }

    /// Whether this is a stream of a shared connection.
    pub fn is_stream(&self) -> bool {
        self.open.is_none()
    }

    /// Splits a connection that is going to be shared: its stream, and the guard that counts it as
    /// open.
    pub fn into_parts(self) -> (S, Option<OpenGuard>) {
        let link = *self.link;
        (link.stream, link.open)
    }

    /// Returns the connection after a complete exchange: to a request that waits for one, or to the
    /// pool.
    pub fn release(self, now: Time) {
        if self.is_stream() || self.endpoint.idle_max.get() == 0 {
            return;
        }
        let next = self.endpoint.queue.oldest();
        if next.is_some_and(|since| self.open.as_ref().is_some_and(|open| open.is_owed(since))) {
            return;
        }
        self.again().supply(now);
    }

    /// Passes the connection to a request that waits for one, or else to the pool.
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
        let Self { endpoint, mut link } = self;
        let Some(open) = &link.open else { return };
        if endpoint.gone.get() || endpoint.idle_max.get() == 0 || open.is_wanted() {
            return;
        }
        open.say_idle();
        (link.reused, link.private) = (true, Cell::new(false));
        endpoint.cells().idle.increment();
        endpoint.idle.borrow_mut().push_back(Idle { link, since: now });
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
    /// Whether the connection should close instead of becoming idle, because its slot is needed.
    pub(super) fn is_wanted(&self) -> bool {
        self.taken.as_ref().is_some_and(ConnectionSlot::is_wanted)
    }

    /// Whether the connection should close instead of serving a request that waits since `since`,
    /// because a request of another worker goes first.
    fn is_owed(&self, since: Time) -> bool {
        self.taken.as_ref().is_some_and(|taken| taken.is_owed(since))
    }

    /// Takes the slot in the circuit breaker, for another connection. This one remains open.
    pub(super) fn take_slot(&mut self) -> Option<ConnectionSlot> {
        self.taken.take()
    }

    /// Whether the connection has a slot in a circuit breaker.
    pub(super) fn is_limited(&self) -> bool {
        self.taken.is_some()
    }

    /// Wakes the connections of this worker that wait for a slot, because this connection is idle.
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
