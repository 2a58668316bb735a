//! HTTP/2 connections to endpoints. One connection carries many exchanges; its own task drives it.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use super::LocalEndpoint;
use super::choose;
use super::choose::Target;
use super::{OpenGuard, Upstream};
use crate::error::{Flag, Refusal};
use crate::http2::{
    Config, Connection, End, EndpointStream, Peer, Pulse, Seen, SharedConnection, Slot,
};
use crate::runtime::alarm::Alarm;
use crate::runtime::contained::Contained;
use crate::runtime::io::Io;
use crate::wire::Wire;
use crate::wire::http2::{Transport, report};

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
    let limits = target.limits;
    let io = core.io.clone();
    let config = Config {
        peer: Peer::Endpoint,
        message: &limits.message,
        floods: limits.http2,
        settings: &settings,
        header_timeout: limits.http2.endpoint_header_timeout,
        pool: io.buffers().clone(),
        is_secure: wire.tls().is_some(),
    };
    let connection = Connection::new(config, io.now());
    let transport = Transport::new(io.clone(), wire, Rc::clone(&connection), Peer::Endpoint, None);
    let alarm = io.alarms().alarm();
    let shared = SharedConnection::new(Rc::clone(&connection), issued, alarm.wake());
    let slot = shared.slot().ok_or(NOT_HTTP2)?;
    endpoint.shared.add(Rc::clone(&shared));
    let age = settings.age(core.random.borrow_mut().f64());
    let pulse = Pulse::new(io.now(), &settings, target.service.config.idle_timeout, age);
    let service = Arc::clone(&target.service.config);
    let address = endpoint.config.borrow().address.clone();
    let (index, owned) = (core.index, Rc::clone(core));
    let mut driver = Driver { io, connection, transport, shared, alarm, pulse, _open: open };
    let run = async move {
        driver.run().await;
        driver.shared.close();
        // Streams that are still open fail.
        driver.connection.close();
        driver.transport.finish().await;
        if let Some(End::Flood(excess)) = driver.connection.end() {
            let counts = &service.stats.worker(index).http2_floods;
            let owner = format_args!("service {}", service.name);
            report(&owned, counts, excess, &owner, &address);
        }
    };
    core.io.spawn(Contained::new(Rc::clone(core), || run));
    Ok(stream(target, endpoint, slot))
}

/// Reads and writes the frames of a connection until it closes.
struct Driver<I: Io> {
    io: I,
    connection: Rc<Connection>,
    transport: Transport<I>,
    shared: Rc<SharedConnection>,
    alarm: Alarm,
    pulse: Pulse,
    _open: Option<OpenGuard>,
}

impl<I: Io> Driver<I> {
    async fn run(&mut self) {
        loop {
            let (now, busy) = (self.io.now(), self.shared.streams() > 0);
            let heard = self.transport.heard();
            let step = self.pulse.step(now, Seen { heard, busy, opened: self.shared.opened() });
            if step.leave && !self.shared.is_closed() {
                self.shared.close();
            }
            let leaving = self.shared.is_closed() && !busy;
            if leaving {
                self.connection.say_goodbye();
            }
            if step.dead || leaving {
                return;
            }
            if step.ping {
                self.connection.ping();
            }
            self.alarm.set(step.next);
            let Self { transport, alarm, shared, pulse, .. } = self;
            let over = poll_fn(|context| {
                if transport.poll(context).is_ready() {
                    return Poll::Ready(true);
                }
                let is_left = shared.is_closed() && shared.streams() == 0;
                if is_left || pulse.is_answered(transport.heard()) {
                    return Poll::Ready(false);
                }
                alarm.poll_woken(context).map(|_| false)
            });
            if over.await {
                return;
            }
        }
    }
}

const NOT_HTTP2: Refusal = Refusal {
    status: 502,
    flag: Flag::UpstreamProtocolError,
    detail: "the endpoint does not speak HTTP/2",
};
