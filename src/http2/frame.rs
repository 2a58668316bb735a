//! Frames (RFC 9113 4.1, 6): their kinds, flags and error codes, and how to read and write the
//! header of a frame.

/// Length of a frame header (RFC 9113 4.1).
pub(super) const HEAD_BYTES: usize = 9;

/// The maximum payload of a frame that a peer may send: the default of SETTINGS_MAX_FRAME_SIZE (RFC
/// 9113 6.5.2).
pub(super) const PAYLOAD_BYTES_MAX: usize = 16_384;

/// The flag ACK of SETTINGS and PING.
pub(super) const ACK: u8 = 0x1;
/// The flag END_STREAM of DATA and HEADERS.
pub(super) const END_STREAM: u8 = 0x1;
/// The flag END_HEADERS of HEADERS, PUSH_PROMISE and CONTINUATION.
pub(super) const END_HEADERS: u8 = 0x4;
/// The flag PADDED of DATA, HEADERS and PUSH_PROMISE.
pub(super) const PADDED: u8 = 0x8;
/// The flag PRIORITY of HEADERS.
pub(super) const PRIORITY: u8 = 0x20;

/// The type of a frame (RFC 9113 6, RFC 9218 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// PRIORITY_UPDATE (RFC 9218), the successor of PRIORITY.
    PriorityUpdate,
    Other,
}

impl Kind {
    fn from_number(number: u8) -> Self {
        match number {
            0x0 => Self::Data,
            0x1 => Self::Headers,
            0x2 => Self::Priority,
            0x3 => Self::Reset,
            0x4 => Self::Settings,
            0x5 => Self::PushPromise,
            0x6 => Self::Ping,
            0x7 => Self::GoAway,
            0x8 => Self::WindowUpdate,
            0x9 => Self::Continuation,
            0x10 => Self::PriorityUpdate,
            _ => Self::Other,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Data => 0x0,
            Self::Headers => 0x1,
            Self::Priority => 0x2,
            Self::Reset => 0x3,
            Self::Settings => 0x4,
            Self::PushPromise => 0x5,
            Self::Ping => 0x6,
            Self::GoAway => 0x7,
            Self::WindowUpdate => 0x8,
            Self::Continuation => 0x9,
            Self::PriorityUpdate => 0x10,
            Self::Other => 0xff,
        }
    }
}

/// An error code (RFC 9113 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// NO_ERROR: the stream or the connection ends without an error.
    pub const NO_ERROR: Self = Self(0x0);
    /// PROTOCOL_ERROR: the peer violated the protocol.
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    /// INTERNAL_ERROR: an error on our side.
    pub const INTERNAL_ERROR: Self = Self(0x2);
    /// FLOW_CONTROL_ERROR: the peer sent more than its window, or made our window too large.
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    /// STREAM_CLOSED: a frame arrived after the end of its stream.
    pub const STREAM_CLOSED: Self = Self(0x5);
    /// FRAME_SIZE_ERROR: a frame has a wrong size.
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    /// REFUSED_STREAM: the stream was not processed, so the request may be sent again.
    pub const REFUSED_STREAM: Self = Self(0x7);
    /// CANCEL: the stream is not needed any more.
    pub const CANCEL: Self = Self(0x8);
    /// COMPRESSION_ERROR: a header block cannot be decoded.
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    /// ENHANCE_YOUR_CALM: the peer exceeded a limit.
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);

    /// Whether RST_STREAM with this code means an error of the peer. For reasons of our own we send
    /// INTERNAL_ERROR, CANCEL or NO_ERROR.
    pub(super) fn is_provoked(self) -> bool {
        !matches!(self, Self::NO_ERROR | Self::INTERNAL_ERROR | Self::CANCEL)
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) payload_bytes: usize,
    pub(super) kind: Kind,
    pub(super) flags: u8,
    /// The stream id. 0 means the connection.
    pub(super) stream: u32,
}

impl FrameHead {
    /// Reads a frame header from the front of `bytes`. `None` if it is not complete.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (&[a, b, c, kind, flags, w, x, y, z], _) = bytes.split_first_chunk()?;
        Some(Self {
            payload_bytes: u32::from_be_bytes([0, a, b, c]) as usize,
            kind: Kind::from_number(kind),
            flags,
            stream: u32::from_be_bytes([w, x, y, z]) & 0x7fff_ffff,
        })
    }

    /// Encodes the header.
    pub(super) fn bytes(self) -> [u8; HEAD_BYTES] {
        let [_, a, b, c] = (self.payload_bytes as u32).to_be_bytes();
        let [w, x, y, z] = self.stream.to_be_bytes();
        [a, b, c, self.kind.number(), self.flags, w, x, y, z]
    }

    /// Whether the flag is set.
    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The big-endian number at the front of `bytes`; 0 if there are fewer than four bytes.
pub(super) fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |four| u32::from_be_bytes(*four))
}

/// Removes the padding of a payload (RFC 9113 6.1). `None` if the padding is longer than the rest.
pub(super) fn without_padding(head: FrameHead, payload: &[u8]) -> Option<&[u8]> {
    if !head.has(PADDED) {
        return Some(payload);
    }
    let (&padding, rest) = payload.split_first()?;
    rest.get(..rest.len().checked_sub(padding.into())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_written_as_it_is_read() {
        for number in 0..=u8::MAX {
            let bytes = [0, 0x40, 1, number, 5, 0x80, 0, 1, 3, 99];
            let head = FrameHead::read(&bytes).unwrap();
            assert_eq!((head.payload_bytes, head.flags, head.stream), (0x4001, 5, 0x103));
            if head.kind != Kind::Other {
                assert_eq!(head.bytes(), [0, 0x40, 1, number, 5, 0, 0, 1, 3]);
            }
        }
        assert_eq!(FrameHead::read(&[0; 8]), None);
    }

    #[test]
    fn padding_is_removed_and_never_longer_than_its_frame() {
        let head = |flags| FrameHead { payload_bytes: 0, kind: Kind::Data, flags, stream: 1 };
        for (flags, payload, content) in [
            (0, &b"abc"[..], Some(&b"abc"[..])),
            (PADDED, b"\x01ab\0", Some(b"ab")),
            (PADDED, b"\x03abc", Some(b"")),
            (PADDED, b"\x04abc", None),
            (PADDED, b"", None),
        ] {
            assert_eq!(without_padding(head(flags), payload), content, "{payload:?}");
        }
    }
}
