//! Listening sockets. The control thread binds them, and workers accept from them.
//!
//! Each worker has its own socket for each TCP address (SO_REUSEPORT), so that a new connection
//! wakes only one worker. A socket stays open across reloads as long as its address is configured,
//! so connections in its accept queue are not lost. When a socket is no longer needed, it gets a
//! filter that drops new SYNs. Its worker accepts the connections whose handshake had begun, and
//! then closes the socket.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::error::plain;
use crate::mesh::Capture;
use crate::net::Bind;
use crate::net::{Intercept, is_shortage};
use crate::runtime::socket::unix_listener;
use crate::runtime::{datagram, socket, udp};
use crate::snapshot::Snapshot;
use crate::worker::mailbox::{HANDSHAKE_GRACE, ListeningSocket};

/// The length of the accept queue. The kernel reduces it to `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;

/// How long after its removal an address can be bound again. After this time, all workers have
/// closed its sockets.
const CLOSED_AFTER: Duration = HANDSHAKE_GRACE.saturating_add(Duration::from_millis(100));

/// The listening sockets of the process.
pub struct Sockets {
    workers: usize,
    open: HashMap<Bind, Vec<OwnedFd>>,
    /// The removed addresses on which workers may still accept, each with the time at which it is
    /// closed.
    closing: HashMap<Bind, Instant>,
    /// The removed sockets for QUIC, each with the time at which its workers have ended. A socket
    /// that leaves the group earlier would change the place of the others, which the kernel's
    /// filter counts on.
    draining: Vec<(Instant, Vec<OwnedFd>)>,
    drain: Duration,
    passed: Vec<(String, OwnedFd)>,
}

/// The error if an address cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {bind}: {}{hint}", plain(error))]
pub struct BindError {
    /// The address that could not be bound.
    pub bind: Bind,
    error: io::Error,
    hint: String,
}

impl BindError {
    fn new(bind: &Bind, error: io::Error) -> Self {
        let hint = hint(bind, &error).to_owned();
        Self { bind: bind.clone(), error, hint }
    }

    /// Whether the process had no descriptors or memory left.
    pub fn is_shortage(&self) -> bool {
        is_shortage(&self.error)
    }
}

impl Sockets {
    /// Creates an empty set for `workers` workers. `passed` are the sockets that systemd has
    /// passed, by name.
    pub fn new(workers: usize, passed: Vec<(String, OwnedFd)>) -> Self {
        Self {
            workers,
            open: HashMap::new(),
            closing: HashMap::new(),
            draining: Vec::new(),
            drain: Duration::ZERO,
            passed,
        }
    }

