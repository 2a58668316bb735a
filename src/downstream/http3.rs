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
    /// Whether the client has proven its address.
    pub is_proven: bool,
}

/// Serves a QUIC connection from its first datagram until it closes. Calls `handshaken` when the
/// handshake has ended, well or not.
pub fn serve<I: Io, D: Datagrams>(
    worker: Rc<Worker<I>>,
    listener_name: Rc<str>,
    arrived: Arrived<I, D>,
    handshaken: impl FnOnce(),
) -> impl Future<Output = ()> {
    let Arrived { connection, transport, port, is_proven } = arrived;
    let peer = serve::Peer::new(Some(connection.remote()), port);
    let downstream = Downstream::over(worker, Wire::Moved, listener_name, peer);
    let state = Rc::clone(&downstream.registered().state);
    Registry::cuttable(&state, async move {
        let beginning = Box::pin(async {
            let mut driver = begin(downstream, connection, transport, is_proven).await?;
            driver.complete().await.then_some(driver)
        });
        let begun = beginning.await;
        handshaken();
        let Some(mut driver) = begun else { return };
        driver.run().await;
    })
}

/// Completes the handshake, or waits until the client may send early data. Returns `None` if it
/// fails.
async fn begin<I: Io, D: Datagrams>(
    mut downstream: Downstream<I>,
    quic: Rc<quic::Connection>,
    mut transport: Transport<I, D>,
    is_proven: bool,
) -> Option<Driver<I, D>> {
    let worker = Rc::clone(&downstream.worker);
    let now = worker.io.now();
    let (listener, limits) = {
        let local = downstream.local();
        let (listener, _) = downstream.listener(&local)?;
        (Arc::clone(listener), local.snapshot.limits)
    };
    let end = now + listener.timeouts.handshake;
    downstream.alarm.set(end);
    let early = match handshake(&downstream, &quic, &mut transport).await {
        Ok(true) => Some(Early { end, is_proven, held: Vec::new() }),
        Ok(false) => None,
        Err(closed) => {
            not_completed(&downstream, &listener, (&quic, &mut transport), closed).await;
            return None;
        }
    };
    // The handshake proves the address, or a token has proven it.
    let is_known = early.is_none() || is_proven;
    if is_known && !admit(&mut downstream, &listener, (&quic, &mut transport)).await {
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
        early,
    })
}

/// Ends a connection whose handshake has failed. `closed` is the reason, or `None` if it took too
/// long.
async fn not_completed<I: Io, D: Datagrams>(
    downstream: &Downstream<I>,
    listener: &Listener,
    (quic, transport): (&quic::Connection, &mut Transport<I, D>),
    closed: Option<Closed>,
) {
    let (failure, why) = match &closed {
        None => {
            quic.close(downstream.worker.io.now(), REFUSED, "");
            (Failure::Timeout, "the handshake took too long".to_owned())
        }
        Some(closed) => failed(closed),
    };
    finish(downstream, transport).await;
    secure::refused::<I, ()>(downstream, listener, failure, &why);
}

/// Counts the connection for its address, which is proven by the handshake. Returns false if the
/// address has too many.
async fn admit<I: Io, D: Datagrams>(
    downstream: &mut Downstream<I>,
    listener: &Listener,
    (quic, transport): (&quic::Connection, &mut Transport<I, D>),
) -> bool {
    if downstream.count_source(listener).is_ok() {
        return true;
    }
    let worker = &downstream.worker;
    listener.stats.worker(worker.index).source_overflow.increment();
    quic.close(worker.io.now(), REFUSED, "too many connections");
    finish(downstream, transport).await;
    false
}

/// The application error code of a connection that is refused: H3_EXCESSIVE_LOAD (RFC 9114 8.1).
const REFUSED: u64 = 0x107;

