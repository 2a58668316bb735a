//! UDP sockets for QUIC: datagrams in batches, with the address that was asked and with ECN.
//!
//! [`Datagrams`] is the interface; the ring's implementation uses GSO, GRO and IP_PKTINFO through
//! `quinn-udp`, because io_uring has no operation that carries these control messages.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::LazyLock;
use std::time::Instant;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockAddr, Socket, Type};

/// The size of the kernel's receive and send buffers that is asked for. The kernel reduces it to
/// `net.core.rmem_max` and `net.core.wmem_max`.
const SOCKET_BUFFER_BYTES: usize = 2 * 1024 * 1024;

/// The bytes that one block of a batch holds: the datagrams of one sender, joined by GRO.
pub const BLOCK_BYTES: usize = 64 * 1024;

/// How many blocks are received with one system call.
const BLOCKS: usize = 8;

/// A datagram to send, or several of the same length except the last (GSO).
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The receiver.
    pub to: SocketAddr,
    /// Our address. `None` lets the kernel choose.
    pub from: Option<IpAddr>,
    /// The two bits of explicit congestion notification (RFC 3168); 0 means none.
    pub ecn: u8,
    /// The bytes of all datagrams.
    pub bytes: &'a [u8],
    /// The length of each datagram except the last one. `None` means one datagram.
    pub segment_bytes: Option<usize>,
}

/// A received datagram.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// The sender.
    pub from: SocketAddr,
    /// Our address to which it was sent. `None` if the kernel does not report it.
    pub to: Option<IpAddr>,
    /// The two bits of explicit congestion notification; 0 means none.
    pub ecn: u8,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// A UDP socket.