    /// Binds the addresses of `snapshot` that are not bound yet. Returns the sockets of each
    /// worker.
    ///
    /// # Errors
    /// One error for each address that cannot be bound. In this case no new socket stays open.
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
                Err(error) => errors.push(self.explained(bind, error)),
            }
        }
        for (listener, bind) in captured(snapshot) {
            let Some(sockets) = new.get(bind).or_else(|| self.open.get(bind)) else { continue };
            if let Err(error) = let_capture(sockets, listener) {
                let hint = "; TPROXY needs CAP_NET_ADMIN: give it to the process, or write \
                            `intercept: redirect`";
                let hint = hint.to_owned();
                errors.push(BindError { bind: bind.clone(), error, hint });
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let sockets =
            |worker| of_worker(worker, snapshot, |b| new.get(b).or_else(|| self.open.get(b)));
        let sockets = (0..self.workers).map(sockets).collect::<Result<_, _>>();
        let sockets = sockets.map_err(|error| vec![error])?;
        self.open.extend(new);
        Ok(sockets)
    }

    /// Sets how the kernel detects a dead TCP peer. Accepted sockets inherit the setting.
    pub fn configure(&mut self, snapshot: &Snapshot) {
        self.drain = snapshot.drain.limit;
        for listener in &snapshot.listeners {
            let sockets = listener.binds.iter().filter(|bind| bind.is_stream());
            for socket in sockets.filter_map(|bind| self.open.get(bind)).flatten() {
                // Unix-domain sockets do not have these options. Ignore the error.
                socket::set_liveness(socket, listener.liveness).ok();
            }
        }
    }

    /// Closes the sockets that `snapshot` does not need. Workers keep their copies for a short
    /// time.
    pub fn keep_only(&mut self, snapshot: &Snapshot) {
        self.close_unless(|bind| snapshot.listeners.iter().any(|l| l.binds.contains(bind)));
    }

    /// Closes the sockets for which `keep` returns false. Workers keep their copies for a short
    /// time.
    pub fn close_unless(&mut self, keep: impl Fn(&Bind) -> bool) {
        let now = Instant::now();
        self.closing.retain(|_, closed| *closed > now);
        self.draining.retain(|(ended, _)| *ended > now);
        for (bind, sockets) in self.open.extract_if(|bind, _| !keep(bind)) {
            match &bind {
                Bind::Tcp(_) => {
                    for socket in &sockets {
                        // Without this filter, a connection that arrives just before the socket is
                        // closed would be reset.
                        socket::refuse_new(socket).ok();
                    }
                }
                // Another process may already have removed the file. Ignore the error.
                Bind::Unix(path) => _ = std::fs::remove_file(path),
                // systemd keeps its socket open, so the accept queue is not lost.
                Bind::Udp(_) | Bind::Quic(_) | Bind::Passed(_) | Bind::Systemd(_) => {}
            }
            if let Bind::Quic(_) | Bind::Passed(_) = &bind {
                self.draining.push((now + self.drain, sockets));
            }
            self.closing.insert(bind, now + CLOSED_AFTER);
        }
    }

    /// The time from which all addresses of `snapshot` can be bound. `None` means that they can be
    /// bound now.
    pub fn free_from(&self, snapshot: &Snapshot) -> Option<Instant> {
        let binds = snapshot.listeners.iter().flat_map(|listener| &listener.binds);
        binds.filter_map(|bind| self.closing.get(bind)).max().copied()
    }

    fn bind(&self, bind: &Bind) -> io::Result<Vec<OwnedFd>> {
        match bind {
            Bind::Tcp(address) => bind_tcp(*address, self.workers),
            Bind::Udp(address) => datagram::listen(*address, self.workers),
            Bind::Quic(address) => udp::listen(*address, self.workers),
            Bind::Passed(address) => udp::listen_unsteered(*address, self.workers),
            Bind::Unix(path) => Ok(vec![unix_listener(path, BACKLOG, None)?]),
            Bind::Systemd(name) => {
                let mut named = self.passed.iter().filter(|(known, _)| known == name);
                let (_, passed) = named.next().ok_or(io::ErrorKind::NotFound)?;
                if named.next().is_some() {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                let socket = Socket::from(passed.try_clone()?);
                socket.set_nonblocking(true)?;
                Ok(vec![socket.into()])
            }
        }
    }

    /// The error for an address that cannot be bound. It has a hint if a socket from systemd is the
    /// cause.
    fn explained(&self, bind: &Bind, error: io::Error) -> BindError {
        let local = |socket: &OwnedFd| SockRef::from(socket).local_addr().ok();
        let hint = match (bind, error.kind()) {
            (Bind::Tcp(address), io::ErrorKind::AddrInUse) => {
                let is_it = |socket: &OwnedFd| {
                    let passed = local(socket).and_then(|at| at.as_socket());
                    let only_v6 = SockRef::from(socket).only_v6().unwrap_or(true);
                    passed.is_some_and(|passed| takes(passed, only_v6, *address))
                };
                let it = self.passed.iter().find(|(_, socket)| is_it(socket));
                it.map(|(name, _)| {
                    format!("; systemd has passed this socket: write `bind: systemd:{name}`")
                })
            }
            (Bind::Systemd(name), io::ErrorKind::InvalidInput) => {
                let mut places = String::new();
                for (_, socket) in self.passed.iter().filter(|(known, _)| known == name) {
                    let address = local(socket).and_then(|at| at.as_socket());
                    let place = address.map_or_else(|| "a path".to_owned(), |at| at.to_string());
                    places += if places.is_empty() { "" } else { " and " };
                    places += &place;
                }
                let error = io::Error::other("systemd has passed several sockets of that name");
                let hint = format!(
                    " ({places}); give each a .socket unit with a FileDescriptorName= of its own"
                );
                return BindError { bind: bind.clone(), error, hint };
            }
            _ => None,
        };
        let mut explained = BindError::new(bind, error);
        explained.hint = hint.unwrap_or(explained.hint);
        explained
    }
}

/// Whether a socket bound to `passed` conflicts with a socket bound to `wanted`. `only_v6` is
/// IPV6_V6ONLY of the first one: `ListenStream=80` binds `[::]:80` and also accepts IPv4.
fn takes(passed: SocketAddr, only_v6: bool, wanted: SocketAddr) -> bool {
    let same_family = passed.is_ipv4() == wanted.is_ipv4();
    let any = passed.ip().is_unspecified() && (same_family || passed.is_ipv6() && !only_v6);
    let all = wanted.ip().is_unspecified() && same_family;
    passed.port() == wanted.port() && (any || all || passed.ip() == wanted.ip())
}

/// Duplicates the listening sockets that one worker uses. `open` returns the open sockets of an
/// address.
fn of_worker<'s>(
    worker: usize,
    snapshot: &Snapshot,
    open: impl Fn(&Bind) -> Option<&'s Vec<OwnedFd>>,
) -> Result<Vec<ListeningSocket>, BindError> {
    let mut sockets = Vec::new();
    for (listener, config) in snapshot.listeners.iter().enumerate() {
        for bind in &config.binds {
            let Some(open) = open(bind) else { continue };
            // A failure is an error: if this worker had no socket, the connections in its accept
            // queue would never be accepted.
            let descriptor = open[worker % open.len()].try_clone();
            let descriptor = descriptor.map_err(|error| BindError::new(bind, error))?;
            sockets.push(ListeningSocket { listener, bind: bind.clone(), descriptor });
        }
    }
    Ok(sockets)
}