/// Waits for the end of the handshake, or until the client may send early data: then returns true,
/// before any event of a stream. The error is the reason, or `None` if it took too long.
async fn handshake<I: Io, D: Datagrams>(
    downstream: &Downstream<I>,
    quic: &quic::Connection,
    transport: &mut Transport<I, D>,
) -> Result<bool, Option<Closed>> {
    poll_fn(|context| {
        let over = transport.poll(context).is_ready();
        if quic.takes_early_data() {
            return Poll::Ready(Ok(true));
        }
        while let Some(event) = quic.poll() {
            match event {
                QuicEvent::Connected => return Poll::Ready(Ok(false)),
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

/// The state of a connection that takes early data, until its handshake is complete.
struct Early {
    /// The end of the time for the handshake.
    end: Time,
    /// Whether the client has proven its address.
    is_proven: bool,
    /// The requests that are not served before.
    held: Vec<Accepted>,
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
    early: Option<Early>,
}

/// The events that a driver waits for.
enum Event {
    /// The client has opened a stream.
    Opened(Accepted),
    /// The handshake of a connection with early data is complete.
    Connected,
    /// The connection has ended.
    Over,
    /// The alarm rang.
    Woken,
}

impl<I: Io, D: Datagrams> Driver<I, D> {
    /// Serves early requests until the handshake is complete. Returns false if it fails.
    async fn complete(&mut self) -> bool {
        let Some(end) = self.early.as_ref().map(|early| early.end) else { return true };
        let io = self.downstream.worker.io.clone();
        let closed = loop {
            self.next = end;
            self.downstream.alarm.set(end);
            match self.next().await {
                Event::Opened(accepted) => self.begin(accepted),
                Event::Connected => return self.connected().await,
                Event::Woken if io.now() >= end => break None,
                Event::Woken => self.connection.end_heads(io.now().before(self.header_timeout)),
                Event::Over => match self.connection.end() {
                    Some(End::Closed(closed)) => break Some(closed),
                    Some(End::Breach(..) | End::Flood(_)) => {
                        self.ended();
                        finish(&self.downstream, &mut self.transport).await;
                        return false;
                    }
                    None => break Some(Closed::Idle),
                },
            }
        };
        let local = self.downstream.local();
        if let Some((listener, _)) = self.downstream.listener(&local) {
            let quic = (&*self.quic, &mut self.transport);
            not_completed(&self.downstream, listener, quic, closed).await;
        }
        false
    }

    /// Starts the requests that have waited for the end of the handshake. Returns false if the
    /// connection is refused.
    async fn connected(&mut self) -> bool {
        let local = self.downstream.local();
        let Some((listener, _)) = self.downstream.listener(&local) else { return false };
        let listener = Arc::clone(listener);
        let quic = (&*self.quic, &mut self.transport);
        let is_admitted = self.early.as_ref().is_some_and(|early| early.is_proven);
        if !is_admitted && !admit(&mut self.downstream, &listener, quic).await {
            return false;
        }
        let held = self.early.take().map(|early| early.held);
        held.unwrap_or_default().into_iter().for_each(|accepted| self.start(accepted));
        true
    }

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
                Event::Connected | Event::Woken => {}
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
            if matches!(event, QuicEvent::Connected) {
                return Poll::Ready(Event::Connected);
            }
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

    /// Serves a request, now or when the handshake is complete. Before, everyone who has seen the
    /// packets of a request can send them again. So it must change nothing.
    fn begin(&mut self, accepted: Accepted) {
        self.opened += 1;
        let Some(early) = &mut self.early else { return self.start(accepted) };
        let is_served = early.is_proven && accepted.request.is_safe();
        let worker = self.downstream.worker.index;
        let local = self.downstream.local();
        if let Some((listener, _)) = self.downstream.listener(&local) {
            let cells = listener.stats.worker(worker);
            (if is_served { &cells.early_requests } else { &cells.early_held }).increment();
        }
        match is_served {
            true => self.start(accepted),
            false => early.held.push(accepted),
        }
    }

    /// Starts an exchange for a stream.
    fn start(&mut self, accepted: Accepted) {
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
