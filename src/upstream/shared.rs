//! One worker's connections of HTTP/2 to one endpoint, and whose turn it is to open another.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::error::Refusal;
use crate::http2::{SharedConnection, Slot};

/// See the module.
#[derive(Default)]
pub struct Shared {
    connections: RefCell<Vec<Rc<SharedConnection>>>,
    opening: Rc<Opening>,
    /// The endpoint is not to be used any more.
    closed: Cell<bool>,
    /// The endpoint has chosen HTTP/2 when it was asked.
    pub chosen: Cell<bool>,
}

#[derive(Default)]
struct Opening {
    under_way: Cell<bool>,
    /// Counts attempts that are over.
    attempts: Cell<u64>,
    /// Why the last one failed.
    failure: Cell<Option<Refusal>>,
    waiting: RefCell<Vec<Waker>>,
}

impl Shared {
    /// A place for one more stream, on the oldest connection that has one: few connections that
    /// are busy cost less than many that are not.
    pub fn slot(&self) -> Option<Slot> {
        let mut connections = self.connections.borrow_mut();
        let slot = connections.iter().find_map(SharedConnection::slot);
        if slot.is_none() {
            connections.retain(|connection| !connection.is_closed());
        }
        slot
    }

    /// Takes in a connection that was just opened. One to an endpoint that has been closed
    /// meanwhile is for whoever has opened it.
    pub fn add(&self, connection: Rc<SharedConnection>) {
        match self.closed.get() {
            true => connection.close(),
            false => self.connections.borrow_mut().push(connection),
        }
    }

    /// The endpoint is not to be used any more: what is under way goes on to its end.
    pub fn close(&self) {
        self.closed.set(true);
        self.connections.borrow_mut().drain(..).for_each(|connection| connection.close());
    }

    /// The turn to open a connection; `None` while somebody else has it: see [`Shared::outcome`].
    pub fn turn(&self) -> Option<Turn> {
        if self.opening.under_way.replace(true) {
            return None;
        }
        Some(Turn { opening: Rc::clone(&self.opening), failure: None })
    }

    /// Waits for the attempt that is under way, and says why it failed if it did.
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

/// The turn to open a connection. Dropping it ends the turn, however far it has come.
pub struct Turn {
    opening: Rc<Opening>,
    failure: Option<Refusal>,
}

impl Turn {
    /// The attempt has failed: those who wait for it fail alike.
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
