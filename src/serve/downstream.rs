//! The client of an exchange: its address and identity ([`Peer`]), and its connection
//! ([`Downstream`]).

use std::cell::{Cell, OnceCell};
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
use crate::standard::Party;
use crate::upstream::{Local, LocalService, Terms, Upstream};
use crate::wire::{ANSWERED, Wire, linger};

/// The address and identity of a client. They do not change after the first request was read. All
/// streams of the connection share them.
#[derive(Clone)]
pub struct Peer {
    /// The address of the client, from the socket or from a PROXY header. `None` for a Unix-domain
    /// socket.
    pub address: Option<SocketAddr>,
    /// The local port of the connection; 0 if there is none.
    pub local_port: u16,
    /// The result of the TLS handshake. `None` means no TLS. Boxed, so that connections without TLS
    /// need less memory.
    pub secured: Option<Box<Secured>>,
    /// Whether the PROXY header says that the client uses TLS to the proxy in front of this one.
    pub tls_before: bool,
    /// The identity of this workload, if it is the client of a captured outbound connection.
    pub workload: Option<SpiffeId>,
    /// The client in the labels of the standard metrics, looked up at the first request.
    pub party: OnceCell<Arc<Party>>,
    text: PeerText,
}

/// The result of a TLS handshake with a client.
#[derive(Clone, Debug, Default)]
pub struct Secured {
    /// The SPIFFE ID in the client's certificate.
    pub identity: Option<SpiffeId>,
    /// The element of `x-forwarded-client-cert` for the client's certificate. `None` if services do
    /// not get it.
    pub forwarded: Option<Box<str>>,
}

impl Peer {
    /// Creates a peer at `address` that is connected to `local_port`.
    pub fn new(address: Option<SocketAddr>, local_port: u16) -> Self {
        let text = PeerText::new(address);
        Self {
            address,
            local_port,
            secured: None,
            tls_before: false,
            workload: None,
            party: OnceCell::new(),
            text,
        }
    }

    /// Sets the address that a PROXY header contains.
    pub fn set_address(&mut self, address: SocketAddr) {
        self.address = Some(address);
        self.text = PeerText::new(self.address);
    }

    /// The IP address as text. Empty for a Unix-domain socket.
    pub fn ip_text(&self) -> &str {
        std::str::from_utf8(self.ip_bytes()).unwrap_or_default()
    }

    /// The IP address as text, in bytes.
    pub fn ip_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// The scheme that the client uses, also in front of a proxy: `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.secured.is_some() || self.tls_before { "https" } else { "http" }
    }

    /// The value of `x-forwarded-client-cert` for a service. `forward` is the setting of the
    /// listener.
    pub fn client_cert(&self, forward: ForwardClientCert) -> ClientCert<'_> {
        let secured = self.secured.as_ref();
        let element = secured.and_then(|secured| secured.forwarded.as_deref());
        match (forward, element) {
            (ForwardClientCert::Set, Some(element)) => ClientCert::Set(element),
            (ForwardClientCert::Append, Some(element)) => ClientCert::Append(element),
            // The client has no certificate, so its own field cannot be trusted.
            _ => ClientCert::Drop,
        }
    }

    /// The SPIFFE ID of the client. `None` if the client has no identity.
    pub fn identity(&self) -> Option<&str> {
        let proven = self.secured.as_ref().and_then(|secured| secured.identity.as_ref());
        Some(proven.or(self.workload.as_ref())?.as_str())
    }
}

/// An IP address as text, which is formatted once for each connection.
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
        // 45 bytes are enough for every IPv6 address.
        write!(cursor, "{}", peer.ip().to_canonical()).ok();
        text.len = cursor.position() as u8;
        text
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }
}

/// A client connection, or one stream of an HTTP/2 connection.
pub struct Downstream<I: Io> {
    /// The worker that owns the connection.
    pub worker: Rc<Worker<I>>,
    /// The stream from which requests are read, and to which responses are written.
    pub stream: Wire<I::Stream>,
    /// The timer for deadlines of the client.
    pub alarm: Alarm,
    /// The address and identity of the client.
    pub peer: Rc<Peer>,
    /// The original destination, if the connection is captured.
    pub captured: Option<Rc<OriginalDestination<I>>>,
    /// The connections to endpoints that only this client may use (NTLM, Negotiate).
    pub private: Private<I>,
    /// The count of this connection for its client address. Boxed, because most listeners have no
    /// limit.
    counted: Option<Box<Counted>>,
    registered: Registered,
    listener_name: Rc<str>,
    /// The version of the snapshot, and the index of the listener in it.
    listener_index: Cell<(u64, usize)>,
}

