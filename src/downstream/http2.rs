//! HTTP/2 connections of clients. Each stream is one exchange; the streams run concurrently.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use http::request::Parts;

use crate::error::Refusal;
use crate::http1::parse;
use crate::http2::{ClientStream, Meter, Peer, Pulse, Seen, Settings, request_head};
use crate::message;
use crate::runtime::alarm::WakeHandle;
use crate::runtime::buffer::Buf;
use crate::runtime::contained::Contained;
use crate::runtime::io::Io;
use crate::serve::exchange::{After, exchange};
use crate::serve::workspace::Workspace;
use crate::serve::{Downstream, reply};
use crate::snapshot::Limits;
use crate::time::Time;
use crate::wire::Wire;
use crate::wire::http2::{Adapter, Pings, RESET_STREAMS_MAX, Watch, report};

/// Serves an HTTP/2 connection until it closes. `first` holds the bytes read so far.
///
/// This is not an async function, because an async function would keep its arguments in memory.
pub fn serve<I: Io>(downstream: Downstream<I>, first: Option<Buf>) -> impl Future<Output = ()> {
    // Boxed, so that an idle connection does not hold the state of the handshake.
    let beginning = Box::pin(begin(downstream, first));
    async move {
        let Some(mut driver) = beginning.await else { return };
        driver.run().await;
    }
}

/// Exchanges the first SETTINGS. Returns `None` when the client does not send them.
async fn begin<I: Io>(downstream: Downstream<I>, first: Option<Buf>) -> Option<Driver<I>> {
    let (downstream, wire) = downstream.take_stream()?;
    let worker = Rc::clone(&downstream.worker);
    let io = worker.io.clone();
    let (limits, timeouts, settings) = {
        let local = worker.local();
        let (listener, _) = downstream.listener(&local)?;
        (local.snapshot.limits, listener.timeouts, listener.http2.unwrap_or_default())
    };
    let heard = Rc::new(Cell::new(io.now()));
    let meter = Meter::new(&limits.message, limits.http2, Peer::Client, timeouts.header, io.now());
    let watch = Watch::new(meter, true);
    let adapter =
        Adapter::new(io.clone(), Rc::new(wire), first, Rc::clone(&heard), Rc::clone(&watch));
    downstream.alarm.set(io.now() + timeouts.header);
    let handshake = builder(&limits, &settings).handshake::<_, Bytes>(adapter);
    let frames = downstream.alarm.guard(handshake).await.ok()?.ok()?;
    // A drain must always wake an HTTP/2 connection.
    downstream.state().idle.set(true);
    let age = settings.age(worker.random.borrow_mut().f64());
    let pulse = Pulse::new(io.now(), &settings, timeouts.keep_alive, age);
    let open = Rc::default();
    let streams_max = settings.streams_max;
    let (opened, leaving) = (0, false);
    Some(Driver {
        downstream,
        frames,
        limits,
        streams_max,
        heard,
        watch,
        pulse,
        open,
        opened,
        leaving,
    })
}

