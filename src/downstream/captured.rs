//! Captured connections: from where they were meant to go to where they go.
//!
//! Inbound ones go to the workload, through mutual TLS or not as its port demands. Outbound ones go
//! where a route or a service says, else on to their original destination if that is allowed.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::connection::speak_http;
use super::{http2, secure};
use crate::cluster::Protocol as Speaks;
use crate::detect::Protocol;
use crate::error::{Flag, Refusal};
use crate::l4::sni;
use crate::l4::sniff::{self, Over, Sniffed, Way};
use crate::l4::tcp::{self, Begun, By};
use crate::mesh::{self, Admission, Capture, CaptureError, Declared, Direction, Leads};
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Io, Read, Stream};
use crate::serve::record::ExchangeRecord;
use crate::serve::tunnel::Tunnel;
use crate::serve::{Downstream, OriginalDestination, plan};
use crate::snapshot::Listener;
use crate::tls::{self, Mode, ServerTls};
use crate::upstream::Local;

/// A captured connection, ready to be served. It holds nothing of the snapshot.
enum Ready<I: Io> {
    /// As HTTP/1; the first request must come within the time given.
    Http(Downstream<I>, Duration, Option<Buf>),
    /// As HTTP/2.
    Http2(Downstream<I>, Option<Buf>),
    /// As bytes.
    Tunnel(Downstream<I>, Box<Tunnel<I>>),
}

/// Serves a connection that was meant for `original`.
pub async fn serve<I: Io>(
    downstream: Downstream<I>,
    listener: Arc<Listener>,
    original: Result<SocketAddr, CaptureError>,
) {
    // Boxed: the state of finding out is gone when the connection is served.
    let ready = Box::pin(prepare(downstream, listener, original)).await;
    match ready {
        Some(Ready::Http(downstream, timeout, first)) => {
            speak_http(downstream, timeout, false, first).await;
        }
        Some(Ready::Http2(downstream, first)) => http2::serve(downstream, first).await,
        Some(Ready::Tunnel(downstream, tunnel)) => tunnel.run(&downstream).await,
        None => {}
    }
}

/// Finds out how a connection that was meant for `original` is to be served; `None` when it is
/// over.
async fn prepare<I: Io>(
    mut downstream: Downstream<I>,
    listener: Arc<Listener>,
    original: Result<SocketAddr, CaptureError>,
) -> Option<Ready<I>> {
    let capture = Arc::clone(listener.capture()?);
    let original = match original {
        Ok(original) => original,
        Err(error) => {
            refuse_capture(&downstream, &listener, &capture, error);
            return None;
        }
    };
    let peer = downstream.peer_mut();
    peer.local_port = original.port();
    peer.workload = capture.identity.clone();
    downstream.captured = Some(Rc::new(OriginalDestination::new(original, false)));
    match capture.admission(original.port()) {
        Admission::Plain => go_on(downstream, &listener, &capture, None).await,
        Admission::Tls(tls) if tls.mode == Mode::Strict => {
            let (downstream, first) = members(downstream, &listener, &capture, tls).await?;
            go_on(downstream, &listener, &capture, first).await
        }
        Admission::Tls(tls) => {
            let sniffed = look(&downstream, &listener, &capture, None).await?;
            if sniffed.protocol != Some(Protocol::Tls) {
                return pass(downstream, &listener, &capture, sniffed).await;
            }
            let accepted = secure::accept(downstream, &listener, tls, sniffed.begun.first).await;
            let (downstream, first) = accepted?;
            go_on(downstream, &listener, &capture, first).await
        }
    }
}

/// Lets in who proves to be a member of the mesh, and plain text where it may be a probe.
async fn members<I: Io>(
    downstream: Downstream<I>,
    listener: &Listener,
    capture: &Capture,
    tls: &ServerTls,
) -> Option<secure::Opened<I>> {
    if !capture.has_probes(downstream.peer.local_port) {
        return secure::accept(downstream, listener, tls, None).await;
    }
    let io = downstream.worker.io.clone();
    downstream.alarm.set(io.now() + listener.timeouts.handshake);
    let read = downstream.alarm.guard(downstream.stream.read(io.buffers().take())).await;
    let Ok((Ok(Read::Data(_)), first)) = read else { return None };
    if first.data()[0] == tls::FIRST_BYTE {
        return secure::accept(downstream, listener, tls, Some(first)).await;
    }
    let mut downstream = downstream;
    let address = downstream.captured.as_ref()?.address;
    downstream.peer_mut().workload = None;
    downstream.captured = Some(Rc::new(OriginalDestination::new(address, true)));
    Some((downstream, Some(first)))
}

/// Goes on with a connection that has been let in.
async fn go_on<I: Io>(
    downstream: Downstream<I>,
    listener: &Listener,
    capture: &Capture,
    first: Option<Buf>,
) -> Option<Ready<I>> {
    if downstream.captured.as_ref().is_some_and(|captured| captured.probes_only()) {
        return Some(Ready::Http(downstream, listener.timeouts.header, first));
    }
    let sniffed = look(&downstream, listener, capture, first).await?;
    pass(downstream, listener, capture, sniffed).await
}

