//! Parses the TLS ClientHello: the server name and the protocols that the client offers.
//!
//! This module only reads the ClientHello; another module terminates TLS. Only the two needed
//! extensions are parsed, and nothing else is checked.

use super::Answer;

/// The maximum number of bytes of a ClientHello, without its record headers. A usual ClientHello
/// has 0.2 to 2 KiB; large key shares need more.
pub const HELLO_BYTES_MAX: usize = 16 * 1024;

/// The contents of a ClientHello.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name (RFC 6066 3), in lower case. `None` if there is none.
    pub server_name: Option<Box<str>>,
    /// The offered protocols (RFC 7301 3.1), in the client's order.
    pub alpn: Vec<Box<[u8]>>,
}

/// The reason why bytes are not a ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The bytes are not TLS handshake records.
    #[error("no TLS handshake records")]
    Records,
    /// The message is not a ClientHello, or contradicts its own lengths.
    #[error("a malformed ClientHello")]
    Malformed,
    /// The ClientHello is larger than [`HELLO_BYTES_MAX`].
    #[error("a ClientHello of more than 16 KiB")]
    TooLarge,
}

/// Parses the ClientHello at the start of `bytes`. It may span several records.
///
/// # Errors
/// [`HelloError`], as soon as no further bytes can make the ClientHello valid.
pub fn client_hello(bytes: &[u8]) -> Result<Answer<ClientHello>, HelloError> {
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        if let Some(wanted) = message_bytes(&message)?
            && message.len() >= wanted
        {
            return body(&message[4..wanted]).map(Answer::Known).ok_or(HelloError::Malformed);
        }
        let Some((header, after)) = rest.split_at_checked(5) else {
            let possible = rest.first().is_none_or(|&kind| kind == 22)
                && rest.get(1).is_none_or(|&major| major == 3)
                && rest.get(2).is_none_or(|&minor| minor <= 4);
            return if possible { Ok(Answer::NeedMore) } else { Err(HelloError::Records) };
        };
        let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if header[0] != 22 || header[1] != 3 || header[2] > 4 || len == 0 || len > RECORD_BYTES_MAX
        {
            return Err(HelloError::Records);
        }
        message.extend_from_slice(&after[..len.min(after.len())]);
        if after.len() < len {
            // The type and the length of the message may be complete already.
            message_bytes(&message)?;
            return Ok(Answer::NeedMore);
        }
        rest = &after[len..];
    }
}

/// Parses the ClientHello at the start of `message`, which has no records (RFC 9001 4.1.3).
///
/// # Errors
/// [`HelloError`], as soon as no further bytes can make the ClientHello valid.
pub(super) fn handshake(message: &[u8]) -> Result<Answer<ClientHello>, HelloError> {
    match message_bytes(message)? {
        Some(wanted) if message.len() >= wanted => {
            body(&message[4..wanted]).map(Answer::Known).ok_or(HelloError::Malformed)
        }
        _ => Ok(Answer::NeedMore),
    }
}

/// The largest payload of an unencrypted record (RFC 8446 5.1).
const RECORD_BYTES_MAX: usize = 1 << 14;

/// Returns the length of the handshake message with its header. `None` until the header has
/// arrived.
fn message_bytes(message: &[u8]) -> Result<Option<usize>, HelloError> {
    if message.first().is_some_and(|&kind| kind != 1) {
        return Err(HelloError::Malformed);
    }
    let Some(header) = message.first_chunk::<4>() else { return Ok(None) };
    let len = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
    match len > HELLO_BYTES_MAX {
        true => Err(HelloError::TooLarge),
        false => Ok(Some(len + 4)),
    }
}

/// Parses the body of the message (RFC 8446 4.1.2): version, random, session id, cipher suites,
/// compression methods, extensions.
fn body(bytes: &[u8]) -> Option<ClientHello> {
    let mut reader = Reader(bytes);
    reader.take(2 + 32)?;
    reader.vector8()?;
    reader.vector16()?;
    reader.vector8()?;
    let mut hello = ClientHello::default();
    if reader.0.is_empty() {
        return Some(hello); // before TLS 1.3 there may be no extensions at all
    }
    let mut extensions = Reader(reader.vector16()?);
    if !reader.0.is_empty() {
        return None;
    }
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let content = Reader(extensions.vector16()?);
        match kind {
            0 => hello.server_name = server_name(content)?,
            16 => hello.alpn = alpn(content)?,
            _ => {}
        }
    }
    Some(hello)
}

