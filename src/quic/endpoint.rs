//! One end of many QUIC connections that share a UDP socket.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use bytes::BytesMut;
use quinn_proto::{
    ConnectionEvent, ConnectionHandle, DatagramEvent, EcnCodepoint, EndpointConfig, EndpointEvent,
    Transmit,
};
use rustc_hash::FxHashMap;

use super::Clock;
use super::connection::Connection;
use super::ids::{Ids, Place};
use super::keys::Keys;
use super::settings::{ClientQuic, MoreStreams, ServerQuic};
use crate::runtime::udp::Incoming;
use crate::time::Time;

/// The only version that is offered: 1 (RFC 9000).
const VERSIONS: [u32; 1] = [1];

/// The endpoint of one UDP socket.
pub struct Endpoint {
    inner: RefCell<quinn_proto::Endpoint>,
    /// The open connections, by their handle.
    connections: RefCell<FxHashMap<usize, Weak<Connection>>>,
    pub(super) clock: Clock,
}

/// A client's attempt to open a connection. It must be given back to its endpoint.
pub struct Attempt(Box<quinn_proto::Incoming>);

impl Attempt {
    /// The client's address.
    pub fn from(&self) -> SocketAddr {
        self.0.remote_address()
    }

    /// Whether the client has proven that it receives datagrams at its address.
    pub fn is_validated(&self) -> bool {
        self.0.remote_address_validated()
    }

    /// Whether [`Endpoint::retry`] is possible.
    pub fn may_retry(&self) -> bool {
        self.0.may_retry()
    }
}

/// The result of a received datagram.
pub enum Received {
    /// It was dropped, or kept for a connection.
    Nothing,
    /// It was given to this connection, whose driver was woken.
    Connection,
    /// A client wants to open a connection.
    Attempt(Attempt),
    /// This answer must be sent: a version negotiation or a stateless reset.
    Answer(Transmit),
}

impl Endpoint {
    /// Creates an endpoint of the worker at `place`. `server` accepts connections; without it, the
    /// endpoint only opens them. `may_probe`: whether datagrams larger than the smallest MTU can be
    /// tried. `seed` makes the random numbers of a simulation repeatable.
    pub fn new(
        keys: &Keys,
        place: Place,
        server: Option<&ServerQuic>,
        may_probe: bool,
        clock: Clock,
        random: &mut fastrand::Rng,
    ) -> Rc<Self> {
        let mut config = EndpointConfig::new(Arc::clone(&keys.reset));
        let ids = random.u64(..);
        config.supported_versions(VERSIONS.to_vec());
        config.cid_generator(move || Box::new(Ids::new(place, fastrand::Rng::with_seed(ids))));
        let mut seed = [0; 32];
        random.fill(&mut seed);
        config.rng_seed(Some(seed));
        let server = server.map(|server| Arc::clone(&server.config));
        let inner = quinn_proto::Endpoint::new(Arc::new(config), server, may_probe, None);
        Rc::new(Self { inner: RefCell::new(inner), connections: RefCell::default(), clock })
    }

    /// Replaces the settings for later connections. `None` means that no more are accepted.
    pub fn set_server(&self, server: Option<&ServerQuic>) {
        self.inner.borrow_mut().set_server_config(server.map(|server| Arc::clone(&server.config)));
    }

    /// Takes a received datagram. Writes the bytes of an answer to `out`.
    pub fn receive(&self, now: Time, datagram: Incoming<'_>, out: &mut Vec<u8>) -> Received {
        let ecn = EcnCodepoint::from_bits(datagram.ecn);
        let bytes = BytesMut::from(datagram.bytes);
        let (from, to) = (datagram.from, datagram.to);
        let at = self.clock.instant(now);
        let event = self.inner.borrow_mut().handle(at, from, to, ecn, bytes, out);
        match event {
            None => Received::Nothing,
            Some(DatagramEvent::NewConnection(attempt)) => {
                Received::Attempt(Attempt(Box::new(attempt)))
            }
            Some(DatagramEvent::Response(transmit)) => Received::Answer(transmit),
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let found = self.connections.borrow().get(&handle.0).and_then(Weak::upgrade);
                if let Some(connection) = found {
                    connection.handle(event, now);
                }
                Received::Connection
            }
        }
    }

    /// Accepts a connection with the settings `server`.
    ///
    /// # Errors
    /// An answer to send, if there is one, when the attempt was not valid.
    pub fn accept(
        self: &Rc<Self>,
        attempt: Attempt,
        now: Time,
        server: &ServerQuic,
        out: &mut Vec<u8>,
    ) -> Result<Rc<Connection>, Option<Transmit>> {
        let at = self.clock.instant(now);
        let config = Some(Arc::clone(&server.config));
        let accepted = self.inner.borrow_mut().accept(*attempt.0, at, out, config);
        let (handle, connection) = accepted.map_err(|error| error.response)?;
        Ok(self.adopt(handle, connection, now, server.more))
    }

    /// Begins to open a connection to `to`. `name` is the server name for TLS.
    ///
    /// # Errors
    /// The reason, as a text.
    pub fn connect(
        self: &Rc<Self>,
        to: SocketAddr,
        name: &str,
        client: &ClientQuic,
        now: Time,
    ) -> Result<Rc<Connection>, String> {
        let at = self.clock.instant(now);
        let connected = self.inner.borrow_mut().connect(at, client.config.clone(), to, name);
        let (handle, connection) = connected.map_err(|error| error.to_string())?;
        Ok(self.adopt(handle, connection, now, None))
    }

    fn adopt(
        self: &Rc<Self>,
        handle: ConnectionHandle,
        connection: quinn_proto::Connection,
        now: Time,
        more: Option<MoreStreams>,
    ) -> Rc<Connection> {
        let connection = Connection::new(connection, handle, Rc::clone(self), now, more);
        self.connections.borrow_mut().insert(handle.0, Rc::downgrade(&connection));
        connection
    }

    /// Refuses an attempt with CONNECTION_REFUSED. The answer must be sent.
    pub fn refuse(&self, attempt: Attempt, out: &mut Vec<u8>) -> Transmit {
        self.inner.borrow_mut().refuse(*attempt.0, out)
    }

    /// Asks the client to prove its address first (RFC 9000 8.1.2). The answer must be sent. `None`
    /// if the client has proven it already; the attempt is then dropped.
    pub fn retry(&self, attempt: Attempt, out: &mut Vec<u8>) -> Option<Transmit> {
        let mut inner = self.inner.borrow_mut();
        match inner.retry(*attempt.0, out) {
            Ok(transmit) => Some(transmit),
            Err(error) => {
                inner.ignore(error.into_incoming());
                None
            }
        }
    }

    /// Drops an attempt without an answer.
    pub fn ignore(&self, attempt: Attempt) {
        self.inner.borrow_mut().ignore(*attempt.0);
    }

    /// The number of connections that have not ended completely.
    pub fn connections(&self) -> usize {
        self.inner.borrow().open_connections()
    }

    /// Passes an event of a connection to the endpoint. Returns its answer for the connection.
    pub(super) fn handle(
        &self,
        handle: ConnectionHandle,
        event: EndpointEvent,
    ) -> Option<ConnectionEvent> {
        if event.is_drained() {
            self.connections.borrow_mut().remove(&handle.0);
        }
        self.inner.borrow_mut().handle_event(handle, event)
    }

    /// Forgets a connection whose driver has ended.
    pub(super) fn forget(&self, handle: ConnectionHandle) {
        if self.connections.borrow_mut().remove(&handle.0).is_some() {
            self.inner.borrow_mut().handle_event(handle, EndpointEvent::drained());
        }
    }
}