fn builder(limits: &Limits, settings: &Settings) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(settings.streams_max)
        .initial_window_size(settings.stream_window_bytes)
        .initial_connection_window_size(settings.connection_window_bytes)
        .max_header_list_size(u32::try_from(limits.message.header_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(settings.stream_buffer_bytes as usize)
        .max_concurrent_reset_streams(RESET_STREAMS_MAX)
        // The crate counts these over the whole connection; the meter counts them over time.
        .max_local_error_reset_streams(None)
        .max_pending_accept_reset_streams(limits.http2.stream_resets as usize)
        .data_frame_budget(limits.http2.data_overhead_bytes)
        .enable_connect_protocol();
    builder
}

/// How long a client without open streams may take to answer the PING that follows GOAWAY. A
/// request that it sends before the answer is served.
const GOAWAY_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads and writes the frames of a connection, and starts an exchange for each stream.
struct Driver<I: Io> {
    downstream: Downstream<I>,
    frames: h2::server::Connection<Adapter<I>, Bytes>,
    limits: Limits,
    streams_max: u32,
    heard: Rc<Cell<Time>>,
    watch: Rc<Watch>,
    pulse: Pulse,
    /// The number of streams that are served now.
    open: Rc<Cell<usize>>,
    opened: u64,
    /// Whether GOAWAY was sent.
    leaving: bool,
}

impl<I: Io> Driver<I> {
    async fn run(&mut self) {
        let io = self.downstream.worker.io.clone();
        let mut pings = Pings::new(self.frames.ping_pong());
        loop {
            let (now, busy) = (io.now(), self.open.get() > 0);
            let seen = Seen { heard: self.heard.get(), busy, opened: self.opened };
            let step = self.pulse.step(now, seen);
            if step.dead {
                return self.ended(&"the client does not answer PING");
            }
            if step.ping {
                pings.send();
            }
            if !self.leaving && (step.leave || self.downstream.draining()) {
                self.leaving = true;
                // The crate sends GOAWAY twice, so streams that the client opens meanwhile are
                // still served (RFC 9113 6.8).
                self.frames.graceful_shutdown();
            }
            let gone = now + GOAWAY_TIMEOUT;
            let closing = self.leaving && !busy;
            self.downstream.alarm.set(if closing { gone } else { step.next });
            let Self { frames, heard, downstream, .. } = self;
            let alarm = &downstream.alarm;
            // A new stream, the end of the connection, or a timer or PING (`None`).
            let event = poll_fn(|context| {
                if let Poll::Ready(accepted) = frames.poll_accept(context) {
                    return Poll::Ready(Some(accepted));
                }
                if pings.poll_answer(context, &io, heard).is_ready() {
                    return Poll::Ready(None);
                }
                alarm.poll_woken(context).map(|_| None)
            });
            match event.await {
                Some(Some(Ok((request, respond)))) => self.begin(request, respond),
                Some(Some(Err(error))) => return self.ended_by(&error),
                Some(None) => return,
                None if closing && io.now() >= gone => return,
                None => {}
            }
        }
    }

    /// Starts an exchange for a stream, unless the client has already reset the stream. A reset
    /// stream may take a moment to end, so up to twice the allowed number of streams may exist.
    /// This bounds the cost of fast opens and resets.
    fn begin(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        self.opened += 1;
        if respond.poll_reset(&mut Context::from_waker(Waker::noop())).is_ready() {
            return;
        }
        if self.open.get() >= 2 * self.streams_max as usize {
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        let worker = Rc::clone(&self.downstream.worker);
        let part = self.downstream.beside();
        let open = Open::new(&self.open, self.downstream.alarm.wake());
        let limits = self.limits.message;
        let task = || serve_stream(part, request, respond, limits, open);
        worker.io.spawn(Contained::new(Rc::clone(worker.core()), task));
    }

    fn ended_by(&self, error: &h2::Error) {
        let Some(excess) = self.watch.excess() else { return self.ended(error) };
        let worker = &self.downstream.worker;
        let local = worker.local();
        let Some((listener, _)) = self.downstream.listener(&local) else { return };
        let counts = &listener.stats.worker(worker.index).http2_floods;
        let owner = format_args!("listener {}", listener.name);
        report(worker.core(), counts, excess, &owner, &self.downstream.peer.ip_text());
    }

    fn ended(&self, why: &dyn std::fmt::Display) {
        self.downstream.worker.log_limited(|suppressed| {
            let peer = self.downstream.peer.ip_text();
            tracing::info!(peer, %why, suppressed, "HTTP/2 connection ended");
        });
    }
}

/// Counts a stream while it is served. Wakes the connection when the last stream ends.
struct Open(Rc<Cell<usize>>, WakeHandle);

impl Open {
    fn new(count: &Rc<Cell<usize>>, wake: WakeHandle) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count), wake)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
        if self.0.get() == 0 {
            self.1.ring();
        }
    }
}

/// Serves one request.
async fn serve_stream<I: Io>(
    downstream: Downstream<I>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    limits: message::Limits,
    open: Open,
) {
    let (parts, frames) = request.into_parts();
    let ends = frames.is_end_stream();
    let stream = Box::new(ClientStream::new(frames, respond));
    let downstream = downstream.with_stream(|_| Wire::Client(stream));
    let mut workspace = downstream.worker.workspaces.take();
    match read_head(&downstream, &mut workspace, &parts, ends, &limits) {
        Ok(buf) => {
            if let Wire::Client(stream) = &downstream.stream {
                stream.set_received(parts);
            }
            let after = exchange(&downstream, &mut workspace, buf).await;
            if let After::Tunnel(tunnel) = after {
                Box::pin(tunnel.run(&downstream)).await;
            }
        }
        Err(refusal) => {
            Box::pin(reply::refuse_early(&downstream, refusal)).await;
        }
    }
    downstream.worker.workspaces.put(workspace);
    if let Wire::Client(stream) = &downstream.stream {
        stream.finish();
    }
    drop(open);
}

/// Puts the head of the request into a buffer, with the part of its body that has arrived.
fn read_head<I: Io>(
    downstream: &Downstream<I>,
    workspace: &mut Workspace,
    parts: &Parts,
    ends: bool,
    limits: &message::Limits,
) -> Result<Buf, Refusal> {
    let worker = &downstream.worker;
    let nonce = || worker.random.borrow_mut().u128(..).to_ne_bytes();
    let Workspace { request, scratch, .. } = workspace;
    let mut buf = worker.io.buffers().take();
    request_head(scratch, buf.window().start, parts, ends, nonce, limits, request)?;
    if buf.room() < scratch.len() {
        // Encode again, because offsets count from the start of the block, which is now another
        // one.
        buf.grow(scratch.len());
        scratch.clear();
        request_head(scratch, buf.window().start, parts, ends, nonce, limits, request)?;
    }
    buf.append(scratch);
    parse::understand(buf.block(), limits, request)?;
    if let (Wire::Client(stream), false) = (&downstream.stream, ends) {
        stream.read_ready(&mut buf);
    }
    Ok(buf)
}
