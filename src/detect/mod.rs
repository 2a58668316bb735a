//! Detects the protocol of a connection from its first bytes. Pure: takes bytes, and returns an
//! answer or asks for more bytes.
//!
//! Detection consumes no bytes: the protocol's own code reads the connection from its first byte.

mod hello;
mod quic;
mod server_ids;

pub use hello::{ClientHello, HELLO_BYTES_MAX, HelloError, client_hello};
#[cfg(test)]
pub use quic::tests::example_in_two_datagrams;
pub use quic::{HELLO_DATAGRAMS_MAX, LongHeader, QuicError, QuicHello, long_header, sender_id};
pub use server_ids::ServerIds;

use crate::http2::PREFACE;

/// The maximum length of a first line that detection waits for. A longer line counts as HTTP/1, and
/// the HTTP/1 parser refuses it with the right status.
pub const LINE_BYTES_MAX: usize = 8 * 1024;

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TLS: it begins with a ClientHello (RFC 8446 4.1.2).
    Tls,
    /// HTTP/1.0 or 1.1: it begins with a request line (RFC 9112 3).
    Http1,
    /// HTTP/2 with prior knowledge: it begins with the preface (RFC 9113 3.4).
    Http2,
    /// Anything else.
    Opaque,
}

impl Protocol {
    /// All protocols, in the order of [`Protocol::index`].
    pub const ALL: [Self; 4] = [Self::Tls, Self::Http1, Self::Http2, Self::Opaque];

    /// The position in [`Protocol::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The value of the metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Opaque => "opaque",
        }
    }
}

/// The result of detection for the bytes that have arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// The final answer.
    Known(T),
    /// More bytes are needed.
    NeedMore,
}

/// Detects the protocol from `bytes`. More bytes never change a final answer. The answer needs the
/// complete first line for HTTP/1, and six bytes for TLS.
pub fn protocol(bytes: &[u8]) -> Answer<Protocol> {
    if bytes.is_empty() {
        return Answer::NeedMore;
    }
    match tls_beginning(bytes) {
        Some(true) => return Answer::Known(Protocol::Tls),
        None => return Answer::NeedMore,
        Some(false) => {}
    }
    if PREFACE.starts_with(&bytes[..bytes.len().min(PREFACE.len())]) {
        return match bytes.len() >= PREFACE.len() {
            true => Answer::Known(Protocol::Http2),
            false => Answer::NeedMore,
        };
    }
    request_line(bytes)
}

/// Whether `bytes` start with a handshake record that contains a ClientHello: record type 22, major
/// version 3, and message type 1 after the record's length. `None` means too few bytes.
fn tls_beginning(bytes: &[u8]) -> Option<bool> {
    let fits = |at: usize, fits: fn(u8) -> bool| bytes.get(at).is_none_or(|&byte| fits(byte));
    // Clients write version 3.1 or 3.3 in the first record, whatever version they use (RFC 8446
    // 5.1).
    let possible = fits(0, |byte| byte == 22)
        && fits(1, |byte| byte == 3)
        && fits(2, |byte| byte <= 4)
        && fits(5, |byte| byte == 1);
    match (possible, bytes.len()) {
        (false, _) => Some(false),
        (true, 6..) => Some(true),
        (true, _) => None,
    }
}

/// Decides whether `bytes` start with a request line: a method, a target and the version.
fn request_line(bytes: &[u8]) -> Answer<Protocol> {
    let opaque = Answer::Known(Protocol::Opaque);
    // Ignore empty lines before a request (RFC 9112 2.2).
    let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let bytes = &bytes[blank..];
    let method = bytes.iter().take_while(|byte| is_method_byte(**byte)).count();
    if method == bytes.len() {
        return if method > METHOD_BYTES_MAX { opaque } else { Answer::NeedMore };
    }
    if method == 0 || method > METHOD_BYTES_MAX || bytes[method] != b' ' {
        return opaque;
    }
    let line = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let end = memchr::memchr(b'\n', line);
    let seen = &line[..end.unwrap_or(line.len())];
    if seen.iter().any(|byte| byte.is_ascii_control() && *byte != b'\r') {
        return opaque;
    }
    if end.is_none() {
        return match line.len() == LINE_BYTES_MAX {
            true => Answer::Known(Protocol::Http1),
            false => Answer::NeedMore,
        };
    }
    let line = seen.strip_suffix(b"\r").unwrap_or(seen);
    let version = line.len().checked_sub(HTTP_1.len() + 1).map(|at| &line[at..]);
    match version {
        Some([before @ .., minor]) if before == HTTP_1 && minor.is_ascii_digit() => {
            Answer::Known(Protocol::Http1)
        }
        _ => opaque,
    }
}

