//! Reads the ClientHello from the first datagrams of a QUIC connection (RFC 9000 17.2, RFC 9001 5,
//! RFC 9369).
//!
//! The keys of Initial packets come from the connection ID that the client has chosen, so anyone
//! can read them. The ClientHello may be split into CRYPTO frames in any order, over several
//! packets and datagrams. Nothing is answered: the datagrams are forwarded as they are.

use aws_lc_rs::aead::{self, AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey, quic};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};

use super::hello::{HELLO_BYTES_MAX, HelloError, handshake};
use super::{Answer, ClientHello};
use crate::http3::read_varint;

/// The number of datagrams that one ClientHello may need.
pub const HELLO_DATAGRAMS_MAX: usize = 16;

/// The number of parts of the ClientHello with holes between them.
const PARTS_MAX: usize = 64;

/// The length of a connection ID in versions 1 and 2 (RFC 9000 17.2).
const ID_BYTES_MAX: usize = 20;

/// The length of an authentication tag.
const TAG_BYTES: usize = 16;

/// The header of a long packet, which is the same in all versions (RFC 8999 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongHeader<'a> {
    /// The first byte.
    pub first: u8,
    /// The version.
    pub version: u32,
    /// The connection ID of the receiver.
    pub destination: &'a [u8],
    /// The connection ID of the sender.
    pub source: &'a [u8],
}

/// The reason why datagrams have no readable ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuicError {
    /// The datagram does not begin with a long header of QUIC.
    #[error("no QUIC packet")]
    NotQuic,
    /// The version is neither 1 nor 2.
    #[error("an unknown QUIC version")]
    Version,
    /// The first datagram has no Initial packet of a client with a valid tag.
    #[error("no valid Initial packet")]
    NotInitial,
    /// A packet has wrong frames, or the parts of the ClientHello contradict each other.
    #[error("a malformed Initial packet")]
    Malformed,
    /// The ClientHello needs too many datagrams or parts.
    #[error("a ClientHello in too many parts")]
    TooManyParts,
    /// The ClientHello is not valid.
    #[error(transparent)]
    Hello(#[from] HelloError),
}

/// Reads the header of a long packet. `None` if `datagram` does not begin with one.
pub fn long_header(datagram: &[u8]) -> Option<LongHeader<'_>> {
    Packet::read(&mut &datagram[..]).map(|packet| packet.header)
}

/// The connection ID of the sender, if `datagram` begins with a long header. After the first
/// packets, an endpoint may clear the second bit (RFC 9287).
pub fn sender_id(datagram: &[u8]) -> Option<&[u8]> {
    let (&[first, ..], mut rest) = datagram.split_first_chunk::<5>()?;
    if first & 0x80 == 0 {
        return None;
    }
    connection_id(&mut rest)?;
    connection_id(&mut rest)
}

/// A long header, and the number of its bytes.
#[derive(Clone, Copy)]
struct Packet<'a> {
    header: LongHeader<'a>,
    len: usize,
}

impl<'a> Packet<'a> {
    /// Reads the header at the front of `rest`, and takes its bytes.
    fn read(rest: &mut &'a [u8]) -> Option<Self> {
        let before = rest.len();
        let (&[first, a, b, c, d], after) = rest.split_first_chunk()?;
        // The second bit is 1 in the first packets of a client (RFC 9000 17.2).
        if first & 0xc0 != 0xc0 {
            return None;
        }
        *rest = after;
        let destination = connection_id(rest)?;
        let source = connection_id(rest)?;
        let version = u32::from_be_bytes([a, b, c, d]);
        let header = LongHeader { first, version, destination, source };
        Some(Self { header, len: before - rest.len() })
    }
}

fn connection_id<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (&len, after) = rest.split_first()?;
    let (id, after) = after.split_at_checked(usize::from(len))?;
    *rest = after;
    (id.len() <= ID_BYTES_MAX).then_some(id)
}

