//! HPACK, the compression of HTTP/2 header blocks (RFC 7541). Pure: no I/O, no clock.
//!
//! `decode` and `encode` convert header blocks. Each has a dynamic `table`. `statics` is the static
//! table. `index` finds a line in the encoder's table, by the hashes of `hash`. `integer`, `string`
//! and `huffman` are the primitives. `qpack` uses all of them for HTTP/3.
//!
//! No table allocates memory before its first entry. A table takes about as much memory as its
//! entries.

mod decode;
mod encode;
#[cfg(test)]
mod examples;
mod hash;
mod huffman;
mod index;
mod indexing;
mod integer;
pub mod qpack;
mod statics;
mod string;
mod table;

pub use decode::{Decoder, Fields};
pub use encode::{Encoder, FieldEncoder};
pub use indexing::{Indexing, indexing};

/// The reason why a header block cannot be decoded. It is always a COMPRESSION_ERROR of the
/// connection, because the table of the decoder no longer matches the table of the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The block ends inside a field line.
    Truncated,
    /// An integer has more than four continuation bytes, so it may be above 2^28.
    IntegerTooLarge,
    /// An index is zero, or neither table has an entry with it.
    UnknownIndex,
    /// A string is longer than the rest of the block.
    StringTooLong,
    /// A Huffman string contains the symbol EOS.
    EndOfString,
    /// The padding of a Huffman string has eight bits or more.
    PaddingTooLong,
    /// The padding of a Huffman string is not all ones.
    PaddingNotOnes,
    /// A table size update is larger than our SETTINGS_HEADER_TABLE_SIZE.
    SizeUpdateTooLarge,
    /// A table size update comes after a field line.
    SizeUpdateLate,
}

impl DecodeError {
    /// Returns the text of the error for a log line.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Truncated => "the header block ends inside a field line",
            Self::IntegerTooLarge => "an integer of the header block is too large",
            Self::UnknownIndex => "the header block refers to an entry that no table has",
            Self::StringTooLong => "a string is longer than the header block",
            Self::EndOfString => "a Huffman string contains EOS",
            Self::PaddingTooLong => "a Huffman string ends with more than 7 bits of padding",
            Self::PaddingNotOnes => "the padding of a Huffman string is not all ones",
            Self::SizeUpdateTooLarge => "a table size update is above SETTINGS_HEADER_TABLE_SIZE",
            Self::SizeUpdateLate => "a table size update comes after a field line",
        }
    }
}
