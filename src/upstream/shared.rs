//! The shared HTTP/2 connections of one worker to one endpoint.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::http2::{SharedConnection, Slot};

/// The shared connections.
#[derive(Default)]
pub struct Shared {
    connections: RefCell<Vec<Rc<SharedConnection>>>,
    /// Whether a request waits for a stream to end.
    wanted: Rc<Cell<bool>>,
    /// The endpoint was removed.
    closed: Cell<bool>,
    /// The endpoint has chosen HTTP/2 by ALPN.
    pub chosen: Cell<bool>,
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

    /// Adds a new connection. If the endpoint was removed in the meantime, only the streams that
    /// were opened before use the connection.
    pub fn add(&self, connection: Rc<SharedConnection>) {
        match self.closed.get() {
            true => connection.close(),
            false => self.connections.borrow_mut().push(connection),
        }
    }

    /// Closes a connection without streams. Returns false if there is none. The connection is gone
    /// a moment later.
    pub fn close_idle(&self) -> bool {
        let mut connections = self.connections.borrow_mut();
        let is_idle = |it: &Rc<SharedConnection>| it.streams() == 0 && !it.is_closed();
        let idle = connections.iter().position(is_idle).map(|at| connections.remove(at));
        idle.inspect(|connection| connection.close()).is_some()
    }

    /// The mark of the connections that a request waits for a stream to end.
    pub fn wanted(&self) -> &Rc<Cell<bool>> {
        &self.wanted
    }

    /// Marks the endpoint as removed. Running exchanges continue to their end.
    pub fn close(&self) {
        self.closed.set(true);
        self.connections.borrow_mut().drain(..).for_each(|connection| connection.close());
    }
}
