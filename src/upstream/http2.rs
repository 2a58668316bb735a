//! HTTP/2 connections to endpoints. A connection carries many exchanges, and has a task of its own.

use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::LocalEndpoint;
use super::choose::{self, Target};
use super::shared::Slot;
use super::{EndpointState, OpenGuard, Upstream};
use crate::error::{Flag, Refusal};
use crate::http2::{Config, Connection, End, EndpointStream, Peer, Pulse, Seen, SharedConnection};
use crate::http3;
use crate::runtime::alarm::Alarm;
use crate::runtime::contained::Contained;
use crate::runtime::io::Io;
use crate::wire::Wire;
use crate::wire::http2::{Transport, report};

/// The interval in which a connection without streams checks whether another worker needs its slot
/// in the circuit breaker.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Opens the stream of `slot` for one exchange, of HTTP/2 or HTTP/3. Counts the use of an existing
/// connection.
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
    let stream = match slot {
        Slot::Http2(slot) => Wire::Endpoint(Box::new(EndpointStream::new(slot))),
        Slot::Http3(slot) => Wire::Endpoint3(Box::new(http3::EndpointStream::new(slot))),
    };
    endpoint.multiplexed(stream, alarm, reused)
}

/// Converts a new connection to a shared HTTP/2 connection. The caller takes streams of it, and
/// then [adds](super::Shared::add) it to the endpoint.
///
/// # Errors
/// If the endpoint has selected another protocol.
pub(super) fn share<I: Io>(
    target: &Target<'_, I>,
    endpoint: &LocalEndpoint<I>,
    upstream: Upstream<Wire<I::Stream>>,
) -> Result<Rc<SharedConnection>, Refusal> {
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
    let wanted = Rc::clone(endpoint.shared.wanted());
    let shared = SharedConnection::new(Rc::clone(&connection), issued, wanted, alarm.wake());
    let opened = Rc::clone(&shared);
    let age = settings.age(core.random.borrow_mut().f64());
    let pulse = Pulse::new(io.now(), &settings, target.service.config.idle_timeout, age);
    let service = Arc::clone(&target.service.config);
    let address = endpoint.config.borrow().address.clone();
    let (index, owned) = (core.index, Rc::clone(core));
    let endpoint = Rc::downgrade(endpoint);
    let mut driver = Driver { io, connection, transport, shared, endpoint, alarm, pulse, open };
    let run = async move {
        driver.run().await;
        driver.shared.close();
        // The streams that are still open fail.
        driver.connection.close();
        driver.transport.finish().await;
        if let Some(End::Flood(excess)) = driver.connection.end() {
            let counts = &service.stats.worker(index).http2_floods;
            let owner = format_args!("service {}", service.name);
            report(&owned, counts, excess, &owner, &address);
        }
    };
    core.io.spawn(Contained::new(Rc::clone(core), || run));
    Ok(opened)
}

/// The task of a connection: it reads and writes frames until the connection closes.
struct Driver<I: Io> {
    io: I,
    connection: Rc<Connection>,
    transport: Transport<I>,
    shared: Rc<SharedConnection>,
    endpoint: Weak<EndpointState<Wire<I::Stream>>>,
    alarm: Alarm,
    pulse: Pulse,
    open: Option<OpenGuard>,
}

impl<I: Io> Driver<I> {
    /// Gives streams to the requests that wait for one, after streams have ended.
    fn serve_waiting(&self) {
        if let Some(endpoint) = self.endpoint.upgrade()
            && endpoint.shared.wanted().get()
        {
            endpoint.serve_streams();
        }
    }

    async fn run(&mut self) {
        loop {
            self.serve_waiting();
            let (now, busy) = (self.io.now(), self.shared.streams() > 0);
            let limited = self.open.as_ref().filter(|open| !busy && open.is_limited());
            let heard = self.transport.heard();
            let step = self.pulse.step(now, Seen { heard, busy, opened: self.shared.opened() });
            let is_wanted = limited.is_some_and(OpenGuard::is_wanted);
            if (step.leave || is_wanted) && !self.shared.is_closed() {
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
            let mut next = step.next;
            if let Some(open) = limited {
                open.say_idle();
                // Check regularly whether another worker needs the slot.
                next = next.min(now + IDLE_CHECK_INTERVAL);
            }
            self.alarm.set(next);
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

pub(super) const NOT_HTTP2: Refusal = Refusal {
    status: 502,
    flag: Flag::UpstreamProtocolError,
    detail: "the endpoint does not speak HTTP/2",
};
