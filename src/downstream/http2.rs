//! HTTP/2 connections of clients. Each stream is one exchange; the streams run concurrently.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::streams::{Open, serve_stream};
use crate::http2::{Accepted, ClientStream, Config, Connection, End, Excess, Peer, Pulse, Seen};
use crate::message;
use crate::runtime::buffer::Buf;
use crate::runtime::contained::Contained;
use crate::runtime::io::Io;
use crate::serve::Downstream;
use crate::wire::Wire;
use crate::wire::http2::{Transport, report};

/// Serves an HTTP/2 connection until it closes. `first` has the bytes that were read already.
///
/// The function is not async, because an async function would keep its arguments in memory.
pub fn serve<I: Io>(downstream: Downstream<I>, first: Option<Buf>) -> impl Future<Output = ()> {
    // Boxed, so that an idle connection does not hold the state of the first phase.
    let beginning = Box::pin(begin(downstream, first));
    async move {
        let Some(mut driver) = beginning.await else { return };
        driver.run().await;
    }
}

/// Waits for the client's first SETTINGS. Returns `None` when they do not arrive in time.
async fn begin<I: Io>(downstream: Downstream<I>, first: Option<Buf>) -> Option<Driver<I>> {
    let (downstream, wire) = downstream.take_stream()?;
    let worker = Rc::clone(&downstream.worker);
    let io = worker.io.clone();
    let (limits, timeouts, settings, requests_max) = {
        let local = downstream.local();
        let (listener, _) = downstream.listener(&local)?;
        let settings = listener.http2.unwrap_or_default();
        (local.snapshot.limits, listener.timeouts, settings, listener.requests_max)
    };
    let config = Config {
        peer: Peer::Client,
        message: &limits.message,
        floods: limits.http2,
        settings: &settings,
        header_timeout: timeouts.header,
        pool: io.buffers().clone(),
        is_secure: wire.tls().is_some(),
    };
    let connection = Connection::new(config, io.now());
    let transport = Transport::new(io.clone(), wire, Rc::clone(&connection), Peer::Client, first);
    let age = settings.age(worker.random.borrow_mut().f64());
    let pulse = Pulse::new(io.now(), &settings, timeouts.keep_alive, age);
    let mut driver = Driver {
        downstream,
        connection,
        transport,
        limits: limits.message,
        streams_max: settings.streams_max,
        requests_max,
        pulse,
        open: Rc::default(),
        opened: 0,
        leaving: false,
    };
    driver.downstream.alarm.set(io.now() + timeouts.header);
    if !driver.is_greeted().await {
        driver.transport.finish().await;
        driver.ended();
        return None;
    }
    // A drain must always wake an HTTP/2 connection.
    driver.downstream.state().idle.set(true);
    driver.downstream.state().is_multiplexed.set(true);
    Some(driver)
}

/// How long to wait, after GOAWAY and without open streams, for the client's answer to the PING. A
/// request that the client sends before the answer is served.
const GOAWAY_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads and writes the frames of a connection, and starts an exchange for each stream.
struct Driver<I: Io> {
    downstream: Downstream<I>,
    connection: Rc<Connection>,
    transport: Transport<I>,
    limits: message::Limits,
    streams_max: u32,
    /// The number of requests after which the connection closes.
    requests_max: u32,
    pulse: Pulse,
    /// The number of streams that are being served.
    open: Rc<Cell<usize>>,
    opened: u64,
    /// Whether GOAWAY was sent.
    leaving: bool,
}

/// The events that a driver waits for.
enum Event {
    /// The client has opened a stream.
    Opened(Accepted),
    /// The connection has ended.
    Over,
    /// The alarm rang, or bytes were received.
    Woken,
}

impl<I: Io> Driver<I> {
    /// Waits for the client's first SETTINGS. Returns false if they do not arrive in time.
    async fn is_greeted(&mut self) -> bool {
        let Self { connection, transport, downstream, .. } = self;
        let greeted = poll_fn(|context| {
            if transport.poll(context).is_ready() {
                return Poll::Ready(false);
            }
            match connection.is_greeted() {
                true => Poll::Ready(true),
                false => downstream.alarm.poll_woken(context).map(|_| false),
            }
        });
        greeted.await
    }

