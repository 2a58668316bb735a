//! The HTTP/2 connections of one worker to one endpoint, which exchanges share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::http2::{SharedConnection, Slot};

/// The shared HTTP/2 connections to an endpoint.
#[derive(Default)]
pub struct Shared {
    connections: RefCell<Vec<Rc<SharedConnection>>>,
    /// Whether a request waits for a stream. The connections share this flag.
    wanted: Rc<Cell<bool>>,
    /// Whether the endpoint was removed from its service.
    closed: Cell<bool>,
    /// Whether ALPN has selected HTTP/2 in the last TLS handshake.
    pub chosen: Cell<bool>,
}

impl Shared {
    /// Reserves a slot for one more stream, on the oldest connection that has a free one. A few
    /// busy connections cost less than many idle ones.
    pub fn slot(&self) -> Option<Slot> {
        let mut connections = self.connections.borrow_mut();
        let slot = connections.iter().find_map(SharedConnection::slot);
        if slot.is_none() {
            connections.retain(|connection| !connection.is_closed());
        }
        slot
    }

    /// Adds a new connection. If the endpoint was removed in the meantime, the connection serves
    /// only the streams that are already open.
    pub fn add(&self, connection: Rc<SharedConnection>) {
        match self.closed.get() {
            true => connection.close(),
            false => self.connections.borrow_mut().push(connection),
        }
    }

    /// Closes a connection without streams. Returns false if there is none. The connection is
    /// closed by its task, shortly after this call.
    pub fn close_idle(&self) -> bool {
        let mut connections = self.connections.borrow_mut();
        let is_idle = |it: &Rc<SharedConnection>| it.streams() == 0 && !it.is_closed();
        let idle = connections.iter().position(is_idle).map(|at| connections.remove(at));
        idle.inspect(|connection| connection.close()).is_some()
    }

    /// The flag that is set while a request waits for a stream. The connections read it.
    pub fn wanted(&self) -> &Rc<Cell<bool>> {
        &self.wanted
    }

    /// Marks the endpoint as removed. Streams in progress continue to their end.
    pub fn close(&self) {
        self.closed.set(true);
        self.connections.borrow_mut().drain(..).for_each(|connection| connection.close());
    }
}
