//! The PROXY protocol, versions 1 and 2 (haproxy.org, doc/proxy-protocol.txt). Its header carries
//! the address of the original client. Pure: no I/O, no clock.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The PROXY protocol header that is sent first on each connection to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendProxyProtocol {
    /// Version 1: one line of text.
    V1,
    /// Version 2: binary.
    V2,
}

/// The maximum length of an accepted header in bytes, with the TLVs of version 2.
pub const HEADER_BYTES_MAX: usize = 4096;

/// The result of parsing a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    Partial,
    /// The header is complete.
    Complete {
        /// The length of the header in bytes. The data of the connection follows.
        len: usize,
        /// The address of the client. `None` if the sending proxy itself made the connection
        /// (LOCAL, UNKNOWN).
        source: Option<SocketAddr>,
        /// The address that the client connected to.
        destination: Option<SocketAddr>,
        /// Whether the client uses TLS to the sending proxy.
        tls: bool,
    },
}

/// The connection does not begin with a valid PROXY protocol header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotProxy;

/// Parses the header at the start of `bytes`.
///
/// # Errors
/// When there is no valid header, or it is longer than [`HEADER_BYTES_MAX`].
pub fn parse(bytes: &[u8]) -> Result<Progress, NotProxy> {
    let begins = |signature: &[u8]| {
        let n = signature.len().min(bytes.len());
        bytes[..n] == signature[..n]
    };
    if begins(SIGNATURE_V2) {
        return parse_v2(bytes);
    }
    if begins(b"PROXY ") { parse_v1(bytes) } else { Err(NotProxy) }
}

/// Appends a header with the client `source` and the `destination` that it connected to.
pub fn encode(
    out: &mut Vec<u8>,
    form: SendProxyProtocol,
    source: Option<SocketAddr>,
    destination: Option<SocketAddr>,
) {
    let pair =
        source.zip(destination).map(|(source, destination)| same_family(source, destination));
    match form {
        SendProxyProtocol::V1 => encode_v1(out, pair),
        SendProxyProtocol::V2 => encode_v2(out, pair),
    }
}

const SIGNATURE_V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The maximum length of the line of version 1, in bytes, with CR LF.
const LINE_BYTES_MAX: usize = 107;

fn parse_v1(bytes: &[u8]) -> Result<Progress, NotProxy> {
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        return if bytes.len() < LINE_BYTES_MAX { Ok(Progress::Partial) } else { Err(NotProxy) };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or(NotProxy)?;
    if end >= LINE_BYTES_MAX {
        return Err(NotProxy);
    }
    let line = std::str::from_utf8(line).map_err(|_| NotProxy)?;
    let len = end + 1;
    let mut words = line.split(' ').skip(1);
    let family = words.next().ok_or(NotProxy)?;
    if family == "UNKNOWN" {
        return Ok(Progress::Complete { len, source: None, destination: None, tls: false });
    }
    let mut word = || words.next().ok_or(NotProxy);
    let (from, to, from_port, to_port) = (word()?, word()?, word()?, word()?);
    let address = |ip: &str, port: &str| -> Result<SocketAddr, NotProxy> {
        let ip: IpAddr = ip.parse().map_err(|_| NotProxy)?;
        let digits_only = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().map_err(|_| NotProxy)?;
        let right_family =
            matches!((family, ip), ("TCP4", IpAddr::V4(_)) | ("TCP6", IpAddr::V6(_)));
        if right_family && digits_only { Ok(SocketAddr::new(ip, port)) } else { Err(NotProxy) }
    };
    let (source, destination) = (address(from, from_port)?, address(to, to_port)?);
    if words.next().is_some() {
        return Err(NotProxy);
    }
    let (source, destination) = (Some(source), Some(destination));
    Ok(Progress::Complete { len, source, destination, tls: false })
}

