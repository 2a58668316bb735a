//! Sends UDP from addresses of this host whose ports an application uses. The responses of captured
//! inbound flows must come from the address to which the client sent its datagrams.
//!
//! No second UDP socket can have such a port, so the sender is a raw socket, which only sends.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// The protocol number of UDP (RFC 768).
const UDP: u8 = 17;

/// The BPF instruction that ends a filter (BPF_RET with BPF_K). Its operand is the number of bytes
/// to keep of each packet.
const TAKE: u16 = 0x06;

/// A raw socket that sends UDP datagrams with any source address of this host.
pub struct RawUdpSender(Socket);

impl RawUdpSender {
    /// Creates a socket for the address family of `ip`. Its packets have the SO_MARK `mark`.
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn new(ip: IpAddr, mark: u32) -> io::Result<Self> {
        let family = Domain::for_address(SocketAddr::new(ip, 0));
        let socket = Socket::new(family, Type::RAW, Some(Protocol::UDP))?;
        // The kernel would copy all UDP packets of the host to this socket. The filter drops these
        // copies.
        socket.attach_filter(&[SockFilter::new(TAKE, 0, 0, 0)])?;
        // If the process may not set a mark, the capture rules still recognise its packets by their
        // user.
        socket.set_mark(mark).ok();
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Sends a datagram to `to` with the source `from`, an address of this host.
    ///
    /// # Errors
    /// `WouldBlock` when the kernel buffer is full.
    pub fn say(&self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let header = header(from, to, datagram)?;
        let parts = [IoSlice::new(&header), IoSlice::new(datagram)];
        let flags = MsgFlags::MSG_DONTWAIT;
        // For a raw IPv6 socket, the port of the address is the protocol number; it must be 0.
        let address = SockaddrStorage::from(SocketAddr::new(to.ip(), 0));
        let descriptor = self.0.as_raw_fd();
        match from.ip() {
            IpAddr::V4(ip) => {
                let source = libc::in_addr { s_addr: u32::from(ip).to_be() };
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: source,
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let control = [ControlMessage::Ipv4PacketInfo(&info)];
                sendmsg(descriptor, &parts, &control, flags, Some(&address))?;
            }
            IpAddr::V6(ip) => {
                let source = libc::in6_addr { s6_addr: ip.octets() };
                let info = libc::in6_pktinfo { ipi6_addr: source, ipi6_ifindex: 0 };
                let control = [ControlMessage::Ipv6PacketInfo(&info)];
                sendmsg(descriptor, &parts, &control, flags, Some(&address))?;
            }
        }
        Ok(())
    }
}

/// Returns the UDP header (RFC 768): ports, length, checksum.
fn header(from: SocketAddr, to: SocketAddr, datagram: &[u8]) -> io::Result<[u8; 8]> {
    let len = u16::try_from(datagram.len() + 8).map_err(io::Error::other)?;
    let mut header = [0; 8];
    header[..2].copy_from_slice(&from.port().to_be_bytes());
    header[2..4].copy_from_slice(&to.port().to_be_bytes());
    header[4..6].copy_from_slice(&len.to_be_bytes());
    let mut sum = u64::from(UDP) + u64::from(len);
    for ip in [from.ip(), to.ip()] {
        sum += match ip {
            IpAddr::V4(ip) => words(&ip.octets()),
            IpAddr::V6(ip) => words(&ip.octets()),
        };
    }
    sum += words(&header) + words(datagram);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // A checksum of 0 would mean that there is no checksum.
    let checksum = match !(sum as u16) {
        0 => 0xffff,
        checksum => checksum,
    };
    header[6..].copy_from_slice(&checksum.to_be_bytes());
    Ok(header)
}

/// The sum of the 16-bit words of `bytes`. An odd last byte is padded with zero.
fn words(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    bytes.chunks(2).map(word).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_finds_the_checksum_right() {
        for (from, to) in [("10.0.0.1:53", "10.0.0.2:4000"), ("[fd00::1]:53", "[fd00::2]:65535")] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            for datagram in [&b""[..], b"a", b"ab", b"\xff\xff\xff\xff\xff", &[0xff; 1400]] {
                let header = header(from, to, datagram).unwrap();
                let ip = |ip: IpAddr| match ip {
                    IpAddr::V4(ip) => words(&ip.octets()),
                    IpAddr::V6(ip) => words(&ip.octets()),
                };
                let len = datagram.len() as u64 + 8;
                let mut sum = ip(from.ip()) + ip(to.ip()) + 17 + len;
                sum += words(&header) + words(datagram);
                while sum > 0xffff {
                    sum = (sum & 0xffff) + (sum >> 16);
                }
                // RFC 768: the sum of all words, the checksum included, is all ones.
                assert_eq!(sum, 0xffff, "{from} {datagram:?}");
            }
        }
        let too_long = vec![0; 65_530];
        assert!(
            header("1.1.1.1:1".parse().unwrap(), "1.1.1.1:1".parse().unwrap(), &too_long).is_err()
        );
    }
}
