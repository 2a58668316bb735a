//! HTTP/2 connections to endpoints. One connection carries many exchanges; its own task drives it.

use std::cell::Cell;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h2::client::{Builder, Connection};

use super::LocalEndpoint;
use super::choose;
use super::choose::Target;
use super::{OpenGuard, Upstream};
use crate::error::{Flag, Refusal};
use crate::http2::{EndpointStream, Meter, Peer, Pulse, Seen, Settings, SharedConnection, Slot};
use crate::runtime::alarm::Alarm;
use crate::runtime::contained::Contained;
use crate::runtime::io::Io;
use crate::snapshot::Limits;
use crate::time::Time;
use crate::wire::Wire;
use crate::wire::http2::{Adapter, CLOSE_TIMEOUT, Pings, RESET_STREAMS_MAX, Watch, report};

/// Opens the stream of `slot` for one exchange. Counts a reused connection.
pub fn stream<I: Io>(
    target: &Target<'_, I>,
    endpoint: &LocalEndpoint<I>,
    slot: Slot,
) -> Upstream<Wire<I::Stream>> {
    let core = target.core;
    let reused = slot.is_reused();
    if reused {
        target.service.config.stats.worker(core.index).pool_reused.increment();
    }
    let alarm = core.io.alarms().alarm();
    let stream = Wire::Endpoint(Box::new(EndpointStream::new(slot)));
    endpoint.multiplexed(stream, alarm, reused)
}

/// Opens a stream on a shared connection. If several requests need a new connection, only one
/// request opens it. With `protocol: auto`, the endpoint may choose HTTP/1.1 for that connection;
/// the requests then have a connection each.
pub async fn open<I: Io>(
    target: &Target<'_, I>,
    endpoint: &LocalEndpoint<I>,
) -> Result<Upstream<Wire<I::Stream>>, Refusal> {
    loop {
        if let Some(slot) = endpoint.shared.slot() {
            return Ok(stream(target, endpoint, slot));
        }
        let Some(turn) = endpoint.shared.turn() else {
            if let Some(refusal) = endpoint.shared.outcome().await {
                return Err(refusal);
            }
            if !choose::is_multiplexed(target, endpoint) {
                return choose::open_as_chosen(target, endpoint).await;
            }
            continue;
        };
        let result = choose::open_as_chosen(target, endpoint).await;
        match &result {
            Ok(_) => drop(turn),
            Err(refusal) => turn.failed(*refusal),
        }
        return result;
    }
}

/// Turns a new connection into a shared HTTP/2 connection, and opens its first stream.
pub async fn share<I: Io>(
    target: &Target<'_, I>,
    endpoint: &LocalEndpoint<I>,
    upstream: Upstream<Wire<I::Stream>>,
) -> Result<Upstream<Wire<I::Stream>>, Refusal> {
    let core = target.core;
    if upstream.stream.tls().is_some_and(|tls| !tls.session(choose::is_http2)) {
        return Err(NOT_HTTP2);
    }
    let issued = upstream.stream.tls().map(|tls| tls.issued());
    let (wire, open) = upstream.into_parts();
    let settings = target.service.config.http2;
    let heard = Rc::new(Cell::new(core.io.now()));
    let limits = *target.limits;
    let meter = Meter::new(
        &limits.message,
        limits.http2,
        Peer::Endpoint,
        limits.http2.endpoint_header_timeout,
        heard.get(),
    );
    let watch = Watch::new(meter, false);
    let (wire, io) = (Rc::new(wire), core.io.clone());
    let adapter = Adapter::new(io.clone(), wire, None, Rc::clone(&heard), Rc::clone(&watch));
    let handshake = builder(&settings, &limits).handshake::<_, Bytes>(adapter);
    let Ok((send, frames)) = handshake.await else { return Err(NOT_HTTP2) };
    let alarm = core.io.alarms().alarm();
    let streams_max = settings.streams_max as usize;
    let shared = SharedConnection::new(send, streams_max, issued, alarm.wake());
    let slot = shared.slot().ok_or(NOT_HTTP2)?;
    endpoint.shared.add(Rc::clone(&shared));
    let age = settings.age(core.random.borrow_mut().f64());
    let pulse = Pulse::new(core.io.now(), &settings, target.service.config.idle_timeout, age);
    let service = Arc::clone(&target.service.config);
    let address = endpoint.config.borrow().address.clone();
    let (index, owned) = (core.index, Rc::clone(core));
    let mut driver =
        Driver { io, frames, shared, heard, watch: Rc::clone(&watch), alarm, pulse, _open: open };
    let run = async move {
        driver.run().await;
        if let Some(excess) = watch.excess() {
            let counts = &service.stats.worker(index).http2_floods;
            let owner = format_args!("service {}", service.name);
            report(&owned, counts, excess, &owner, &address);
        }
    };
    core.io.spawn(Contained::new(Rc::clone(core), || run));
    Ok(stream(target, endpoint, slot))
}

fn builder(settings: &Settings, limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(settings.stream_window_bytes)
        .initial_connection_window_size(settings.connection_window_bytes)
        .max_header_list_size(u32::try_from(limits.message.header_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(settings.stream_buffer_bytes as usize)
        .max_concurrent_reset_streams(RESET_STREAMS_MAX)
        // The crate counts these over the whole connection; the meter counts them over time.
        .max_local_error_reset_streams(None)
        .data_frame_budget(limits.http2.data_overhead_bytes);
    builder
}

/// Reads and writes the frames of a connection until it closes.
struct Driver<I: Io> {
    io: I,
    frames: Connection<Adapter<I>>,
    shared: Rc<SharedConnection>,
    heard: Rc<Cell<Time>>,
    watch: Rc<Watch>,
    alarm: Alarm,
    pulse: Pulse,
    _open: Option<OpenGuard>,
}

impl<I: Io> Driver<I> {
    async fn run(&mut self) {
        let mut pings = Pings::new(self.frames.ping_pong());
        loop {
            let (now, busy) = (self.io.now(), self.shared.streams() > 0);
            let seen = Seen { heard: self.heard.get(), busy, opened: self.shared.opened() };
            let step = self.pulse.step(now, seen);
            if step.leave && !self.shared.is_closed() {
                self.shared.close();
            }
            if step.dead {
                return self.shared.close(); // open streams fail too
            }
            if step.ping {
                pings.send();
            }
            let leaving = self.shared.is_closed() && !busy;
            let next = if leaving { now + CLOSE_TIMEOUT } else { step.next };
            self.alarm.set(next);
            let Self { io, frames, shared, heard, watch, alarm, .. } = self;
            let event = poll_fn(|context| {
                if Pin::new(&mut *frames).poll(context).is_ready() {
                    return Poll::Ready(Event::Over);
                }
                if watch.greeted() {
                    shared.greet();
                }
                if pings.poll_answer(context, io, heard).is_ready() {
                    return Poll::Ready(Event::Woken);
                }
                alarm.poll_woken(context).map(|_| Event::Woken)
            });
            match event.await {
                Event::Over => return self.shared.close(),
                Event::Woken if leaving && self.io.now() >= next => return,
                Event::Woken => {}
            }
        }
    }
}

enum Event {
    /// The connection has ended.
    Over,
    /// The alarm rang, a PING was answered, or the last stream has ended.
    Woken,
}

const NOT_HTTP2: Refusal = Refusal {
    status: 502,
    flag: Flag::UpstreamProtocolError,
    detail: "the endpoint does not speak HTTP/2",
};
