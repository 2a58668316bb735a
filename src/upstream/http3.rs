//! HTTP/3 connections to endpoints. A connection carries many exchanges, and has a task and a UDP
//! socket of its own.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::beside::Watch;
use super::choose::{CONNECT_TIMEOUT, Target, connect_failed};
use super::limited::ConnectionSlot;
use super::secure::{CERTIFICATE_REFUSED, TLS_FAILED};
use super::shared::SharedConnection;
use super::{EndpointState, LocalEndpoint, OpenGuard};
use crate::error::{Flag, Refusal};
use crate::http2::{self, Peer, Pulse, Seen};
use crate::http3::{Config, Connection, End};
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
    let address = endpoint.config.borrow().address.clone();
    let Some(peer) = QuicPeer::at(target, &address) else { return Err(NO_ADDRESS) };
    match connect(target, &peer, false).await {
        Ok(ready) => Ok(share(target, endpoint, ready, taken)),
        Err(failed) => {
            endpoint.cells().connect_failures.increment();
            if let Some(why) = &failed.why {
                log(target, &address, why);
            }
            Err(failed.refusal)
        }
    }
}

/// Opens a connection to an endpoint that is reached over TCP, too. Waits until the endpoint has
/// accepted the connection: with TLS 1.3, it sees our certificate after we have seen its own.
///
/// # Errors
/// The reason.
pub(super) async fn open_beside<I: Io>(
    target: &Target<'_, I>,
    peer: &QuicPeer,
) -> Result<Ready<I>, NotOpened> {
    connect(target, peer, true).await
}

/// Makes a connection that is ready available to requests. `taken` is its slot.
pub(super) fn share<I: Io>(
    target: &Target<'_, I>,
    endpoint: &LocalEndpoint<I>,
    ready: Ready<I>,
    taken: Option<ConnectionSlot>,
) -> SharedConnection {
    let core = target.core;
    let Ready { quic, transport, receiver, connection, alarm, is_beside } = ready;
    // The streams have their own wires: this one only counts the connection.
    let (_, open) = endpoint.opened(Wire::Moved, core.io.alarms().alarm(), taken).into_parts();
    let now = core.io.now();
    let settings = target.service.config.http2;
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
        watch: is_beside.then(|| Watch::new(target)),
        open,
        _receiver: receiver,
    };
    let run = async move { driver.run().await };
    core.io.spawn(Contained::new(Rc::clone(core), || run));
    SharedConnection::Http3(shared)
}

/// The address and the server name of an endpoint for QUIC.
pub(super) struct QuicPeer {
    /// The UDP address.
    pub to: SocketAddr,
    /// The server name for TLS.
    pub name: String,
}

impl QuicPeer {
    /// The endpoint at `address`, whose UDP port has the same number. `None` for a Unix-domain
    /// socket.
    pub fn at<I: Io>(target: &Target<'_, I>, address: &Address) -> Option<Self> {
        let Address::Tcp(to) = address else { return None };
        let tls = target.service.config.tls.as_ref()?;
        let name = match tls.name_for(address) {
            ServerName::DnsName(name) => name.as_ref().to_owned(),
            ServerName::IpAddress(ip) => IpAddr::from(ip).to_string(),
            _ => return None,
        };
        Some(Self { to: *to, name })
    }
}

/// A connection whose handshake is complete.
pub(super) struct Ready<I: Io> {
    quic: Rc<quic::Connection>,
    transport: Transport<I, I::Datagrams>,
    receiver: Receiver,
    connection: Rc<Connection>,
    alarm: Alarm,
    is_beside: bool,
}

/// The reason why a connection could not be opened.
pub(super) struct NotOpened {
    /// The text for the log, if there is more to say than the refusal does.
    pub why: Option<String>,
    /// The refusal of the request.
    pub refusal: Refusal,
}

/// Stops the task that receives datagrams when it is dropped.
struct Receiver(WakeHandle);

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.ring();
    }
}

async fn connect<I: Io>(
    target: &Target<'_, I>,
    peer: &QuicPeer,
    is_beside: bool,
) -> Result<Ready<I>, NotOpened> {
    let (core, service) = (target.core, &target.service.config);
    let silent = |refusal| NotOpened { why: None, refusal };
    let Some(client) = &service.http3 else { return Err(silent(NO_ADDRESS)) };
    let datagrams = core.io.datagrams(peer.to, service.egress);
    let datagrams = datagrams.map_err(|error| silent(connect_failed(&error)))?;
    let place = Place { worker: 0, workers: 1 };
    let clock = Clock::new(udp::epoch());
    let may_probe = !datagrams.may_fragment();
    let quic_endpoint = {
        let random = &mut core.random.borrow_mut();
        Endpoint::new(client.keys(), place, None, may_probe, clock, random)
    };
    let port = Port::new(core.io.clone(), datagrams, quic_endpoint);
    let connected = port.endpoint.connect(peer.to, &peer.name, client, core.io.now());
    let failed = |why| NotOpened { why: Some(why), refusal: TLS_FAILED };
    let quic = connected.map_err(failed)?;
    let refused = Rc::new(Cell::new(None));
    let receiver = receive(&core.io, &port, &quic, &refused);
    let mut transport = Transport::new(port, Rc::clone(&quic));
    let alarm = core.io.alarms().alarm();
    alarm.set(core.io.now() + service.connect_timeout);
    let over = poll_fn(|context| poll_handshake(&quic, &mut transport, &alarm, &refused, context));
    over.await.map_err(not_opened)?;
    let limits = target.limits;
    let config = Config { peer: Peer::Endpoint, message: &limits.message, floods: limits.http3 };
    let connection = Connection::new(&config, Rc::clone(&quic), core.io.now());
    connection.limit_streams(service.http2.streams_max as usize);
    let mut ready = Ready { quic, transport, receiver, connection, alarm, is_beside };
    if is_beside {
        poll_fn(|context| ready.poll_accepted(&core.io, context)).await.map_err(not_opened)?;
    }
    Ok(ready)
}

