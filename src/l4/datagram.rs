//! Captured UDP: flows of datagrams between a client and its destination.
//!
//! The first datagram of a flow arrives at the listening socket, where the target of the flow is
//! chosen, as for TCP. Further datagrams of an outbound flow arrive at the flow's own socket, which
//! has the destination's address. All datagrams of an inbound flow arrive at the listening socket.
//!
//! The server name of an outbound QUIC connection selects its service, as for TLS over TCP. So the
//! first datagrams of such a flow are kept until the name is known.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use rustc_hash::FxHashMap;

use super::opening::{Followed, Openings, Step};
use super::sni;
use crate::authz::{Peer, Target};
use crate::cluster::Protocol;
use crate::decision;
use crate::detect::{ClientHello, QuicError};
use crate::mesh::{
    Admission, Capture, CaptureCells, CaptureError, Declared, Direction, Leads, PassedTo, Udp,
    UdpRefusal, Unknown,
};
use crate::net::{Address, Egress};
use crate::route::Action;
use crate::runtime::alarm::Alarm;
use crate::runtime::datagram;
use crate::runtime::datagram::DATAGRAM_BYTES_MAX;
use crate::runtime::io::{Io, Stream};
use crate::runtime::own;
use crate::runtime::own::Own;
use crate::runtime::raw_udp::RawUdpSender;
use crate::runtime::ring::{RingIo, RingStream};
use crate::runtime::socket;
use crate::serve::worker::Worker;
use crate::time::Time;
use crate::tls::Mode;
use crate::upstream::{Local, LocalService};

/// How many datagrams one flow forwards before other flows run.
const BATCH_MAX: usize = 32;

/// The flows of one worker on one listening socket.
struct Flows {
    worker: Rc<Worker<RingIo>>,
    known: RefCell<FxHashMap<Key, Rc<Flow>>>,
    openings: Openings<Key>,
    block: RefCell<Box<[u8]>>,
    /// Sends datagrams to clients with the address of the workload as the source (inbound). Opened
    /// on first use.
    raw_udp: OnceCell<RawUdpSender>,
}

/// The client and the original destination of a flow.
type Key = (SocketAddr, SocketAddr);

/// A flow between a client and a destination.
struct Flow {
    key: Key,
    /// The socket to the client, with the destination's address (outbound). Inbound flows have
    /// none, because the workload has the port: the worker's `raw_udp` sends, and the listening
    /// socket receives.
    near: Option<RingStream>,
    /// The socket to the destination.
    far: RingStream,
    active: Cell<Time>,
    capture: Arc<Capture>,
    to: PassedTo,
    /// The ids of a QUIC connection (outbound).
    ids: Option<Followed>,
    _own: Own,
}

/// Forwards captured datagrams from `socket` until `stop` fires. `listener` returns the name of the
/// listener.
pub async fn serve(
    worker: Rc<Worker<RingIo>>,
    listener: impl Fn() -> Rc<str>,
    socket: OwnedFd,
    stop: Alarm,
) -> io::Result<()> {
    stop.set(Time::NEVER);
    let socket = worker.io.readiness(socket)?;
    let block = RefCell::new(vec![0; DATAGRAM_BYTES_MAX].into_boxed_slice());
    let (known, raw_udp) = (RefCell::default(), OnceCell::new());
    let flows = Rc::new(Flows { worker, known, openings: Openings::default(), block, raw_udp });
    while stop.guard(socket.readable()).await.is_ok() {
        for _ in 0..BATCH_MAX {
            let received = datagram::receive(&socket, &mut flows.block.borrow_mut());
            let Ok(received) = received else { break };
            let local = flows.worker.local();
            let Some(listener) = local.snapshot.listener(&listener()) else { continue };
            let Some(capture) = listener.capture() else { continue };
            let error = match received.meant_for {
                None => CaptureError::NoDestination,
                Some(meant_for) => match flows.forward(&local, capture, received, meant_for) {
                    Ok(()) => continue,
                    Err(error) => error,
                },
            };
            flows.cells(capture).errors[error.index()].increment();
        }
    }
    Ok(())
}

