//! System calls on sockets that never wait: options, state, addresses, nonblocking splices.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, SockAddr, SockFilter, SockRef, Socket, TcpKeepalive, Type};

use super::io::Quiet;
use crate::net::Intercept;
use crate::net::{Address, Egress, TcpLiveness};

/// The size of a splice pipe, if `/proc/sys/fs/pipe-max-size` allows it.
pub const PIPE_BYTES: usize = 256 * 1024;

/// Local ports for connections that the proxy opens with a client's source address. The kernel of
/// the client uses higher ports by default, and most servers listen on lower ports. If the client
/// used the same port as the proxy, this host could not distinguish their connections.
const BORROWED_PORTS: RangeInclusive<u16> = 16384..=32767;

/// How many of [`BORROWED_PORTS`] are tried before the kernel chooses a port.
const BORROWED_PORTS_TRIED: u32 = 8;

/// Checks the state of the socket without reading. poll(2) takes no lock on the socket; a peek
/// does.
pub fn quiet(socket: impl AsFd) -> Quiet {
    let ended = PollFlags::from_bits_retain(libc::POLLRDHUP);
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN | ended)];
    match poll(&mut polled, PollTimeout::ZERO) {
        Ok(0) | Err(Errno::EINTR) => Quiet::Quiet,
        Ok(_) => match polled[0].revents() {
            Some(PollFlags::POLLIN) => Quiet::Data,
            Some(_) => Quiet::Closed,
            // nix does not know POLLRDHUP, and returns no events at all if it is set.
            None if is_broken(&socket) => Quiet::Closed,
            None => Quiet::Ended,
        },
        Err(_) => Quiet::Closed,
    }
}

/// Whether both directions of the socket are closed: after a reset, or after FIN in both
/// directions.
pub fn is_broken(socket: impl AsFd) -> bool {
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|events| events > 0)
}

/// Starts a connection with the mark and the source address of `egress`. Does not wait. TCP sockets
/// get TCP_NODELAY.
///
/// # Errors
/// The immediate error of socket(2) or connect(2), for example for a Unix-domain socket without a
/// listener.
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
        let socket = tcp(address, egress.liveness)?;
        set_mark(&socket, egress.mark);
        set_transparent(&socket, source)?;
        // Several sockets may share the port if their destinations differ.
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
    let socket = tcp(address, egress.liveness)?;
    leave_by(&socket, egress)?;
    begin(socket, &address.into())
}

/// Creates a socket for a connection to `address`, with TCP_NODELAY.
fn tcp(address: SocketAddr, liveness: TcpLiveness) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    if liveness != TcpLiveness::default() {
        // If the kernel refuses the options, it detects a dead endpoint later.
        set_liveness(&socket, liveness).ok();
    }
    Ok(socket)
}

/// Sets the TCP keep-alive and the user timeout of a socket. Sockets that are accepted from a
/// listening socket inherit them.
///
/// # Errors
/// When the socket is not a TCP socket.
pub fn set_liveness(socket: impl AsFd, liveness: TcpLiveness) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    match liveness.keepalive {
        Some(keepalive) => {
            let options = TcpKeepalive::new()
                .with_time(keepalive.time)
                .with_interval(keepalive.interval)
                .with_retries(keepalive.probes);
            socket.set_tcp_keepalive(&options)?;
        }
        None => socket.set_keepalive(false)?,
    }
    socket.set_tcp_user_timeout(liveness.user_timeout)
}

fn begin(socket: Socket, address: &SockAddr) -> io::Result<Socket> {
    socket.set_nonblocking(true)?;
    match socket.connect(address) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error),
        _ => Ok(socket),
    }
}

/// Listens on a Unix-domain socket. Replaces the socket file of a process that has ended. `mode`
/// are the permissions of the file; the default is that of the process.
///
/// # Errors
/// When another process listens there, or the file cannot be made.
pub fn unix_listener(path: &Path, backlog: i32, mode: Option<u32>) -> io::Result<OwnedFd> {
    let address = SockAddr::unix(path)?;
    let left_behind = std::fs::symlink_metadata(path).is_ok_and(|d| d.file_type().is_socket());
    if left_behind {
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        probe.set_nonblocking(true)?;
        match probe.connect(&address) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            // A full queue is one of a process that lives.
            Ok(()) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            Err(error) => return Err(error),
        }
        std::fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if let Some(mode) = mode {
        // Linux gives the file the mode of the socket. So there is no time with another mode.
        fchmod(&socket, Mode::from_bits_truncate(mode))?;
    }
    socket.bind(&address)?;
    socket.set_nonblocking(true)?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// Sets the mark and the source address of `egress` on a socket before it connects.
///
/// # Errors
/// Without CAP_NET_ADMIN, if the source is not an address of this host.
pub fn leave_by(socket: &Socket, egress: Egress) -> io::Result<()> {
    set_mark(socket, egress.mark);
    let Some(source) = egress.source else { return Ok(()) };
    set_transparent(socket, source)?;
    // The kernel then chooses the port at connect(2), so one port can serve several destinations.
    setsockopt(socket, sockopt::IpBindAddressNoPort, &true).ok();
    socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))
}

