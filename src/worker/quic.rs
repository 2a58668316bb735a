//! QUIC listeners of a worker: one UDP socket and one endpoint for each bind.

use std::cell::Cell;
use std::rc::Rc;

use super::mailbox::ListeningSocket;
use super::thread::{Accepting, Acceptor, Contained, Open, Thread};
use crate::downstream::http3::{self, Arrived};
use crate::error::plain;
use crate::quic::{self, Attempt, Clock, Endpoint, Place};
use crate::runtime::alarm::Alarm;
use crate::runtime::io::Io as _;
use crate::runtime::ring::RingIo;
use crate::runtime::udp::{self, Datagrams as _, UdpSocket};
use crate::snapshot::{Listener, Retry};
use crate::time::Time;
use crate::wire::quic::{Port, Transport};

/// How often a removed listener checks whether its last connection has ended.
const CHECK_INTERVAL: std::time::Duration = std::time::Duration::from_millis(50);

/// A QUIC bind of a worker.
struct Binding {
    thread: Rc<Thread>,
    acceptor: Rc<Acceptor>,
    quic: Rc<Port<RingIo, UdpSocket>>,
    port: u16,
    /// The number of connections whose handshake is not complete.
    handshakes: Rc<Cell<u32>>,
    /// Whether the listener was removed or drains.
    is_closed: Cell<bool>,
}

/// Serves QUIC on `socket` until `stop` rings. Then no connection is accepted any more, and the
/// open ones are served until they end, or the time of a drain is over.
pub(super) async fn serve(
    thread: Rc<Thread>,
    acceptor: Rc<Acceptor>,
    socket: ListeningSocket,
    stop: Alarm,
) {
    let bind = socket.bind.clone();
    if let Err(error) = serve_bound(&thread, acceptor, socket, stop).await {
        thread.failed(format!("cannot receive on {bind}: {}", plain(&error)));
    }
}

async fn serve_bound(
    thread: &Rc<Thread>,
    acceptor: Rc<Acceptor>,
    socket: ListeningSocket,
    stop: Alarm,
) -> std::io::Result<()> {
    let accepting = Accepting::new(thread, &acceptor);
    let worker = &thread.worker;
    let ListeningSocket { bind, descriptor, .. } = socket;
    let datagrams = UdpSocket::over(&worker.io, descriptor)?;
    let Some(endpoint) = endpoint(thread, &acceptor, &datagrams) else { return Ok(()) };
    let quic = Port::new(worker.io.clone(), datagrams, endpoint);
    let binding = Rc::new(Binding {
        thread: Rc::clone(thread),
        acceptor,
        quic: Rc::clone(&quic),
        port: bind.port(),
        handshakes: Rc::default(),
        is_closed: Cell::new(false),
    });
    stop.set(Time::NEVER);
    quic.receive(&stop, |attempt| binding.admit(attempt), |_| {}).await?;
    binding.is_closed.set(true);
    drop(accepting);
    let end = worker.io.now() + worker.local().snapshot.drain.limit;
    while quic.endpoint.connections() > 0 && worker.io.now() < end {
        stop.set(worker.io.now() + CHECK_INTERVAL);
        quic.receive(&stop, |attempt| binding.admit(attempt), |_| {}).await?;
    }
    Ok(())
}

/// The endpoint of a bind. `None` if its listener was removed meanwhile.
fn endpoint(
    thread: &Rc<Thread>,
    acceptor: &Acceptor,
    datagrams: &UdpSocket,
) -> Option<Rc<Endpoint>> {
    let worker = &thread.worker;
    let name = acceptor.name();
    let local = worker.local_of(&name);
    let http3 = local.snapshot.listener(&name)?.http3.as_ref()?;
    let place = Place { worker: worker.index, workers: worker.workers() };
    let clock = Clock::new(udp::epoch());
    let random = &mut worker.random.borrow_mut();
    Some(Endpoint::new(
        &http3.keys,
        place,
        Some(&http3.server),
        !datagrams.may_fragment(),
        clock,
        random,
    ))
}

impl Binding {
    /// Decides about a new connection.
    fn admit(&self, attempt: Attempt) {
        let Self { thread, quic, .. } = self;
        let worker = &thread.worker;
        let name = self.acceptor.name();
        let local = worker.local_of(&name);
        let Some(listener) = local.snapshot.listener(&name) else {
            return quic.endpoint.ignore(attempt);
        };
        let Some(http3) = &listener.http3 else { return quic.endpoint.ignore(attempt) };
        let handshakes = self.handshakes.get();
        let proves = match http3.retry {
            Retry::Always => true,
            Retry::Auto => handshakes >= http3.handshakes_max / 2,
            Retry::Never => false,
        };
        if proves && !attempt.is_validated() && attempt.may_retry() {
            listener.stats.worker(worker.index).quic_retries.increment();
            return quic.answer(|out| quic.endpoint.retry(attempt, out));
        }
        if self.is_closed.get() || handshakes >= http3.handshakes_max || !thread.has_room(listener)
        {
            listener.stats.worker(worker.index).overflow.increment();
            return quic.answer(|out| Some(quic.endpoint.refuse(attempt, out)));
        }
        let is_proven = attempt.is_validated();
        let mut accepted = None;
        quic.answer(|out| {
            let now = worker.io.now();
            match quic.endpoint.accept(attempt, now, &http3.server, out) {
                Ok(connection) => {
                    accepted = Some(connection);
                    None
                }
                Err(answer) => answer,
            }
        });
        let Some(connection) = accepted else { return };
        worker.cells().accepted.increment();
        thread.loads.opened(worker.index, listener.is_outbound());
        self.start(&name, listener, connection, is_proven);
    }

    fn start(
        &self,
        name: &Rc<str>,
        listener: &Listener,
        connection: Rc<quic::Connection>,
        is_proven: bool,
    ) {
        let worker = Rc::clone(&self.thread.worker);
        let open = Open::new(&self.thread, name, listener.is_outbound());
        let transport = Transport::new(Rc::clone(&self.quic), Rc::clone(&connection));
        let handshaking = Handshaking::new(&self.handshakes);
        let arrived = Arrived { connection, transport, port: self.port, is_proven };
        let io = worker.io.clone();
        let connection = http3::serve(worker, Rc::clone(name), arrived, move || drop(handshaking));
        io.spawn(Contained { connection, open });
    }
}

/// Counts a handshake while it is in progress.
struct Handshaking(Rc<Cell<u32>>);

impl Handshaking {
    fn new(count: &Rc<Cell<u32>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Handshaking {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
