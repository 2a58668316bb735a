//! How a connection arrived: its client, its port and its original destination.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use crate::mesh::{Capture, CaptureError};
use crate::net::Bind;
use crate::runtime::{own, socket};
use crate::snapshot::Snapshot;

/// The facts about a connection before its first byte.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The client's address. `None` means a Unix-domain socket.
    pub peer: Option<SocketAddr>,
    /// The listener's port; 0 if there is none.
    pub port: u16,
    /// The original destination, for a listener of captured connections.
    pub original: Option<Result<SocketAddr, CaptureError>>,
}

impl Arrival {
    /// The arrival of a connection accepted at `bind` of the listener called `listener`.
    pub fn of(
        socket: impl AsFd,
        peer: Option<SocketAddr>,
        bind: &Bind,
        listener: &str,
        snapshot: &Snapshot,
    ) -> Self {
        let capture = snapshot.listener(listener).and_then(|listener| listener.capture());
        let original =
            capture.map(|capture| original(socket, peer, bind.port(), capture, snapshot));
        Self { peer, port: bind.port(), original }
    }
}

fn original(
    socket: impl AsFd,
    peer: Option<SocketAddr>,
    port: u16,
    capture: &Capture,
    snapshot: &Snapshot,
) -> Result<SocketAddr, CaptureError> {
    let original = socket::original_destination(socket, capture.intercept, port)
        .ok_or(CaptureError::NoDestination)?;
    if peer.is_some_and(|peer| own::is_own(peer, original)) {
        return Err(CaptureError::Loop);
    }
    if is_ours(original, snapshot) {
        return Err(CaptureError::Ourselves);
    }
    if capture.excludes(peer, original) {
        return Err(CaptureError::Excluded);
    }
    Ok(original)
}

/// Whether one of our listeners has this address.
pub fn is_ours(address: SocketAddr, snapshot: &Snapshot) -> bool {
    let binds = snapshot.listeners.iter().flat_map(|listener| &listener.binds);
    binds.into_iter().any(|bind| match bind {
        Bind::Tcp(bind) if bind.port() == address.port() => {
            bind.ip() == address.ip()
                || (bind.ip().is_unspecified()
                    && bind.is_ipv4() == address.is_ipv4()
                    && socket::is_local(address.ip()))
        }
        _ => false,
    })
}
