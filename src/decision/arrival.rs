//! Decides whether a captured connection may be served at all.

use std::net::{IpAddr, SocketAddr};

use crate::mesh::{Capture, CaptureError};
use crate::net::Bind;
use crate::snapshot::Snapshot;

/// Returns the reason why a captured connection from `peer` to `original` must not be served.
/// `None` if it may be served. `is_local` returns whether an address belongs to this host.
pub fn capture_error(
    capture: &Capture,
    snapshot: &Snapshot,
    peer: Option<SocketAddr>,
    original: SocketAddr,
    is_local: impl Fn(IpAddr) -> bool,
) -> Option<CaptureError> {
    if is_ours(original, snapshot, &is_local)
        || is_reserved(original, snapshot, &is_local)
        || is_reserved(capture.application(original), snapshot, &is_local)
    {
        return Some(CaptureError::Ourselves);
    }
    capture.excludes(peer, original).then_some(CaptureError::Excluded)
}

/// Whether the admin interface or the resolver of this process has this address. Their sockets for
/// `[::]` also accept IPv4.
fn is_reserved(
    address: SocketAddr,
    snapshot: &Snapshot,
    is_local: impl Fn(IpAddr) -> bool,
) -> bool {
    snapshot.reserved.iter().filter(|bind| bind.port() == address.port()).any(|bind| {
        let takes = bind.is_ipv6() || address.is_ipv4();
        bind.ip() == address.ip() || bind.ip().is_unspecified() && takes && is_local(address.ip())
    })
}

/// Whether a listener of this proxy has this address. `is_local` returns whether an address belongs
/// to this host.
fn is_ours(address: SocketAddr, snapshot: &Snapshot, is_local: impl Fn(IpAddr) -> bool) -> bool {
    let binds = snapshot.listeners.iter().flat_map(|listener| &listener.binds);
    binds.into_iter().any(|bind| match bind {
        Bind::Tcp(bind) if bind.port() == address.port() => {
            bind.ip() == address.ip()
                || (bind.ip().is_unspecified()
                    && bind.is_ipv4() == address.is_ipv4()
                    && is_local(address.ip()))
        }
        _ => false,
    })
}
