//! Sends and receives the datagrams of QUIC connections.
//!
//! All connections of an endpoint share its UDP socket. [`Port::receive`] gives arriving datagrams
//! to them. Each connection has a [`Transport`], which sends its datagrams and runs its timers.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::quic::{Attempt, Connection, Endpoint, Received, Transmit};
use crate::runtime::alarm::Alarm;
use crate::runtime::io::Io;
use crate::runtime::udp::{Datagrams, Incoming, Outgoing};
use crate::time::Time;

/// How many batches are received before other tasks run.
const BATCHES_MAX: usize = 16;

/// How many datagrams one send may carry. More would delay the other connections of the worker.
const SEGMENTS_MAX: usize = 32;

/// A UDP port of a worker: its socket and its endpoint.
pub struct Port<I: Io, D> {
    io: I,
    datagrams: D,
    /// The endpoint.
    pub endpoint: Rc<Endpoint>,
    /// Memory for datagrams to send, for reuse.
    scratch: RefCell<Vec<u8>>,
}

impl<I: Io, D: Datagrams> Port<I, D> {
    /// Joins a socket and an endpoint.
    pub fn new(io: I, datagrams: D, endpoint: Rc<Endpoint>) -> Rc<Self> {
        Rc::new(Self { io, datagrams, endpoint, scratch: RefCell::default() })
    }

    /// Sends `transmit`, whose bytes are `bytes`.
    ///
    /// # Errors
    /// As for [`Datagrams::send`].
    fn send(&self, transmit: &Transmit, bytes: &[u8]) -> io::Result<()> {
        self.datagrams.send(&Outgoing {
            to: transmit.destination,
            from: transmit.src_ip,
            ecn: transmit.ecn.map_or(0, |ecn| ecn as u8),
            bytes: &bytes[..transmit.size],
            segment_bytes: transmit.segment_size,
        })
    }

    /// Writes an answer of the endpoint with `write`, and sends it. A client that misses it sends
    /// its datagram again.
    pub fn answer(&self, write: impl FnOnce(&mut Vec<u8>) -> Option<Transmit>) {
        let mut out = self.scratch.take();
        out.clear();
        if let Some(transmit) = write(&mut out) {
            self.send(&transmit, &out).ok();
        }
        self.scratch.replace(out);
    }

    /// Receives datagrams until `stop` rings. `attempt` decides about new connections. `failed`
    /// gets the errors of earlier datagrams, such as that the peer has no such port.
    ///
    /// # Errors
    /// When the ring fails.
    pub async fn receive(
        &self,
        stop: &Alarm,
        attempt: impl Fn(Attempt),
        failed: impl Fn(io::Error),
    ) -> io::Result<()> {
        while let Ok(readable) = stop.guard(self.datagrams.readable()).await {
            readable?;
            self.receive_waiting(&attempt, &failed);
        }
        Ok(())
    }

    fn receive_waiting(&self, attempt: &impl Fn(Attempt), failed: &impl Fn(io::Error)) {
        let now = self.io.now();
        let mut take = |datagram: Incoming<'_>| {
            let mut new = None;
            self.answer(|out| match self.endpoint.receive(now, datagram, out) {
                Received::Answer(transmit) => Some(transmit),
                Received::Attempt(attempt) => {
                    new = Some(attempt);
                    None
                }
                Received::Nothing | Received::Connection => None,
            });
            if let Some(new) = new {
                attempt(new);
            }
        };
        self.datagrams.receive_waiting(BATCHES_MAX, &mut take, failed);
    }
}

type Writable = Pin<Box<dyn Future<Output = io::Result<()>>>>;

/// Datagrams that the kernel did not take yet.
struct Unsent {
    transmit: Transmit,
    bytes: Vec<u8>,
    writable: Writable,
}

/// Sends the datagrams of one connection, and runs its timers.
pub struct Transport<I: Io, D: Datagrams> {
    port: Rc<Port<I, D>>,
    connection: Rc<Connection>,
    alarm: Alarm,
    unsent: Option<Unsent>,
}

impl<I: Io, D: Datagrams> Transport<I, D> {
    /// Creates the transport of `connection`, which belongs to the endpoint of `port`.
    pub fn new(port: Rc<Port<I, D>>, connection: Rc<Connection>) -> Self {
        let alarm = port.io.alarms().alarm();
        Self { port, connection, alarm, unsent: None }
    }

    /// Sends until nothing is left, or the kernel takes no more. Completes when the connection has
    /// ended completely.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.connection.wait(context);
        loop {
            let now = self.port.io.now();
            self.poll_send(context, now);
            if self.connection.is_drained() {
                return Poll::Ready(());
            }
            match self.connection.timeout() {
                None => {
                    self.alarm.clear();
                    return Poll::Pending;
                }
                Some(at) if at <= now => self.connection.on_timeout(now),
                Some(at) => {
                    self.alarm.set(at);
                    if self.alarm.poll_woken(context).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>, now: Time) {
        if !self.poll_unsent(context) {
            return;
        }
        let segments_max = self.port.datagrams.segments_max().min(SEGMENTS_MAX);
        let mut out = self.port.scratch.take();
        loop {
            out.clear();
            let Some(transmit) = self.connection.transmit(now, segments_max, &mut out) else {
                break;
            };
            let sent = self.port.send(&transmit, &out);
            if sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                let bytes = std::mem::take(&mut out);
                let writable = self.writable();
                self.unsent = Some(Unsent { transmit, bytes, writable });
                if !self.poll_unsent(context) {
                    break;
                }
            }
        }
        self.port.scratch.replace(out);
    }

    fn writable(&self) -> Writable {
        let port = Rc::clone(&self.port);
        Box::pin(async move { port.datagrams.writable().await })
    }

    /// Sends the datagrams that the kernel did not take. False while it takes none.
    fn poll_unsent(&mut self, context: &mut Context<'_>) -> bool {
        while let Some(mut unsent) = self.unsent.take() {
            if unsent.writable.as_mut().poll(context).is_pending() {
                self.unsent = Some(unsent);
                return false;
            }
            let sent = self.port.send(&unsent.transmit, &unsent.bytes);
            if sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                unsent.writable = self.writable();
                self.unsent = Some(unsent);
            }
        }
        true
    }
}