impl Flows {
    fn cells<'c>(&self, capture: &'c Capture) -> &'c CaptureCells {
        capture.stats.worker(self.worker.index)
    }

    /// Forwards the datagram in `block` on its flow, or on a new flow.
    fn forward(
        self: &Rc<Self>,
        local: &Local<RingIo>,
        capture: &Arc<Capture>,
        received: datagram::Captured,
        meant_for: SocketAddr,
    ) -> Result<(), CaptureError> {
        let key = (received.from, meant_for);
        let known = self.known.borrow().get(&key).cloned();
        let block = self.block.borrow();
        let bytes = &block[..received.bytes];
        if let Some(flow) = known {
            flow.send(self, bytes);
            return Ok(());
        }
        if own::is_own(received.from, meant_for) {
            return Err(CaptureError::Loop);
        }
        let (from, snapshot) = (Some(received.from), &local.snapshot);
        let error = decision::capture_error(capture, snapshot, from, meant_for, socket::is_local);
        if let Some(error) = error {
            return Err(error);
        }
        if let Err(refusal) = self.begin(local, capture, key, bytes) {
            self.refused(capture, key, refusal);
        }
        Ok(())
    }

    /// Handles a datagram without a flow.
    fn begin(
        self: &Rc<Self>,
        local: &Local<RingIo>,
        capture: &Arc<Capture>,
        key: Key,
        bytes: &[u8],
    ) -> Result<(), UdpRefusal> {
        let passed = capture.passed.as_ref().filter(|_| !is_declared(local, capture, key));
        let Some(state) = passed else {
            let to = self.target(local, capture, key)?;
            self.open(capture, key, to, None)?.send(self, bytes);
            return Ok(());
        };
        let now = self.worker.io.recent();
        // A client that moves keeps the address of its server. A server elsewhere chooses ids that
        // may be equal to bytes of this flow.
        let here = |to: &PassedTo| to.destination == Some(key.1);
        let found = match self.openings.has(&key, now) {
            true => None,
            false => state.ids.find(bytes, here),
        };
        if let Some((id, to)) = found {
            self.check_again(local, capture, key, &to)?;
            let flow = self.open(capture, key, to, Some(Followed::default()))?;
            if let Some(ids) = &flow.ids {
                ids.moved(state, &flow.to, id);
            }
            flow.send(self, bytes);
            self.cells(capture).flows_moved.increment();
            return Ok(());
        }
        let (named, datagrams) = match self.openings.receive(key, bytes, now) {
            Step::NeedMore => return Ok(()),
            Step::Overflow => return Err(UdpRefusal::Overflow),
            // The name may select a service that is not at the destination.
            Step::Other(QuicError::NotInitial) => return Err(UdpRefusal::UnknownConnection),
            Step::Known(hello, datagrams) => {
                (self.by_name(local, capture, key, &hello)?, datagrams)
            }
            Step::Malformed(datagrams) => (None, datagrams),
            Step::Other(_) => {
                let to = self.target(local, capture, key)?;
                self.open(capture, key, to, None)?.send(self, bytes);
                return Ok(());
            }
        };
        let to = match named {
            Some(to) => to,
            None => self.target(local, capture, key)?,
        };
        let flow = self.open(capture, key, to, Some(Followed::default()))?;
        datagrams.iter().for_each(|bytes| flow.send(self, bytes));
        Ok(())
    }

    fn refused(&self, capture: &Capture, key: Key, refusal: UdpRefusal) {
        self.cells(capture).flows_refused[refusal.index()].increment();
        self.worker.log_limited(|suppressed| {
            let ((client, destination), reason) = (key, refusal.detail());
            let message = "captured UDP flow refused; the datagram is dropped";
            tracing::info!(%client, %destination, reason, suppressed, "{message}");
        });
    }

    /// Opens a flow.
    fn open(
        self: &Rc<Self>,
        capture: &Arc<Capture>,
        key: Key,
        to: PassedTo,
        ids: Option<Followed>,
    ) -> Result<Rc<Flow>, UdpRefusal> {
        let udp = capture.udp.ok_or(UdpRefusal::Failed)?;
        let (client, destination) = key;
        if self.known.borrow().len() >= udp.flows_max_each {
            return Err(UdpRefusal::Overflow);
        }
        let io = &self.worker.io;
        let opened = || -> io::Result<Flow> {
            let near = match capture.direction {
                Direction::Outbound => {
                    Some(io.readiness(datagram::speak_for(destination, client, capture.mark)?)?)
                }
                Direction::Inbound => {
                    self.raw_udp(destination, capture.mark)?;
                    None
                }
            };
            let (far, local) = datagram::towards(to.address, to.egress)?;
            Ok(Flow {
                key,
                near,
                far: io.readiness(far)?,
                active: Cell::new(io.now()),
                capture: Arc::clone(capture),
                _own: Own::note(local, to.address),
                to,
                ids,
            })
        };
        let flow = opened().map(Rc::new).map_err(|_| UdpRefusal::Failed)?;
        self.known.borrow_mut().insert(key, Rc::clone(&flow));
        let cells = self.cells(capture);
        cells.flows.increment();
        cells.flows_active.increment();
        // No attempt is counted: an endpoint without UDP may serve its requests over TCP well, and
        // one that is mute has not succeeded.
        io.spawn(carry(Rc::clone(self), Rc::clone(&flow), udp));
        Ok(flow)
    }

    /// Returns the raw socket that sends with the address of the workload as the source.
    fn raw_udp(&self, destination: SocketAddr, mark: u32) -> io::Result<&RawUdpSender> {
        if let Some(raw_udp) = self.raw_udp.get() {
            return Ok(raw_udp);
        }
        let raw_udp = RawUdpSender::new(destination.ip(), mark)?;
        Ok(self.raw_udp.get_or_init(|| raw_udp))
    }

    /// The endpoint for the server name of a QUIC connection. `None` if no route has the name.
    fn by_name(
        &self,
        local: &Local<RingIo>,
        capture: &Capture,
        key: Key,
        hello: &ClientHello,
    ) -> Result<Option<PassedTo>, UdpRefusal> {
        let Some(rule) = sni::rule(&capture.routes, hello) else { return Ok(None) };
        let Action::Forward(split) = &rule.action else { return Ok(None) };
        let to = split.next(self.worker.index);
        let service = local.service(to, None).ok_or(UdpRefusal::NoEndpoint)?;
        // The client has TLS, but not ours.
        if service.config.tls.is_some() {
            return Err(UdpRefusal::NeedsTls);
        }
        self.authorize(local, capture, key, &service.config.name)?;
        decision::check_bytes(Some(rule), &service.config).map_err(|_| UdpRefusal::Denied)?;
        self.pick(capture, service, to.subset, key).map(Some)
    }

    /// Checks whether a flow to `to` may continue, whose client has another address now. The
    /// configuration may have changed since it began.
    fn check_again(
        &self,
        local: &Local<RingIo>,
        capture: &Capture,
        key: Key,
        to: &PassedTo,
    ) -> Result<(), UdpRefusal> {
        if *to.service == *capture.passthrough.name {
            return self.target(local, capture, key).map(drop);
        }
        let index = local.snapshot.service_index(&to.service).ok_or(UdpRefusal::NoEndpoint)?;
        let service = &local.snapshot.services[index];
        if service.tls.is_some() {
            return Err(UdpRefusal::NeedsTls);
        }
        self.authorize(local, capture, key, &to.service)?;
        let address = Address::Tcp(to.address);
        let endpoints = service.endpoints.load();
        let is_left = endpoints.list.iter().any(|endpoint| endpoint.address == address);
        is_left.then_some(()).ok_or(UdpRefusal::NoEndpoint)
    }

    /// The target of a flow by its original destination, if the flow is allowed.
    fn target(
        &self,
        local: &Local<RingIo>,
        capture: &Capture,
        key: Key,
    ) -> Result<PassedTo, UdpRefusal> {
        let (_, destination) = key;
        let leads = capture.addresses.find(destination);
        let inbound = capture.direction == Direction::Inbound;
        let service = match leads {
            Some(Leads::Service(to, _)) => local.service_at(to.service as usize),
            Some(Leads::Endpoint { service }) => local.service_at(service as usize),
            None if inbound => None,
            None => {
                let allowed = capture.unknown == Unknown::Allow;
                capture.seen.worker(self.worker.index).count(destination, allowed);
                if !allowed {
                    return Err(UdpRefusal::Unknown);
                }
                None
            }
        };
        let needs_tls = match capture.admission(destination.port()) {
            Admission::Tls(tls) => tls.mode == Mode::Strict,
            Admission::Plain => {
                !inbound && service.is_some_and(|service| service.config.tls.is_some())
            }
        };
        if needs_tls {
            return Err(UdpRefusal::NeedsTls);
        }
        let name = &service.map_or(&capture.passthrough, |service| &service.config).name;
        self.authorize(local, capture, key, name)?;
        if let (false, Some(service), Some(Leads::Service(..))) = (inbound, service, leads) {
            return self.pick(capture, service, 0, key);
        }
        let address = if inbound { capture.application(destination) } else { destination };
        Ok(to(capture, address, name, key))
    }

    /// Checks whether the authorization rules allow a flow to `service`.
    fn authorize(
        &self,
        local: &Local<RingIo>,
        capture: &Capture,
        (client, destination): Key,
        service: &str,
    ) -> Result<(), UdpRefusal> {
        let identity = capture.identity.as_ref().map(|identity| identity.as_str());
        let peer = Peer { identity, ip: Some(client.ip()), forwarded_ip: None };
        let (port, ip) = (destination.port(), Some(destination.ip()));
        let outbound = capture.direction == Direction::Outbound;
        let asked = Target { service, port, ip, outbound, request: None };
        let decision = local.snapshot.authorization.decide(&peer, &asked);
        decision.count(self.worker.index);
        decision.verdict.is_allowed().then_some(()).ok_or(UdpRefusal::Denied)
    }

    /// An endpoint of a service.
    fn pick(
        &self,
        capture: &Capture,
        service: &LocalService<RingIo>,
        subset: u32,
        key: Key,
    ) -> Result<PassedTo, UdpRefusal> {
        let now = self.worker.io.recent();
        let random = &mut self.worker.random.borrow_mut();
        let state = service.pick(subset as usize, None, &[], now, random);
        let state = state.ok_or(UdpRefusal::NoEndpoint)?;
        let Address::Tcp(address) = state.config.borrow().address else {
            return Err(UdpRefusal::NoEndpoint);
        };
        Ok(to(capture, address, &service.config.name, key))
    }
}

