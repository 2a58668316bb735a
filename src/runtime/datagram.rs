//! UDP sockets for captured datagrams. One socket receives datagrams for other addresses. Each flow
//! has one socket to the client, with the address of the destination, and one to the destination.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recv, recvmsg, send, setsockopt, sockopt,
};
use socket2::{Domain, SockAddr, Socket, Type};

use super::socket::{leave_by, set_transparent};
use crate::net::Egress;

/// The maximum length of a datagram, in bytes.
pub const DATAGRAM_BYTES_MAX: usize = 64 * 1024;

/// A captured datagram, which was sent to the address of another host.
#[derive(Clone, Copy, Debug)]
pub struct Captured {
    /// The length. The data is at the start of the block that was passed to [`receive`].
    pub bytes: usize,
    /// The address of the sender.
    pub from: SocketAddr,
    /// The original destination. `None` when the kernel does not report it.
    pub meant_for: Option<SocketAddr>,
}

/// Opens sockets at `address`, one for each worker, that receive datagrams by TPROXY.
///
/// # Errors
/// Without CAP_NET_ADMIN, or when the address cannot be bound.
pub fn listen(address: SocketAddr, workers: usize) -> io::Result<Vec<OwnedFd>> {
    let mut sockets = Vec::new();
    for index in 0..workers.max(1) {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        set_transparent(&socket, address.ip())?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
            setsockopt(&socket, sockopt::Ipv6OrigDstAddr, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv4OrigDstAddr, &true)?;
        }
        // As for TCP, the first socket does not share its port, so its bind fails if another
        // process uses the port.
        if index > 0 {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&SockAddr::from(address))?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        sockets.push(socket.into());
    }
    Ok(sockets)
}

/// Receives the next datagram from a socket of [`listen`].
///
/// # Errors
/// `WouldBlock` when there is none.
pub fn receive(socket: impl AsFd, block: &mut [u8]) -> io::Result<Captured> {
    let mut control = nix::cmsg_space!(libc::sockaddr_in6);
    let mut parts = [IoSliceMut::new(block)];
    let descriptor = socket.as_fd().as_raw_fd();
    let flags = MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<SockaddrStorage>(descriptor, &mut parts, Some(&mut control), flags)?;
    let meant_for = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4OrigDstAddr(address) => {
            Some(std::net::SocketAddrV4::from(nix::sys::socket::SockaddrIn::from(address)).into())
        }
        ControlMessageOwned::Ipv6OrigDstAddr(address) => {
            Some(std::net::SocketAddrV6::from(nix::sys::socket::SockaddrIn6::from(address)).into())
        }
        _ => None,
    });
    let from = received.address.as_ref().and_then(socket_address);
    let from = from.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Captured { bytes: received.bytes, from, meant_for })
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| std::net::SocketAddrV4::from(*v4).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| std::net::SocketAddrV6::from(*v6).into()))
}

/// Opens a socket to `client` that has the address of `destination`. From then on, this socket
/// receives the datagrams that the client sends to that destination.
///
/// # Errors
/// Without CAP_NET_ADMIN, or when a process on this host holds the port exclusively for all
/// addresses.
pub fn speak_for(destination: SocketAddr, client: SocketAddr, mark: u32) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(destination), Type::DGRAM, None)?;
    set_transparent(&socket, destination.ip())?;
    socket.set_reuse_address(true)?;
    leave_by(&socket, Egress { mark, ..Egress::default() })?;
    socket.bind(&SockAddr::from(destination))?;
    socket.connect(&SockAddr::from(client))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Opens a socket to `target`. Returns the socket and its local address.
///
/// # Errors
/// The error of socket(2) or connect(2).
pub fn towards(target: SocketAddr, egress: Egress) -> io::Result<(OwnedFd, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(target), Type::DGRAM, None)?;
    leave_by(&socket, egress)?;
    socket.connect(&SockAddr::from(target))?;
    socket.set_nonblocking(true)?;
    let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    Ok((socket.into(), local))
}

/// Receives the next datagram from a connected socket. Returns its length.
///
/// # Errors
/// `WouldBlock` when there is none; `ConnectionRefused` when the peer refused a datagram.
pub fn take(socket: impl AsFd, block: &mut [u8]) -> io::Result<usize> {
    Ok(recv(socket.as_fd().as_raw_fd(), block, MsgFlags::MSG_DONTWAIT)?)
}

/// Sends a datagram on a connected socket.
///
/// # Errors
/// `WouldBlock` when the kernel buffer is full. The datagram is then lost.
pub fn give(socket: impl AsFd, datagram: &[u8]) -> io::Result<()> {
    send(socket.as_fd().as_raw_fd(), datagram, MsgFlags::MSG_DONTWAIT)?;
    Ok(())
}
