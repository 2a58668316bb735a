//! The connections of one worker to one endpoint that exchanges share: of HTTP/2 and of HTTP/3.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use crate::http2;
use crate::http3;
use crate::resilience::TwoWays;
use crate::time::Time;

/// The shortest time between two attempts to reach an endpoint over QUIC beside TCP. The responses
/// of the endpoint decide about its offers, so it could cause an attempt for each request.
const TRIAL_INTERVAL: Duration = Duration::from_secs(1);

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
    /// The number of offers that have ended: an attempt for an earlier one says nothing.
    offers_ended: Cell<u32>,
    /// Whether QUIC is being tried beside TCP.
    trying: Cell<bool>,
    /// The time of the last attempt beside TCP.
    tried: Cell<Option<Time>>,
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
        self.change_ways(|ways| match self.has_http3() && !ways.has_failed() {
            // The connection of an offer that has expired.
            true => ways.opened(),
            false => ways.offered(),
        });
    }

    /// Ends the offer if it has expired. Its connections stay (RFC 7838 2.2).
    pub fn check_offer(&self, now: Time) {
        if self.offer.get().is_some_and(|(_, end)| now >= end) {
            self.take_offer();
        }
    }

    /// The endpoint does not offer HTTP/3 any more. Open streams continue.
    pub fn end_offer(&self) {
        if self.take_offer() {
            self.close_http3();
        }
    }

    fn take_offer(&self) -> bool {
        let had_offer = self.offer.take().is_some();
        if had_offer {
            self.offers_ended.set(self.offers_ended.get().wrapping_add(1));
            self.change_ways(TwoWays::not_offered);
        }
        had_offer
    }

    /// The number of offers that have ended.
    pub fn offers_ended(&self) -> u32 {
        self.offers_ended.get()
    }

    /// Whether QUIC should be tried now, beside TCP. If so, the caller begins the attempt, and
    /// [`Shared::trial_ended`] ends it. `is_offered` is whether QUIC needs no offer.
    pub fn begin_trial(&self, now: Time, is_offered: bool) -> bool {
        let ways = self.ways();
        // Requests would stay on a connection over TCP that is left.
        let is_left = (is_offered || self.offer.get().is_some())
            && ways.has_worked()
            && !self.has_http3()
            && self.connections.borrow().iter().any(|it| !it.is_closed());
        if !(is_left || ways.is_waiting()) || self.trying.get() {
            return false;
        }
        if self.tried.get().is_some_and(|tried| now < tried + TRIAL_INTERVAL) {
            return false;
        }
        let begins = self.change_ways(|ways| if is_left { ways.left() } else { ways.is_due(now) });
        if begins {
            self.trying.set(true);
            self.tried.set(Some(now));
        }
        begins
    }

    /// The attempt beside TCP has ended.
    pub fn trial_ended(&self) {
        self.trying.set(false);
    }

    /// Whether a connection of HTTP/3 takes new streams.
    fn has_http3(&self) -> bool {
        let is_http3 =
            |it: &SharedConnection| matches!(it, SharedConnection::Http3(it) if !it.is_closed());
        self.connections.borrow().iter().any(is_http3)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Time {
        Time::from_micros(millis * 1_000)
    }

    #[test]
    fn one_attempt_runs_at_a_time_whatever_is_offered() {
        let shared = Shared::default();
        let mut attempts = 0;
        for turn in 0..1_000 {
            let now = millis(turn);
            match turn % 3 {
                0 => shared.set_offer(443, millis(100_000)),
                1 => shared.set_offer(444, millis(100_000)),
                _ => shared.end_offer(),
            }
            attempts += u32::from(shared.begin_trial(now, false));
            // The first attempt takes long, the others fail at once.
            if turn > 500 {
                shared.trial_ended();
            }
        }
        assert_eq!(attempts, 1);
        shared.set_offer(445, millis(100_000));
        assert!(shared.begin_trial(millis(1_000), false));
        assert!(!shared.begin_trial(millis(2_000), false));
    }

    #[test]
    fn each_offer_that_ends_has_a_number() {
        let shared = Shared::default();
        shared.end_offer();
        assert_eq!(shared.offers_ended(), 0);
        shared.set_offer(443, millis(10));
        shared.set_offer(443, millis(20));
        assert_eq!((shared.offers_ended(), shared.offer()), (0, Some(443)));
        shared.set_offer(444, millis(20));
        assert_eq!((shared.offers_ended(), shared.offer()), (1, Some(444)));
        shared.check_offer(millis(19));
        assert_eq!(shared.offers_ended(), 1);
        shared.check_offer(millis(20));
        assert_eq!((shared.offers_ended(), shared.offer()), (2, None));
    }
}
