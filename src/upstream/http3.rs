//! HTTP/3 connections to endpoints. A connection carries many exchanges, and has a task and a UDP
//! socket of its own.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::choose::{CONNECT_TIMEOUT, Target, connect_failed};
use super::limited::ConnectionSlot;
use super::secure::{CERTIFICATE_REFUSED, TLS_FAILED};
use super::shared::SharedConnection;
use super::{EndpointState, LocalEndpoint, OpenGuard};
use crate::error::{Flag, Refusal};
use crate::http2::{self, Peer, Pulse, Seen};
use crate::http3::{Config, Connection};
use crate::net::Address;
use crate::quic::{self, Clock, Closed, Endpoint, Event, Place};
use crate::runtime::alarm::{Alarm, WakeHandle};
use crate::runtime::contained::Contained;
use crate::runtime::io::Io;
use crate::runtime::udp::{self, Datagrams};
use crate::time::Time;
use crate::tls::Issued;
use crate::wire::Wire;
use crate::wire::quic::{Port, Transport};

/// How long a connection may take to tell the endpoint that it is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);

/// The interval in which a connection without streams checks whether another worker needs its slot
/// in the circuit breaker.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

type Shared = Rc<http2::SharedConnection<Connection>>;

/// Opens a shared connection within the connect timeout of the service.
///
/// # Errors
/// 503 with the flag UF. The log has the reason.
pub(super) async fn open<I: Io>(
    target: &Target<'_, I>,
    endpoint: &LocalEndpoint<I>,
    taken: Option<ConnectionSlot>,
) -> Result<SharedConnection, Refusal> {
    let core = target.core;
    let alarm = core.io.alarms().alarm();
    let opened = connect(target, endpoint, &alarm).await;
    let (quic, transport, receiver) = match opened {
        Ok(opened) => opened,
        Err(refusal) => {
            endpoint.cells().connect_failures.increment();
            return Err(refusal);
        }
    };
    // The streams have their own wires: this one only counts the connection.
    let (_, open) = endpoint.opened(Wire::Moved, core.io.alarms().alarm(), taken).into_parts();
    let limits = target.limits;
    let config = Config { peer: Peer::Endpoint, message: &limits.message, floods: limits.http3 };
    let now = core.io.now();
    let connection = Connection::new(&config, Rc::clone(&quic), now);
    let settings = target.service.config.http2;
    connection.limit_streams(settings.streams_max as usize);
    let issued = Issued::list(&quic.peer_certificates());
    let wanted = Rc::clone(endpoint.shared.wanted());
    let wake = alarm.wake();
    let shared = http2::SharedConnection::new(Rc::clone(&connection), Some(issued), wanted, wake);
    let age = settings.age(core.random.borrow_mut().f64());
    let pulse = Pulse::new(now, &settings, target.service.config.idle_timeout, age);
    let mut driver = Driver {
        io: core.io.clone(),
        connection,
        quic,
        transport,
        shared: Rc::clone(&shared),
        endpoint: Rc::downgrade(endpoint),
        alarm,
        pulse,
        open,
        _receiver: receiver,
    };
    let run = async move { driver.run().await };
    core.io.spawn(Contained::new(Rc::clone(core), || run));
    Ok(SharedConnection::Http3(shared))
}

/// A connection whose handshake is complete, its transport, and the task that receives for it.
type Connected<I> = (Rc<quic::Connection>, Transport<I, <I as Io>::Datagrams>, Receiver);

/// Stops the task that receives datagrams when it is dropped.
struct Receiver(WakeHandle);

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.ring();
    }
}

