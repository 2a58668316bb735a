//! Servers that answer with their name and the addresses of a connection, and clients for them.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use nix::sys::socket::{self, ControlMessageOwned, MsgFlags, SockaddrStorage, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::namespace::Namespace;
use crate::support::uninterrupted;

/// How long a client waits for an expected answer. A connection without an answer is refused or
/// reset, so it needs no wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// A listening socket. It stops listening when dropped.
pub struct Server(OwnedFd);

impl Drop for Server {
    fn drop(&mut self) {
        // Wake the waiting thread.
        socket::shutdown(self.0.as_raw_fd(), socket::Shutdown::Both).ok();
    }
}

/// A TCP server on all addresses. It answers each connection with a line: its `name`, the
/// destination that the client used, and the client's address.
pub fn server(namespace: &Namespace, name: &'static str, port: u16) -> Server {
    serve(namespace, name, port, false)
}

/// Like [`server`], but for connections to any address (`IP_TRANSPARENT`).
pub fn transparent(namespace: &Namespace, name: &'static str, port: u16) -> Server {
    serve(namespace, name, port, true)
}

fn serve(namespace: &Namespace, name: &'static str, port: u16, transparent: bool) -> Server {
    let listener = namespace.within(|| {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_reuse_address(true).unwrap();
        if transparent {
            socket.set_ip_transparent_v4(true).unwrap();
        }
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into()).unwrap();
        socket.listen(64).unwrap();
        TcpListener::from(socket)
    });
    let held = Server(listener.try_clone().unwrap().into());
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let socket = SockRef::from(&stream);
            let translated = match stream.local_addr().unwrap().ip().to_canonical() {
                IpAddr::V4(_) => socket.original_dst_v4(),
                IpAddr::V6(_) => socket.original_dst_v6(),
            };
            let translated = translated.ok().and_then(|address| address.as_socket());
            let meant = translated.unwrap_or_else(|| stream.local_addr().unwrap());
            let (meant, peer) = (plain(meant), plain(peer).ip());
            stream.write_all(format!("{name} {meant} from {peer}\n").as_bytes()).ok();
        }
    });
    held
}

fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The properties of the client.
#[derive(Clone, Copy, Default)]
pub struct Asking {
    pub uid: u32,
    pub gid: u32,
    pub mark: u32,
}

/// The answer of the server, or `refused`, `reset`, `closed`, `silent`.
pub fn ask(from: &Namespace, address: &str, port: u16) -> String {
    ask_as(from, address, port, Asking::default())
}

/// Like [`ask`], with these properties of the client.
pub fn ask_as(from: &Namespace, address: &str, port: u16, who: Asking) -> String {
    let address = SocketAddr::new(address.parse().unwrap(), port);
    if who.uid != 0 || who.gid != 0 {
        return ask_by_process(from, address, who);
    }
    from.within(|| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        if who.mark != 0 {
            socket.set_mark(who.mark).unwrap();
        }
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        if let Err(error) = socket.connect_timeout(&address.into(), PATIENCE) {
            return reason(&error);
        }
        let mut text = String::new();
        match (&socket).read_to_string(&mut text) {
            Ok(0) => "closed".to_owned(),
            Ok(_) => text.trim().to_owned(),
            Err(error) => reason(&error),
        }
    })
}

fn reason(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "refused".to_owned(),
        ErrorKind::ConnectionReset => "reset".to_owned(),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "silent".to_owned(),
        _ => error.to_string(),
    }
}

/// A user belongs to a process, so another process opens the connection.
fn ask_by_process(from: &Namespace, address: SocketAddr, who: Asking) -> String {
    let (ip, port) = (address.ip(), address.port());
    let script = format!("exec 3<>/dev/tcp/{ip}/{port} && head -n 1 <&3");
    let output = from.within(|| {
        Command::new("bash").args(["-c", &script]).uid(who.uid).gid(who.gid).output().unwrap()
    });
    match String::from_utf8_lossy(&output.stderr).contains("Connection refused") {
        true => "refused".to_owned(),
        false => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    }
}

