//! QUIC without termination: the server name in a client's first packets selects the endpoint, and
//! all datagrams are forwarded as they are.
//!
//! A flow is a client's address and our own one. When a client gets another address, the id of its
//! connection, which the endpoint has chosen, finds the endpoint again.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::opening::{Followed, Openings, READING_TIMEOUT, Step};
use crate::authz::{Peer, Target};
use crate::cluster::Destination;
use crate::decision;
use crate::detect::{ClientHello, QuicError};
use crate::mesh::{PassRefusal, Passed, PassedCells, PassedTo};
use crate::net::Address;
use crate::route::{Action, Rule};
use crate::runtime::alarm::Alarm;
use crate::runtime::datagram::{self, DATAGRAM_BYTES_MAX};
use crate::runtime::io::{Io, Stream};
use crate::runtime::own::Own;
use crate::runtime::ring::{RingIo, RingStream};
use crate::runtime::udp::{Datagrams, Incoming, Outgoing, UdpSocket};
use crate::serve::worker::Worker;
use crate::snapshot::{Listener, Serves};
use crate::time::Time;
use crate::upstream::{Attempt, Local, LocalEndpoint, Outcome};

/// How many datagrams one flow forwards, and how many batches are received, before others run.
const BATCH_MAX: usize = 32;

/// How often a removed listener checks whether its flows have ended.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// The flows of one worker on one socket.
struct Relay {
    worker: Rc<Worker<RingIo>>,
    near: UdpSocket,
    port: u16,
    known: RefCell<FxHashMap<Key, Rc<Flow>>>,
    openings: Openings<Key>,
    block: RefCell<Box<[u8]>>,
    closed: Cell<bool>,
}

/// The client's address, and ours.
type Key = (SocketAddr, Option<IpAddr>);

/// A flow between a client and an endpoint.
struct Flow {
    key: Key,
    /// The socket to the endpoint.
    far: RingStream,
    to: PassedTo,
    active: Cell<Time>,
    /// Whether the endpoint has sent a datagram.
    answered: Cell<bool>,
    passed: Passed,
    ids: Followed,
    _own: Own,
}

/// The endpoint of a new flow. Its state is `None` if the flow continues another one.
type Chosen = (PassedTo, Option<LocalEndpoint<RingIo>>);

/// Forwards datagrams until `stop` rings; then those of open flows, until they end or the time of a
/// drain is over. `listener` returns the name of the listener.
///
/// # Errors
/// When the ring fails, or the kernel refuses a socket option.
pub async fn serve(
    worker: Rc<Worker<RingIo>>,
    listener: impl Fn() -> Rc<str>,
    (socket, port): (OwnedFd, u16),
    stop: Alarm,
) -> io::Result<()> {
    let near = UdpSocket::over(&worker.io, socket)?;
    let relay = Rc::new(Relay {
        near,
        port,
        known: RefCell::default(),
        openings: Openings::default(),
        block: RefCell::new(vec![0; DATAGRAM_BYTES_MAX].into_boxed_slice()),
        closed: Cell::new(false),
        worker,
    });
    stop.set(Time::NEVER);
    relay.receive(&listener, &stop).await?;
    relay.closed.set(true);
    let io = &relay.worker.io;
    let end = io.now() + relay.worker.local().snapshot.drain.limit;
    while !relay.known.borrow().is_empty() && io.now() < end {
        stop.set(io.now() + CHECK_INTERVAL);
        relay.receive(&listener, &stop).await?;
    }
    Ok(())
}

impl Relay {
    /// Receives datagrams of clients until `stop` rings.
    async fn receive(
        self: &Rc<Self>,
        listener: impl Fn() -> Rc<str>,
        stop: &Alarm,
    ) -> io::Result<()> {
        while let Ok(readable) = stop.guard(self.near.readable()).await {
            readable?;
            // Update the time that `recent` returns.
            self.worker.io.now();
            let name = listener();
            let local = self.worker.local_of(&name);
            let served =
                local.snapshot.listener(&name).and_then(|listener| match &listener.serves {
                    Serves::Quic(passed) => Some((&**listener, passed)),
                    _ => None,
                });
            let mut take = |incoming: Incoming<'_>| self.take(&local, served, incoming);
            // An error is the answer to a client that is gone.
            self.near.receive_waiting(BATCH_MAX, &mut take, |_| {});
        }
        Ok(())
    }