async fn connect<I: Io>(
    target: &Target<'_, I>,
    endpoint: &LocalEndpoint<I>,
    alarm: &Alarm,
) -> Result<Connected<I>, Refusal> {
    let (core, service) = (target.core, &target.service.config);
    let address = endpoint.config.borrow().address.clone();
    let (Some(client), Some(tls), Address::Tcp(to)) = (&service.http3, &service.tls, &address)
    else {
        return Err(NO_ADDRESS);
    };
    let datagrams =
        core.io.datagrams(*to, service.egress).map_err(|error| connect_failed(&error))?;
    let place = Place { worker: 0, workers: 1 };
    let clock = Clock::new(udp::epoch());
    let may_probe = !datagrams.may_fragment();
    let quic_endpoint = {
        let random = &mut core.random.borrow_mut();
        Endpoint::new(client.keys(), place, None, may_probe, clock, random)
    };
    let port = Port::new(core.io.clone(), datagrams, quic_endpoint);
    let name = match tls.name_for(&address) {
        ServerName::DnsName(name) => name.as_ref().to_owned(),
        _ => to.ip().to_string(),
    };
    let now = core.io.now();
    let connected = port.endpoint.connect(*to, &name, client, now);
    let connection = connected.map_err(|why| logged(target, &address, &why, TLS_FAILED))?;
    let refused = Rc::new(Cell::new(None));
    let receiver = receive(&core.io, &port, &connection, &refused);
    let mut transport = Transport::new(port, Rc::clone(&connection));
    alarm.set(now + service.connect_timeout);
    let over =
        poll_fn(|context| poll_handshake(&connection, &mut transport, alarm, &refused, context));
    match over.await {
        Ok(()) => Ok((connection, transport, receiver)),
        Err(Failed::Timeout) => Err(CONNECT_TIMEOUT),
        Err(Failed::Refused(error)) => Err(connect_failed(&error)),
        Err(Failed::Closed(closed)) => {
            let (why, refusal) = described(&closed);
            Err(logged(target, &address, &why, refusal))
        }
    }
}

/// Starts the task that receives the datagrams of a connection.
fn receive<I: Io>(
    io: &I,
    port: &Rc<Port<I, I::Datagrams>>,
    connection: &Rc<quic::Connection>,
    refused: &Rc<Cell<Option<io::Error>>>,
) -> Receiver {
    let stop = io.alarms().alarm();
    stop.set(Time::NEVER);
    let receiver = Receiver(stop.wake());
    let (port, connection, refused) =
        (Rc::clone(port), Rc::downgrade(connection), Rc::clone(refused));
    io.spawn(async move {
        let ignore = |attempt| port.endpoint.ignore(attempt);
        let failed = |error| {
            refused.set(Some(error));
            if let Some(connection) = connection.upgrade() {
                connection.wake();
            }
        };
        // If the ring fails, the connection ends by its idle timeout.
        port.receive(&stop, ignore, failed).await.ok();
    });
    receiver
}

/// The reason why a connection could not be opened.
enum Failed {
    Timeout,
    /// The endpoint has no such port.
    Refused(io::Error),
    Closed(Closed),
}

fn poll_handshake<I: Io>(
    connection: &quic::Connection,
    transport: &mut Transport<I, I::Datagrams>,
    alarm: &Alarm,
    refused: &Cell<Option<io::Error>>,
    context: &mut Context<'_>,
) -> Poll<Result<(), Failed>> {
    let over = transport.poll(context).is_ready();
    while let Some(event) = connection.poll() {
        match event {
            Event::Connected => return Poll::Ready(Ok(())),
            Event::Lost(why) => {
                // The endpoint is told the reason.
                _ = transport.poll(context);
                return Poll::Ready(Err(Failed::Closed(why)));
            }
            _ => {}
        }
    }
    if let Some(error) = refused.take() {
        return Poll::Ready(Err(Failed::Refused(error)));
    }
    if over {
        return Poll::Ready(Err(Failed::Closed(Closed::Idle)));
    }
    alarm.poll_woken(context).map(|_| Err(Failed::Timeout))
}

/// The reason of a failed handshake as a text, and the refusal of the request.
fn described(closed: &Closed) -> (String, Refusal) {
    match closed {
        Closed::Failed { why, .. } if closed.blames_certificate() => {
            (why.clone(), CERTIFICATE_REFUSED)
        }
        Closed::Failed { why, by_peer: true, .. } => {
            let detail = "the endpoint refused the QUIC handshake";
            (why.clone(), Refusal { detail, ..TLS_FAILED })
        }
        Closed::Failed { why, .. } => (why.clone(), TLS_FAILED),
        Closed::Idle => ("the endpoint does not answer".to_owned(), CONNECT_TIMEOUT),
        Closed::Peer(_) | Closed::Ours | Closed::Reset => {
            ("the endpoint has closed the connection".to_owned(), TLS_FAILED)
        }
    }
}

