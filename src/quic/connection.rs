//! One QUIC connection, shared by its driver and its streams.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use quinn_proto::crypto::rustls::HandshakeData;
use quinn_proto::{
    ConnectionError, ConnectionEvent, ConnectionHandle, Dir, ReadError as ProtoReadError,
    StreamEvent, StreamId, Transmit, VarInt,
};
use rustls::pki_types::CertificateDer;

use super::Clock;
use super::endpoint::Endpoint;
use super::settings::MoreStreams;
use crate::time::Time;

pub use quinn_proto::Side;

/// A QUIC connection.
pub struct Connection {
    inner: RefCell<quinn_proto::Connection>,
    handle: ConnectionHandle,
    endpoint: Rc<Endpoint>,
    clock: Clock,
    /// The time when a datagram last arrived.
    heard: Cell<Time>,
    /// Wakes the task that sends the datagrams and handles the events.
    driver: RefCell<Option<Waker>>,
    is_drained: Cell<bool>,
    /// The larger limit for a peer that uses its streams. `None` if it has that already.
    more: Cell<Option<MoreStreams>>,
}

/// The reason why a connection has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The peer has closed it with this application error code.
    Peer(u64),
    /// We have closed it.
    Ours,
    /// No packet has arrived for the idle timeout.
    Idle,
    /// The peer has lost its state (stateless reset).
    Reset,
    /// The handshake or the transport failed.
    Failed {
        /// The reason, for a log line.
        why: String,
        /// The TLS alert (RFC 9001 4.8).
        alert: Option<u8>,
        /// Whether the peer has ended it.
        by_peer: bool,
    },
}

impl Closed {
    /// Whether we have ended the handshake because of the peer's certificate (RFC 8446 6.2).
    pub fn blames_certificate(&self) -> bool {
        const ALERTS: [u8; 6] = [42, 43, 44, 45, 46, 48];
        let Self::Failed { alert: Some(alert), by_peer: false, .. } = self else { return false };
        ALERTS.contains(alert)
    }
}

/// An event that the driver must handle.
pub enum Event {
    /// The handshake is complete.
    Connected,
    /// The connection has ended.
    Lost(Closed),
    /// The peer has opened streams of this direction.
    Opened(Dir),
    /// The stream has data, its end or a reset.
    Readable(StreamId),
    /// A write would make progress.
    Writable(StreamId),
    /// The peer wants no more data of the stream; with its error code.
    Stopped(StreamId, u64),
    /// We may open more streams of this direction.
    Available(Dir),
    /// The peer has everything of a stream.
    Finished(StreamId),
}

/// The reason why a read returns nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// There is nothing now.
    Blocked,
    /// The peer has reset the stream with this error code.
    Reset(u64),
    /// The stream was read to its end, or was stopped.
    Closed,
}

/// The reason why a write takes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// A window is full.
    Blocked,
    /// The stream was finished, reset or stopped.
    Closed,
}

/// Methods for the driver.
impl Connection {
    pub(super) fn new(
        inner: quinn_proto::Connection,
        handle: ConnectionHandle,
        endpoint: Rc<Endpoint>,
        now: Time,
        more: Option<MoreStreams>,
    ) -> Rc<Self> {
        Rc::new(Self {
            inner: RefCell::new(inner),
            handle,
            clock: endpoint.clock,
            endpoint,
            heard: Cell::new(now),
            driver: RefCell::default(),
            is_drained: Cell::new(false),
            more: Cell::new(more),
        })
    }

    pub(super) fn handle(&self, event: ConnectionEvent, now: Time) {
        self.heard.set(now);
        self.inner.borrow_mut().handle_event(event);
        self.wake();
    }

    /// Wakes `context` when the connection has something to do.
    pub fn wait(&self, context: &Context<'_>) {
        let mut driver = self.driver.borrow_mut();
        match &*driver {
            Some(known) if known.will_wake(context.waker()) => {}
            _ => *driver = Some(context.waker().clone()),
        }
    }

    /// Wakes the driver.
    pub fn wake(&self) {
        if let Some(driver) = &*self.driver.borrow() {
            driver.wake_by_ref();
        }
    }

    /// The time when a datagram last arrived.
    pub fn heard(&self) -> Time {
        self.heard.get()
    }