/// The last part of a request line, up to the minor version.
const HTTP_1: &[u8] = b" HTTP/1.";

/// The maximum length of a method. The longest registered method has 17 bytes.
const METHOD_BYTES_MAX: usize = 32;

/// Whether a method may contain this byte. RFC 9110 9.1 allows every byte of a token. The smaller
/// set is enough for the methods in use, and detects opaque protocols earlier.
fn is_method_byte(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the answer for `bytes` and checks that it does not depend on how they are split.
    fn answer(bytes: &[u8]) -> Answer<Protocol> {
        let mut known = None;
        for end in 0..=bytes.len() {
            match (protocol(&bytes[..end]), known) {
                (Answer::Known(now), None) => known = Some(now),
                (now, Some(before)) => assert_eq!(now, Answer::Known(before), "at {end}"),
                (Answer::NeedMore, None) => {}
            }
        }
        known.map_or(Answer::NeedMore, Answer::Known)
    }

    #[test]
    fn first_bytes() {
        use Protocol::{Http1, Http2, Opaque, Tls};
        let cases: &[(&[u8], Option<Protocol>)] = &[
            (b"", None),
            (b"GET / HTTP/1.1\r\n", Some(Http1)),
            (b"GET / HTTP/1.0\n", Some(Http1)),
            (b"\r\nPOST /a?b HTTP/1.1\r\n", Some(Http1)),
            (b"M-SEARCH * HTTP/1.1\r\n", Some(Http1)),
            (b"CONNECT a:443 HTTP/1.1\r\n", Some(Http1)),
            (b"GET /with a space HTTP/1.1\r\n", Some(Http1)),
            (b"GET", None),
            (b"GET / HTTP/1.1", None),
            (b"GET /\r\n", Some(Opaque)),
            (b"get key\r\n", Some(Opaque)),
            (b"EHLO me.example\r\n", Some(Opaque)),
            (b"*3\r\n$3\r\nSET", Some(Opaque)),
            (b"GET / \x00 HTTP/1.1\r\n", Some(Opaque)),
            (b"GET \x00", Some(Opaque)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Http2)),
            (b"PRI * HTTP/2.0\r\n\r\nSM", None),
            (b"PRI * HTTP/2.0\r\n\r\nSX", Some(Opaque)),
            (b"\x16\x03\x01\x02\x00\x01\x00", Some(Tls)),
            (b"\x16\x03\x03\x02\x00\x01", Some(Tls)),
            (b"\x16\x03\x03", None),
            (b"\x16\x03\x03\x02\x00\x02", Some(Opaque)),
            (b"\x16\x04", Some(Opaque)),
            (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Some(Opaque)),
            (b"\x4a\x00\x00\x00\x0a", Some(Opaque)),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Some(Opaque)),
        ];
        for (bytes, expected) in cases {
            let expected = expected.map_or(Answer::NeedMore, Answer::Known);
            assert_eq!(answer(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn an_answer_stands_whatever_else_comes() {
        let beginnings: [&[u8]; 5] = [
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\r\n\nPUT * HTTP/1.0\n",
            PREFACE,
            b"\x16\x03\x01\x00\x20\x01\x00\x00\x1c\x03\x03",
            b"\x4a\x00\x00\x00\x0a8.0.36\x00",
        ];
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let mut bytes = random.choice(&beginnings).unwrap_or(&beginnings[0]).to_vec();
            for _ in 0..random.usize(..4) {
                let at = random.usize(..bytes.len());
                match random.u8(..3) {
                    0 => bytes[at] = random.u8(..),
                    1 => bytes.insert(at, *random.choice(b" \r\n\0A/").unwrap_or(&0)),
                    _ => drop(bytes.remove(at)),
                }
            }
            answer(&bytes);
            let hello = (0..=bytes.len()).map(|end| client_hello(&bytes[..end]));
            let mut known = hello.filter(|now| *now != Ok(Answer::NeedMore));
            let first = known.next();
            assert!(known.all(|now| Some(now) == first), "{bytes:?}");
        }
    }

    #[test]
    fn a_line_without_end_is_left_to_the_parser() {
        let mut line = b"GET /".to_vec();
        line.resize(LINE_BYTES_MAX - 1, b'a');
        assert_eq!(answer(&line), Answer::NeedMore);
        line.resize(LINE_BYTES_MAX + 100, b'a');
        assert_eq!(answer(&line), Answer::Known(Protocol::Http1));
        assert_eq!(answer(&[b'A'; METHOD_BYTES_MAX + 1]), Answer::Known(Protocol::Opaque));
    }
}
