//! The shared HTTP/2 connections of one worker to one endpoint, and the turn to open a new one.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::error::Refusal;
use crate::http2::{SharedConnection, Slot};

/// The shared connections.
#[derive(Default)]
pub struct Shared {
    connections: RefCell<Vec<Rc<SharedConnection>>>,
    opening: Rc<Opening>,
    /// The endpoint was removed.
    closed: Cell<bool>,
    /// The endpoint has chosen HTTP/2 by ALPN.
    pub chosen: Cell<bool>,
}

#[derive(Default)]
struct Opening {
    under_way: Cell<bool>,
    /// The number of finished attempts to open a connection.
    attempts: Cell<u64>,
    /// The reason why the last attempt failed.
    failure: Cell<Option<Refusal>>,
    waiting: RefCell<Vec<Waker>>,
}

impl Shared {
    /// Reserves a slot for one more stream, on the oldest connection with a free stream. A few busy
    /// connections cost less than many idle connections.
    pub fn slot(&self) -> Option<Slot> {
        let mut connections = self.connections.borrow_mut();
        let slot = connections.iter().find_map(SharedConnection::slot);
        if slot.is_none() {
            connections.retain(|connection| !connection.is_closed());
        }
        slot
    }

    /// Adds a new connection. If the endpoint was removed in the meantime, only the caller uses the
    /// connection.
    pub fn add(&self, connection: Rc<SharedConnection>) {
        match self.closed.get() {
            true => connection.close(),
            false => self.connections.borrow_mut().push(connection),
        }
    }

    /// Marks the endpoint as removed. Running exchanges continue to their end.
    pub fn close(&self) {
        self.closed.set(true);
        self.connections.borrow_mut().drain(..).for_each(|connection| connection.close());
    }

    /// Takes the turn to open a connection. Returns `None` while another task has the turn. Then
    /// wait for that task with [`Shared::outcome`].
    pub fn turn(&self) -> Option<Turn> {
        if self.opening.under_way.replace(true) {
            return None;
        }
        Some(Turn { opening: Rc::clone(&self.opening), failure: None })
    }

    /// Waits until the task with the turn has finished. Returns the reason if its attempt failed.
    pub async fn outcome(&self) -> Option<Refusal> {
        let opening = Rc::clone(&self.opening);
        let seen = opening.attempts.get();
        poll_fn(|context| {
            if opening.attempts.get() != seen {
                return Poll::Ready(());
            }
            opening.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
        opening.failure.get()
    }
}

/// The turn to open a connection. Dropping it ends the turn.
pub struct Turn {
    opening: Rc<Opening>,
    failure: Option<Refusal>,
}

impl Turn {
    /// Ends the turn with a failure. All tasks that wait for this turn get the same failure.
    pub fn failed(mut self, refusal: Refusal) {
        self.failure = Some(refusal);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.opening.under_way.set(false);
        self.opening.attempts.set(self.opening.attempts.get() + 1);
        self.opening.failure.set(self.failure);
        self.opening.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }
}
