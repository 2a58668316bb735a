//! The messages of the SPIFFE Workload API that the proxy reads: X.509 identities.
//!
//! Unknown fields are skipped, as protobuf asks for.

use super::protobuf::{Fields, Malformed, Value};

/// The method that sends the identities of the caller, and all of them again when one changes.
pub const FETCH: &str = "/SpiffeWorkloadAPI/FetchX509SVID";

/// The metadata that each request must have. A browser or another proxy would not send it.
pub const SECURITY_HEADER: (&str, &str) = ("workload.spiffe.io", "true");

/// One identity (an X.509-SVID).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Svid<'a> {
    /// The SPIFFE ID.
    pub id: &'a str,
    /// The certificate and its intermediates: DER, one after the other.
    pub chain: &'a [u8],
    /// The private key: DER of PKCS#8.
    pub key: &'a [u8],
    /// The roots of the trust domain: DER, one after the other.
    pub bundle: &'a [u8],
}

/// All identities of the caller, and what it may trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Svids<'a> {
    /// The identities. The order has no meaning that lasts: a new one may come first.
    pub all: Vec<Svid<'a>>,
    /// Revocation lists, each as DER.
    pub crls: Vec<&'a [u8]>,
    /// The roots of other trust domains, by the ID of the domain.
    pub federated: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Svids<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// If it is no such message.
    pub fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut read = Self::default();
        for field in Fields::of(message) {
            match field? {
                (1, Value::Bytes(bytes)) => read.all.push(svid(bytes)?),
                (2, Value::Bytes(bytes)) => read.crls.push(bytes),
                (3, Value::Bytes(bytes)) => read.federated.push(entry(bytes)?),
                _ => {}
            }
        }
        Ok(read)
    }
}

fn svid(message: &[u8]) -> Result<Svid<'_>, Malformed> {
    let mut svid = Svid::default();
    for field in Fields::of(message) {
        match field? {
            (1, Value::Bytes(bytes)) => svid.id = text(bytes)?,
            (2, Value::Bytes(bytes)) => svid.chain = bytes,
            (3, Value::Bytes(bytes)) => svid.key = bytes,
            (4, Value::Bytes(bytes)) => svid.bundle = bytes,
            _ => {}
        }
    }
    Ok(svid)
}

/// An entry of a map.
fn entry(message: &[u8]) -> Result<(&str, &[u8]), Malformed> {
    let (mut name, mut value) = ("", &[][..]);
    for field in Fields::of(message) {
        match field? {
            (1, Value::Bytes(bytes)) => name = text(bytes)?,
            (2, Value::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    Ok((name, value))
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_identities_are_read_with_what_they_trust() {
        let one = b"\x0a\x04id-1\x12\x02ch\x1a\x02ke\x22\x02bu\x2a\x04hint";
        let two = b"\x0a\x04id-2";
        let federated = b"\x0a\x03dom\x12\x05roots";
        let message =
            [b"\x0a\x18", &one[..], b"\x0a\x06", two, b"\x12\x03crl\x1a\x0c", federated].concat();
        let read = Svids::read(&message).unwrap();
        let first = Svid { id: "id-1", chain: b"ch", key: b"ke", bundle: b"bu" };
        assert_eq!(read.all, [first, Svid { id: "id-2", ..Svid::default() }]);
        assert_eq!(
            (&read.crls[..], &read.federated[..]),
            (&[&b"crl"[..]][..], &[("dom", &b"roots"[..])][..])
        );
        assert_eq!(Svids::read(b""), Ok(Svids::default()));
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for bytes in [&b"\x0a\x7f"[..], b"\x0a\x03\x0a\x01\xff", b"\x1a\x02\x0a\x09", b"\xff"] {
            assert!(Svids::read(bytes).is_err(), "{bytes:?}");
        }
    }
}