/// Finds out what a connection speaks, unless that is declared; `None` when it is over.
async fn look<I: Io>(
    downstream: &Downstream<I>,
    listener: &Listener,
    capture: &Capture,
    first: Option<Buf>,
) -> Option<Sniffed<I>> {
    let local = downstream.worker.local();
    let way = way(downstream, &local, listener);
    let service = way.as_ref().and_then(|way| way.service(&local));
    let is_tcp = service.is_some_and(|service| service.config.protocol == Speaks::Tcp);
    let declared = capture.declared(downstream.peer.local_port);
    let begun = Begun { first, ..Begun::default() };
    match declared.or_else(|| is_tcp.then_some(Declared::Tcp)) {
        Some(Declared::Tcp) => return Some(Sniffed { protocol: None, begun, dialed: false }),
        Some(Declared::Http) => {
            return Some(Sniffed { protocol: Some(Protocol::Http1), begun, dialed: false });
        }
        None => {}
    }
    let began = downstream.worker.io.now();
    // Nothing has been asked of it yet: a drain may end it at once.
    downstream.state().idle.set(true);
    let sniffed = sniff::run(downstream, &local, listener, way, begun.first).await;
    downstream.state().idle.set(false);
    let sniffed = match sniffed {
        Ok(sniffed) => sniffed,
        Err(Over::Gone) => {
            // The peer must not believe that its last bytes were read.
            downstream.stream.reset_on_close();
            return None;
        }
        Err(Over::Refused(refusal)) => {
            refuse(downstream, &refusal);
            return None;
        }
    };
    let cells = capture.stats.worker(downstream.worker.index);
    if sniffed.dialed {
        cells.early.increment();
    }
    cells.detected[mesh::outcome_index(sniffed.protocol)].increment();
    let took = downstream.worker.io.now().since(began);
    cells.detection.observe_us(took.as_micros() as u64);
    Some(sniffed)
}

/// Decides how a connection is served that speaks what was found out.
async fn pass<I: Io>(
    downstream: Downstream<I>,
    listener: &Listener,
    capture: &Capture,
    sniffed: Sniffed<I>,
) -> Option<Ready<I>> {
    let local = downstream.worker.local();
    let Sniffed { protocol, mut begun, .. } = sniffed;
    match protocol {
        Some(Protocol::Http1) => {
            if let Some(Ok(upstream)) = begun.upstream.take() {
                upstream.release(downstream.worker.io.now());
            }
            return Some(Ready::Http(downstream, listener.timeouts.header, begun.first));
        }
        Some(Protocol::Tls) if capture.direction == Direction::Outbound => {
            let (hello, first) = sni::hello(&downstream, listener, begun.first).await?;
            begun.first = Some(first);
            if let Some(rule) = sni::rule(&capture.routes, &hello) {
                begun.upstream = None; // it leads elsewhere
                let tunnel = sni::open(&downstream, local, rule, begun).await?;
                return Some(Ready::Tunnel(downstream, tunnel));
            }
        }
        // A connection that was opened for bytes is not used.
        Some(Protocol::Http2) if speaks_http2(&downstream, &local, listener) => {
            return Some(Ready::Http2(downstream, begun.first));
        }
        Some(Protocol::Tls | Protocol::Http2 | Protocol::Opaque) | None => {}
    }
    let tunnel = onward(&downstream, local, listener, begun).await?;
    Some(Ready::Tunnel(downstream, tunnel))
}

/// Whether HTTP/2 is what the service speaks that the connection was meant for. Else it goes on as
/// it came: what it would become in HTTP/1.1 nobody there has asked for.
fn speaks_http2<I: Io>(downstream: &Downstream<I>, local: &Local<I>, listener: &Listener) -> bool {
    let way = way(downstream, local, listener);
    let service = way.as_ref().and_then(|way| way.service(local));
    service.is_some_and(|s| matches!(s.config.protocol, Speaks::Http2 | Speaks::Grpc))
}

/// The tunnel to the original destination.
async fn onward<I: Io>(
    downstream: &Downstream<I>,
    local: Rc<Local<I>>,
    listener: &Listener,
    begun: Begun<I>,
) -> Option<Box<Tunnel<I>>> {
    if let Err(refusal) = plan::check_known(downstream, listener) {
        refuse(downstream, &refusal);
        return None;
    }
    let way = way(downstream, &local, listener)?;
    let service = Rc::clone(way.service(&local)?);
    tcp::open(downstream, local, service, By::default(), begun).await
}

/// Refuses a connection that is not, or not yet, known to speak HTTP.
fn refuse<I: Io>(downstream: &Downstream<I>, refusal: &Refusal) {
    let local = downstream.worker.local();
    let Some((_, terms)) = downstream.listener(&local) else { return };
    ExchangeRecord::open(downstream, terms).set_refusal(refusal);
    downstream.stream.reset_on_close();
}

fn refuse_capture<I: Io>(
    downstream: &Downstream<I>,
    listener: &Listener,
    capture: &Capture,
    error: CaptureError,
) {
    let worker = &downstream.worker;
    capture.stats.worker(worker.index).errors[error.index()].increment();
    worker.log_limited(|suppressed| {
        let (listener, peer) = (&*listener.name, downstream.peer.ip_text());
        let why = error.detail();
        tracing::warn!(listener, peer, why, suppressed, "captured connection refused");
    });
    let flag = Flag::OriginalDestination;
    refuse(downstream, &Refusal { status: 502, flag, detail: error.detail() });
}

/// Where a captured connection goes as it was meant; `None` when it may not.
fn way<I: Io>(downstream: &Downstream<I>, local: &Local<I>, listener: &Listener) -> Option<Way<I>> {
    let (capture, captured) = (listener.capture()?, downstream.captured.as_ref()?);
    if capture.direction == Direction::Outbound
        && let Some(Leads::Service(destination, _)) = capture.addresses.find(captured.address)
    {
        return Some(Way::Service(destination));
    }
    plan::original_service(downstream, local, listener).map(Way::Original)
}