pub trait Datagrams: 'static {
    /// Completes when a receive would not wait.
    ///
    /// # Errors
    /// Only when the ring itself fails.
    fn readable(&self) -> impl Future<Output = io::Result<()>>;

    /// Completes when a send would not wait.
    ///
    /// # Errors
    /// Only when the ring itself fails.
    fn writable(&self) -> impl Future<Output = io::Result<()>>;

    /// Receives one batch, and calls `take` for each datagram. Does not wait. Returns whether the
    /// batch was full, so that more datagrams may wait.
    ///
    /// # Errors
    /// `WouldBlock` if no datagram waits.
    fn receive(&self, take: &mut dyn FnMut(Incoming<'_>)) -> io::Result<bool>;

    /// Receives the waiting datagrams, in at most `batches_max` batches. `failed` gets the errors
    /// of earlier datagrams, such as that the peer has no such port.
    fn receive_waiting(
        &self,
        batches_max: usize,
        take: &mut dyn FnMut(Incoming<'_>),
        failed: impl Fn(io::Error),
    ) {
        for _ in 0..batches_max {
            match self.receive(take) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => failed(error),
            }
        }
    }

    /// Sends one or more datagrams. Does not wait.
    ///
    /// # Errors
    /// `WouldBlock` if the kernel's buffer is full: nothing was sent. After other errors the
    /// datagrams count as lost.
    fn send(&self, outgoing: &Outgoing<'_>) -> io::Result<()>;

    /// How many datagrams one [`Datagrams::send`] may carry.
    fn segments_max(&self) -> usize;

    /// Whether the kernel may fragment large datagrams. Then the path's MTU must not be probed.
    fn may_fragment(&self) -> bool;
}

/// The instant from which QUIC counts its times. Only the differences of instants matter to it.
pub fn epoch() -> Instant {
    static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
    *EPOCH
}

/// Opens sockets at `address`, one for each worker, that share the port. The kernel gives a
/// datagram to the worker whose number is in its connection id.
///
/// # Errors
/// When the address cannot be bound.
pub fn listen(address: SocketAddr, workers: usize) -> io::Result<Vec<OwnedFd>> {
    let sockets = group(address, workers)?;
    if let (Some(first), true) = (sockets.first(), workers > 1) {
        let mut program = steering(workers as u32);
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        setsockopt(first, sockopt::AttachReusePortCbpf, &program)?;
    }
    Ok(sockets.into_iter().map(OwnedFd::from).collect())
}

/// Like [`listen`], but for connections of others: the kernel gives all datagrams of a client's
/// address to the same worker.
///
/// # Errors
/// When the address cannot be bound.
pub fn listen_unsteered(address: SocketAddr, workers: usize) -> io::Result<Vec<OwnedFd>> {
    Ok(group(address, workers)?.into_iter().map(OwnedFd::from).collect())
}

fn group(address: SocketAddr, workers: usize) -> io::Result<Vec<Socket>> {
    let workers = workers.max(1);
    let mut sockets = Vec::new();
    for index in 0..workers {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // As for TCP, the first socket does not share its port, so its bind fails if another
        // process uses the port.
        if index > 0 {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&SockAddr::from(address))?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        // The kernel's default holds about 150 datagrams: less than one burst of a large transfer.
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
        sockets.push(socket);
    }
    Ok(sockets)
}

/// The classic BPF program that chooses the socket of a datagram: the first byte of the destination
/// connection id, modulo the number of workers. It is at offset 6 in a long header and at offset 1
/// in a short header (RFC 8999 5.1, 5.2). A datagram that is too short goes to the first worker.
fn steering(workers: u32) -> [libc::sock_filter; 7] {
    let op = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let load_byte = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    [
        op(load_byte, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 2, 0x80),
        op(load_byte, 0, 0, 6),
        op(libc::BPF_JMP | libc::BPF_JA, 0, 0, 1),
        op(load_byte, 0, 0, 1),
        op(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, 0, 0, workers),
        op(libc::BPF_RET | libc::BPF_A, 0, 0, 0),
    ]
}

#[cfg(feature = "uring")]
pub use ring::UdpSocket;

#[cfg(feature = "uring")]
mod ring {
    use std::cell::RefCell;
    use std::io::{self, IoSliceMut};
    use std::os::fd::OwnedFd;

    use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};

    use super::{BLOCK_BYTES, BLOCKS, Datagrams, Incoming, Outgoing};
    use crate::runtime::io::Stream as _;
    use crate::runtime::ring::{RingIo, RingStream};

    /// A UDP socket of a worker.
    pub struct UdpSocket {
        socket: RingStream,
        state: UdpSocketState,
        /// The memory of a batch. The kernel provides its pages when they are first used.
        blocks: RefCell<Box<[u8]>>,
    }

    impl UdpSocket {
        /// Uses the bound socket `descriptor`.
        ///
        /// # Errors
        /// When the kernel refuses a socket option, or the socket cannot be registered.
        pub fn over(io: &RingIo, descriptor: OwnedFd) -> io::Result<Self> {
            let state = UdpSocketState::new(UdpSockRef::from(&descriptor))?;
            let blocks = RefCell::new(vec![0; BLOCKS * BLOCK_BYTES].into_boxed_slice());
            Ok(Self { socket: io.readiness(descriptor)?, state, blocks })
        }
    }

    impl Datagrams for UdpSocket {
        async fn readable(&self) -> io::Result<()> {
            self.socket.readable().await
        }

        async fn writable(&self) -> io::Result<()> {
            self.socket.writable().await
        }

        fn receive(&self, take: &mut dyn FnMut(Incoming<'_>)) -> io::Result<bool> {
            let mut blocks = self.blocks.borrow_mut();
            let mut metas = [RecvMeta::default(); BLOCKS];
            let received = {
                let mut parts = blocks.chunks_mut(BLOCK_BYTES).map(IoSliceMut::new);
                let mut parts: [_; BLOCKS] = std::array::from_fn(|_| {
                    parts.next().unwrap_or_else(|| IoSliceMut::new(&mut []))
                });
                self.state.recv(UdpSockRef::from(&self.socket), &mut parts, &mut metas)?
            };
            for (meta, block) in metas[..received].iter().zip(blocks.chunks(BLOCK_BYTES)) {
                for bytes in block[..meta.len].chunks(meta.stride.max(1)) {
                    let ecn = meta.ecn.map_or(0, |ecn| ecn as u8);
                    take(Incoming { from: meta.addr, to: meta.dst_ip, ecn, bytes });
                }
            }
            Ok(received == BLOCKS)
        }

        fn send(&self, outgoing: &Outgoing<'_>) -> io::Result<()> {
            let transmit = Transmit {
                destination: outgoing.to,
                ecn: EcnCodepoint::from_bits(outgoing.ecn),
                contents: outgoing.bytes,
                segment_size: outgoing.segment_bytes,
                src_ip: outgoing.from,
            };
            self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
        }

        fn segments_max(&self) -> usize {
            self.state.max_gso_segments()
        }

        fn may_fragment(&self) -> bool {
            self.state.may_fragment()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::time::Duration;

    #[test]
    fn a_datagram_goes_to_the_worker_in_its_connection_id() {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let sockets = listen(free, 3).unwrap().into_iter().map(UdpSocket::from);
        let sockets: Vec<_> = sockets.collect();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for id in 0..9_u8 {
            let long = [0xc3, 0, 0, 0, 1, 8, id, 9, 9, 9, 9, 9, 9, 9, 0];
            let short = [0x43, id, 9, 9, 9, 9, 9, 9, 9];
            for datagram in [&long[..], &short[..]] {
                client.send_to(datagram, free).unwrap();
                let socket = &sockets[usize::from(id) % 3];
                socket.set_nonblocking(false).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let mut block = [0; 64];
                let received = socket.recv(&mut block).unwrap();
                assert_eq!(&block[..received], datagram);
            }
        }
        client.send_to(&[0x43], free).unwrap();
        sockets[0].set_nonblocking(false).unwrap();
        assert_eq!(sockets[0].recv(&mut [0; 64]).unwrap(), 1);
    }

    #[test]
    fn an_address_that_is_in_use_is_an_error() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = listen(taken.local_addr().unwrap(), 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