    async fn run(&mut self) {
        let io = self.downstream.worker.io.clone();
        loop {
            let (now, busy) = (io.now(), self.open.get() > 0);
            let seen = Seen { heard: self.transport.heard(), busy, opened: self.opened };
            let step = self.pulse.step(now, seen);
            if step.dead {
                self.connection.close();
                return self.log(&"the client does not answer PING");
            }
            if step.ping {
                self.connection.ping();
            }
            let full = self.opened >= u64::from(self.requests_max);
            if !self.leaving && (step.leave || full || self.downstream.draining()) {
                self.leaving = true;
                // GOAWAY is sent twice, so that streams that the client opens between the two are
                // still served (RFC 9113 6.8).
                self.connection.leave();
            }
            let gone = now + GOAWAY_TIMEOUT;
            let closing = self.leaving && !busy;
            self.downstream.alarm.set(if closing { gone } else { step.next });
            match self.next().await {
                Event::Opened(accepted) => self.begin(accepted),
                Event::Woken if closing && (io.now() >= gone || self.connection.has_left()) => {
                    return self.transport.finish().await;
                }
                Event::Woken => {}
                Event::Over => {
                    self.transport.finish().await;
                    return self.ended();
                }
            }
        }
    }

    async fn next(&mut self) -> Event {
        let Self { connection, transport, downstream, leaving, pulse, .. } = self;
        let mut left_before = *leaving && connection.has_left();
        poll_fn(|context| {
            if let Some(accepted) = connection.accept() {
                return Poll::Ready(Event::Opened(accepted));
            }
            if std::mem::take(&mut left_before) {
                return Poll::Ready(Event::Woken);
            }
            let over = transport.poll(context).is_ready();
            if let Some(accepted) = connection.accept() {
                return Poll::Ready(Event::Opened(accepted));
            }
            if over {
                return Poll::Ready(Event::Over);
            }
            let has_left = *leaving && connection.has_left();
            if has_left || pulse.is_answered(transport.heard()) {
                return Poll::Ready(Event::Woken);
            }
            downstream.alarm.poll_woken(context).map(|_| Event::Woken)
        })
        .await
    }

    /// Starts an exchange for a stream. The exchange of a reset stream may end a little later, so
    /// up to twice the allowed number of streams may exist. This limits the cost of fast opens and
    /// resets.
    fn begin(&mut self, accepted: Accepted) {
        self.opened += 1;
        let Accepted { id, request } = accepted;
        let stream = Box::new(ClientStream::new(Rc::clone(&self.connection), id));
        if self.open.get() >= 2 * self.streams_max as usize {
            return stream.refuse();
        }
        let worker = Rc::clone(&self.downstream.worker);
        let part = self.downstream.beside();
        let open = Open::new(&self.open, self.downstream.alarm.wake());
        let limits = self.limits;
        let task = || serve_stream(part, request, Wire::Client(stream), limits, open);
        worker.io.spawn(Contained::new(Rc::clone(worker.core()), task));
    }

    /// Logs why the connection has ended, unless it was only closed.
    fn ended(&self) {
        match self.connection.end() {
            Some(End::Flood(excess)) => self.report(excess),
            Some(End::Breach(why)) => self.log(&why),
            Some(End::Closed) | None => {}
        }
    }

    fn report(&self, excess: Excess) {
        let worker = &self.downstream.worker;
        let local = self.downstream.local();
        let Some((listener, _)) = self.downstream.listener(&local) else { return };
        let counts = &listener.stats.worker(worker.index).http2_floods;
        let owner = format_args!("listener {}", listener.name);
        report(worker.core(), counts, excess, &owner, &self.downstream.peer.ip_text());
    }

    fn log(&self, reason: &dyn std::fmt::Display) {
        self.downstream.worker.log_limited(|suppressed| {
            let peer = self.downstream.peer.ip_text();
            let message = "HTTP/2 connection closed: the client broke the protocol";
            tracing::info!(peer, %reason, suppressed, "{message}");
        });
    }
}