/// The addresses for captured connections, each with the settings of its listener.
fn captured(snapshot: &Snapshot) -> impl Iterator<Item = (&Capture, &Bind)> {
    let captures = snapshot.listeners.iter().filter_map(|l| Some((&**l.capture()?, &l.binds)));
    captures.flat_map(|(capture, binds)| binds.iter().map(move |bind| (capture, bind)))
}

/// Sets the options with which listening sockets accept connections to other addresses.
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

/// Binds one socket for each worker. The first socket is bound without SO_REUSEPORT, so that
/// binding fails if the address is in use. Then the option is set, and the other sockets are bound
/// with it.
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
        socket.set_tcp_nodelay(true)?; // accepted sockets inherit this option
        socket.set_nonblocking(true)?;
        sockets.push(socket);
    }
    for socket in &sockets {
        socket.listen(BACKLOG)?;
    }
    Ok(sockets.into_iter().map(OwnedFd::from).collect())
}

fn hint(bind: &Bind, error: &io::Error) -> &'static str {
    match (bind, error.kind()) {
        (Bind::Tcp(_) | Bind::Quic(_) | Bind::Passed(_), io::ErrorKind::PermissionDenied) => {
            "; use a port above 1023, or give the process CAP_NET_BIND_SERVICE"
        }
        (Bind::Udp(_), io::ErrorKind::PermissionDenied) => {
            "; captured UDP needs CAP_NET_ADMIN: give it to the process, or leave `udp` out"
        }
        (Bind::Quic(_) | Bind::Passed(_), io::ErrorKind::AddrInUse) => {
            "; another process has this UDP port (see `ss -lunp`)"
        }
        (_, io::ErrorKind::AddrInUse) => "; another process listens there (see `ss -ltnp`)",
        (_, io::ErrorKind::AddrNotAvailable) => "; no interface of this machine has that address",
        (Bind::Systemd(_), io::ErrorKind::NotFound) => {
            "; systemd has passed no socket with that FileDescriptorName="
        }
        _ if is_shortage(error) => "; raise the limit on open files (`ulimit -n`, LimitNOFILE=)",
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
        drop(unix_listener(&path, BACKLOG, None).unwrap());
        let live = unix_listener(&path, BACKLOG, None).unwrap();
        assert_eq!(
            unix_listener(&path, BACKLOG, None).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(live);
    }
}
