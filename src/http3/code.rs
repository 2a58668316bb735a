//! Error codes of HTTP/3 and QPACK (RFC 9114 8.1, RFC 9204 6, RFC 9297 5.2).

use crate::hpack::qpack::QpackError;

/// An error code of a stream or a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u64);

impl Code {
    /// H3_DATAGRAM_ERROR: a datagram or a capsule is wrong.
    pub const DATAGRAM_ERROR: Self = Self(0x33);
    /// H3_NO_ERROR: the stream or the connection ends without an error.
    pub const NO_ERROR: Self = Self(0x100);
    /// H3_GENERAL_PROTOCOL_ERROR: the peer violated the protocol, and no other code fits.
    pub const GENERAL_PROTOCOL_ERROR: Self = Self(0x101);
    /// H3_INTERNAL_ERROR: an error on our side.
    pub const INTERNAL_ERROR: Self = Self(0x102);
    /// H3_STREAM_CREATION_ERROR: a stream that is not accepted.
    pub const STREAM_CREATION_ERROR: Self = Self(0x103);
    /// H3_CLOSED_CRITICAL_STREAM: a stream that the connection needs was closed.
    pub const CLOSED_CRITICAL_STREAM: Self = Self(0x104);
    /// H3_FRAME_UNEXPECTED: a frame is not allowed here.
    pub const FRAME_UNEXPECTED: Self = Self(0x105);
    /// H3_FRAME_ERROR: a frame has a wrong size or layout.
    pub const FRAME_ERROR: Self = Self(0x106);
    /// H3_EXCESSIVE_LOAD: the peer exceeded a limit.
    pub const EXCESSIVE_LOAD: Self = Self(0x107);
    /// H3_ID_ERROR: an id of a stream or a push is wrong.
    pub const ID_ERROR: Self = Self(0x108);
    /// H3_SETTINGS_ERROR: a setting is wrong.
    pub const SETTINGS_ERROR: Self = Self(0x109);
    /// H3_MISSING_SETTINGS: the control stream does not begin with SETTINGS.
    pub const MISSING_SETTINGS: Self = Self(0x10a);
    /// H3_REQUEST_REJECTED: the request was not processed, so it may be sent again.
    pub const REQUEST_REJECTED: Self = Self(0x10b);
    /// H3_REQUEST_CANCELLED: the request or its response is not needed any more.
    pub const REQUEST_CANCELLED: Self = Self(0x10c);
    /// H3_REQUEST_INCOMPLETE: the stream ended before the request was complete.
    pub const REQUEST_INCOMPLETE: Self = Self(0x10d);
    /// H3_MESSAGE_ERROR: a message is malformed.
    pub const MESSAGE_ERROR: Self = Self(0x10e);
    /// H3_CONNECT_ERROR: the connection of a CONNECT was reset or closed.
    pub const CONNECT_ERROR: Self = Self(0x10f);
    /// H3_VERSION_FALLBACK: the request must be sent again over HTTP/1.1.
    pub const VERSION_FALLBACK: Self = Self(0x110);
    /// QPACK_DECOMPRESSION_FAILED: a field section cannot be decoded.
    pub const QPACK_DECOMPRESSION_FAILED: Self = Self(0x200);
    /// QPACK_ENCODER_STREAM_ERROR: an instruction of the encoder is wrong.
    pub const QPACK_ENCODER_STREAM_ERROR: Self = Self(0x201);
    /// QPACK_DECODER_STREAM_ERROR: an instruction of the decoder is wrong.
    pub const QPACK_DECODER_STREAM_ERROR: Self = Self(0x202);

