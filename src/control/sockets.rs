//! Listening sockets. The control thread binds them, and workers accept from them.
//!
//! Each worker has its own socket for each TCP address (SO_REUSEPORT), so that a new connection
//! wakes one worker. A socket stays open across reloads as long as its address is configured, so
//! connections in its queue are not lost.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::mesh::Capture;
use crate::net::Bind;
use crate::net::Intercept;
use crate::runtime::datagram;
use crate::snapshot::Snapshot;
use crate::worker::mailbox::ListeningSocket;

/// The maximum number of connections that wait for accept; the kernel limits it to
/// `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;

/// All listening sockets of the process.
pub struct Sockets {
    workers: usize,
    open: HashMap<Bind, Vec<OwnedFd>>,
    passed: HashMap<String, OwnedFd>,
}

/// The error of an address that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {bind}: {error}{hint}")]
pub struct BindError {
    /// The address.
    pub bind: Bind,
    error: io::Error,
    hint: &'static str,
}

impl Sockets {
    /// Creates an empty set for `workers` workers. `passed` are the sockets from systemd, by name.
    pub fn new(workers: usize, passed: HashMap<String, OwnedFd>) -> Self {
        Self { workers, open: HashMap::new(), passed }
    }

    /// Binds the missing addresses of `snapshot`, and gives each worker its sockets.
    ///
    /// # Errors
    /// An error for each address that cannot be bound. No new socket stays open then.
    pub fn prepare(
        &mut self,
        snapshot: &Snapshot,
    ) -> Result<Vec<Vec<ListeningSocket>>, Vec<BindError>> {
        let mut new = HashMap::new();
        let mut errors = Vec::new();
        let binds = snapshot.listeners.iter().flat_map(|listener| &listener.binds);
        for bind in binds.filter(|bind| !self.open.contains_key(bind)) {
            match self.bind(bind) {
                Ok(sockets) => {
                    new.insert(bind.clone(), sockets);
                }
                Err(error) => {
                    let hint = hint(bind, &error);
                    errors.push(BindError { bind: bind.clone(), error, hint });
                }
            }
        }
        for (listener, bind) in captured(snapshot) {
            let Some(sockets) = new.get(bind).or_else(|| self.open.get(bind)) else { continue };
            if let Err(error) = let_capture(sockets, listener) {
                let hint = "; TPROXY needs CAP_NET_ADMIN: give it to the process, or write \
                            `intercept: redirect`";
                errors.push(BindError { bind: bind.clone(), error, hint });
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        self.open.extend(new);
        Ok((0..self.workers).map(|worker| self.of_worker(worker, snapshot)).collect())
    }

    /// Closes the sockets that `snapshot` does not need.
    pub fn keep_only(&mut self, snapshot: &Snapshot) {
        self.open.retain(|bind, _| {
            let kept = snapshot.listeners.iter().any(|listener| listener.binds.contains(bind));
            if let (false, Bind::Unix(path)) = (kept, bind) {
                // Another process may have removed the file already.
                std::fs::remove_file(path).ok();
            }
            kept
        });
    }

    /// Closes all sockets of the control thread. Connections that wait for accept are refused,
    /// unless a worker still accepts them.
    pub fn close_all(&mut self) {
        for bind in std::mem::take(&mut self.open).into_keys() {
            if let Bind::Unix(path) = bind {
                std::fs::remove_file(path).ok();
            }
        }
    }

    fn of_worker(&self, worker: usize, snapshot: &Snapshot) -> Vec<ListeningSocket> {
        let mut sockets = Vec::new();
        for (index, listener) in snapshot.listeners.iter().enumerate() {
            for bind in &listener.binds {
                let Some(open) = self.open.get(bind) else { continue };
                // Without free descriptors this worker gets no socket; the others still accept.
                if let Ok(descriptor) = open[worker % open.len()].try_clone() {
                    sockets.push(ListeningSocket {
                        listener: index,
                        bind: bind.clone(),
                        descriptor,
                    });
                }
            }
        }
        sockets
    }

    fn bind(&self, bind: &Bind) -> io::Result<Vec<OwnedFd>> {
        match bind {
            Bind::Tcp(address) => bind_tcp(*address, self.workers),
            Bind::Udp(address) => datagram::listen(*address, self.workers),
            Bind::Unix(path) => Ok(vec![bind_unix(path)?]),
            Bind::Systemd(name) => {
                let passed = self.passed.get(name).ok_or(io::ErrorKind::NotFound)?;
                let socket = Socket::from(passed.try_clone()?);
                socket.set_nonblocking(true)?;
                Ok(vec![socket.into()])
            }
        }
    }
}

/// The addresses for captured connections, with their settings.
fn captured(snapshot: &Snapshot) -> impl Iterator<Item = (&Capture, &Bind)> {
    let captures = snapshot.listeners.iter().filter_map(|l| Some((&**l.capture()?, &l.binds)));
    captures.flat_map(|(capture, binds)| binds.iter().map(move |bind| (capture, bind)))
}

/// Lets listening sockets accept connections for other addresses.
fn let_capture(sockets: &[OwnedFd], capture: &Capture) -> io::Result<()> {
    for socket in sockets {
        let socket = SockRef::from(socket);
        let transparent = capture.intercept == Intercept::Tproxy;
        match socket.local_addr()?.as_socket() {
            Some(SocketAddr::V4(_)) if transparent => socket.set_ip_transparent_v4(true)?,
            Some(SocketAddr::V6(_)) if transparent => socket.set_ip_transparent_v6(true)?,
            _ => {}
        }
    }
    Ok(())
}

/// Binds one socket for each worker. The first socket is bound without SO_REUSEPORT, so that an
/// address in use is always an error. Then the option is set, and the other sockets are bound with
/// it.
fn bind_tcp(address: SocketAddr, workers: usize) -> io::Result<Vec<OwnedFd>> {
    let mut sockets = Vec::new();
    for index in 0..workers.max(1) {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if index > 0 {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&SockAddr::from(address))?;
        if index == 0 {
            socket.set_reuse_port(true)?;
        }
        socket.set_tcp_nodelay(true)?; // accepted sockets inherit it
        socket.set_nonblocking(true)?;
        sockets.push(socket);
    }
    for socket in &sockets {
        socket.listen(BACKLOG)?;
    }
    Ok(sockets.into_iter().map(OwnedFd::from).collect())
}

/// Binds a Unix-domain socket. Replaces the file of a process that has ended.
fn bind_unix(path: &Path) -> io::Result<OwnedFd> {
    let address = SockAddr::unix(path)?;
    let left_behind = std::fs::symlink_metadata(path).is_ok_and(|d| d.file_type().is_socket());
    if left_behind {
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        if probe.connect(&address).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&address)?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn hint(bind: &Bind, error: &io::Error) -> &'static str {
    match (bind, error.kind()) {
        (Bind::Tcp(_), io::ErrorKind::PermissionDenied) => {
            "; use a port above 1023, or give the process CAP_NET_BIND_SERVICE"
        }
        (Bind::Udp(_), io::ErrorKind::PermissionDenied) => {
            "; captured UDP needs CAP_NET_ADMIN: give it to the process, or leave `udp` out"
        }
        (_, io::ErrorKind::AddrInUse) => "; another process listens there (see `ss -ltnp`)",
        (_, io::ErrorKind::AddrNotAvailable) => "; no interface of this machine has that address",
        (Bind::Systemd(_), io::ErrorKind::NotFound) => {
            "; systemd has passed no socket with that FileDescriptorName="
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_somebody_listens_on_is_an_error() {
        let first = bind_tcp("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let address = std::net::TcpListener::from(first.into_iter().next().unwrap());
        let address = address.local_addr().map(|a| (a, address)).unwrap();
        let again = bind_tcp(address.0, 2).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn every_worker_has_a_socket_of_its_own() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let sockets = bind_tcp(free, 3).unwrap();
        assert_eq!(sockets.len(), 3);
        std::net::TcpStream::connect(free).unwrap();
    }

    #[test]
    fn a_unix_socket_left_behind_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        drop(bind_unix(&path).unwrap());
        let live = bind_unix(&path).unwrap();
        assert_eq!(bind_unix(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(live);
    }
}
