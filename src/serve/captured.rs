//! Captured connections: from where they were meant to go to where they go.
//!
//! Inbound ones go to the workload, through mutual TLS or not as its port demands. Outbound ones go
//! where a route or a service says, else on to their original destination if that is allowed.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::connection::{Connection, speak_http};
use super::http2;
use super::ledger::Ledger;
use super::originals;
use super::secure;
use super::sni;
use super::sniff::{self, Over, Sniffed};
use super::tunnel::{self, Begun, By};
use super::worker::{Local, LocalService};
use crate::cluster::{Destination, Protocol as Speaks};
use crate::detect::Protocol;
use crate::error::{Flag, Refusal};
use crate::identity::SpiffeId;
use crate::mesh::{self, Admission, Capture, Declared, Direction, Leads, Misled, Unknown};
use crate::message::{HeadView, Method};
use crate::route::Rule;
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Io, Read, Stream};
use crate::snapshot::Listener;
use crate::tls::{self, Mode, ServerTls};

/// What a connection knows of its capture.
pub struct Caught<I: Io> {
    /// Where it was meant to go.
    pub original: SocketAddr,
    /// Who has sent it, when that needs no proof: this workload itself.
    pub identity: Option<SpiffeId>,
    /// It came in the clear to a port that is for members of the mesh: only probes may pass.
    probes_only: bool,
    /// Where it goes when no route and no virtual address takes it, by version of the snapshot.
    service: RefCell<Option<Found<I>>>,
}

/// The version of the snapshot, and the service that was found in it.
type Found<I> = (u64, Option<Rc<LocalService<I>>>);

/// Serves a connection that was meant for `original`.
pub async fn serve<I: Io>(
    mut connection: Connection<I>,
    listener: Arc<Listener>,
    original: Result<SocketAddr, Misled>,
) {
    let Some(capture) = listener.capture().cloned() else { return };
    let original = match original {
        Ok(original) => original,
        Err(misled) => return refuse_misled(&connection, &listener, &capture, misled),
    };
    connection.local_port = original.port();
    connection.caught = Some(Rc::new(Caught {
        original,
        identity: capture.identity.clone(),
        probes_only: false,
        service: RefCell::new(None),
    }));
    match capture.admission(original.port()) {
        Admission::Plain => go_on(connection, &listener, &capture, None).await,
        Admission::Tls(tls) if tls.mode == Mode::Strict => {
            let Some((connection, first)) = members(connection, &listener, &capture, tls).await
            else {
                return;
            };
            go_on(connection, &listener, &capture, first).await;
        }
        Admission::Tls(tls) => {
            let Some(sniffed) = look(&connection, &listener, &capture, None).await else { return };
            if sniffed.protocol != Some(Protocol::Tls) {
                return pass(connection, &listener, &capture, sniffed).await;
            }
            let accepted = secure::accept(connection, &listener, tls, sniffed.begun.first).await;
            let Some((connection, first)) = accepted else { return };
            go_on(connection, &listener, &capture, first).await;
        }
    }
}

/// Lets in who proves to be a member of the mesh, and plain text where it may be a probe.
async fn members<I: Io>(
    connection: Connection<I>,
    listener: &Listener,
    capture: &Capture,
    tls: &ServerTls,
) -> Option<secure::Opened<I>> {
    if !capture.has_probes(connection.local_port) {
        return secure::accept(connection, listener, tls, None).await;
    }
    let io = connection.worker.io.clone();
    connection.alarm.set(io.now() + listener.timeouts.handshake);
    let read = connection.alarm.guard(connection.stream.read(io.buffers().take())).await;
    let Ok((Ok(Read::Data(_)), first)) = read else { return None };
    if first.data()[0] == tls::FIRST_BYTE {
        return secure::accept(connection, listener, tls, Some(first)).await;
    }
    let mut connection = connection;
    let caught = connection.caught.as_ref()?;
    connection.caught = Some(Rc::new(Caught {
        original: caught.original,
        identity: None,
        probes_only: true,
        service: RefCell::new(None),
    }));
    Some((connection, Some(first)))
}

/// Serves what has been let in.
async fn go_on<I: Io>(
    connection: Connection<I>,
    listener: &Arc<Listener>,
    capture: &Capture,
    first: Option<Buf>,
) {
    if connection.caught.as_ref().is_some_and(|caught| caught.probes_only) {
        return speak_http(connection, listener.timeouts.header, false, first).await;
    }
    let Some(sniffed) = look(&connection, listener, capture, first).await else { return };
    pass(connection, listener, capture, sniffed).await;
}

