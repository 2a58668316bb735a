//! A connection to an endpoint that many exchanges share. Each exchange has its own stream.
//!
//! A separate task (`upstream::http2`) reads and writes the frames. This file has the part that
//! exchanges use.

use std::cell::Cell;
use std::rc::Rc;

use super::connection::Connection;
use crate::runtime::alarm::WakeHandle;
use crate::tls::Issued;

/// A shared connection to an endpoint. See the module.
pub struct SharedConnection {
    connection: Rc<Connection>,
    /// We open no more streams.
    closed: Cell<bool>,
    streams: Cell<usize>,
    /// Number of slots reserved so far.
    opened: Cell<u64>,
    /// The endpoint's certificates. `None` means plain text.
    issued: Option<Rc<[Issued]>>,
    /// Whether a request waits for a stream to end.
    wanted: Rc<Cell<bool>>,
    /// Wakes the task that drives the connection.
    wake: WakeHandle,
}

impl SharedConnection {
    /// Shares `connection`. `wake` fires when the last stream ends, when a stream ends that is
    /// `wanted`, and on [`Self::close`].
    pub fn new(
        connection: Rc<Connection>,
        issued: Option<Rc<[Issued]>>,
        wanted: Rc<Cell<bool>>,
        wake: WakeHandle,
    ) -> Rc<Self> {
        let (closed, streams, opened) = (Cell::new(false), Cell::new(0), Cell::new(0));
        Rc::new(Self { connection, closed, streams, opened, issued, wanted, wake })
    }

    /// Reserves a slot for one more stream, if there is room.
    pub fn slot(self: &Rc<Self>) -> Option<Slot> {
        if self.closed.get() || self.streams.get() >= self.connection.streams_max() {
            return None;
        }
        self.streams.set(self.streams.get() + 1);
        self.opened.set(self.opened.get() + 1);
        Some(Slot(Rc::clone(self)))
    }

    /// Whether no more streams can be opened.
    pub fn is_closed(&self) -> bool {
        self.closed.get() || self.connection.is_closed()
    }

    /// Opens no more streams. Open streams continue.
    pub fn close(&self) {
        self.closed.set(true);
        self.wake.ring();
    }

    /// The number of reserved slots.
    pub fn streams(&self) -> usize {
        self.streams.get()
    }

    /// The number of slots reserved so far.
    pub fn opened(&self) -> u64 {
        self.opened.get()
    }
}

/// The right to open one stream. It stays valid after [`SharedConnection::close`].
pub struct Slot(Rc<SharedConnection>);

impl Slot {
    /// The connection.
    pub fn connection(&self) -> &Rc<Connection> {
        &self.0.connection
    }

    /// The endpoint's certificates. Returns `None` for plain text.
    pub fn issued(&self) -> Option<&Rc<[Issued]>> {
        self.0.issued.as_ref()
    }

    /// Whether the connection was used before.
    pub fn is_reused(&self) -> bool {
        self.0.opened() > 1
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let shared = &self.0;
        shared.streams.set(shared.streams.get() - 1);
        if shared.streams.get() == 0 || shared.wanted.get() {
            shared.wake.ring();
        }
    }
}