    fn cells<'c>(&self, passed: &'c Passed) -> &'c PassedCells {
        passed.state.cells.worker(self.worker.index)
    }

    /// Forwards a datagram of a client, or keeps it until its server name is known.
    fn take(
        self: &Rc<Self>,
        local: &Local<RingIo>,
        served: Option<(&Listener, &Arc<Passed>)>,
        incoming: Incoming<'_>,
    ) {
        let key = (incoming.from, incoming.to);
        let flow = self.known.borrow().get(&key).cloned();
        if let Some(flow) = flow {
            return flow.forward(self, incoming.bytes);
        }
        // A removed listener serves its open flows only.
        let Some((listener, passed)) = served.filter(|_| !self.closed.get()) else { return };
        if let Err(refusal) = self.begin(local, (listener, passed), key, incoming.bytes) {
            self.cells(passed).refused[refusal.index()].increment();
            self.worker.log_limited(|suppressed| {
                let (listener, client, reason) = (&*listener.name, key.0, refusal.detail());
                tracing::info!(listener, %client, reason, suppressed, "datagram refused");
            });
        }
    }

    /// Handles a datagram without an open flow.
    fn begin(
        self: &Rc<Self>,
        local: &Local<RingIo>,
        (listener, passed): (&Listener, &Arc<Passed>),
        key: Key,
        bytes: &[u8],
    ) -> Result<(), PassRefusal> {
        let now = self.worker.io.recent();
        let found = match self.openings.has(&key, now) {
            true => None,
            false => passed.state.ids.find(bytes, |_| true),
        };
        if let Some((id, to)) = found {
            // The new address may be denied.
            self.authorize(local, listener, key, &to.service)?;
            let flow = self.open(passed, key, (to, None))?;
            flow.ids.moved(&passed.state, &flow.to, id);
            self.cells(passed).moved.increment();
            flow.forward(self, bytes);
            return Ok(());
        }
        let (chosen, datagrams) = match self.openings.receive(key, bytes, now) {
            Step::NeedMore => return Ok(()),
            Step::Overflow => return Err(PassRefusal::Overflow),
            Step::Malformed(_) => return Err(PassRefusal::Malformed),
            Step::Other(QuicError::NotInitial) => return Err(PassRefusal::UnknownConnection),
            Step::Known(hello, datagrams) => {
                (self.by_name(local, (listener, passed), key, &hello)?, datagrams)
            }
            // Another version of QUIC may have a name that cannot be read.
            Step::Other(_) => match passed.other {
                Some(other) => {
                    (self.choose(local, listener, key, (None, other))?, vec![bytes.into()])
                }
                None if bytes.first().is_some_and(|first| first & 0xc0 == 0x40) => {
                    return Err(PassRefusal::UnknownConnection);
                }
                None => return Err(PassRefusal::NotQuic),
            },
        };
        let flow = self.open(passed, key, chosen)?;
        datagrams.iter().for_each(|bytes| flow.forward(self, bytes));
        Ok(())
    }

    /// The endpoint for a server name.
    fn by_name(
        &self,
        local: &Local<RingIo>,
        (listener, passed): (&Listener, &Passed),
        key: Key,
        hello: &ClientHello,
    ) -> Result<Chosen, PassRefusal> {
        let name = hello.server_name.as_deref().unwrap_or_default();
        let rule = passed.routes.passes(name.as_bytes()).ok_or(PassRefusal::NoRoute)?;
        let Action::Forward(split) = &rule.action else { return Err(PassRefusal::NoRoute) };
        let to = split.next(self.worker.index);
        self.choose(local, listener, key, (Some(rule), to))
    }

    /// An endpoint of the service `to`, if the client may use it.
    fn choose(
        &self,
        local: &Local<RingIo>,
        listener: &Listener,
        key: Key,
        (rule, to): (Option<&Rule>, Destination),
    ) -> Result<Chosen, PassRefusal> {
        let service = local.service(to, None).ok_or(PassRefusal::NoEndpoint)?;
        self.authorize(local, listener, key, &service.config.name)?;
        decision::check_bytes(rule, &service.config).map_err(|_| PassRefusal::Denied)?;
        let now = self.worker.io.recent();
        let subset = to.subset as usize;
        let random = &mut self.worker.random.borrow_mut();
        let state = service.pick(subset, None, &[], now, random);
        let state = state.ok_or(PassRefusal::NoEndpoint)?;
        let Address::Tcp(address) = state.config.borrow().address else {
            return Err(PassRefusal::NoEndpoint);
        };
        let to = PassedTo {
            address,
            egress: service.config.egress,
            service: (*service.config.name).into(),
            destination: None,
        };
        Ok((to, Some(state)))
    }

    fn authorize(
        &self,
        local: &Local<RingIo>,
        listener: &Listener,
        (client, _): Key,
        service: &str,
    ) -> Result<(), PassRefusal> {
        let peer = Peer { identity: None, ip: Some(client.ip()), forwarded_ip: None };
        let (port, outbound) = (self.port, listener.is_outbound());
        let asked = Target { service, port, ip: None, outbound, request: None };
        let decision = local.snapshot.authorization.decide(&peer, &asked);
        decision.count(self.worker.index);
        decision.verdict.is_allowed().then_some(()).ok_or(PassRefusal::Denied)
    }

    fn open(
        self: &Rc<Self>,
        passed: &Arc<Passed>,
        key: Key,
        (to, state): Chosen,
    ) -> Result<Rc<Flow>, PassRefusal> {
        let cells = self.cells(passed);
        let io = &self.worker.io;
        if self.known.borrow().len() >= passed.udp.flows_max_each {
            return Err(PassRefusal::Overflow);
        }
        let far = datagram::towards(to.address, to.egress)
            .and_then(|(far, local)| Ok((io.readiness(far)?, local)));
        let (far, local) = far.map_err(|_| PassRefusal::Failed)?;
        let flow = Rc::new(Flow {
            key,
            far,
            _own: Own::note(local, to.address),
            to,
            active: Cell::new(io.recent()),
            answered: Cell::new(false),
            passed: Passed::clone(passed),
            ids: Followed::default(),
        });
        cells.flows.increment();
        cells.active.increment();
        self.known.borrow_mut().insert(key, Rc::clone(&flow));
        let attempt = state.map(|state| Attempt::begin(&state, io.recent()));
        io.spawn(carry(Rc::clone(self), Rc::clone(&flow), attempt));
        Ok(flow)
    }
}