fn logged<I: Io>(
    target: &Target<'_, I>,
    endpoint: &Address,
    why: &str,
    refusal: Refusal,
) -> Refusal {
    let service = &*target.service.config.name;
    target.core.log_limited(|suppressed| {
        let message = "QUIC handshake with endpoint failed";
        tracing::warn!(service, %endpoint, reason = why, suppressed, "{message}");
    });
    refusal
}

/// The task of a connection: it handles its events until the connection closes.
struct Driver<I: Io> {
    io: I,
    connection: Rc<Connection>,
    quic: Rc<quic::Connection>,
    transport: Transport<I, I::Datagrams>,
    shared: Shared,
    endpoint: Weak<EndpointState<Wire<I::Stream>>>,
    alarm: Alarm,
    pulse: Pulse,
    open: Option<OpenGuard>,
    _receiver: Receiver,
}

impl<I: Io> Driver<I> {
    async fn run(&mut self) {
        self.serve().await;
        self.shared.close();
        self.connection.close(self.io.now());
        self.alarm.set(self.io.now() + CLOSE_TIMEOUT);
        let Self { transport, alarm, connection, quic, io, .. } = self;
        let told = poll_fn(|context| {
            while let Some(event) = quic.poll() {
                connection.handle(event, io.recent());
            }
            transport.poll(context)
        });
        alarm.guard(told).await.ok();
    }

    async fn serve(&mut self) {
        loop {
            self.serve_waiting();
            let (now, busy) = (self.io.now(), self.shared.streams() > 0);
            let limited = self.open.as_ref().filter(|open| !busy && open.is_limited());
            let heard = self.quic.heard();
            let step = self.pulse.step(now, Seen { heard, busy, opened: self.shared.opened() });
            let is_wanted = limited.is_some_and(OpenGuard::is_wanted);
            if (step.leave || is_wanted) && !self.shared.is_closed() {
                self.shared.close();
            }
            if step.dead || self.shared.is_closed() && !busy {
                return;
            }
            if step.ping {
                self.quic.ping();
            }
            let mut next = step.next;
            if let Some(open) = limited {
                open.say_idle();
                next = next.min(now + IDLE_CHECK_INTERVAL);
            }
            self.alarm.set(next);
            if poll_fn(|context| self.poll(context)).await {
                return;
            }
        }
    }

    /// Completes with true when the connection has ended, and with false when there is something
    /// to decide.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        let Self { connection, quic, transport, shared, alarm, io, .. } = self;
        let (mut handled, mut has_room) = (false, false);
        while let Some(event) = quic.poll() {
            has_room |= matches!(event, Event::Available(_) | Event::Finished(_));
            connection.handle(event, io.recent());
            handled = true;
        }
        if connection.end().is_some() {
            return Poll::Ready(true);
        }
        if handled {
            // Let the woken streams write first, so that their frames share datagrams.
            quic.wait(context);
            context.waker().wake_by_ref();
            return if has_room { Poll::Ready(false) } else { Poll::Pending };
        }
        if transport.poll(context).is_ready() {
            return Poll::Ready(true);
        }
        if shared.is_closed() && shared.streams() == 0 {
            return Poll::Ready(false);
        }
        alarm.poll_woken(context).map(|_| false)
    }

    /// Gives streams to the requests that wait for one, after streams have ended.
    fn serve_waiting(&self) {
        if let Some(endpoint) = self.endpoint.upgrade()
            && endpoint.shared.wanted().get()
        {
            endpoint.serve_streams();
        }
    }
}

impl<I: Io> Drop for Driver<I> {
    /// Ends the streams, so that none waits for a connection without a task.
    fn drop(&mut self) {
        self.connection.close(self.io.now());
    }
}

const NO_ADDRESS: Refusal = Refusal {
    status: 503,
    flag: Flag::UpstreamConnectFailure,
    detail: "HTTP/3 needs an endpoint with an IP address",
};
