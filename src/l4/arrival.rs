//! The addresses of a new connection: its client, its port and its original destination.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use crate::decision;
use crate::mesh::{Capture, CaptureError};
use crate::net::Bind;
use crate::runtime::{own, socket};
use crate::snapshot::Snapshot;

/// The addresses of a connection, which are known before its first byte.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The client's address. `None` means a Unix-domain socket.
    pub peer: Option<SocketAddr>,
    /// The port of the listener; 0 if there is none.
    pub port: u16,
    /// The original destination, or the reason to refuse the connection. `None` if the listener
    /// does not capture.
    pub original: Option<Result<SocketAddr, CaptureError>>,
}

impl Arrival {
    /// Returns the addresses of a connection accepted at `bind` of the listener called `listener`.
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
    let error = decision::capture_error(capture, snapshot, peer, original, socket::is_local);
    error.map_or(Ok(original), Err)
}
