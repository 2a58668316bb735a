//! Captured connections: detection, admission and forwarding.
//!
//! Inbound connections are forwarded to the workload. Their port decides whether they need mutual
//! TLS. Outbound connections are forwarded to the service of a route or address. All others are
//! forwarded to their original destination, if that is allowed.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::connection::speak_http;
use super::{http2, outsider, secure};
use crate::cluster::Protocol as Speaks;
use crate::decision;
use crate::detect::Protocol;
use crate::error::{Flag, Refusal};
use crate::l4::sni;
use crate::l4::sniff::{self, Over, Sniffed, Way};
use crate::l4::tcp::{self, Begun, By};
use crate::mesh::{
    self, Admission, Capture, CaptureError, Declared, Direction, Onward, OriginalTarget,
};
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Io, Stream};
use crate::runtime::socket;
use crate::serve::record::ExchangeRecord;
use crate::serve::tunnel::Tunnel;
use crate::serve::{Downstream, OriginalDestination, plan};
use crate::snapshot::Listener;
use crate::tls::{self, Mode};
use crate::upstream::Local;

/// A captured connection that is ready to be served. It holds no reference to the snapshot.
pub enum Ready<I: Io> {
    /// Serve HTTP/1. The first request must arrive within this time.
    Http(Downstream<I>, Duration, Option<Buf>),
    /// Serve HTTP/2.
    Http2(Downstream<I>, Option<Buf>),
    /// Serve opaque bytes.
    Tunnel(Downstream<I>, Box<Tunnel<I>>),
}

/// Serves a connection whose original destination is `original`.
pub async fn serve<I: Io>(
    downstream: Downstream<I>,
    listener: Arc<Listener>,
    original: Result<SocketAddr, CaptureError>,
) {
    // Boxed, so that the state of detection is freed before the connection is served.
    let ready = Box::pin(prepare(downstream, listener, original)).await;
    match ready {
        Some(Ready::Http(downstream, timeout, first)) => {
            speak_http(downstream, timeout, false, first).await;
        }
        Some(Ready::Http2(downstream, first)) => http2::serve(downstream, first).await,
        Some(Ready::Tunnel(downstream, tunnel)) => Box::pin(tunnel.run(&downstream)).await,
        None => {}
    }
}

/// Decides about a QUIC connection of another proxy to the listener for captured inbound traffic.
/// Its server name says the port of the workload. Connections of other listeners are accepted.
pub(super) fn accepts_quic<I: Io>(
    downstream: &mut Downstream<I>,
    listener: &Listener,
    name: Option<String>,
    local: Option<IpAddr>,
) -> bool {
    let Some(capture) = listener.capture() else { return true };
    let onward = name.as_deref().and_then(Onward::parse).zip(local);
    let Some((Onward { port, http2 }, ip)) = onward else {
        refuse_capture(downstream, listener, capture, CaptureError::NoDestination);
        return false;
    };
    let original = SocketAddr::new(ip, port);
    let snapshot = Arc::clone(&downstream.local().snapshot);
    let client = downstream.peer.address;
    let error = decision::capture_error(capture, &snapshot, client, original, socket::is_local);
    let peer = downstream.peer_mut();
    peer.local_port = port;
    peer.workload = capture.identity.clone();
    downstream.captured = Some(Rc::new(OriginalDestination::over_quic(original, http2)));
    if let Some(error) = error {
        refuse_capture(downstream, listener, capture, error);
        return false;
    }
    if let Admission::Plain = capture.admission(port) {
        refuse(downstream, &NO_MTLS);
        return false;
    }
    if is_declared_tcp(downstream) {
        refuse(downstream, &OPAQUE);
        return false;
    }
    true
}

/// Whether the destination of a connection is declared as opaque bytes.
fn is_declared_tcp<I: Io>(downstream: &Downstream<I>) -> bool {
    let local = downstream.local();
    let Some((listener, _)) = downstream.listener(&local) else { return false };
    let way = way(downstream, &local, listener);
    declared(downstream, &local, listener, way.as_ref()) == Some(Declared::Tcp)
}

const OPAQUE: Refusal = Refusal {
    status: 0,
    flag: Flag::OriginalDestination,
    detail: "the port or its service is declared as tcp, so HTTP/3 requests cannot go there",
};

const NO_MTLS: Refusal = Refusal {
    status: 0,
    flag: Flag::Unauthorized,
    detail: "the port takes plain text only (mesh.inbound.mtls)",
};

/// Decides how to serve a connection. Returns `None` when the connection is closed.
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
            let first = secure::first_bytes(&downstream, &listener).await?;
            if first.data()[0] != tls::FIRST_BYTE {
                return outsider::prepare(downstream, &listener, first).await;
            }
            let accepted = secure::accept(downstream, &listener, tls, Some(first)).await;
            let (downstream, first) = accepted?;
            go_on(downstream, &listener, &capture, first).await
        }
        Admission::Tls(tls) => {
            let sniffed = look(&downstream, &listener, &capture, Looks::ForTls).await?;
            if sniffed.protocol != Some(Protocol::Tls) {
                return pass(downstream, sniffed).await;
            }
            let accepted = secure::accept(downstream, &listener, tls, sniffed.begun.first).await;
            let (downstream, first) = accepted?;
            go_on(downstream, &listener, &capture, first).await
        }
    }
}

