//! QPACK, the compression of HTTP/3 field sections (RFC 9204).
//!
//! `decode` reads the sections and the encoder stream of the peer. `encode` writes our sections and
//! our encoder stream. `statics` is the static table. The dynamic tables, strings and integers are
//! those of HPACK.
//!
//! The streams of a QUIC connection overtake each other. So a section says how many entries of the
//! table it needs, and a section whose entries have not arrived is blocked. Each side limits the
//! number of blocked streams. An entry is removed only when the peer has acknowledged all sections
//! that refer to it.

mod decode;
mod encode;
mod statics;
#[cfg(test)]
mod tests;

pub use decode::{Decoder, Outcome};
pub use encode::Encoder;

use super::DecodeError;

/// The reason why a connection cannot go on (RFC 9204 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QpackError {
    /// A field section cannot be decoded: QPACK_DECOMPRESSION_FAILED.
    Section(&'static str),
    /// An instruction of the peer's encoder is wrong: QPACK_ENCODER_STREAM_ERROR.
    EncoderStream(&'static str),
    /// An instruction of the peer's decoder is wrong: QPACK_DECODER_STREAM_ERROR.
    DecoderStream(&'static str),
}

impl QpackError {
    /// Returns the text of the error for a log line.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Section(what) | Self::EncoderStream(what) | Self::DecoderStream(what) => what,
        }
    }
}

/// An error inside a field section.
impl From<DecodeError> for QpackError {
    fn from(error: DecodeError) -> Self {
        Self::Section(error.what())
    }
}

/// A form of a field line or an instruction: the bits of its first byte above its integer, and the
/// mask of this integer.
type Form = (u8, u8);

/// The bit above the mask of a form with an index: the index is one of the static table.
const fn static_bit(form: Form) -> u8 {
    form.1 + 1
}

/// Forms of field lines (RFC 9204 4.5).
mod line {
    use super::Form;

    /// An indexed line. The bit above the mask marks the static table.
    pub const INDEXED: Form = (0x80, 0x3f);
    /// An indexed line of an entry after the base.
    pub const POST_BASE: Form = (0x10, 0x0f);
    /// A literal with the name of a line. The bit above the mask marks the static table.
    pub const NAMED: Form = (0x40, 0x0f);
    /// A literal with the name of an entry after the base.
    pub const NAMED_POST_BASE: Form = (0x00, 0x07);
    /// A literal with its own name. The integer is the length of the name.
    pub const LITERAL: Form = (0x20, 0x07);

    /// The bits that say that a literal must never be indexed.
    pub const NAMED_NEVER: u8 = 0x20;
    /// See [`NAMED_NEVER`].
    pub const NAMED_POST_BASE_NEVER: u8 = 0x08;
    /// See [`NAMED_NEVER`].
    pub const LITERAL_NEVER: u8 = 0x10;
}

/// Instructions of the encoder (RFC 9204 4.3).
mod instruction {
    use super::Form;

    /// Inserts a line with the name of another one. The bit above the mask marks the static table.
    pub const NAMED: Form = (0x80, 0x3f);
    /// Inserts a line with its own name. The integer is the length of the name.
    pub const LITERAL: Form = (0x40, 0x1f);
    /// Sets the capacity of the table.
    pub const CAPACITY: Form = (0x20, 0x1f);
    /// Inserts an entry again.
    pub const DUPLICATE: Form = (0x00, 0x1f);
}

/// Instructions of the decoder (RFC 9204 4.4).
mod answer {
    use super::Form;

    /// The section of a stream was decoded.
    pub const SECTION: Form = (0x80, 0x7f);
    /// The sections of a stream will not be decoded.
    pub const CANCELLED: Form = (0x40, 0x3f);
    /// More entries have arrived.
    pub const INSERTED: Form = (0x00, 0x3f);
}

/// The overhead of an entry (RFC 9204 3.2.1), which also limits their number.
const ENTRY_BYTES: u64 = super::table::ENTRY_BYTES as u64;

/// The number of entries of a table with this capacity, at most (RFC 9204 4.5.1.1).
const fn entries_max(capacity: usize) -> u64 {
    capacity as u64 / ENTRY_BYTES
}