fn parse_v2(bytes: &[u8]) -> Result<Progress, NotProxy> {
    let Some(fixed) = bytes.get(..16) else { return Ok(Progress::Partial) };
    let (version, command) = (fixed[12] >> 4, fixed[12] & 0x0f);
    let len = 16 + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if version != 2 || command > 1 || len > HEADER_BYTES_MAX {
        return Err(NotProxy);
    }
    let Some(body) = bytes.get(16..len) else { return Ok(Progress::Partial) };
    let ((source, destination), address_bytes) = match (command, fixed[13]) {
        (0, _) => ((None, None), body.len()), // LOCAL: a health check of the sending proxy
        (_, 0x11) => (pair_of(body.first_chunk::<12>().ok_or(NotProxy)?, 4), 12),
        (_, 0x21) => (pair_of(body.first_chunk::<36>().ok_or(NotProxy)?, 16), 36),
        // UNSPEC, datagrams, Unix sockets: no address
        (_, 0x31 | 0x32) => ((None, None), UNIX_ADDRESSES_BYTES),
        (_, 0x12) => ((None, None), 12),
        (_, 0x22) => ((None, None), 36),
        _ => ((None, None), 0),
    };
    let tls = says_tls(body.get(address_bytes..).unwrap_or_default());
    Ok(Progress::Complete { len, source, destination, tls })
}

const UNIX_ADDRESSES_BYTES: usize = 216;

/// Whether the TLVs say that the client uses TLS: PP2_TYPE_SSL with the flag PP2_CLIENT_SSL. False
/// if a TLV is malformed.
fn says_tls(mut values: &[u8]) -> bool {
    const TYPE_SSL: u8 = 0x20;
    const CLIENT_SSL: u8 = 0x01;
    while let [kind, high, low, rest @ ..] = values {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(value) = rest.get(..len) else { return false };
        if *kind == TYPE_SSL {
            return value.first().is_some_and(|flags| flags & CLIENT_SSL != 0);
        }
        values = &rest[len..];
    }
    false
}

/// Reads two addresses of `ip_bytes` each, and then two ports.
fn pair_of(body: &[u8], ip_bytes: usize) -> (Option<SocketAddr>, Option<SocketAddr>) {
    let ip = |at: usize| match ip_bytes {
        4 => body[at..].first_chunk::<4>().map(|b| IpAddr::from(Ipv4Addr::from(*b))),
        _ => body[at..].first_chunk::<16>().map(|b| IpAddr::from(Ipv6Addr::from(*b))),
    };
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let ports = 2 * ip_bytes;
    let address = |ip: Option<IpAddr>, port: u16| ip.map(|ip| SocketAddr::new(ip, port));
    (address(ip(0), port(ports)), address(ip(ip_bytes), port(ports + 2)))
}

/// Converts both addresses to IPv6 if their families differ, because the header has one family for
/// both.
fn same_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let canonical = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
    let (source, destination) = (canonical(source), canonical(destination));
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    let wide = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    (wide(source), wide(destination))
}

fn encode_v1(out: &mut Vec<u8>, pair: Option<(SocketAddr, SocketAddr)>) {
    let Some((source, destination)) = pair else {
        return out.extend_from_slice(b"PROXY UNKNOWN\r\n");
    };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    let (from_port, to_port) = (source.port(), destination.port());
    // Writing to a Vec cannot fail.
    write!(out, "PROXY {family} {from} {to} {from_port} {to_port}\r\n").ok();
}