/// Parses the host name, the only kind of server name that is defined (RFC 6066 3).
fn server_name(mut content: Reader<'_>) -> Option<Option<Box<str>>> {
    let mut names = Reader(content.vector16()?);
    let mut found = None;
    while !names.0.is_empty() {
        let kind = names.take(1)?[0];
        let name = names.vector16()?;
        if kind == 0 && found.is_none() {
            let visible = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
            let name = std::str::from_utf8(name).ok().filter(|_| visible)?;
            found = Some(name.to_ascii_lowercase().into());
        }
    }
    Some(found)
}

fn alpn(mut content: Reader<'_>) -> Option<Vec<Box<[u8]>>> {
    let mut names = Reader(content.vector16()?);
    let mut found = Vec::new();
    while !names.0.is_empty() {
        let name = names.vector8()?;
        if name.is_empty() {
            return None;
        }
        found.push(name.into());
    }
    Some(found)
}

/// Takes bytes from the front of a slice. `None` if there are too few.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn number16(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let len = self.take(1)?[0];
        self.take(len.into())
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let len = self.number16()?;
        self.take(len.into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Returns a ClientHello of rustls for `name`, as one record.
    fn real(name: &str, alpn: &[&[u8]]) -> Vec<u8> {
        let mut config = rustls::ClientConfig::builder_with_provider(crate::tls::PROVIDER.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// Splits the message into records of `portion` bytes.
    fn in_portions(bytes: &[u8], portion: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for part in bytes[5..].chunks(portion) {
            out.extend_from_slice(&bytes[..3]);
            out.extend_from_slice(&(part.len() as u16).to_be_bytes());
            out.extend_from_slice(part);
        }
        out
    }

    /// Parses `bytes` byte by byte. The answer must be `NeedMore` until the last byte.
    fn dripped(bytes: &[u8]) -> ClientHello {
        for end in 0..bytes.len() {
            assert_eq!(client_hello(&bytes[..end]), Ok(Answer::NeedMore), "at {end}");
        }
        match client_hello(bytes) {
            Ok(Answer::Known(hello)) => hello,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_and_protocols_of_real_clients() {
        for (name, expected) in [
            ("shop.example.com", Some("shop.example.com")),
            ("Shop.EXAMPLE.com", Some("shop.example.com")),
            ("127.0.0.1", None),
        ] {
            for alpn in [&[][..], &[&b"h2"[..], b"http/1.1"]] {
                let bytes = real(name, alpn);
                for bytes in [bytes.clone(), in_portions(&bytes, 100), in_portions(&bytes, 1)] {
                    let hello = dripped(&bytes);
                    assert_eq!(hello.server_name.as_deref(), expected);
                    assert_eq!(hello.alpn.iter().map(|n| &**n).collect::<Vec<_>>(), alpn);
                }
            }
        }
    }

    #[test]
    fn what_follows_does_not_matter() {
        let mut bytes = real("a.example", &[]);
        let hello = dripped(&bytes);
        bytes.extend_from_slice(b"early data or anything");
        assert_eq!(client_hello(&bytes), Ok(Answer::Known(hello)));
    }

    #[test]
    fn contradictions_are_refused() {
        let good = real("a.example", &[]);
        assert_eq!(client_hello(b"GET / HTTP/1.1\r\n"), Err(HelloError::Records));
        assert_eq!(client_hello(b"\x17"), Err(HelloError::Records));
        assert_eq!(client_hello(b"\x16\x03\x01\x00\x00"), Err(HelloError::Records));
        assert_eq!(client_hello(b"\x16\x03\x01\x40\x01"), Err(HelloError::Records));
        assert_eq!(client_hello(b"\x16\x03\x01\x00\x04\x02"), Err(HelloError::Malformed));
        let large = b"\x16\x03\x01\x00\x04\x01\x00\x40\x01";
        assert_eq!(client_hello(large), Err(HelloError::TooLarge));
        // Change each length by one, up and down, in turn.
        let mut refused = 0;
        for at in 5 + 4 + 34..good.len() {
            for change in [1, u8::MAX] {
                let mut bytes = good.clone();
                bytes[at] = bytes[at].wrapping_add(change);
                refused += usize::from(client_hello(&bytes).is_err());
            }
        }
        assert!(refused > 20, "{refused}");
    }
}
