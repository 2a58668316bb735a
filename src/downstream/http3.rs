//! HTTP/3 connections of clients. Each request stream is one exchange; the streams run
//! concurrently.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::streams::{Open, serve_stream};
use super::{captured, secure};
use crate::http2::{Peer, Pulse, Seen};
use crate::http3::{Accepted, ClientStream, Code, Config, Connection, End, Excess};
use crate::message;
use crate::quic::{self, Closed, Event as QuicEvent};
use crate::runtime::contained::Contained;
use crate::runtime::io::Io;
use crate::runtime::udp::Datagrams;
use crate::serve::registry::Registry;
use crate::serve::{self, Downstream, Worker};
use crate::snapshot::Listener;
use crate::time::Time;
use crate::tls::Issued;
use crate::tls::reason::Failure;
use crate::wire::Wire;
use crate::wire::quic::Transport;

/// How long a connection may take to tell the client that it is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a connection without requests waits until the client has all responses.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// A client that has been silent for so long does not wait for a response any more.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// The part of a probe timeout that does not depend on the round trip.
const PROBE_MIN: Duration = Duration::from_millis(100);

/// The shortest time between the two GOAWAY frames. A request that the client sends before it
/// receives the first one is served.
const GOAWAY_MIN: Duration = Duration::from_millis(50);

/// A new QUIC connection.
pub struct Arrived<I: Io, D: Datagrams> {
    /// The connection, whose handshake has begun.
    pub connection: Rc<quic::Connection>,
    /// Sends its datagrams.
    pub transport: Transport<I, D>,
    /// The UDP port of the listener.
    pub port: u16,
}

/// Serves a QUIC connection from its first datagram until it closes. Calls `handshaken` when the
/// handshake has ended, well or not.
pub fn serve<I: Io, D: Datagrams>(
    worker: Rc<Worker<I>>,
    listener_name: Rc<str>,
    arrived: Arrived<I, D>,
    handshaken: impl FnOnce(),
) -> impl Future<Output = ()> {
    let Arrived { connection, transport, port } = arrived;
    let peer = serve::Peer::new(Some(connection.remote()), port);
    let downstream = Downstream::over(worker, Wire::Moved, listener_name, peer);
    let state = Rc::clone(&downstream.registered().state);
    Registry::cuttable(&state, async move {
        let beginning = Box::pin(begin(downstream, connection, transport));
        let begun = beginning.await;
        handshaken();
        let Some(mut driver) = begun else { return };
        driver.run().await;
    })
}

/// Completes the handshake. Returns `None` if it fails.
async fn begin<I: Io, D: Datagrams>(
    mut downstream: Downstream<I>,
    quic: Rc<quic::Connection>,
    mut transport: Transport<I, D>,
) -> Option<Driver<I, D>> {
    let worker = Rc::clone(&downstream.worker);
    let now = worker.io.now();
    let (listener, limits) = {
        let local = downstream.local();
        let (listener, _) = downstream.listener(&local)?;
        (Arc::clone(listener), local.snapshot.limits)
    };
    downstream.alarm.set(now + listener.timeouts.handshake);
    match handshake(&downstream, &quic, &mut transport).await {
        Ok(()) => {}
        Err(None) => {
            quic.close(worker.io.now(), REFUSED, "");
            finish(&downstream, &mut transport).await;
            let why = &"the handshake took too long";
            return secure::refused(&downstream, &listener, Failure::Timeout, why);
        }
        Err(Some(closed)) => {
            finish(&downstream, &mut transport).await;
            let (failure, why) = failed(&closed);
            return secure::refused(&downstream, &listener, failure, &why);
        }
    }
    // Only now the address of the client is proven.
    if downstream.count_source(&listener).is_err() {
        listener.stats.worker(worker.index).source_overflow.increment();
        quic.close(worker.io.now(), REFUSED, "too many connections");
        finish(&downstream, &mut transport).await;
        return None;
    }
    secure_peer(&mut downstream, &listener, &quic);
    if !captured::accepts_quic(&mut downstream, &listener, quic.server_name(), quic.local_ip()) {
        quic.close(worker.io.now(), Code::VERSION_FALLBACK.0, "use TCP");
        finish(&downstream, &mut transport).await;
        return None;
    }
    let config = Config { peer: Peer::Client, message: &limits.message, floods: limits.http3 };
    let connection = Connection::new(&config, Rc::clone(&quic), worker.io.now());
    let settings = listener.http2.unwrap_or_default();
    let age = settings.age(worker.random.borrow_mut().f64());
    let pulse = Pulse::new(worker.io.now(), &settings, listener.timeouts.keep_alive, age);
    // A drain must always wake the connection.
    downstream.state().idle.set(true);
    downstream.state().is_multiplexed.set(true);
    Some(Driver {
        downstream,
        connection,
        quic,
        transport,
        limits: limits.message,
        requests_max: listener.requests_max,
        pulse,
        header_timeout: listener.timeouts.header,
        streams_max: listener.http3.as_ref().map_or(u32::MAX, |http3| http3.streams_max),
        next: Time::NEVER,
        moved: None,
        open: Rc::default(),
        opened: 0,
        leaving: Leaving::No,
    })
}