/// A UDP server. A `transparent` one receives datagrams to any address, and answers from that
/// address.
pub fn udp_server(
    namespace: &Namespace,
    name: &'static str,
    address: (&str, u16),
    transparent: bool,
) -> Server {
    let address = SocketAddr::new(address.0.parse().unwrap(), address.1);
    let bind = move |address: SocketAddr| {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(true).unwrap();
        }
        // It also answers from ports that other sockets use.
        socket.set_reuse_address(true).unwrap();
        if transparent {
            // The proxy's own packets have this mark.
            socket.set_ip_transparent_v4(true).unwrap();
            socket.set_mark(1338).unwrap();
        }
        socket.bind(&address.into()).unwrap();
        UdpSocket::from(socket)
    };
    let file = std::fs::File::open(format!("/run/netns/{}", namespace.name)).unwrap();
    let socket = namespace.within(|| bind(address));
    socket::setsockopt(&socket, sockopt::Ipv4OrigDstAddr, &true).ok();
    socket::setsockopt(&socket, sockopt::Ipv6OrigDstAddr, &true).ok();
    let held = Server(socket.try_clone().unwrap().into());
    std::thread::spawn(move || {
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        while let Some((meant, client)) = received(&socket) {
            let answer = format!("{name} {meant} from {}", client.ip());
            match transparent {
                true => bind(meant).send_to(answer.as_bytes(), client).unwrap(),
                false => socket.send_to(answer.as_bytes(), client).unwrap(),
            };
        }
    });
    held
}

/// The next datagram: its destination and its sender. Returns `None` at the end.
fn received(socket: &UdpSocket) -> Option<(SocketAddr, SocketAddr)> {
    let mut bytes = [0; 64];
    let mut space = nix::cmsg_space!(libc::sockaddr_in, libc::sockaddr_in6);
    let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
    let fd = socket.as_raw_fd();
    let message =
        socket::recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut space), MsgFlags::empty());
    let message = message.ok()?;
    let client = message.address?;
    let client = match (client.as_sockaddr_in(), client.as_sockaddr_in6()) {
        (Some(v4), _) => SocketAddr::from((v4.ip(), v4.port())),
        (_, Some(v6)) => SocketAddr::from((v6.ip(), v6.port())),
        _ => return None,
    };
    let mut meant = None;
    for control in message.cmsgs().unwrap() {
        match control {
            ControlMessageOwned::Ipv4OrigDstAddr(to) => {
                let ip = std::net::Ipv4Addr::from_bits(u32::from_be(to.sin_addr.s_addr));
                meant = Some(SocketAddr::from((ip, u16::from_be(to.sin_port))));
            }
            ControlMessageOwned::Ipv6OrigDstAddr(to) => {
                let ip = Ipv6Addr::from(to.sin6_addr.s6_addr);
                meant = Some(SocketAddr::from((ip, u16::from_be(to.sin6_port))));
            }
            _ => {}
        }
    }
    Some((meant.unwrap_or(client), client))
}

/// Sends a datagram and does not wait for an answer.
pub fn send(from: &Namespace, address: &str, port: u16) {
    let address = SocketAddr::new(address.parse().unwrap(), port);
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    from.within(|| UdpSocket::bind(any).unwrap().send_to(b"?", address).unwrap());
}

/// The answer of a UDP server from any address. Returns `refused` or `silent` without an answer.
pub fn ask_udp(from: &Namespace, address: &str, port: u16) -> String {
    let address = SocketAddr::new(address.parse().unwrap(), port);
    from.within(|| {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).unwrap();
        // A connected socket gets only answers from the destination, and reports refusals.
        socket.connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send(b"?").unwrap();
        let mut bytes = [0; 128];
        match uninterrupted(|| socket.recv(&mut bytes)) {
            Ok(length) => String::from_utf8_lossy(&bytes[..length]).into_owned(),
            Err(error) => reason(&error),
        }
    })
}
