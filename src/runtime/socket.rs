//! System calls on sockets that take no time: options, peeks, addresses, nonblocking splices.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::io::Quiet;
use crate::net::Intercept;
use crate::net::{Address, Egress};

/// Bytes a splice pipe holds, as far as `/proc/sys/fs/pipe-max-size` lets it.
pub const PIPE_BYTES: usize = 256 * 1024;

/// Ports of connections that bear a client's address. The client itself takes higher ones, by the
/// default of its system: to the kernel, its connection to the application and ours would be one if
/// their ports were the same. Servers mostly listen on lower ones.
const BORROWED_PORTS: RangeInclusive<u16> = 16384..=32767;

/// How often another of them is tried before the kernel may choose any.
const BORROWED_PORTS_TRIED: u32 = 8;

/// Looks at the socket without taking anything from it. poll(2) rather than a peek: it takes no
/// lock on the socket.
pub fn quiet(socket: impl AsFd) -> Quiet {
    let ended = PollFlags::from_bits_retain(libc::POLLRDHUP);
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN | ended)];
    match poll(&mut polled, PollTimeout::ZERO) {
        Ok(0) | Err(Errno::EINTR) => Quiet::Quiet,
        Ok(_) if polled[0].revents() == Some(PollFlags::POLLIN) => Quiet::Data,
        Ok(_) | Err(_) => Quiet::Closed,
    }
}

/// Starts to connect by `egress` and does not wait for it. For TCP with TCP_NODELAY.
///
/// # Errors
/// What socket(2) or connect(2) say at once, among them a Unix-domain socket without a listener.
pub fn start_connect(to: &Address, egress: Egress) -> io::Result<Socket> {
    let address = match to {
        Address::Tcp(address) => *address,
        Address::Unix(path) => {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            return begin(socket, &SockAddr::unix(path)?);
        }
    };
    for _ in 0..BORROWED_PORTS_TRIED {
        let Some(source) = egress.source else { break };
        let port = fastrand::u16(BORROWED_PORTS);
        let socket = tcp(address)?;
        set_mark(&socket, egress.mark);
        set_transparent(&socket, source)?;
        // Others may have it too, as long as they are connected to elsewhere.
        socket.set_reuse_address(true)?;
        let begun = socket
            .bind(&SockAddr::from(SocketAddr::new(source, port)))
            .and_then(|()| begin(socket, &address.into()));
        let taken = [io::ErrorKind::AddrInUse, io::ErrorKind::AddrNotAvailable];
        match begun {
            Err(error) if taken.contains(&error.kind()) => {}
            begun => return begun,
        }
    }
    let socket = tcp(address)?;
    leave_by(&socket, egress)?;
    begin(socket, &address.into())
}

/// A socket for a connection to `address`, with TCP_NODELAY.
fn tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

fn begin(socket: Socket, address: &SockAddr) -> io::Result<Socket> {
    socket.set_nonblocking(true)?;
    match socket.connect(address) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error),
        _ => Ok(socket),
    }
}

/// Gives a socket that is about to connect its mark and the address that it comes from.
///
/// # Errors
/// Without CAP_NET_ADMIN when it is to come from an address that is not ours.
pub fn leave_by(socket: &Socket, egress: Egress) -> io::Result<()> {
    set_mark(socket, egress.mark);
    let Some(source) = egress.source else { return Ok(()) };
    set_transparent(socket, source)?;
    // The port is chosen when the whole connection is known: more connections fit.
    setsockopt(socket, sockopt::IpBindAddressNoPort, &true).ok();
    socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))
}

fn set_mark(socket: &Socket, mark: u32) {
    if mark != 0 {
        // Without the right to mark, the rules know our traffic by its user alone.
        socket.set_mark(mark).ok();
    }
}

/// Lets a socket have addresses of the family of `ip` that are not ours (IP_TRANSPARENT).
///
/// # Errors
/// Without CAP_NET_ADMIN.
pub fn set_transparent(socket: &Socket, ip: IpAddr) -> io::Result<()> {
    match ip {
        IpAddr::V4(_) => socket.set_ip_transparent_v4(true),
        IpAddr::V6(_) => socket.set_ip_transparent_v6(true),
    }
}

/// Where a captured connection to a listener on `port` was meant to go; `None` when nobody knows.
/// What comes by REDIRECT to a listener for TPROXY is known by having our own port.
pub fn original_destination(
    socket: impl AsFd,
    intercept: Intercept,
    port: u16,
) -> Option<SocketAddr> {
    let socket = SockRef::from(&socket);
    let local = socket.local_addr().ok()?.as_socket()?;
    if intercept == Intercept::Tproxy && local.port() != port {
        return Some(local);
    }
    let original = match local {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    match original {
        Ok(original) => original.as_socket(),
        Err(_) => (intercept == Intercept::Tproxy).then_some(local),
    }
}

/// Whether `ip` is an address of this host.
pub fn is_local(ip: IpAddr) -> bool {
    let address = SocketAddr::new(ip, 0);
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None);
    ip.is_loopback() || socket.is_ok_and(|socket| socket.bind(&SockAddr::from(address)).is_ok())
}

/// The next connection that waits on a nonblocking listening socket, close-on-exec.
///
/// # Errors
/// `WouldBlock` when none waits; EMFILE and its like when the process is at a limit.
pub fn accept(listener: impl AsFd) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let (socket, peer) = SockRef::from(&listener).accept()?;
    Ok((socket.into(), peer.as_socket()))
}

/// Takes what has come through a nonblocking socket that is used as a wake. False when the other
/// end is gone.
pub fn drain_wakes(wake: impl AsFd) -> bool {
    let mut rings = [0; 256];
    loop {
        match nix::unistd::read(&wake, &mut rings) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(Errno::EAGAIN) => return true,
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

/// Makes the close of `socket` send a reset.
pub fn reset_on_close(socket: impl AsFd) {
    // A socket that cannot linger is closed already.
    SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO)).ok();
}

/// Ends our side of `socket`.
pub fn shutdown_write(socket: impl AsFd) {
    // A socket that cannot be shut down is closed already.
    SockRef::from(&socket).shutdown(std::net::Shutdown::Write).ok();
}

/// Sets or clears O_NONBLOCK.
///
/// # Errors
/// What fcntl(2) says.
pub fn set_nonblocking(socket: impl AsFd, nonblocking: bool) -> io::Result<()> {
    SockRef::from(&socket).set_nonblocking(nonblocking)
}

/// A pipe for splicing, and how much is in it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    filled_bytes: usize,
}

impl Pipe {
    /// A new, empty pipe.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // A smaller pipe works too, in more steps.
        fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES as i32)).ok();
        Ok(Self { read, write, filled_bytes: 0 })
    }

    /// Bytes in the pipe.
    pub fn filled_bytes(&self) -> usize {
        self.filled_bytes
    }

    /// Moves up to `bytes_max` from a nonblocking socket into the pipe. Zero is the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing waits or the pipe is full.
    pub fn fill(&mut self, source: impl AsFd, bytes_max: usize) -> io::Result<usize> {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        let n = splice(source, None, &self.write, None, bytes_max, flags)?;
        self.filled_bytes += n;
        Ok(n)
    }

    /// Moves what is in the pipe to a nonblocking socket.
    ///
    /// # Errors
    /// `WouldBlock` when the socket takes no more for now.
    pub fn drain(&mut self, sink: impl AsFd) -> io::Result<usize> {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        let n = splice(&self.read, None, sink, None, self.filled_bytes, flags)?;
        self.filled_bytes -= n.min(self.filled_bytes);
        Ok(n)
    }
}