/// The application error code of a connection that is refused: H3_EXCESSIVE_LOAD (RFC 9114 8.1).
const REFUSED: u64 = 0x107;

/// Waits for the end of the handshake. The error is the reason, or `None` if it took too long.
async fn handshake<I: Io, D: Datagrams>(
    downstream: &Downstream<I>,
    quic: &quic::Connection,
    transport: &mut Transport<I, D>,
) -> Result<(), Option<Closed>> {
    poll_fn(|context| {
        let over = transport.poll(context).is_ready();
        while let Some(event) = quic.poll() {
            match event {
                QuicEvent::Connected => return Poll::Ready(Ok(())),
                QuicEvent::Lost(why) => return Poll::Ready(Err(Some(why))),
                _ => {}
            }
        }
        if over {
            return Poll::Ready(Err(Some(Closed::Idle)));
        }
        downstream.alarm.poll_woken(context).map(|_| Err(None))
    })
    .await
}

/// The kind of a failed handshake, and the reason for a log line.
fn failed(closed: &Closed) -> (Failure, String) {
    const CERTIFICATE_REQUIRED: u8 = 116;
    match closed {
        Closed::Failed { why, by_peer: true, .. } => (Failure::Alert, why.clone()),
        Closed::Failed { why, alert: Some(CERTIFICATE_REQUIRED), .. } => {
            (Failure::NoCertificate, why.clone())
        }
        Closed::Failed { why, .. } if closed.blames_certificate() => {
            (Failure::Certificate, why.clone())
        }
        Closed::Failed { why, .. } => (Failure::Protocol, why.clone()),
        Closed::Idle => (Failure::Closed, "the client has gone".to_owned()),
        Closed::Peer(_) | Closed::Ours | Closed::Reset => {
            (Failure::Closed, "the client has closed the connection".to_owned())
        }
    }
}

/// Records the client's certificate.
fn secure_peer<I: Io>(
    downstream: &mut Downstream<I>,
    listener: &Listener,
    quic: &quic::Connection,
) {
    let chain = quic.peer_certificates();
    let by = listener.tls.as_ref().and_then(|tls| tls.identity.as_ref());
    let secured = secure::secured(&chain, listener, by);
    listener.stats.worker(downstream.worker.index).tls_handshakes.increment();
    downstream.peer_mut().secured = Some(Box::new(secured));
    let issued = Issued::list(&chain);
    *downstream.state().client.borrow_mut() = (!issued.is_empty()).then_some(issued);
}

/// Sends what is left of a closed connection, for a limited time.
async fn finish<I: Io, D: Datagrams>(downstream: &Downstream<I>, transport: &mut Transport<I, D>) {
    downstream.alarm.set(downstream.worker.io.now() + CLOSE_TIMEOUT);
    downstream.alarm.guard(poll_fn(|context| transport.poll(context))).await.ok();
}