    /// Takes the next event.
    pub fn poll(&self) -> Option<Event> {
        self.settle();
        loop {
            let event = self.inner.borrow_mut().poll()?;
            return Some(match event {
                quinn_proto::Event::Connected => Event::Connected,
                quinn_proto::Event::ConnectionLost { reason } => Event::Lost(closed(&reason)),
                quinn_proto::Event::Stream(event) => match event {
                    StreamEvent::Opened { dir } => Event::Opened(dir),
                    StreamEvent::Readable { id } => Event::Readable(id),
                    StreamEvent::Writable { id } => Event::Writable(id),
                    StreamEvent::Stopped { id, error_code } => {
                        Event::Stopped(id, error_code.into_inner())
                    }
                    StreamEvent::Available { dir } => Event::Available(dir),
                    StreamEvent::Finished { id } => Event::Finished(id),
                },
                quinn_proto::Event::HandshakeDataReady
                | quinn_proto::Event::DatagramReceived
                | quinn_proto::Event::DatagramsUnblocked => continue,
            });
        }
    }

    /// Exchanges events with the endpoint: new connection ids, and the end of the connection.
    fn settle(&self) {
        loop {
            let Some(event) = self.inner.borrow_mut().poll_endpoint_events() else { return };
            if event.is_drained() {
                self.is_drained.set(true);
            }
            if let Some(event) = self.endpoint.handle(self.handle, event) {
                self.inner.borrow_mut().handle_event(event);
            }
        }
    }

    /// Writes the next datagrams to `out`: up to `segments_max` of the same length.
    pub fn transmit(&self, now: Time, segments_max: usize, out: &mut Vec<u8>) -> Option<Transmit> {
        let at = self.clock.instant(now);
        let transmit = self.inner.borrow_mut().poll_transmit(at, segments_max, out);
        self.settle();
        transmit
    }

    /// The time at which [`Connection::on_timeout`] must be called. `None` means never.
    pub fn timeout(&self) -> Option<Time> {
        self.inner.borrow_mut().poll_timeout().map(|at| self.clock.time(at))
    }

    /// Handles the timers that are due.
    pub fn on_timeout(&self, now: Time) {
        self.inner.borrow_mut().handle_timeout(self.clock.instant(now));
        self.settle();
    }

    /// Closes the connection with an application error code. The peer is told.
    pub fn close(&self, now: Time, code: u64, reason: &'static str) {
        let at = self.clock.instant(now);
        self.inner.borrow_mut().close(at, var(code), Bytes::from_static(reason.as_bytes()));
        self.wake();
    }

    /// Whether the connection is closed, and no datagram of it is expected any more.
    pub fn is_drained(&self) -> bool {
        self.is_drained.get()
    }

    /// Whether the connection is closed. It may still have to tell its peer.
    pub fn is_closed(&self) -> bool {
        self.inner.borrow().is_closed()
    }

    /// Sends a packet that the peer acknowledges, so that no side takes the connection as dead.
    pub fn ping(&self) {
        self.inner.borrow_mut().ping();
        self.wake();
    }

    /// The peer's address. It changes when the peer moves.
    pub fn remote(&self) -> SocketAddr {
        self.inner.borrow().remote_address()
    }

    /// Our address.
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.inner.borrow().local_ip()
    }

    /// The peer's certificates, its own first. Empty if it presented none.
    pub fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        let inner = self.inner.borrow();
        let identity = inner.crypto_session().peer_identity();
        let chain = identity.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        chain.map(|chain| *chain).unwrap_or_default()
    }

    /// Whether the client may send early data (0-RTT), which others could send again until the
    /// handshake is complete.
    pub fn takes_early_data(&self) -> bool {
        self.inner.borrow().has_0rtt()
    }

    /// Whether the handshake is not complete.
    pub fn is_handshaking(&self) -> bool {
        self.inner.borrow().is_handshaking()
    }

    /// The server name that the client has sent.
    pub fn server_name(&self) -> Option<String> {
        let data = self.inner.borrow().crypto_session().handshake_data()?;
        data.downcast::<HandshakeData>().ok()?.server_name
    }

    /// The time that a round trip takes, estimated.
    pub fn rtt(&self) -> Duration {
        self.inner.borrow().rtt()
    }

    /// How many packets were lost.
    pub fn lost_packets(&self) -> u64 {
        self.inner.borrow().stats().path.lost_packets
    }
}

