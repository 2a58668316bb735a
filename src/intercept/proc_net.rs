//! Parses `/proc/net/tcp` and `/proc/net/tcp6`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A TCP socket in a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSocket {
    /// The local address. An IPv4-mapped IPv6 address is converted to IPv4.
    pub local: SocketAddr,
    /// The address of the peer. Unspecified for a listening socket.
    pub remote: SocketAddr,
    /// Whether the socket listens.
    pub listens: bool,
}

/// The value of the column `st` for a listening socket (TCP_LISTEN).
const LISTEN: &str = "0A";

/// Parses the text of one of the files. Returns its sockets.
pub fn tcp_sockets(text: &str) -> Vec<TcpSocket> {
    text.lines().filter_map(socket).collect()
}

fn socket(line: &str) -> Option<TcpSocket> {
    let mut words = line.split_whitespace().skip(1);
    let (local, remote) = (address(words.next()?)?, address(words.next()?)?);
    Some(TcpSocket { local, remote, listens: words.next()? == LISTEN })
}

/// Parses an address and a port. The address is in hexadecimal 32-bit words in the byte order of
/// this machine.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |index: usize| {
        let digits = ip.get(index * 8..index * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.as_flattened().try_into().ok()?;
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let text = "  sl  local_address rem_address   st tx_queue
   0: 0100007F:3A99 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0100007F:3A99 0100630A:C350 01 00000000:00000000 00:00000000 00000000     0        0 2 1
   0: 0000000000000000FFFF00000100630A:1F90 B80D0120000000000000000001000000:0050 01 0
   x: broken
";
        let sockets = tcp_sockets(text);
        let shown = |s: &TcpSocket| format!("{} {} {}", s.local, s.remote, s.listens);
        assert_eq!(
            sockets.iter().map(shown).collect::<Vec<_>>(),
            [
                "127.0.0.1:15001 0.0.0.0:0 true",
                "127.0.0.1:15001 10.99.0.1:50000 false",
                "10.99.0.1:8080 [2001:db8::1]:80 false",
            ]
        );
    }
}
