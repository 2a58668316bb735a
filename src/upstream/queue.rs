//! The queue of requests that wait for a connection to one endpoint, the oldest first.
//!
//! A request takes what becomes available first: a connection that another request returns, a
//! stream of a shared connection, or a new connection. Connections that are being opened belong to
//! the endpoint, and not to a request. So if a request leaves the queue, they continue, and a
//! connection that no request needs is kept in the pool.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};

use super::pool::Upstream;
use super::shared::Slot;
use crate::error::Refusal;
use crate::runtime::io::Stream;
use crate::time::Time;

/// The requests of one worker that wait for one endpoint.
pub struct Queue<S: Stream> {
    waiters: RefCell<VecDeque<Rc<Waiter<S>>>>,
    /// The number of connections that are being opened for the queue.
    opening: Cell<usize>,
}

impl<S: Stream> Default for Queue<S> {
    fn default() -> Self {
        Self { waiters: RefCell::default(), opening: Cell::new(0) }
    }
}

/// A request that waits in the queue.
pub struct Waiter<S: Stream> {
    given: Cell<Option<Given<S>>>,
    waker: RefCell<Option<Waker>>,
    /// Whether the request must be sent on a new connection.
    fresh: bool,
    /// When the wait began.
    since: Time,
}

/// How a wait ends.
pub enum Given<S: Stream> {
    /// A connection, and the time at which it was given.
    Connection(Upstream<S>, Time),
    /// A stream of a shared connection.
    Stream(Slot),
    /// No connection could be opened.
    Refused(Refusal),
}

impl<S: Stream> Waiter<S> {
    /// Returns how the wait has ended. If it has not ended, the task of `context` is woken at its
    /// end.
    pub fn poll_given(&self, context: &Context<'_>) -> Option<Given<S>> {
        let given = self.given.take();
        if given.is_none() {
            let mut waker = self.waker.borrow_mut();
            match waker.as_ref() {
                Some(known) if known.will_wake(context.waker()) => {}
                _ => *waker = Some(context.waker().clone()),
            }
        }
        given
    }

    fn give(&self, given: Given<S>) {
        self.given.set(Some(given));
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl<S: Stream> Queue<S> {
    /// Adds a request. If `fresh` is set, the request takes only new connections.
    pub fn enter(&self, fresh: bool, now: Time) -> Rc<Waiter<S>> {
        let (given, waker) = (Cell::new(None), RefCell::default());
        let waiter = Rc::new(Waiter { given, waker, fresh, since: now });
        self.waiters.borrow_mut().push_back(Rc::clone(&waiter));
        waiter
    }

    /// Puts a request back at the head of the queue, because the connection that it was given was
    /// dead.
    pub fn enter_again(&self, waiter: &Rc<Waiter<S>>) {
        self.waiters.borrow_mut().push_front(Rc::clone(waiter));
    }

    /// Removes a request. If it has been given a connection that it did not take, the connection is
    /// passed on.
    pub fn leave(&self, waiter: &Rc<Waiter<S>>) {
        self.waiters.borrow_mut().retain(|other| !Rc::ptr_eq(other, waiter));
        if let Some(Given::Connection(upstream, now)) = waiter.given.take() {
            upstream.release(now);
        }
    }

    /// Whether no request waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiters.borrow().is_empty()
    }

    /// When the oldest request began to wait. `None` if no request waits.
    pub fn oldest(&self) -> Option<Time> {
        self.waiters.borrow().front().map(|waiter| waiter.since)
    }

    /// The number of waiting requests.
    pub fn len(&self) -> usize {
        self.waiters.borrow().len()
    }

    /// Gives a connection to the request that has waited longest. Returns the connection if no
    /// request can take it.
    pub fn give(&self, upstream: Upstream<S>, now: Time) -> Option<Upstream<S>> {
        let takes = |waiter: &Rc<Waiter<S>>| !(upstream.reused && waiter.fresh);
        let taker = {
            let mut waiters = self.waiters.borrow_mut();
            let at = waiters.iter().position(takes);
            at.and_then(|at| waiters.remove(at))
        };
        let Some(taker) = taker else { return Some(upstream) };
        taker.give(Given::Connection(upstream, now));
        None
    }

    /// Gives streams to the waiting requests, as long as `slot` returns one.
    pub fn give_streams(&self, slot: impl Fn() -> Option<Slot>) {
        while !self.is_empty() {
            let Some(slot) = slot() else { return };
            let first = self.waiters.borrow_mut().pop_front();
            if let Some(waiter) = first {
                waiter.give(Given::Stream(slot));
            }
        }
    }

    /// Ends the wait of one request, because a connection could not be opened. This is the request
    /// that has caused the connection, or the oldest one if there are too few connections for the
    /// others. Returns false if no request was refused.
    pub fn refuse_one(&self, for_whom: &Weak<Waiter<S>>, refusal: Refusal) -> bool {
        let refused = {
            let mut waiters = self.waiters.borrow_mut();
            let began = waiters.iter().position(|it| Rc::downgrade(it).ptr_eq(for_whom));
            let oldest = (waiters.len() > self.opening.get()).then_some(0);
            began.or(oldest).and_then(|at| waiters.remove(at))
        };
        refused.inspect(|waiter| waiter.give(Given::Refused(refusal))).is_some()
    }

    /// Ends the wait of all requests. Returns false if there were none.
    pub fn refuse_all(&self, refusal: Refusal) -> bool {
        let refused: Vec<_> = self.waiters.borrow_mut().drain(..).collect();
        refused.iter().for_each(|waiter| waiter.give(Given::Refused(refusal)));
        !refused.is_empty()
    }

    /// Wakes the waiting requests, so that they open the connections that are missing.
    pub fn wake(&self) {
        let woken: Vec<_> = self.waiters.borrow().iter().cloned().collect();
        woken.iter().for_each(|waiter| waiter.wake());
    }

    /// The number of connections that are being opened for the queue.
    pub fn opening(&self) -> usize {
        self.opening.get()
    }

    /// Counts a connection that begins to be opened.
    pub fn opening_began(&self) {
        self.opening.set(self.opening.get() + 1);
    }

    /// Ends the count of a connection that was being opened.
    pub fn opening_ended(&self) {
        self.opening.set(self.opening.get() - 1);
    }
}