/// The target of a flow at `address`.
fn to(capture: &Capture, address: SocketAddr, service: &str, (_, destination): Key) -> PassedTo {
    let egress = Egress { mark: capture.mark, ..Egress::default() };
    PassedTo { address, egress, service: service.into(), destination: Some(destination) }
}

/// Whether the port or the service of a flow is declared as opaque bytes: no name is read.
fn is_declared(local: &Local<RingIo>, capture: &Capture, (_, destination): Key) -> bool {
    let services = &local.snapshot.services;
    let service = match capture.addresses.find(destination) {
        Some(Leads::Service(to, _)) => services.get(to.service as usize),
        Some(Leads::Endpoint { service }) => services.get(service as usize),
        None => None,
    };
    capture.declared(destination.port()) == Some(Declared::Tcp)
        || service.is_some_and(|service| service.protocol == Protocol::Tcp)
}

impl Flow {
    /// Sends a datagram of the client to the destination.
    fn send(&self, flows: &Flows, bytes: &[u8]) {
        self.active.set(flows.worker.io.recent());
        self.count(flows, datagram::give(&self.far, bytes), bytes.len(), true);
    }

    /// Counts a datagram of `bytes` bytes by the result of sending it.
    fn count(&self, flows: &Flows, given: io::Result<()>, bytes: usize, outward: bool) {
        let cells = flows.cells(&self.capture);
        match given {
            Ok(()) if outward => {
                cells.datagrams_out.increment();
                cells.datagram_bytes_out.add(bytes as u64);
            }
            Ok(()) => {
                cells.datagrams_in.increment();
                cells.datagram_bytes_in.add(bytes as u64);
            }
            Err(_) => cells.datagrams_lost.increment(),
        }
    }

