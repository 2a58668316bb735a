//! The client in an exchange: its identity ([`Peer`]) and its connection ([`Downstream`]).

use std::cell::Cell;
use std::io::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::plan::OriginalDestination;
use super::private::Private;
use super::record::ExchangeRecord;
use super::registry::{ConnectionState, Registered};
use super::worker::Worker;
use crate::decision::Client;
use crate::error::{Flag, Refusal};
use crate::http1::encode::ClientCert;
use crate::identity::SpiffeId;
use crate::resilience::Counted;
use crate::runtime::alarm::Alarm;
use crate::runtime::io::{Io, Stream};
use crate::snapshot::{ForwardClientCert, Listener};
use crate::upstream::{Local, LocalService, Terms, Upstream};
use crate::wire::{ANSWERED, Wire, linger};

/// The client of a connection. A `Peer` does not change after the first request was read, and all
/// streams of the connection share it.
#[derive(Clone)]
pub struct Peer {
    /// The address of the socket's peer, or the one in the PROXY header. `None` means a Unix-domain
    /// socket.
    pub address: Option<SocketAddr>,
    /// The local port of the connection; 0 if there is none.
    pub local_port: u16,
    /// The result of the TLS handshake. `None` means no TLS. Boxed, so that a connection without
    /// TLS is small.
    pub secured: Option<Box<Secured>>,
    /// The PROXY header says that the client speaks TLS with the proxy in front of this one.
    pub tls_before: bool,
    /// The identity of captured outbound traffic: this workload itself.
    pub workload: Option<SpiffeId>,
    text: PeerText,
}

/// The result of a TLS handshake with a client.
#[derive(Clone, Debug, Default)]
pub struct Secured {
    /// The identity in the client's certificate.
    pub identity: Option<SpiffeId>,
    /// The element about the client's certificate in `x-forwarded-client-cert`. `None` if services
    /// get no such element.
    pub forwarded: Option<Box<str>>,
}

impl Peer {
    /// A peer at `address`, connected to `local_port`.
    pub fn new(address: Option<SocketAddr>, local_port: u16) -> Self {
        let text = PeerText::new(address);
        Self { address, local_port, secured: None, tls_before: false, workload: None, text }
    }

    /// Sets the address from a PROXY header.
    pub fn set_address(&mut self, address: SocketAddr) {
        self.address = Some(address);
        self.text = PeerText::new(self.address);
    }

    /// The IP address as text. Empty means a Unix-domain socket.
    pub fn ip_text(&self) -> &str {
        std::str::from_utf8(self.ip_bytes()).unwrap_or_default()
    }

    /// The bytes of [`Peer::ip_text`].
    pub fn ip_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// The scheme that the client uses: `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.secured.is_some() || self.tls_before { "https" } else { "http" }
    }

    /// The element of `x-forwarded-client-cert` for a service.
    pub fn client_cert(&self, forward: ForwardClientCert) -> ClientCert<'_> {
        let secured = self.secured.as_ref();
        let element = secured.and_then(|secured| secured.forwarded.as_deref());
        match (forward, element) {
            (ForwardClientCert::Set, Some(element)) => ClientCert::Set(element),
            (ForwardClientCert::Append, Some(element)) => ClientCert::Append(element),
            // Without a certificate, the field that the client sent cannot be trusted.
            _ => ClientCert::Drop,
        }
    }

    /// The SPIFFE ID.
    pub fn identity(&self) -> Option<&str> {
        let proven = self.secured.as_ref().and_then(|secured| secured.identity.as_ref());
        Some(proven.or(self.workload.as_ref())?.as_str())
    }
}

/// An IP address as text. It is formatted once for each connection.
#[derive(Clone, Copy)]
struct PeerText {
    bytes: [u8; 45],
    len: u8,
}

