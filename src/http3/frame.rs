//! Integers of QUIC (RFC 9000 16), and the headers of frames (RFC 9114 7.1).

/// The largest integer that can be written: 2^62 - 1.
pub const VARINT_MAX: u64 = (1 << 62) - 1;

/// The longest header of a frame: two integers of eight bytes.
pub(super) const HEAD_BYTES_MAX: usize = 16;

/// Reads an integer from the front of `rest`. `None` if it is not complete; then `rest` stays.
#[inline]
pub fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let first = *rest.first()?;
    let len = 1 << (first >> 6);
    let (bytes, after) = rest.split_at_checked(len)?;
    *rest = after;
    let start = u64::from(first & 0x3f);
    Some(bytes[1..].iter().fold(start, |value, &byte| value << 8 | u64::from(byte)))
}

/// Writes an integer in its shortest form. Larger values than [`VARINT_MAX`] are cut off.
#[inline]
pub fn write_varint(out: &mut Vec<u8>, value: u64) {
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => {
            out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes());
        }
        _ => out.extend_from_slice(&(value & VARINT_MAX | 0b11 << 62).to_be_bytes()),
    }
}

/// The type of a frame (RFC 9114 7.2, RFC 9218 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    CancelPush,
    Settings,
    PushPromise,
    GoAway,
    MaxPushId,
    /// The priority of a request.
    PriorityUpdate,
    /// The priority of a push.
    PushPriorityUpdate,
    /// A type of HTTP/2 that HTTP/3 does not have (RFC 9114 7.2.8).
    OfHttp2,
    Other,
}

impl Kind {
    pub(super) fn from_number(number: u64) -> Self {
        match number {
            0x0 => Self::Data,
            0x1 => Self::Headers,
            0x3 => Self::CancelPush,
            0x4 => Self::Settings,
            0x5 => Self::PushPromise,
            0x7 => Self::GoAway,
            0xd => Self::MaxPushId,
            0xf0700 => Self::PriorityUpdate,
            0xf0701 => Self::PushPriorityUpdate,
            0x2 | 0x6 | 0x8 | 0x9 => Self::OfHttp2,
            _ => Self::Other,
        }
    }
}

/// The numbers of the frames that we send.
pub(super) const DATA: u64 = 0x0;
pub(super) const HEADERS: u64 = 0x1;
pub(super) const SETTINGS: u64 = 0x4;
pub(super) const GOAWAY: u64 = 0x7;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) kind: Kind,
    pub(super) payload_bytes: u64,
}

impl FrameHead {
    /// Reads a header from the front of `rest`. `None` if it is not complete; then `rest` stays.
    #[inline]
    pub(super) fn read(rest: &mut &[u8]) -> Option<Self> {
        let mut after = *rest;
        let kind = Kind::from_number(read_varint(&mut after)?);
        let payload_bytes = read_varint(&mut after)?;
        *rest = after;
        Some(Self { kind, payload_bytes })
    }
}

/// Reads headers of frames whose bytes arrive in pieces.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    /// The bytes of an incomplete header.
    bytes: [u8; HEAD_BYTES_MAX],
    len: u8,
}

impl HeadReader {
    /// Whether a part of a header has arrived.
    pub(super) const fn has_begun(&self) -> bool {
        self.len > 0
    }

    /// Takes the bytes of a header from the front of `bytes`. `None` if it is not complete; then
    /// all bytes are taken.
    #[inline]
    pub(super) fn read(&mut self, bytes: &mut &[u8]) -> Option<FrameHead> {
        if self.len == 0
            && let Some(head) = FrameHead::read(bytes)
        {
            return Some(head);
        }
        while let Some((&byte, rest)) = bytes.split_first() {
            *self.bytes.get_mut(usize::from(self.len))? = byte;
            self.len += 1;
            *bytes = rest;
            let mut begun = self.bytes.get(..usize::from(self.len))?;
            if let Some(head) = FrameHead::read(&mut begun) {
                self.len = 0;
                return Some(head);
            }
        }
        None
    }
}

/// Writes a frame.
pub(super) fn write_frame(out: &mut Vec<u8>, number: u64, payload: &[u8]) {
    write_varint(out, number);
    write_varint(out, payload.len() as u64);
    out.extend_from_slice(payload);
}

/// Reads a payload that is exactly one integer.
pub(super) fn only_varint(mut payload: &[u8]) -> Option<u64> {
    let value = read_varint(&mut payload)?;
    payload.is_empty().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_those_of_rfc_9000() {
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ] {
            let mut rest = bytes;
            assert_eq!((read_varint(&mut rest), rest), (Some(value), &b""[..]));
            let mut out = Vec::new();
            write_varint(&mut out, value);
            assert_eq!(out, bytes);
            let mut cut = &bytes[..bytes.len() - 1];
            assert_eq!((read_varint(&mut cut), cut.len()), (None, bytes.len() - 1));
        }
        // A longer form than needed is allowed.
        assert_eq!(read_varint(&mut &[0x40, 0x25][..]), Some(37));
        for value in (0..62).flat_map(|bits| [(1 << bits) - 1, 1 << bits]).chain([VARINT_MAX]) {
            let mut out = Vec::new();
            write_varint(&mut out, value);
            assert_eq!(read_varint(&mut &out[..]), Some(value));
        }
    }

    #[test]
    fn a_header_may_arrive_in_pieces() {
        for (kind, length) in [(0, 0), (0x40, 70_000), (VARINT_MAX, VARINT_MAX), (0xf0700, 3)] {
            let mut bytes = Vec::new();
            write_varint(&mut bytes, kind);
            write_varint(&mut bytes, length);
            bytes.extend(b"rest");
            let wanted = FrameHead { kind: Kind::from_number(kind), payload_bytes: length };
            for portion in 1..bytes.len() {
                let (mut reader, mut found) = (HeadReader::default(), None);
                let mut left = 0;
                for mut part in bytes.chunks(portion) {
                    if found.is_none() {
                        found = reader.read(&mut part);
                    }
                    left += part.len();
                }
                assert_eq!((found, left), (Some(wanted), 4), "{portion}");
            }
        }
    }
}
