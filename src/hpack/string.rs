//! String literals (RFC 7541 5.2).

use super::{DecodeError, huffman, integer};

/// The bit that marks a Huffman string.
const HUFFMAN: u8 = 0x80;

/// A string literal as it is in the block.
#[derive(Clone, Copy)]
pub struct Literal<'a> {
    /// The bytes after the length.
    pub bytes: &'a [u8],
    /// Whether `bytes` has to be decoded.
    pub is_huffman: bool,
}

impl<'a> Literal<'a> {
    /// Reads a literal. `rest` begins with it.
    #[inline]
    pub fn read(rest: &mut &'a [u8]) -> Result<Self, DecodeError> {
        let (&first, after) = rest.split_first().ok_or(DecodeError::Truncated)?;
        *rest = after;
        let len = integer::read(first, !HUFFMAN, rest)?;
        let (bytes, after) = rest.split_at_checked(len).ok_or(DecodeError::StringTooLong)?;
        *rest = after;
        Ok(Self { bytes, is_huffman: first & HUFFMAN != 0 })
    }
}

/// Writes a literal without Huffman coding.
#[inline]
pub fn write_plain(out: &mut Vec<u8>, text: &[u8]) {
    integer::write(out, 0, !HUFFMAN, text.len());
    out.extend_from_slice(text);
}

/// Writes a literal as a Huffman string if that is shorter.
pub fn write_shorter(out: &mut Vec<u8>, text: &[u8]) {
    let len = huffman::encoded_bytes(text);
    if len >= text.len() {
        return write_plain(out, text);
    }
    integer::write(out, HUFFMAN, !HUFFMAN, len);
    huffman::encode(text, out);
}