impl PeerText {
    fn new(peer: Option<SocketAddr>) -> Self {
        let mut text = Self { bytes: [0; 45], len: 0 };
        let Some(peer) = peer else { return text };
        let mut cursor = std::io::Cursor::new(&mut text.bytes[..]);
        // 45 bytes hold the longest IPv6 address.
        write!(cursor, "{}", peer.ip().to_canonical()).ok();
        text.len = cursor.position() as u8;
        text
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }
}

/// A client connection, or one stream of it.
pub struct Downstream<I: Io> {
    /// The worker that owns the connection.
    pub worker: Rc<Worker<I>>,
    /// The stream to read and write.
    pub stream: Wire<I::Stream>,
    /// The alarm for deadlines.
    pub alarm: Alarm,
    /// The client.
    pub peer: Rc<Peer>,
    /// The original destination of a captured connection.
    pub captured: Option<Rc<OriginalDestination<I>>>,
    /// The connections to endpoints that serve this client alone.
    pub private: Private<I>,
    /// Counts the connection of its client address. Boxed, because most listeners have no limit.
    counted: Option<Box<Counted>>,
    registered: Registered,
    listener_name: Rc<str>,
    /// The version of the snapshot, and the listener's index in it.
    listener_index: Cell<(u64, usize)>,
}

/// Marks that the client's connection uses a connection to an endpoint, until this value is
/// dropped.
pub struct Using<'a, I: Io> {
    downstream: &'a Downstream<I>,
    upstream: &'a Upstream<Wire<I::Stream>>,
    record: &'a ExchangeRecord<I>,
}

impl<I: Io> Drop for Using<'_, I> {
    fn drop(&mut self) {
        let state = self.downstream.state();
        *state.endpoint.borrow_mut() = None;
        if state.is_cut() {
            // The connection closes in the middle of a message. Neither side may take a part of a
            // message for the whole.
            self.downstream.stream.reset_on_close();
            self.upstream.stream.reset_on_close();
            self.record.set_flag(Flag::Unauthorized, REVOKED);
        }
    }
}

/// The refusal of a connection whose client has too many.
const TOO_MANY_CONNECTIONS: Refusal = Refusal {
    status: 0,
    flag: Flag::RateLimited,
    detail: "the client has too many connections (connections_per_source)",
};

const REVOKED: &str = "a revocation list names the certificate of the client or the endpoint";

impl<I: Io> Downstream<I> {
    /// A connection just accepted by the listener called `listener_name`.
    pub fn new(
        worker: Rc<Worker<I>>,
        stream: I::Stream,
        listener_name: Rc<str>,
        peer: Peer,
    ) -> Self {
        let alarm = worker.io.alarms().alarm();
        let leaving = worker.is_leaving(&listener_name);
        let registered = worker.registry.enter(Rc::clone(&listener_name), alarm.wake(), leaving);
        Self {
            worker,
            stream: Wire::Plain(stream),
            alarm,
            peer: Rc::new(peer),
            captured: None,
            private: Private::default(),
            counted: None,
            registered,
            listener_name,
            listener_index: Cell::new((u64::MAX, 0)),
        }
    }

    /// The peer, for changes before the first request.
    pub fn peer_mut(&mut self) -> &mut Peer {
        Rc::make_mut(&mut self.peer)
    }

    /// Counts the connection of its client address until it closes.
    ///
    /// # Errors
    /// When the address has too many connections.
    pub fn count_source(&mut self, listener: &Listener) -> Result<(), Refusal> {
        let limit = listener.per_source.as_ref();
        let Some((limit, peer)) = limit.zip(self.peer.address) else { return Ok(()) };
        let counted = limit.sources.enter(peer.ip(), limit.max).ok_or(TOO_MANY_CONNECTIONS)?;
        self.counted = Some(Box::new(counted));
        Ok(())
    }

    /// The entry in the worker's registry.
    pub fn registered(&self) -> &Registered {
        &self.registered
    }