/// Records that the client's connection uses a connection to an endpoint. Dropping it ends the
/// record.
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
            // The connection closes in the middle of a message. Use a reset, so that neither side
            // considers the message complete.
            self.downstream.stream.reset_on_close();
            self.upstream.stream.reset_on_close();
            self.record.set_flag(Flag::Unauthorized, REVOKED);
        }
    }
}

/// The refusal of a connection whose client address has too many connections.
const TOO_MANY_CONNECTIONS: Refusal = Refusal {
    status: 0,
    flag: Flag::RateLimited,
    detail: "the client has too many connections (connections_per_source)",
};

const REVOKED: &str = "a revocation list names the certificate of the client or the endpoint";

impl<I: Io> Downstream<I> {
    /// A connection that the listener called `listener_name` has just accepted.
    pub fn new(
        worker: Rc<Worker<I>>,
        stream: I::Stream,
        listener_name: Rc<str>,
        peer: Peer,
    ) -> Self {
        Self::over(worker, Wire::Plain(stream), listener_name, peer)
    }

    /// Like [`Downstream::new`], for a connection of any kind. [`Wire::Moved`] means that only its
    /// streams are used.
    pub fn over(
        worker: Rc<Worker<I>>,
        stream: Wire<I::Stream>,
        listener_name: Rc<str>,
        peer: Peer,
    ) -> Self {
        let alarm = worker.io.alarms().alarm();
        let leaving = worker.is_leaving(&listener_name);
        let registered = worker.registry.enter(Rc::clone(&listener_name), alarm.wake(), leaving);
        Self {
            worker,
            stream,
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

    /// The peer. It may be changed before the first request.
    pub fn peer_mut(&mut self) -> &mut Peer {
        Rc::make_mut(&mut self.peer)
    }

    /// Counts the connection for its client address until it closes.
    ///
    /// # Errors
    /// If the address has too many connections.
    pub fn count_source(&mut self, listener: &Listener) -> Result<(), Refusal> {
        let limit = listener.per_source.as_ref();
        let Some((limit, peer)) = limit.zip(self.peer.address) else { return Ok(()) };
        let counted = limit.sources.enter(peer.ip(), limit.max).ok_or(TOO_MANY_CONNECTIONS)?;
        self.counted = Some(Box::new(counted));
        Ok(())
    }

    /// The entry of the connection in the worker's registry.
    pub fn registered(&self) -> &Registered {
        &self.registered
    }

    /// Replaces the stream of the connection with the result of `change`.
    pub fn with_stream(self, change: impl FnOnce(Wire<I::Stream>) -> Wire<I::Stream>) -> Self {
        let Self { stream, .. } = self;
        Self { stream: change(stream), ..self }
    }

    /// The properties of the connection that routes and authorization rules can match.
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

    /// Separates the stream from the rest of the connection. Returns `None` if it was already
    /// taken.
    pub fn take_stream(self) -> Option<(Self, Wire<I::Stream>)> {
        let mut taken = None;
        let rest = self.with_stream(|stream| {
            taken = Some(stream);
            Wire::Moved
        });
        Some((rest, taken?))
    }

    /// Creates a `Downstream` for another HTTP/2 stream of the same client.
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

    /// Records that the connection uses `upstream` for the exchange of `record`. Dropping the
    /// result ends the record.
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

    /// Closes the connection after a response that was sent before the whole request was read.
    /// First reads and drops the rest of the request for a limited time. Otherwise a reset could
    /// prevent the client from reading the response.
    pub async fn linger(&self) {
        linger(&self.worker.io, &self.alarm, &self.stream, ANSWERED).await;
    }

    /// The state of the connection that other tasks read and write.
    pub fn state(&self) -> &ConnectionState {
        &self.registered.state
    }

    /// The snapshot for the next request: the current one, or the last one with the listener of
    /// this connection, if a reload has removed the listener.
    pub fn local(&self) -> Rc<Local<I>> {
        let local = self.worker.local();
        if self.listener(&local).is_some() {
            return local;
        }
        self.worker.local_of(&self.listener_name)
    }

    /// The listener in the snapshot of `local`, and its settings. Returns `None` if it was removed.
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

    /// The current settings of the listener. Returns `None` if it was removed and its drain is
    /// over.
    pub fn terms(&self) -> Option<Rc<Terms>> {
        let local = self.local();
        self.listener(&local).map(|(_, terms)| Rc::clone(terms))
    }
}