/// A version with its constants (RFC 9001 5.2, RFC 9369 3).
struct Version {
    number: u32,
    /// The type of Initial packets in the first byte.
    initial: u8,
    salt: [u8; 20],
    /// The labels of key, IV and header protection key.
    labels: [&'static [u8]; 3],
}

const VERSIONS: [Version; 2] = [
    Version {
        number: 1,
        initial: 0x00,
        salt: [
            0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8,
            0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a,
        ],
        labels: [b"quic key", b"quic iv", b"quic hp"],
    },
    Version {
        number: 0x6b33_43cf,
        initial: 0x10,
        salt: [
            0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26,
            0x9d, 0xcb, 0xf9, 0xbd, 0x2e, 0xd9,
        ],
        labels: [b"quicv2 key", b"quicv2 iv", b"quicv2 hp"],
    },
];

/// The keys of a client's Initial packets.
struct Keys {
    payload: LessSafeKey,
    iv: [u8; aead::NONCE_LEN],
    header: quic::HeaderProtectionKey,
}

/// The length of an output of HKDF.
#[derive(Clone, Copy)]
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand-Label without a context (RFC 8446 7.1). `None` only if the library refuses.
fn expand<const N: usize>(secret: &Prk, label: &[u8]) -> Option<[u8; N]> {
    let prefix = b"tls13 ";
    let lengths = [0, N as u8, (prefix.len() + label.len()) as u8];
    let info = [&lengths[..], prefix, label, &[0]];
    let mut out = [0; N];
    secret.expand(&info, Length(N)).ok()?.fill(&mut out).ok()?;
    Some(out)
}

/// The key, the IV and the header protection key of a client's Initial packets.
fn secrets(version: &Version, destination: &[u8]) -> Option<([u8; 16], [u8; 12], [u8; 16])> {
    let initial = Salt::new(HKDF_SHA256, &version.salt).extract(destination);
    let client: [u8; 32] = expand(&initial, b"client in")?;
    let client = Prk::new_less_safe(HKDF_SHA256, &client);
    let [key, iv, header] = version.labels;
    Some((expand(&client, key)?, expand(&client, iv)?, expand(&client, header)?))
}

impl Keys {
    fn new(version: &Version, destination: &[u8]) -> Option<Self> {
        let (key, iv, header) = secrets(version, destination)?;
        let payload = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).ok()?);
        let header = quic::HeaderProtectionKey::new(&quic::AES_128, &header).ok()?;
        Some(Self { payload, iv, header })
    }

    fn nonce(&self, number: u64) -> Nonce {
        let mut nonce = self.iv;
        let number = number.to_be_bytes();
        nonce[4..].iter_mut().zip(number).for_each(|(byte, other)| *byte ^= other);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Collects the ClientHello of one connection.
pub struct QuicHello {
    version: &'static Version,
    /// The first connection ID of the receiver, from which the keys come.
    destination: Box<[u8]>,
    keys: Keys,
    /// The largest packet number.
    largest: Option<u64>,
    datagrams: usize,
    /// The bytes of the CRYPTO stream, with zeros in the holes.
    bytes: Vec<u8>,
    /// The parts that have arrived, in order, with holes between them.
    parts: Vec<std::ops::Range<usize>>,
}

impl QuicHello {
    /// Creates the reader of the connection that begins with `datagram`. Then
    /// [`QuicHello::receive`] reads this datagram.
    ///
    /// # Errors
    /// When the datagram does not begin with an Initial packet of a known version.
    pub fn new(datagram: &[u8]) -> Result<Self, QuicError> {
        let header = long_header(datagram).ok_or(QuicError::NotQuic)?;
        let version = VERSIONS.iter().find(|version| version.number == header.version);
        let version = version.ok_or(QuicError::Version)?;
        if header.first & 0x30 != version.initial {
            return Err(QuicError::NotInitial);
        }
        let keys = Keys::new(version, header.destination).ok_or(QuicError::NotInitial)?;
        Ok(Self {
            version,
            destination: header.destination.into(),
            keys,
            largest: None,
            datagrams: 0,
            bytes: Vec::new(),
            parts: Vec::new(),
        })
    }

    /// Whether `datagram` begins another connection.
    pub fn is_another(&self, datagram: &[u8]) -> bool {
        long_header(datagram).is_some_and(|header| {
            header.version == self.version.number
                && header.first & 0x30 == self.version.initial
                && *header.destination != *self.destination
        })
    }

    /// Reads a datagram of the client. Ignores packets that are not its Initial packets, and bytes
    /// behind them.
    ///
    /// # Errors
    /// When no further datagram can make the ClientHello valid.
    pub fn receive(&mut self, datagram: &[u8]) -> Result<Answer<ClientHello>, QuicError> {
        self.datagrams += 1;
        let mut rest = datagram;
        while let Some(packet) = Packet::read(&mut &rest[..]) {
            let Some((packet_bytes, number_at)) = self.initial(packet, rest) else { break };
            let (bytes, after) = rest.split_at(packet_bytes);
            rest = after;
            if let Some(number_at) = number_at
                && let Some(payload) = self.open(bytes, number_at)
            {
                self.frames(&payload)?;
            }
        }
        if self.largest.is_none() {
            return Err(QuicError::NotInitial);
        }
        let whole = self.parts.first().filter(|part| part.start == 0).map_or(0, |part| part.end);
        match handshake(self.bytes.get(..whole).unwrap_or_default())? {
            Answer::NeedMore if self.datagrams >= HELLO_DATAGRAMS_MAX => {
                Err(QuicError::TooManyParts)
            }
            answer => Ok(answer),
        }
    }

    /// Returns the length of the packet at the front of `rest`. Also the position of its packet
    /// number, if it is an Initial packet with the connection ID of the first one. `None` if the
    /// rest of the datagram is not readable.
    fn initial(&self, packet: Packet<'_>, rest: &[u8]) -> Option<(usize, Option<usize>)> {
        let Packet { header, len } = packet;
        if header.version != self.version.number {
            return None;
        }
        let mut after = rest.get(len..)?;
        let is_initial = header.first & 0x30 == self.version.initial;
        if is_initial {
            let token = usize::try_from(read_varint(&mut after)?).ok()?;
            after = after.get(token..)?;
        }
        // A Retry packet has no length, but clients do not send it.
        let length = usize::try_from(read_varint(&mut after)?).ok()?;
        let number_at = rest.len() - after.len();
        let end = number_at.checked_add(length).filter(|end| *end <= rest.len())?;
        let is_ours = is_initial && *header.destination == *self.destination;
        Some((end, is_ours.then_some(number_at)))
    }

    /// Removes the protection of a packet. `None` if its tag is wrong.
    fn open(&mut self, packet: &[u8], number_at: usize) -> Option<Vec<u8>> {
        let sample = packet.get(number_at + 4..number_at + 4 + TAG_BYTES)?;
        let mask = self.keys.header.new_mask(sample).ok()?;
        let mut header = packet.get(..number_at + 4)?.to_vec();
        let first = header.first_mut()?;
        *first ^= mask[0] & 0x0f;
        let number_bytes = usize::from(*first & 0x03) + 1;
        header.truncate(number_at + number_bytes);
        let mut truncated = 0_u64;
        for (byte, mask) in header[number_at..].iter_mut().zip(&mask[1..]) {
            *byte ^= mask;
            truncated = truncated << 8 | u64::from(*byte);
        }
        let number = packet_number(self.largest, truncated, 8 * number_bytes as u32);
        let mut payload = packet.get(header.len()..)?.to_vec();
        let opened = self
            .keys
            .payload
            .open_in_place(self.keys.nonce(number), Aad::from(&header), &mut payload)
            .ok()?
            .len();
        payload.truncate(opened);
        self.largest = self.largest.max(Some(number));
        Some(payload)
    }

    /// Reads the frames of an Initial packet (RFC 9000 17.2.2).
    fn frames(&mut self, payload: &[u8]) -> Result<(), QuicError> {
        let mut rest = payload;
        while let Some((&kind, after)) = rest.split_first() {
            rest = after;
            match kind {
                // PADDING and PING.
                0x00 | 0x01 => {}
                // ACK.
                0x02 | 0x03 => skip_ack(kind, &mut rest).ok_or(QuicError::Malformed)?,
                // CRYPTO.
                0x06 => {
                    let (at, part) = crypto(&mut rest).ok_or(QuicError::Malformed)?;
                    self.put(at, part)?;
                }
                // CONNECTION_CLOSE ends the connection; other types are not allowed.
                _ => return Err(QuicError::Malformed),
            }
        }
        Ok(())
    }

    /// Keeps a part of the CRYPTO stream.
    fn put(&mut self, at: u64, part: &[u8]) -> Result<(), QuicError> {
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        let end = start.saturating_add(part.len());
        if end > HELLO_BYTES_MAX + 4 {
            return Err(HelloError::TooLarge.into());
        }
        if part.is_empty() {
            return Ok(());
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        // The server may keep the other one of two different parts, so there is no safe answer.
        for known in &self.parts {
            let both = known.start.max(start)..known.end.min(end);
            if !both.is_empty()
                && self.bytes[both.clone()] != part[both.start - start..both.end - start]
            {
                return Err(QuicError::Malformed);
            }
        }
        self.bytes[start..end].copy_from_slice(part);
        let (mut merged, mut others) = (start..end, Vec::with_capacity(self.parts.len() + 1));
        for known in self.parts.drain(..) {
            if known.end < merged.start || known.start > merged.end {
                others.push(known);
            } else {
                merged = merged.start.min(known.start)..merged.end.max(known.end);
            }
        }
        let place = others.iter().take_while(|other| other.start < merged.start).count();
        others.insert(place, merged);
        self.parts = others;
        if self.parts.len() > PARTS_MAX { Err(QuicError::TooManyParts) } else { Ok(()) }
    }
}

/// The packet number whose low `bits` are `truncated`, next to the largest one (RFC 9000 A.3).
fn packet_number(largest: Option<u64>, truncated: u64, bits: u32) -> u64 {
    let expected = largest.map_or(0, |largest| largest + 1);
    let window = 1_u64 << bits;
    let candidate = expected & !(window - 1) | truncated;
    if candidate + window / 2 <= expected {
        candidate + window
    } else if candidate > expected + window / 2 && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

/// Reads a CRYPTO frame after its type (RFC 9000 19.6).
fn crypto<'a>(rest: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    let at = read_varint(rest)?;
    let len = usize::try_from(read_varint(rest)?).ok()?;
    let (part, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some((at, part))
}

/// Skips an ACK frame after its type (RFC 9000 19.3).
fn skip_ack(kind: u8, rest: &mut &[u8]) -> Option<()> {
    let _largest = read_varint(rest)?;
    let _delay = read_varint(rest)?;
    let ranges = read_varint(rest)?;
    let _first = read_varint(rest)?;
    let counts = if kind == 0x03 { 3 } else { 0 };
    // Each integer takes a byte, so the loop ends with the packet.
    for _ in 0..ranges.checked_mul(2)?.checked_add(counts)? {
        read_varint(rest)?;
    }
    Some(())
}

#[cfg(test)]
#[path = "quic_tests.rs"]
pub mod tests;