fn set_mark(socket: &Socket, mark: u32) {
    if mark != 0 {
        // If the process may not set a mark, the capture rules still recognise its packets by their
        // user.
        socket.set_mark(mark).ok();
    }
}

/// Lets a socket use addresses that are not on this host, in the family of `ip` (IP_TRANSPARENT).
///
/// # Errors
/// Without CAP_NET_ADMIN.
pub fn set_transparent(socket: &Socket, ip: IpAddr) -> io::Result<()> {
    match ip {
        IpAddr::V4(_) => socket.set_ip_transparent_v4(true),
        IpAddr::V6(_) => socket.set_ip_transparent_v6(true),
    }
}

/// Returns the original destination of a connection captured by a listener on `port`. `None` when
/// it is not known. If a TPROXY listener gets a connection by REDIRECT, the local port of the
/// connection is `port`.
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

/// Accepts the next connection of a nonblocking listening socket. The new socket is close-on-exec.
///
/// # Errors
/// `WouldBlock` when there is none; EMFILE and similar errors when the process is at a limit.
pub fn accept(listener: impl AsFd) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let (socket, peer) = SockRef::from(&listener).accept()?;
    Ok((socket.into(), peer.as_socket()))
}

/// Makes a listening TCP socket ignore new connections. Connections in its queue stay there, and
/// handshakes that have begun continue. A client that connects now repeats its SYN after a second.
/// If the socket is closed by then, the client is refused.
///
/// # Errors
/// When the kernel does not allow the filter.
pub fn refuse_new(listener: impl AsFd) -> io::Result<()> {
    let (syn, syn_ack) = (0x02, 0x12);
    let load_flags = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    let and = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
    let if_equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let pass = (libc::BPF_RET | libc::BPF_K) as u16;
    SockRef::from(&listener).attach_filter(&[
        SockFilter::new(load_flags, 0, 0, 13),
        SockFilter::new(and, 0, 0, syn_ack),
        SockFilter::new(if_equal, 0, 1, syn),
        SockFilter::new(pass, 0, 0, 0),
        SockFilter::new(pass, 0, 0, u32::MAX),
    ])
}

/// Reads all bytes from a nonblocking wake-up socket. Returns false if the other end is closed.
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

/// Makes the close of `socket` send a reset (RST).
pub fn reset_on_close(socket: impl AsFd) {
    // The call fails only on a socket that is closed already.
    SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO)).ok();
}

/// Shuts down the write side of `socket`.
pub fn shutdown_write(socket: impl AsFd) {
    // The call fails only on a socket that is closed already.
    SockRef::from(&socket).shutdown(std::net::Shutdown::Write).ok();
}

/// Sets or clears O_NONBLOCK.
///
/// # Errors
/// The error of fcntl(2).
pub fn set_nonblocking(socket: impl AsFd, nonblocking: bool) -> io::Result<()> {
    SockRef::from(&socket).set_nonblocking(nonblocking)
}

/// A pipe for splice(2), and the number of bytes in the pipe.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    filled_bytes: usize,
}

impl Pipe {
    /// Creates an empty pipe.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn new() -> io::Result<Self> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // A smaller pipe works too, with more steps.
        fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES as i32)).ok();
        Ok(Self { read, write, filled_bytes: 0 })
    }

    /// The number of bytes in the pipe.
    pub fn filled_bytes(&self) -> usize {
        self.filled_bytes
    }

    /// Moves up to `bytes_max` bytes from a nonblocking socket into the pipe. Returns 0 at the end
    /// of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when there are no bytes or the pipe is full.
    pub fn fill(&mut self, source: impl AsFd, bytes_max: usize) -> io::Result<usize> {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        let n = splice(source, None, &self.write, None, bytes_max, flags)?;
        self.filled_bytes += n;
        Ok(n)
    }

    /// Moves the bytes in the pipe to a nonblocking socket.
    ///
    /// # Errors
    /// `WouldBlock` when the send buffer of the socket is full.
    pub fn drain(&mut self, sink: impl AsFd) -> io::Result<usize> {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        let n = splice(&self.read, None, sink, None, self.filled_bytes, flags)?;
        self.filled_bytes -= n.min(self.filled_bytes);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::net::Keepalive;

    #[test]
    fn accepted_sockets_inherit_how_the_kernel_notices_a_dead_peer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let accept = || {
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            Socket::from(listener.accept().unwrap().0)
        };
        let seconds = Duration::from_secs;
        let keepalive = Keepalive { time: seconds(7), interval: seconds(3), probes: 5 };
        let liveness = TcpLiveness { keepalive: Some(keepalive), user_timeout: Some(seconds(11)) };
        set_liveness(&listener, liveness).unwrap();
        let socket = accept();
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), seconds(7));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), seconds(3));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 5);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(seconds(11)));
        set_liveness(&listener, TcpLiveness::default()).unwrap();
        let socket = accept();
        assert!(!socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
        let connected = tcp(listener.local_addr().unwrap(), liveness).unwrap();
        assert_eq!(connected.tcp_user_timeout().unwrap(), Some(seconds(11)));
    }
}