/// Methods for streams.
impl Connection {
    /// How many streams have data that the peer may not have yet. A stream that is not finished
    /// counts, too.
    pub fn sending(&self) -> usize {
        self.inner.borrow_mut().streams().send_streams()
    }

    /// Opens a stream. `None` if the peer allows no more.
    pub fn open(&self, dir: Dir) -> Option<StreamId> {
        self.inner.borrow_mut().streams().open(dir)
    }

    /// Takes the next stream that the peer has opened.
    pub fn accept(&self, dir: Dir) -> Option<StreamId> {
        let mut inner = self.inner.borrow_mut();
        let id = inner.streams().accept(dir)?;
        if let Some(more) = self.more.get()
            && inner.streams().remote_open_streams(Dir::Bi) >= more.from
        {
            self.more.set(None);
            inner.set_max_concurrent_streams(Dir::Bi, more.max.into());
            drop(inner);
            self.wake();
        }
        Some(id)
    }

    /// Reads at most `bytes_max` bytes. `Ok(None)` is the end of the stream.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&self, id: StreamId, bytes_max: usize) -> Result<Option<Bytes>, ReadError> {
        let mut inner = self.inner.borrow_mut();
        let mut stream = inner.recv_stream(id);
        let mut chunks = stream.read(true).map_err(|_| ReadError::Closed)?;
        let chunk = match chunks.next(bytes_max) {
            Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
            Err(ProtoReadError::Blocked) => Err(ReadError::Blocked),
            Err(ProtoReadError::Reset(code)) => Err(ReadError::Reset(code.into_inner())),
        };
        let has_credit = chunks.finalize().should_transmit();
        drop(inner);
        if has_credit {
            self.wake();
        }
        chunk
    }

    /// Writes a part of `bytes`. Returns its length.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn write(&self, id: StreamId, bytes: &[u8]) -> Result<usize, WriteError> {
        let written = self.inner.borrow_mut().send_stream(id).write(bytes);
        match written {
            Ok(written) => {
                self.wake();
                Ok(written)
            }
            Err(quinn_proto::WriteError::Blocked) => Err(WriteError::Blocked),
            Err(_) => Err(WriteError::Closed),
        }
    }

    /// Ends the stream.
    pub fn finish(&self, id: StreamId) {
        // A stream that the peer has stopped cannot be finished. Then nobody waits for its end.
        self.inner.borrow_mut().send_stream(id).finish().ok();
        self.wake();
    }

    /// Sets the priority of our side of the stream. Data of streams with larger values is sent
    /// first.
    pub fn prioritize(&self, id: StreamId, priority: i32) {
        // The stream may be closed already.
        self.inner.borrow_mut().send_stream(id).set_priority(priority).ok();
    }

    /// Ends the stream early, with an application error code.
    pub fn reset(&self, id: StreamId, code: u64) {
        // The stream may be closed already.
        self.inner.borrow_mut().send_stream(id).reset(var(code)).ok();
        self.wake();
    }

    /// The error code with which the peer has reset the stream. `None` if it has not, or if the
    /// stream is closed.
    pub fn received_reset(&self, id: StreamId) -> Option<u64> {
        let mut inner = self.inner.borrow_mut();
        inner.recv_stream(id).received_reset().ok()?.map(VarInt::into_inner)
    }

    /// Asks the peer to send no more on the stream.
    pub fn stop(&self, id: StreamId, code: u64) {
        // The stream may be closed already.
        self.inner.borrow_mut().recv_stream(id).stop(var(code)).ok();
        self.wake();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // After the end, the handle may belong to another connection.
        if !self.is_drained.get() {
            self.endpoint.forget(self.handle);
        }
    }
}

fn var(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn closed(reason: &ConnectionError) -> Closed {
    match reason {
        ConnectionError::ApplicationClosed(close) => Closed::Peer(close.error_code.into_inner()),
        ConnectionError::LocallyClosed => Closed::Ours,
        ConnectionError::TimedOut => Closed::Idle,
        ConnectionError::Reset => Closed::Reset,
        other => {
            let (code, by_peer) = match other {
                ConnectionError::TransportError(error) => (Some(error.code), false),
                ConnectionError::ConnectionClosed(close) => (Some(close.error_code), true),
                _ => (None, false),
            };
            let alert = code.map(u64::from).filter(|code| (0x100..0x200).contains(code));
            let alert = alert.map(|code| code as u8);
            Closed::Failed { why: other.to_string(), alert, by_peer }
        }
    }
}