impl<I: Io> Ready<I> {
    /// Closes the connection and tells the endpoint.
    pub(super) async fn close(mut self, io: &I) {
        let Self { quic, transport, connection, alarm, .. } = &mut self;
        close(io, quic, transport, connection, alarm).await;
    }

    /// Completes when the endpoint has sent its SETTINGS.
    fn poll_accepted(&mut self, io: &I, context: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        loop {
            let over = self.transport.poll(context).is_ready();
            let mut handled = false;
            while let Some(event) = self.quic.poll() {
                self.connection.handle(event, io.recent());
                handled = true;
            }
            let end = match self.connection.end() {
                Some(End::Closed(closed)) => Some(closed),
                Some(End::Breach(..) | End::Flood(_)) => Some(Closed::Ours),
                None => over.then_some(Closed::Idle),
            };
            if let Some(closed) = end {
                // The endpoint is told the reason.
                _ = self.transport.poll(context);
                return Poll::Ready(Err(Failed::Closed(closed)));
            }
            if self.connection.is_greeted() {
                return Poll::Ready(Ok(()));
            }
            if !handled {
                return self.alarm.poll_woken(context).map(|_| Err(Failed::Timeout));
            }
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

fn not_opened(failed: Failed) -> NotOpened {
    let silent = |refusal| NotOpened { why: None, refusal };
    match failed {
        Failed::Timeout => silent(CONNECT_TIMEOUT),
        Failed::Refused(error) => silent(connect_failed(&error)),
        Failed::Closed(closed) => {
            let (why, refusal) = described(&closed);
            NotOpened { why: Some(why), refusal }
        }
    }
}

fn log<I: Io>(target: &Target<'_, I>, endpoint: &Address, why: &str) {
    let service = &*target.service.config.name;
    target.core.log_limited(|suppressed| {
        let message = "QUIC handshake with endpoint failed";
        tracing::warn!(service, %endpoint, reason = why, suppressed, "{message}");
    });
}

/// Closes a connection and tells the endpoint, if that is possible within [`CLOSE_TIMEOUT`].
async fn close<I: Io>(
    io: &I,
    quic: &quic::Connection,
    transport: &mut Transport<I, I::Datagrams>,
    connection: &Connection,
    alarm: &Alarm,
) {
    connection.close(io.now());
    alarm.set(io.now() + CLOSE_TIMEOUT);
    let told = poll_fn(|context| {
        while let Some(event) = quic.poll() {
            connection.handle(event, io.recent());
        }
        transport.poll(context)
    });
    alarm.guard(told).await.ok();
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
    /// Watches the endpoint if it is reached over TCP, too.
    watch: Option<Watch<I>>,
    open: Option<OpenGuard>,
    _receiver: Receiver,
}

impl<I: Io> Driver<I> {
    async fn run(&mut self) {
        self.serve().await;
        self.shared.close();
        let Self { transport, alarm, connection, quic, io, .. } = self;
        close(io, quic, transport, connection, alarm).await;
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
            match self.watch(now, heard, busy) {
                Some(watched) => next = next.min(watched),
                None => return,
            }
            self.alarm.set(next);
            if poll_fn(|context| self.poll(context)).await {
                return;
            }
        }
    }

    /// Checks whether the endpoint still answers, if it is reached over TCP, too. Returns the time
    /// of the next check, or `None` if the connection must end.
    fn watch(&mut self, now: Time, heard: Time, busy: bool) -> Option<Time> {
        let Some(watch) = &mut self.watch else { return Some(Time::NEVER) };
        let due = watch.silence.step(now, heard, busy);
        if due.ask {
            self.quic.ping();
        }
        if !due.doubt {
            watch.is_doubted = false;
            return Some(due.next);
        }
        let Some(endpoint) = self.endpoint.upgrade() else { return Some(due.next) };
        if !watch.is_doubted {
            // The connection may be closed for new streams already, and still have old ones.
            self.shared.close();
            watch.doubt(&endpoint, self.open.as_mut().and_then(OpenGuard::take_slot), now);
        }
        let gives_up = due.give_up && endpoint.shared.ways().has_failed();
        (!gives_up).then_some(due.next)
    }

    /// Completes with true when the connection has ended, and with false when there is something
    /// to decide.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        let Self { connection, quic, transport, shared, watch, alarm, io, .. } = self;
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
        let is_left = shared.is_closed() && shared.streams() == 0;
        let is_unwatched = watch.as_ref().is_some_and(|watch| !watch.silence.is_begun());
        if is_left || is_unwatched && shared.streams() > 0 {
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
