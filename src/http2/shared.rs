//! A connection to an endpoint that many exchanges share. Each exchange has its own stream.
//!
//! A separate task (`upstream::http2`) reads and writes the frames. This file has the part that the
//! exchanges use.

use std::cell::Cell;
use std::rc::Rc;

use super::connection::Connection;
use crate::runtime::alarm::WakeHandle;
use crate::tls::Issued;

/// A connection that exchanges can share.
pub trait Shareable {
    /// The right to open one stream. It is given up by dropping it.
    type Room;

    /// Takes the room for one more stream. `open` is the number of streams that are open.
    fn reserve(self: &Rc<Self>, open: usize) -> Option<Self::Room>;

    /// Whether no more streams can be opened.
    fn is_closed(&self) -> bool;
}

impl Shareable for Connection {
    type Room = ();

    fn reserve(self: &Rc<Self>, open: usize) -> Option<()> {
        (open < self.streams_max()).then_some(())
    }

    fn is_closed(&self) -> bool {
        Self::is_closed(self)
    }
}

/// A connection to an endpoint whose streams are used by different exchanges.
pub struct SharedConnection<C: Shareable = Connection> {
    connection: Rc<C>,
    /// Whether we open no more streams.
    closed: Cell<bool>,
    streams: Cell<usize>,
    /// The number of slots reserved so far.
    opened: Cell<u64>,
    /// The endpoint's certificates. `None` means plain text.
    issued: Option<Rc<[Issued]>>,
    /// Whether a request waits for a stream to end.
    wanted: Rc<Cell<bool>>,
    /// Wakes the task that drives the connection.
    wake: WakeHandle,
}

impl<C: Shareable> SharedConnection<C> {
    /// Shares `connection`. `wake` is called by [`Self::close`], when the last stream ends, and
    /// when any stream ends while `wanted` is set.
    pub fn new(
        connection: Rc<C>,
        issued: Option<Rc<[Issued]>>,
        wanted: Rc<Cell<bool>>,
        wake: WakeHandle,
    ) -> Rc<Self> {
        let (closed, streams, opened) = (Cell::new(false), Cell::new(0), Cell::new(0));
        Rc::new(Self { connection, closed, streams, opened, issued, wanted, wake })
    }

    /// Reserves a slot for one more stream, if there is room.
    pub fn slot(self: &Rc<Self>) -> Option<Slot<C>> {
        if self.closed.get() {
            return None;
        }
        let room = self.connection.reserve(self.streams.get())?;
        self.streams.set(self.streams.get() + 1);
        self.opened.set(self.opened.get() + 1);
        Some(Slot(Rc::clone(self), Cell::new(Some(room))))
    }

    /// Whether no more streams can be opened.
    pub fn is_closed(&self) -> bool {
        self.closed.get() || self.connection.is_closed()
    }

    /// Prevents new streams. Open streams continue.
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

/// The right to open one stream on the connection. It stays valid after
/// [`SharedConnection::close`].
pub struct Slot<C: Shareable = Connection>(Rc<SharedConnection<C>>, Cell<Option<C::Room>>);

impl<C: Shareable> Slot<C> {
    /// The connection on which the stream is opened.
    pub fn connection(&self) -> &Rc<C> {
        &self.0.connection
    }

    /// Takes the room of the stream, to open it. `None` on a second call.
    pub fn take_room(&self) -> Option<C::Room> {
        self.1.take()
    }

    /// The endpoint's certificates. Returns `None` for plain text.
    pub fn issued(&self) -> Option<&Rc<[Issued]>> {
        self.0.issued.as_ref()
    }

    /// Whether an earlier slot of this connection was reserved.
    pub fn is_reused(&self) -> bool {
        self.0.opened() > 1
    }
}

impl<C: Shareable> Drop for Slot<C> {
    fn drop(&mut self) {
        let shared = &self.0;
        shared.streams.set(shared.streams.get() - 1);
        if shared.streams.get() == 0 || shared.wanted.get() {
            shared.wake.ring();
        }
    }
}