/// Finds out what a connection speaks, unless that is declared; `None` when it is over.
async fn look<I: Io>(
    connection: &Connection<I>,
    listener: &Listener,
    capture: &Capture,
    first: Option<Buf>,
) -> Option<Sniffed<I>> {
    let local = connection.worker.local();
    let way = way(connection, &local, listener);
    let service = way.as_ref().and_then(|way| way.service(&local));
    let is_tcp = service.is_some_and(|service| service.config.protocol == Speaks::Tcp);
    let declared = capture.declared(connection.local_port);
    let begun = Begun { first, ..Begun::default() };
    match declared.or_else(|| is_tcp.then_some(Declared::Tcp)) {
        Some(Declared::Tcp) => return Some(Sniffed { protocol: None, begun, dialed: false }),
        Some(Declared::Http) => {
            return Some(Sniffed { protocol: Some(Protocol::Http1), begun, dialed: false });
        }
        None => {}
    }
    let began = connection.worker.io.now();
    // Nothing has been asked of it yet: a drain may end it at once.
    connection.state().idle.set(true);
    let sniffed = sniff::run(connection, &local, listener, way, begun.first).await;
    connection.state().idle.set(false);
    let sniffed = match sniffed {
        Ok(sniffed) => sniffed,
        Err(Over::Gone) => {
            // Whoever speaks just now shall not take it for heard.
            connection.stream.reset_on_close();
            return None;
        }
        Err(Over::Refused(refusal)) => {
            refuse(connection, &local, listener, &refusal);
            return None;
        }
    };
    let cells = capture.stats.worker(connection.worker.index);
    if sniffed.dialed {
        cells.early.increment();
    }
    cells.detected[mesh::outcome_index(sniffed.protocol)].increment();
    let took = connection.worker.io.now().since(began);
    cells.detection.observe_us(took.as_micros() as u64);
    Some(sniffed)
}

/// Serves a connection as what it was found to be.
async fn pass<I: Io>(
    connection: Connection<I>,
    listener: &Arc<Listener>,
    capture: &Capture,
    sniffed: Sniffed<I>,
) {
    let local = connection.worker.local();
    let Sniffed { protocol, mut begun, .. } = sniffed;
    match protocol {
        Some(Protocol::Http1) => {
            if let Some(Ok(upstream)) = begun.upstream.take() {
                upstream.release(connection.worker.io.now());
            }
            drop(local);
            let timeout = listener.timeouts.header;
            return speak_http(connection, timeout, false, begun.first).await;
        }
        Some(Protocol::Tls) if capture.direction == Direction::Outbound => {
            let Some((hello, first)) = sni::hello(&connection, listener, begun.first).await else {
                return;
            };
            begun.first = Some(first);
            if let Some(rule) = sni::rule(&capture.routes, &hello) {
                begun.upstream = None; // it leads elsewhere
                return sni::carry(&connection, &local, listener, rule, begun).await;
            }
        }
        Some(Protocol::Http2) if speaks_http2(&connection, &local, listener) => {
            drop(begun.upstream); // it was opened for bytes
            drop(local);
            return http2::serve(connection, begun.first).await;
        }
        Some(Protocol::Tls | Protocol::Http2 | Protocol::Opaque) | None => {}
    }
    onward(&connection, &local, listener, begun).await;
}

/// Whether HTTP/2 is what the service speaks that the connection was meant for. Else it goes on as
/// it came: what it would become in HTTP/1.1 nobody there has asked for.
fn speaks_http2<I: Io>(connection: &Connection<I>, local: &Local<I>, listener: &Listener) -> bool {
    let way = way(connection, local, listener);
    let service = way.as_ref().and_then(|way| way.service(local));
    service.is_some_and(|s| matches!(s.config.protocol, Speaks::Http2 | Speaks::Grpc))
}

/// Bytes both ways to where the connection was meant to go.
async fn onward<I: Io>(
    connection: &Connection<I>,
    local: &Local<I>,
    listener: &Listener,
    begun: Begun<I>,
) {
    if let Err(refusal) = known(connection, listener) {
        return refuse(connection, local, listener, &refusal);
    }
    let Some(way) = way(connection, local, listener) else { return };
    let Some(service) = way.service(local) else { return };
    tunnel::carry(connection, local, listener, service, By::default(), begun).await;
}

/// Refuses a connection that is not, or not yet, known to speak HTTP.
fn refuse<I: Io>(
    connection: &Connection<I>,
    local: &Local<I>,
    listener: &Listener,
    refusal: &Refusal,
) {
    let ledger = Ledger::open(connection, local, listener);
    ledger.set_refusal(refusal);
    connection.stream.reset_on_close();
    ledger.log(None, b"");
}

fn refuse_misled<I: Io>(
    connection: &Connection<I>,
    listener: &Listener,
    capture: &Capture,
    misled: Misled,
) {
    let worker = &connection.worker;
    capture.stats.worker(worker.index).misled[misled.index()].increment();
    worker.complain(|suppressed| {
        let (listener, peer) = (&*listener.name, connection.peer_text.as_str());
        let why = misled.detail();
        tracing::warn!(listener, peer, why, suppressed, "captured connection refused");
    });
    let flag = Flag::OriginalDestination;
    let refusal = Refusal { status: 502, flag, detail: misled.detail() };
    refuse(connection, &worker.local(), listener, &refusal);
}