    /// Sends a datagram to the client with the address of the workload as the source.
    fn answer(&self, flows: &Flows, datagram: &[u8]) -> io::Result<()> {
        let (client, destination) = self.key;
        flows.raw_udp(destination, self.capture.mark)?.say(destination, client, datagram)
    }

    /// Notes the id of a QUIC connection in a datagram of its endpoint.
    fn follow(&self, datagram: &[u8]) {
        if let Some((ids, state)) = self.ids.as_ref().zip(self.capture.passed.as_ref())
            && let Some(udp) = &self.capture.udp
        {
            ids.follow(state, &self.to, datagram, udp.flows_max_each);
        }
    }

    /// Forwards waiting datagrams from the client to the destination (`outward`), or from the
    /// destination to the client. An error means that the socket that was read is closed.
    fn pump(&self, flows: &Flows, outward: bool) -> io::Result<()> {
        let mut block = flows.block.borrow_mut();
        for _ in 0..BATCH_MAX {
            let taken = match (outward, &self.near) {
                (true, None) => return Ok(()),
                (true, Some(near)) => datagram::take(near, &mut block),
                (false, _) => datagram::take(&self.far, &mut block),
            };
            match taken {
                Ok(bytes) => {
                    self.active.set(flows.worker.io.recent());
                    let datagram = &block[..bytes];
                    if !outward {
                        self.follow(datagram);
                    }
                    let given = match (outward, &self.near) {
                        (true, _) => datagram::give(&self.far, datagram),
                        (false, Some(near)) => datagram::give(near, datagram),
                        (false, None) => self.answer(flows, datagram),
                    };
                    self.count(flows, given, bytes, outward);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Forwards datagrams both ways until none has passed for `idle`, or until one side is closed.
async fn carry(flows: Rc<Flows>, flow: Rc<Flow>, udp: Udp) {
    let (io, idle) = (&flows.worker.io, udp.idle);
    let alarm = io.alarms().alarm();
    loop {
        alarm.set(flow.active.get() + idle);
        let mut near = pin!(async {
            match &flow.near {
                Some(near) => near.readable().await,
                None => std::future::pending().await,
            }
        });
        let mut far = pin!(flow.far.readable());
        let mut either = pin!(poll_fn(|context| {
            let sides = (near.as_mut().poll(context), far.as_mut().poll(context));
            match sides {
                (Poll::Pending, Poll::Pending) => Poll::Pending,
                (near, far) => Poll::Ready((near.is_ready(), far.is_ready())),
            }
        }));
        let Ok((outward, inward)) = alarm.guard(&mut either).await else {
            if io.now() >= flow.active.get() + idle {
                break;
            }
            continue;
        };
        // Update the time that `recent` returns.
        io.now();
        let outward = if outward { flow.pump(&flows, true) } else { Ok(()) };
        let inward = if inward { flow.pump(&flows, false) } else { Ok(()) };
        if inward.is_err() || outward.is_err() {
            break;
        }
    }
    flows.known.borrow_mut().remove(&flow.key);
    if let Some((ids, state)) = flow.ids.as_ref().zip(flow.capture.passed.as_ref()) {
        ids.forget(state);
    }
    flows.cells(&flow.capture).flows_active.decrement();
}