fn encode_v2(out: &mut Vec<u8>, pair: Option<(SocketAddr, SocketAddr)>) {
    out.extend_from_slice(SIGNATURE_V2);
    let Some((source, destination)) = pair else {
        return out.extend_from_slice(&[0x20, 0, 0, 0]);
    };
    let (family, body_bytes) = if source.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
    out.extend_from_slice(&[0x21, family, 0, body_bytes]);
    for address in [source, destination] {
        match address.ip() {
            IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_understood_at_any_split() {
        let v4 = ("192.0.2.1:80".parse().unwrap(), "198.51.100.7:65535".parse().unwrap());
        let v6 = ("[2001:db8::1]:1".parse().unwrap(), "[::1]:443".parse().unwrap());
        for form in [SendProxyProtocol::V1, SendProxyProtocol::V2] {
            for (source, destination) in [v4, v6] {
                let mut bytes = Vec::new();
                encode(&mut bytes, form, Some(source), Some(destination));
                let len = bytes.len();
                bytes.extend_from_slice(b"GET");
                for end in 0..len {
                    assert_eq!(parse(&bytes[..end]), Ok(Progress::Partial), "{form:?} {end}");
                }
                let (source, destination) = (Some(source), Some(destination));
                let complete = Progress::Complete { len, source, destination, tls: false };
                assert_eq!(parse(&bytes), Ok(complete));
            }
            let mut bytes = Vec::new();
            encode(&mut bytes, form, None, None);
            let len = bytes.len();
            let unknown = Progress::Complete { len, source: None, destination: None, tls: false };
            assert_eq!(parse(&bytes), Ok(unknown));
        }
    }

    #[test]
    fn mixed_families_are_sent_as_ipv6() {
        let mut bytes = Vec::new();
        let (source, to) = ("192.0.2.1:5".parse().unwrap(), "[::1]:6".parse().unwrap());
        encode(&mut bytes, SendProxyProtocol::V1, Some(source), Some(to));
        assert_eq!(bytes, b"PROXY TCP6 ::ffff:192.0.2.1 ::1 5 6\r\n");
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let long = format!("PROXY TCP4 {}", "1".repeat(200));
        for text in [
            "GET / HTTP/1.1\r\n",
            "PROXY\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
            &long,
        ] {
            assert_eq!(parse(text.as_bytes()), Err(NotProxy), "{text}");
        }
        let v2 = |command: u8, family: u8, len: u16| {
            let mut bytes = SIGNATURE_V2.to_vec();
            bytes.extend_from_slice(&[command, family]);
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend(std::iter::repeat_n(0, usize::from(len)));
            parse(&bytes)
        };
        assert_eq!(v2(0x11, 0x11, 12), Err(NotProxy), "version 1 in the form of version 2");
        assert_eq!(v2(0x22, 0x11, 12), Err(NotProxy), "an unknown command");
        assert_eq!(v2(0x21, 0x11, 11), Err(NotProxy), "too short");
        assert_eq!(v2(0x21, 0x11, 5000), Err(NotProxy), "too long");
        let local = Progress::Complete { len: 28, source: None, destination: None, tls: false };
        assert_eq!(v2(0x20, 0x11, 12), Ok(local));
    }

    #[test]
    fn the_other_proxy_says_whether_the_client_uses_tls() {
        let ssl = [0x20, 0, 5, 1, 0, 0, 0, 0];
        let plain = [0x20, 0, 5, 0, 0, 0, 0, 0];
        let authority = [2, 0, 1, b'a'];
        for (command, family, addresses, values, expected) in [
            (0x21, 0x11, 12, ssl.to_vec(), true),
            (0x21, 0x21, 36, [&authority[..], &ssl].concat(), true),
            (0x21, 0x31, 216, ssl.to_vec(), true),
            (0x21, 0x00, 0, ssl.to_vec(), true),
            (0x20, 0x00, 0, ssl.to_vec(), false), // a health check
            (0x21, 0x11, 12, plain.to_vec(), false),
            (0x21, 0x11, 12, authority.to_vec(), false),
            (0x21, 0x11, 12, ssl[..5].to_vec(), false), // truncated
            (0x21, 0x11, 12, vec![0x20, 0, 0], false),
        ] {
            let mut bytes = SIGNATURE_V2.to_vec();
            let body_bytes = addresses + values.len();
            bytes.extend_from_slice(&[command, family, 0, body_bytes as u8]);
            bytes.resize(bytes.len() + addresses, 0);
            bytes.extend_from_slice(&values);
            let Ok(Progress::Complete { len, tls, .. }) = parse(&bytes) else {
                panic!("{bytes:?}")
            };
            assert_eq!((len, tls), (bytes.len(), expected), "{bytes:?}");
        }
    }
}