    /// All codes with their names.
    const NAMES: [(Self, &'static str); 21] = [
        (Self::DATAGRAM_ERROR, "H3_DATAGRAM_ERROR"),
        (Self::NO_ERROR, "H3_NO_ERROR"),
        (Self::GENERAL_PROTOCOL_ERROR, "H3_GENERAL_PROTOCOL_ERROR"),
        (Self::INTERNAL_ERROR, "H3_INTERNAL_ERROR"),
        (Self::STREAM_CREATION_ERROR, "H3_STREAM_CREATION_ERROR"),
        (Self::CLOSED_CRITICAL_STREAM, "H3_CLOSED_CRITICAL_STREAM"),
        (Self::FRAME_UNEXPECTED, "H3_FRAME_UNEXPECTED"),
        (Self::FRAME_ERROR, "H3_FRAME_ERROR"),
        (Self::EXCESSIVE_LOAD, "H3_EXCESSIVE_LOAD"),
        (Self::ID_ERROR, "H3_ID_ERROR"),
        (Self::SETTINGS_ERROR, "H3_SETTINGS_ERROR"),
        (Self::MISSING_SETTINGS, "H3_MISSING_SETTINGS"),
        (Self::REQUEST_REJECTED, "H3_REQUEST_REJECTED"),
        (Self::REQUEST_CANCELLED, "H3_REQUEST_CANCELLED"),
        (Self::REQUEST_INCOMPLETE, "H3_REQUEST_INCOMPLETE"),
        (Self::MESSAGE_ERROR, "H3_MESSAGE_ERROR"),
        (Self::CONNECT_ERROR, "H3_CONNECT_ERROR"),
        (Self::VERSION_FALLBACK, "H3_VERSION_FALLBACK"),
        (Self::QPACK_DECOMPRESSION_FAILED, "QPACK_DECOMPRESSION_FAILED"),
        (Self::QPACK_ENCODER_STREAM_ERROR, "QPACK_ENCODER_STREAM_ERROR"),
        (Self::QPACK_DECODER_STREAM_ERROR, "QPACK_DECODER_STREAM_ERROR"),
    ];

    /// The name of the code in its RFC. `None` for an unknown code, which means the same as
    /// H3_NO_ERROR (RFC 9114 8.1).
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.iter().find(|(code, _)| *code == self).map(|(_, name)| *name)
    }

    /// Whether a reset of a stream with this code means an error of the peer. For reasons of our
    /// own we send H3_INTERNAL_ERROR, H3_REQUEST_REJECTED, H3_REQUEST_CANCELLED,
    /// H3_CONNECT_ERROR or H3_NO_ERROR.
    pub(super) fn is_provoked(self) -> bool {
        let ours = [
            Self::NO_ERROR,
            Self::INTERNAL_ERROR,
            Self::REQUEST_REJECTED,
            Self::REQUEST_CANCELLED,
            Self::CONNECT_ERROR,
        ];
        !ours.contains(&self)
    }
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "0x{:x}", self.0),
        }
    }
}

/// The reason why a connection must be closed: the code of CONNECTION_CLOSE, and a text for the
/// log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionError {
    /// The error code.
    pub code: Code,
    /// The text for the log.
    pub why: &'static str,
    /// The limit that the peer exceeded, if the code is H3_EXCESSIVE_LOAD.
    pub excess: Option<super::flood::Excess>,
}

impl ConnectionError {
    pub(super) const fn new(code: Code, why: &'static str) -> Self {
        Self { code, why, excess: None }
    }
}

impl From<QpackError> for ConnectionError {
    fn from(error: QpackError) -> Self {
        let code = match error {
            QpackError::Section(_) => Code::QPACK_DECOMPRESSION_FAILED,
            QpackError::EncoderStream(_) => Code::QPACK_ENCODER_STREAM_ERROR,
            QpackError::DecoderStream(_) => Code::QPACK_DECODER_STREAM_ERROR,
        };
        Self::new(code, error.what())
    }
}

impl From<super::flood::Excess> for ConnectionError {
    fn from(excess: super::flood::Excess) -> Self {
        let why = "the peer exceeded a limit";
        Self { code: Code::EXCESSIVE_LOAD, why, excess: Some(excess) }
    }
}

/// The error of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The stream must be reset with this code. The connection goes on.
    Stream(Code, &'static str),
    /// The connection must be closed.
    Connection(ConnectionError),
}

impl From<ConnectionError> for Error {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(error)
    }
}

impl From<QpackError> for Error {
    fn from(error: QpackError) -> Self {
        Self::Connection(error.into())
    }
}

impl From<super::flood::Excess> for Error {
    fn from(excess: super::flood::Excess) -> Self {
        Self::Connection(excess.into())
    }
}

/// An error of the connection inside a message.
pub(super) const fn broken(code: Code, why: &'static str) -> Error {
    Error::Connection(ConnectionError::new(code, why))
}
