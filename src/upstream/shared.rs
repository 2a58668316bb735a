//! The connections of one worker to one endpoint that exchanges share: of HTTP/2 and of HTTP/3.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::http2;
use crate::http3;
use crate::resilience::TwoWays;
use crate::time::Time;

/// A connection to an endpoint that exchanges share.
#[derive(Clone)]
pub enum SharedConnection {
    /// A connection of HTTP/2.
    Http2(Rc<http2::SharedConnection>),
    /// A connection of HTTP/3.
    Http3(Rc<http2::SharedConnection<http3::Connection>>),
}

/// The right to open one stream on a shared connection.
pub enum Slot {
    /// A stream of HTTP/2.
    Http2(http2::Slot),
    /// A stream of HTTP/3.
    Http3(http2::Slot<http3::Connection>),
}

impl Slot {
    /// Whether an earlier slot of this connection was reserved.
    pub fn is_reused(&self) -> bool {
        match self {
            Self::Http2(slot) => slot.is_reused(),
            Self::Http3(slot) => slot.is_reused(),
        }
    }
}

impl SharedConnection {
    /// Reserves a slot for one more stream, if there is room.
    pub fn slot(&self) -> Option<Slot> {
        match self {
            Self::Http2(connection) => connection.slot().map(Slot::Http2),
            Self::Http3(connection) => connection.slot().map(Slot::Http3),
        }
    }

    /// Whether no more streams can be opened.
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Http2(connection) => connection.is_closed(),
            Self::Http3(connection) => connection.is_closed(),
        }
    }

    /// Prevents new streams. Open streams continue.
    pub fn close(&self) {
        match self {
            Self::Http2(connection) => connection.close(),
            Self::Http3(connection) => connection.close(),
        }
    }

    fn streams(&self) -> usize {
        match self {
            Self::Http2(connection) => connection.streams(),
            Self::Http3(connection) => connection.streams(),
        }
    }
}

/// The shared connections to an endpoint.
#[derive(Default)]
pub struct Shared {
    connections: RefCell<Vec<SharedConnection>>,
    /// Whether a request waits for a stream. The connections share this flag.
    wanted: Rc<Cell<bool>>,
    /// Whether the endpoint was removed from its service.
    closed: Cell<bool>,
    /// Whether ALPN has selected HTTP/2 in the last TLS handshake.
    pub chosen: Cell<bool>,
    /// Whether connections use QUIC or TCP, if the service allows both.
    ways: Cell<TwoWays>,
    /// The UDP port at which the endpoint offers HTTP/3, and the end of the offer.
    offer: Cell<Option<(u16, Time)>>,
    /// The reason of the last failure of QUIC.
    quic_error: RefCell<Option<Rc<str>>>,
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

    /// Like [`Shared::slot`], but on a connection over TCP.
    pub fn slot_over_tcp(&self) -> Option<Slot> {
        let connections = self.connections.borrow();
        let over_tcp = |it: &&SharedConnection| matches!(it, SharedConnection::Http2(_));
        connections.iter().filter(over_tcp).find_map(SharedConnection::slot)
    }

    /// Adds a new connection. If the endpoint was removed in the meantime, the connection serves
    /// only the streams that are already open. Connections of HTTP/3 are used first.
    pub fn add(&self, connection: SharedConnection) {
        if self.closed.get() {
            return connection.close();
        }
        let mut connections = self.connections.borrow_mut();
        let is_http3 = |it: &SharedConnection| matches!(it, SharedConnection::Http3(_));
        let place = match is_http3(&connection) {
            true => connections.iter().take_while(|other| is_http3(other)).count(),
            false => connections.len(),
        };
        connections.insert(place, connection);
    }

    /// Whether connections use QUIC or TCP, if the service allows both.
    pub fn ways(&self) -> TwoWays {
        self.ways.get()
    }

    /// The UDP port at which the endpoint offers HTTP/3.
    pub fn offer(&self) -> Option<u16> {
        self.offer.get().map(|(port, _)| port)
    }

    /// The endpoint offers HTTP/3 at `port` until `end`.
    pub fn set_offer(&self, port: u16, end: Time) {
        if self.offer().is_some_and(|known| known != port) {
            self.end_offer();
        }
        self.offer.set(Some((port, end)));
        self.change_ways(TwoWays::offered);
    }

    /// Ends the offer if it has expired.
    pub fn check_offer(&self, now: Time) {
        if self.offer.get().is_some_and(|(_, end)| now >= end) {
            self.end_offer();
        }
    }

    /// The endpoint does not offer HTTP/3 any more. Open streams continue.
    pub fn end_offer(&self) {
        if self.offer.take().is_some() {
            self.change_ways(TwoWays::not_offered);
            self.close_http3();
        }
    }

    /// The endpoint has refused a request over HTTP/3 that it may serve over TCP.
    pub fn refuse_offer(&self, now: Time) {
        self.change_ways(|ways| ways.refused(now));
        self.end_offer();
    }

    /// The reason of the last failure of QUIC, for the log.
    pub fn quic_error(&self) -> Option<Rc<str>> {
        self.quic_error.borrow().clone()
    }

    /// Sets the reason of the last failure of QUIC.
    pub fn set_quic_error(&self, why: &str) {
        *self.quic_error.borrow_mut() = Some(why.into());
    }

    /// Changes what is known about QUIC to the endpoint.
    pub fn change_ways<T>(&self, change: impl FnOnce(&mut TwoWays) -> T) -> T {
        let mut ways = self.ways.get();
        let result = change(&mut ways);
        self.ways.set(ways);
        result
    }

    /// Closes a connection without streams. Returns false if there is none. The connection is
    /// closed by its task, shortly after this call.
    pub fn close_idle(&self) -> bool {
        let mut connections = self.connections.borrow_mut();
        let is_idle = |it: &SharedConnection| it.streams() == 0 && !it.is_closed();
        let idle = connections.iter().position(is_idle).map(|at| connections.remove(at));
        idle.inspect(SharedConnection::close).is_some()
    }

    /// Prevents new streams on all connections of HTTP/3. Open streams continue.
    pub fn close_http3(&self) {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| match connection {
            SharedConnection::Http2(_) => true,
            SharedConnection::Http3(connection) => {
                connection.close();
                false
            }
        });
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