/// Decides how to serve a connection that passed the TLS check. Detects its protocol if needed.
async fn go_on<I: Io>(
    downstream: Downstream<I>,
    listener: &Listener,
    capture: &Capture,
    first: Option<Buf>,
) -> Option<Ready<I>> {
    let sniffed = look(&downstream, listener, capture, Looks::At(first)).await?;
    pass(downstream, sniffed).await
}

/// The bytes whose protocol is detected.
enum Looks {
    /// The client's first bytes. They may be TLS with the proxy, even if the port has a declared
    /// protocol.
    ForTls,
    /// The bytes of the connection without the proxy's own TLS. The first of them may have been
    /// read already.
    At(Option<Buf>),
}

/// Detects the protocol of a connection. A declared protocol applies to all connections without
/// TLS. Returns `None` when the connection must be closed.
async fn look<I: Io>(
    downstream: &Downstream<I>,
    listener: &Listener,
    capture: &Capture,
    looks: Looks,
) -> Option<Sniffed<I>> {
    let local = downstream.local();
    let (current, _) = downstream.listener(&local)?;
    let way = way(downstream, &local, current);
    let declared = declared(downstream, &local, current, way.as_ref());
    let protocol = match declared {
        Some(Declared::Http) => Some(Protocol::Http1),
        Some(Declared::Tcp) | None => None,
    };
    let first = match (looks, declared) {
        (Looks::At(first), Some(_)) => {
            let begun = Begun { first, ..Begun::default() };
            return Some(Sniffed { protocol, begun, dialed: false });
        }
        (Looks::At(first), None) => first,
        (Looks::ForTls, _) => None,
    };
    // An HTTP client sends first, so no connection to the destination is opened early.
    let way = way.filter(|_| protocol.is_none());
    let began = downstream.worker.io.now();
    // The connection has no request yet, so a drain may close it at once.
    downstream.state().idle.set(true);
    let sniffed = sniff::run(downstream, &local, listener, way, first).await;
    downstream.state().idle.set(false);
    let mut sniffed = match sniffed {
        Ok(sniffed) => sniffed,
        Err(Over::Gone) => {
            // A reset tells the peer that its last bytes were not read.
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
    if declared.is_some() && sniffed.protocol != Some(Protocol::Tls) {
        sniffed.protocol = protocol;
    }
    Some(sniffed)
}

/// The protocol that the port or the service of a connection's destination declares.
fn declared<I: Io>(
    downstream: &Downstream<I>,
    local: &Local<I>,
    listener: &Listener,
    way: Option<&Way<I>>,
) -> Option<Declared> {
    let service = way.and_then(|way| way.service(local));
    downstream.client(listener).declared(service.map(|service| &*service.config))
}

/// Decides how to serve a connection after detection.
async fn pass<I: Io>(downstream: Downstream<I>, sniffed: Sniffed<I>) -> Option<Ready<I>> {
    let local = downstream.local();
    // Rules and addresses must be those of `local`: a reload may have replaced the snapshot during
    // the detection.
    let listener = Arc::clone(downstream.listener(&local)?.0);
    let (listener, capture) = (&*listener, listener.capture()?);
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
                begun.upstream = None; // the rule selects another service
                let tunnel = sni::open(&downstream, local, rule, begun).await?;
                return Some(Ready::Tunnel(downstream, tunnel));
            }
        }
        // A connection to the endpoint that was opened early for opaque bytes is not used.
        Some(Protocol::Http2) if speaks_http2(&downstream, &local, listener) => {
            return Some(Ready::Http2(downstream, begun.first));
        }
        Some(Protocol::Tls | Protocol::Http2 | Protocol::Opaque) | None => {}
    }
    let tunnel = onward(&downstream, local, listener, begun).await?;
    Some(Ready::Tunnel(downstream, tunnel))
}

/// Whether the destination service uses HTTP/2. Otherwise the connection is forwarded as opaque
/// bytes, because the server may not accept HTTP/1.1.
fn speaks_http2<I: Io>(downstream: &Downstream<I>, local: &Local<I>, listener: &Listener) -> bool {
    let way = way(downstream, local, listener);
    let service = way.as_ref().and_then(|way| way.service(local));
    service.is_some_and(|s| matches!(s.config.protocol, Speaks::Http2 | Speaks::Grpc))
}

/// Opens a tunnel to the original destination or its service. Counts unknown destinations.
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

/// Records the refusal of a connection whose protocol is not HTTP or not known.
pub fn refuse<I: Io>(downstream: &Downstream<I>, refusal: &Refusal) {
    let local = downstream.local();
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
        let reason = error.detail();
        tracing::warn!(listener, peer, reason, suppressed, "captured connection refused");
    });
    let flag = Flag::OriginalDestination;
    refuse(downstream, &Refusal { status: 502, flag, detail: error.detail() });
}

/// Returns the target of a captured connection. `None` if forwarding is not allowed.
fn way<I: Io>(downstream: &Downstream<I>, local: &Local<I>, listener: &Listener) -> Option<Way<I>> {
    let (capture, captured) = (listener.capture()?, downstream.captured.as_ref()?);
    match capture.target(captured.address) {
        OriginalTarget::Service(destination, _) => Some(Way::Service(destination)),
        _ => plan::original_service(downstream, local, listener).map(Way::Original),
    }
}