/// The steps of a graceful shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// The connection stays open.
    No,
    /// The first GOAWAY was sent. The second one is due at this time.
    Told(Time),
    /// The second GOAWAY was sent: no more requests are served. Without requests, the connection
    /// closes at this time, or when the client has all responses.
    Refusing(Time),
}

/// Handles the events of a connection, and starts an exchange for each request stream.
struct Driver<I: Io, D: Datagrams> {
    downstream: Downstream<I>,
    connection: Rc<Connection>,
    quic: Rc<quic::Connection>,
    transport: Transport<I, D>,
    limits: message::Limits,
    /// The number of requests after which the connection closes.
    requests_max: u32,
    pulse: Pulse,
    /// The time limit for the head of a request.
    header_timeout: Duration,
    streams_max: u32,
    /// The time for which the alarm is set.
    next: Time,
    /// Another address from which the client sends, and since when.
    moved: Option<(SocketAddr, Time)>,
    /// The number of streams that are being served.
    open: Rc<Cell<usize>>,
    opened: u64,
    leaving: Leaving,
}

/// The events that a driver waits for.
enum Event {
    /// The client has opened a stream.
    Opened(Accepted),
    /// The connection has ended.
    Over,
    /// The alarm rang.
    Woken,
}

impl<I: Io, D: Datagrams> Driver<I, D> {
    async fn run(&mut self) {
        let io = self.downstream.worker.io.clone();
        loop {
            let (now, busy) = (io.now(), self.open.get() > 0);
            let seen = Seen { heard: self.quic.heard(), busy, opened: self.opened };
            let step = self.pulse.step(now, seen);
            if step.dead {
                self.connection.close(now);
                return finish(&self.downstream, &mut self.transport).await;
            }
            if step.ping {
                self.quic.ping();
            }
            self.connection.end_heads(now.before(self.header_timeout));
            let full = self.opened >= u64::from(self.requests_max);
            let next = match self.leaving {
                Leaving::No if step.leave || full || self.downstream.draining() => {
                    self.connection.leave();
                    let at = now + GOAWAY_MIN.max(2 * self.quic.rtt());
                    self.leaving = Leaving::Told(at);
                    at
                }
                Leaving::No => step.next,
                Leaving::Told(at) if now >= at => {
                    self.connection.refuse_later();
                    self.leaving = Leaving::Refusing(now + DELIVERY_TIMEOUT);
                    continue;
                }
                Leaving::Told(at) => at,
                Leaving::Refusing(_) if busy => {
                    self.leaving = Leaving::Refusing(now + DELIVERY_TIMEOUT);
                    step.next
                }
                Leaving::Refusing(end)
                    if !self.connection.is_delivered()
                        && now < end.min(self.quic.heard() + SILENCE_MAX) =>
                {
                    end.min(self.quic.heard() + SILENCE_MAX)
                }
                Leaving::Refusing(_) => {
                    self.connection.close(now);
                    return finish(&self.downstream, &mut self.transport).await;
                }
            };
            self.next = next;
            self.downstream.alarm.set(next);
            match self.next().await {
                Event::Opened(accepted) => self.begin(accepted),
                Event::Woken => {}
                Event::Over => {
                    self.ended();
                    return finish(&self.downstream, &mut self.transport).await;
                }
            }
        }
    }