    /// Replaces the stream of the connection by the result of `change`.
    pub fn with_stream(self, change: impl FnOnce(Wire<I::Stream>) -> Wire<I::Stream>) -> Self {
        let Self { stream, .. } = self;
        Self { stream: change(stream), ..self }
    }

    /// The connection as rules see it.
    pub fn client<'a>(&'a self, listener: &'a Listener) -> Client<'a> {
        let captured = self.captured.as_ref();
        Client {
            listener,
            identity: self.peer.identity(),
            ip: self.peer.address.map(|address| address.ip()),
            scheme: self.peer.scheme(),
            port: self.peer.local_port,
            original: captured.map(|captured| captured.address),
            probes_only: captured.is_some_and(|captured| captured.probes_only()),
        }
    }

    /// Splits the connection into the rest and its stream.
    pub fn take_stream(self) -> Option<(Self, Wire<I::Stream>)> {
        let mut taken = None;
        let rest = self.with_stream(|stream| {
            taken = Some(stream);
            Wire::Moved
        });
        Some((rest, taken?))
    }

    /// A second `Downstream` for the same client, for another HTTP/2 stream.
    pub fn beside(&self) -> Self {
        let alarm = self.worker.io.alarms().alarm();
        let name = Rc::clone(&self.listener_name);
        let registered = self.worker.registry.enter_stream(name, alarm.wake(), self.draining());
        Self {
            worker: Rc::clone(&self.worker),
            stream: Wire::Moved,
            alarm,
            peer: Rc::clone(&self.peer),
            captured: self.captured.clone(),
            private: Private::default(),
            counted: None,
            registered,
            listener_name: Rc::clone(&self.listener_name),
            listener_index: self.listener_index.clone(),
        }
    }

    /// Whether the connection should close after the current exchange.
    pub fn draining(&self) -> bool {
        self.registered.state.draining.get()
    }

    /// Records that the connection uses `upstream` for the exchange of `record`, until the result
    /// is dropped.
    pub fn using<'a>(
        &'a self,
        service: &LocalService<I>,
        upstream: &'a Upstream<Wire<I::Stream>>,
        record: &'a ExchangeRecord<I>,
    ) -> Using<'a, I> {
        let issued = upstream.stream.issued();
        let proven = issued.map(|issued| (Rc::clone(&service.name), issued));
        *self.state().endpoint.borrow_mut() = proven;
        Using { downstream: self, upstream, record }
    }

    /// Closes the connection after an answer that was sent before the whole request was read. First
    /// reads and drops the rest of the request for a limited time, so that the client gets the
    /// answer.
    pub async fn linger(&self) {
        linger(&self.worker.io, &self.alarm, &self.stream, ANSWERED).await;
    }

    /// The state that other tasks read and set.
    pub fn state(&self) -> &ConnectionState {
        &self.registered.state
    }

    /// The snapshot that serves this connection: the one in use, or the last one with its listener
    /// if a reload has removed the listener.
    pub fn local(&self) -> Rc<Local<I>> {
        let local = self.worker.local();
        if self.listener(&local).is_some() {
            return local;
        }
        self.worker.local_of(&self.listener_name)
    }

    /// The listener in `local`'s snapshot and its terms. Returns `None` when it has been removed.
    pub fn listener<'l>(&self, local: &'l Local<I>) -> Option<(&'l Arc<Listener>, &'l Rc<Terms>)> {
        let (version, mut index) = self.listener_index.get();
        if version != local.snapshot.version {
            let found = local
                .snapshot
                .listeners
                .binary_search_by(|listener| (*listener.name).cmp(&self.listener_name));
            index = found.unwrap_or(usize::MAX);
            self.listener_index.set((local.snapshot.version, index));
        }
        Some((local.snapshot.listeners.get(index)?, local.listeners.get(index)?))
    }

    /// The current terms of the listener. Returns `None` when it was removed long ago.
    pub fn terms(&self) -> Option<Rc<Terms>> {
        let local = self.local();
        self.listener(&local).map(|(_, terms)| Rc::clone(terms))
    }
}