/// Where bytes go that no route takes.
pub enum Way<I: Io> {
    /// To any endpoint of a service.
    Service(Destination),
    /// To where the connection was meant to go.
    Original(Rc<LocalService<I>>),
}

impl<I: Io> Way<I> {
    /// The service.
    pub fn service<'s>(&'s self, local: &'s Local<I>) -> Option<&'s LocalService<I>> {
        match self {
            Self::Service(destination) => local.service(*destination, None),
            Self::Original(service) => Some(service),
        }
    }
}

/// Where a captured connection goes as it was meant; `None` when it may not.
fn way<I: Io>(connection: &Connection<I>, local: &Local<I>, listener: &Listener) -> Option<Way<I>> {
    let (capture, caught) = (listener.capture()?, connection.caught.as_ref()?);
    if capture.direction == Direction::Outbound
        && let Some(Leads::Service(destination, _)) = capture.addresses.find(caught.original)
    {
        return Some(Way::Service(*destination));
    }
    service(connection, local, listener).map(Way::Original)
}

/// Where a captured connection was meant to go, when that is no virtual address of a service.
pub fn service<I: Io>(
    connection: &Connection<I>,
    local: &Local<I>,
    listener: &Listener,
) -> Option<Rc<LocalService<I>>> {
    let caught = connection.caught.as_ref()?;
    let version = local.snapshot.version;
    if let Some((known, service)) = &*caught.service.borrow()
        && *known == version
    {
        return service.clone();
    }
    let client = connection.peer.map(|peer| peer.ip());
    let (capture, worker) = (listener.capture()?, connection.worker.index);
    let found = originals::find(local, worker, capture, caught.original, client);
    *caught.service.borrow_mut() = Some((version, found.clone()));
    found
}

/// The rule that a request falls under: the routes', or for a captured connection the one that
/// leads on to where it was meant to go.
///
/// # Errors
/// When there is none.
pub fn rule<'l, I: Io>(
    connection: &Connection<I>,
    listener: &'l Listener,
    request: HeadView<'_>,
) -> Result<&'l Arc<Rule>, Refusal> {
    const NO_ROUTE: Refusal =
        Refusal { status: 404, flag: Flag::NoRoute, detail: "no route matched" };
    if let Some(rule) = listener.routes().and_then(|routes| routes.find(request)) {
        return Ok(rule);
    }
    let Some((capture, caught)) = listener.capture().zip(connection.caught.as_ref()) else {
        return Err(NO_ROUTE);
    };
    known(connection, listener)?;
    match capture.addresses.find(caught.original) {
        Some(Leads::Service(_, rule)) if capture.direction == Direction::Outbound => Ok(rule),
        _ => Ok(&capture.onward),
    }
}

/// Counts what is meant for a destination that nobody names.
///
/// # Errors
/// When that is not allowed.
fn known<I: Io>(connection: &Connection<I>, listener: &Listener) -> Result<(), Refusal> {
    let Some((capture, caught)) = listener.capture().zip(connection.caught.as_ref()) else {
        return Ok(());
    };
    if capture.direction == Direction::Inbound || capture.addresses.find(caught.original).is_some()
    {
        return Ok(());
    }
    let allowed = capture.unknown == Unknown::Allow;
    capture.seen.worker(connection.worker.index).count(caught.original, allowed);
    if allowed { Ok(()) } else { Err(UNKNOWN) }
}

/// Whether a request is a probe, which needs no more.
///
/// # Errors
/// When nothing but a probe may pass, and it is none.
pub fn is_probe<I: Io>(
    connection: &Connection<I>,
    listener: &Listener,
    request: HeadView<'_>,
) -> Result<bool, Refusal> {
    let Some((capture, caught)) = listener.capture().zip(connection.caught.as_ref()) else {
        return Ok(false);
    };
    let looks = matches!(request.head.method, Method::Get | Method::Head);
    if looks && capture.is_probe(caught.original.port(), request.path()) {
        capture.stats.worker(connection.worker.index).probes.increment();
        return Ok(true);
    }
    if caught.probes_only { Err(MEMBERS_ONLY) } else { Ok(false) }
}

const UNKNOWN: Refusal = Refusal {
    status: 502,
    flag: Flag::OriginalDestination,
    detail: "neither a route nor a service names this destination, and unknown ones are denied",
};

const MEMBERS_ONLY: Refusal = Refusal {
    status: 403,
    flag: Flag::Unauthorized,
    detail: "this port is for members of the mesh, through mutual TLS",
};
