//! The requests that wait for a connection to one endpoint, the oldest first.
//!
//! A request takes whichever is free first: a connection that another request gives back, a stream
//! that ends, or a connection that is being opened. The openings belong to the endpoint and not to
//! a request. So a request that leaves ends no opening, and a connection that nobody waits for any
//! more stays in the pool.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};

use super::pool::Upstream;
use crate::error::Refusal;
use crate::http2;
use crate::runtime::io::Stream;
use crate::time::Time;

/// The waiting requests of one worker for one endpoint.
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

/// A waiting request.
pub struct Waiter<S: Stream> {
    given: Cell<Option<Given<S>>>,
    waker: RefCell<Option<Waker>>,
    /// The request must not be sent on a connection that was used before.
    fresh: bool,
}

/// The end of a wait.
pub enum Given<S: Stream> {
    /// A connection, given at this time.
    Connection(Upstream<S>, Time),
    /// A stream of a shared connection.
    Stream(http2::Slot),
    /// No connection could be opened.
    Refused(Refusal),
}

impl<S: Stream> Waiter<S> {
    /// The end of the wait. If there is none yet, the task of `context` is woken at the end.
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
    /// Adds a request. A `fresh` one takes no connection that was used before.
    pub fn enter(&self, fresh: bool) -> Rc<Waiter<S>> {
        let waiter = Waiter { given: Cell::new(None), waker: RefCell::default(), fresh };
        let waiter = Rc::new(waiter);
        self.waiters.borrow_mut().push_back(Rc::clone(&waiter));
        waiter
    }

    /// Adds a request whose connection was dead as the first one again.
    pub fn enter_again(&self, waiter: &Rc<Waiter<S>>) {
        self.waiters.borrow_mut().push_front(Rc::clone(waiter));
    }

    /// Removes a request. What it was given but did not take goes to the next one.
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

    /// The number of waiting requests.
    pub fn len(&self) -> usize {
        self.waiters.borrow().len()
    }

    /// Gives a connection to the request that has waited longest. Returns the connection if there
    /// is none that can take it.
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

    /// Gives streams to the waiting requests, while `slot` returns one.
    pub fn give_streams(&self, slot: impl Fn() -> Option<http2::Slot>) {
        while !self.is_empty() {
            let Some(slot) = slot() else { return };
            let first = self.waiters.borrow_mut().pop_front();
            if let Some(waiter) = first {
                waiter.give(Given::Stream(slot));
            }
        }
    }

    /// Ends the wait of one request because an opening failed: the request for which it began, or
    /// the one that has waited longest if openings are missing for the others. Returns false if no
    /// request was told.
    pub fn refuse_one(&self, for_whom: &Weak<Waiter<S>>, refusal: Refusal) -> bool {
        let refused = {
            let mut waiters = self.waiters.borrow_mut();
            let began = waiters.iter().position(|it| Rc::downgrade(it).ptr_eq(for_whom));
            let oldest = (waiters.len() > self.opening.get()).then_some(0);
            began.or(oldest).and_then(|at| waiters.remove(at))
        };
        refused.inspect(|waiter| waiter.give(Given::Refused(refusal))).is_some()
    }

    /// Ends the wait of all requests. Returns false if there was none.
    pub fn refuse_all(&self, refusal: Refusal) -> bool {
        let refused: Vec<_> = self.waiters.borrow_mut().drain(..).collect();
        refused.iter().for_each(|waiter| waiter.give(Given::Refused(refusal)));
        !refused.is_empty()
    }

    /// Wakes the waiting requests, so that they begin the openings that are missing.
    pub fn wake(&self) {
        let woken: Vec<_> = self.waiters.borrow().iter().cloned().collect();
        woken.iter().for_each(|waiter| waiter.wake());
    }

    /// The number of connections that are being opened.
    pub fn opening(&self) -> usize {
        self.opening.get()
    }

    /// Counts one more opening.
    pub fn opening_began(&self) {
        self.opening.set(self.opening.get() + 1);
    }

    /// Counts one opening less.
    pub fn opening_ended(&self) {
        self.opening.set(self.opening.get() - 1);
    }
}