impl Flow {
    /// Sends a datagram to the endpoint.
    fn forward(&self, relay: &Relay, bytes: &[u8]) {
        self.active.set(relay.worker.io.recent());
        let cells = relay.cells(&self.passed);
        match datagram::give(&self.far, bytes) {
            Ok(()) => cells.out.increment(),
            Err(_) => cells.lost.increment(),
        }
    }

    /// Sends waiting datagrams of the endpoint to the client.
    fn pump(&self, relay: &Relay) -> io::Result<()> {
        let mut block = relay.block.borrow_mut();
        let cells = relay.cells(&self.passed);
        let (to, from) = self.key;
        for _ in 0..BATCH_MAX {
            let bytes = match datagram::take(&self.far, &mut block) {
                Ok(length) => &block[..length],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.active.set(relay.worker.io.recent());
            self.answered.set(true);
            let Passed { state, udp, .. } = &self.passed;
            self.ids.follow(state, &self.to, bytes, udp.flows_max_each);
            match relay.near.send(&Outgoing { to, from, ecn: 0, bytes, segment_bytes: None }) {
                Ok(()) => cells.back.increment(),
                Err(_) => cells.lost.increment(),
            }
        }
        Ok(())
    }
}

/// Forwards the datagrams of the endpoint until none has passed for the idle timeout, or until the
/// endpoint refuses them.
async fn carry(relay: Rc<Relay>, flow: Rc<Flow>, attempt: Option<Attempt<RingIo>>) {
    let (io, idle) = (&relay.worker.io, flow.passed.udp.idle);
    let alarm = io.alarms().alarm();
    let outcome = loop {
        alarm.set(flow.active.get() + idle);
        let Ok(readable) = alarm.guard(flow.far.readable()).await else {
            if io.now() >= flow.active.get() + idle {
                break Outcome::Carried;
            }
            continue;
        };
        // Update the time that `recent` returns.
        let now = io.now();
        if readable.and_then(|()| flow.pump(&relay)).is_err() {
            // The client sends its first packets again, and they go to another endpoint.
            let new = now.since(attempt.as_ref().map_or(now, Attempt::began)) < READING_TIMEOUT;
            break if new { Outcome::Failed } else { Outcome::Broken };
        }
    };
    relay.known.borrow_mut().remove(&flow.key);
    flow.ids.forget(&flow.passed.state);
    relay.cells(&flow.passed).active.decrement();
    // An endpoint that has said nothing has not succeeded.
    if let Some(attempt) = attempt
        && (outcome != Outcome::Carried || flow.answered.get())
    {
        attempt.finish(io.now(), outcome);
    }
}