    async fn next(&mut self) -> Event {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        let Self { connection, quic, transport, downstream, leaving, open, next, .. } = self;
        let now = downstream.worker.io.recent();
        let mut handled = false;
        while let Some(event) = quic.poll() {
            connection.handle(event, now);
            handled = true;
        }
        if let Some(accepted) = connection.accept() {
            return Poll::Ready(Event::Opened(accepted));
        }
        if connection.end().is_some() {
            return Poll::Ready(Event::Over);
        }
        if let Some(began) = connection.oldest_head() {
            let late = began + self.header_timeout;
            if late < *next {
                *next = late;
                downstream.alarm.set(late);
            }
        }
        if handled {
            // Let the woken streams write first, so that their frames share datagrams.
            quic.wait(context);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if transport.poll(context).is_ready() {
            return Poll::Ready(Event::Over);
        }
        // An address that is not proven is given up by QUIC, which happens in its timers.
        if downstream.peer.address == Some(quic.remote()) {
            self.moved = None;
        }
        let refusing = matches!(leaving, Leaving::Refusing(_));
        let is_done = refusing && open.get() == 0 && connection.is_delivered();
        if is_done {
            return Poll::Ready(Event::Woken);
        }
        downstream.alarm.poll_woken(context).map(|_| Event::Woken)
    }

    /// Starts an exchange for a stream.
    fn begin(&mut self, accepted: Accepted) {
        self.opened += 1;
        let Accepted { id, request } = accepted;
        let stream = Box::new(ClientStream::new(Rc::clone(&self.connection), id));
        let is_full = self.open.get() >= 2 * self.streams_max as usize;
        if is_full || matches!(self.leaving, Leaving::Refusing(_)) {
            return stream.refuse();
        }
        self.follow();
        let worker = Rc::clone(&self.downstream.worker);
        let part = self.downstream.beside();
        let open = Open::new(&self.open, self.downstream.alarm.wake());
        let limits = self.limits;
        let task = || serve_stream(part, request, Wire::Client3(stream), limits, open);
        worker.io.spawn(Contained::new(Rc::clone(worker.core()), task));
    }

    /// Uses the new address of a client that has moved, once it is proven: QUIC gives up an address
    /// that does not answer within three times its probe timeout. Until then, authorization sees
    /// the old one.
    fn follow(&mut self) {
        let (remote, now) = (self.quic.remote(), self.downstream.worker.io.recent());
        if self.downstream.peer.address == Some(remote) {
            return;
        }
        let probe = 3 * self.quic.rtt() + PROBE_MIN;
        match self.moved {
            Some((known, since)) if known == remote => {
                if now.since(since) > 3 * probe {
                    self.downstream.peer_mut().set_address(remote);
                    self.moved = None;
                }
            }
            _ => self.moved = Some((remote, now)),
        }
    }

    /// Logs why the connection has ended, if the client broke the protocol.
    fn ended(&self) {
        match self.connection.end() {
            Some(End::Flood(excess)) => self.report(excess),
            Some(End::Breach(code, why)) => self.log(code, why),
            Some(End::Closed(_)) | None => {}
        }
    }

    fn report(&self, excess: Excess) {
        let worker = &self.downstream.worker;
        let local = self.downstream.local();
        let Some((listener, _)) = self.downstream.listener(&local) else { return };
        let counts = &listener.stats.worker(worker.index).http3_floods;
        counts[excess.flood.index()].increment();
        worker.log_limited(|suppressed| {
            let (limit, limit_value) = (excess.flood.label(), excess.limit);
            let (listener, peer) = (&*listener.name, self.downstream.peer.ip_text());
            let message = "HTTP/3 connection closed: the client exceeded a limit";
            tracing::warn!(listener, peer, limit, limit_value, suppressed, "{message}");
        });
    }

    fn log(&self, code: Code, why: &'static str) {
        self.downstream.worker.log_limited(|suppressed| {
            let peer = self.downstream.peer.ip_text();
            let message = "HTTP/3 connection closed: the client broke the protocol";
            tracing::info!(peer, ?code, reason = why, suppressed, "{message}");
        });
    }
}

impl<I: Io, D: Datagrams> Drop for Driver<I, D> {
    /// Ends the streams, so that none waits for a connection without a task, and tells the client.
    fn drop(&mut self) {
        let closes = !self.quic.is_closed();
        self.connection.close(self.downstream.worker.io.now());
        if closes {
            _ = self.transport.poll(&mut Context::from_waker(Waker::noop()));
        }
    }
}
