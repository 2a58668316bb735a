//! String literals (RFC 7541 5.2).

use super::{DecodeError, huffman, integer};

/// The bit that marks a Huffman string.
const HUFFMAN: u8 = 0x80;

/// A string literal before Huffman decoding.
#[derive(Clone, Copy)]
pub struct Literal<'a> {
    /// The bytes after the encoded length.
    pub bytes: &'a [u8],
    /// Whether `bytes` are Huffman coded.
    pub is_huffman: bool,
}

impl<'a> Literal<'a> {
    /// Reads the literal at the front of `rest`.
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
