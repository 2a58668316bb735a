//! String literals (RFC 7541 5.2).

use super::{DecodeError, huffman, integer};

/// The bits of the length in the first byte of a literal of HPACK. The bit above them marks a
/// Huffman string. QPACK has shorter prefixes, too (RFC 9204 4.1.2).
const LENGTH: u8 = 0x7f;

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
        Self::read_from(first, LENGTH, rest)
    }

    /// Reads the literal whose first byte is `first`, and whose other bytes are at the front of
    /// `rest`. The bits of the length are set in `mask`.
    #[inline]
    pub fn read_from(first: u8, mask: u8, rest: &mut &'a [u8]) -> Result<Self, DecodeError> {
        let len = integer::read(first, mask, rest)?;
        let (bytes, after) = rest.split_at_checked(len).ok_or(DecodeError::StringTooLong)?;
        *rest = after;
        Ok(Self { bytes, is_huffman: first & (mask + 1) != 0 })
    }
}

/// Writes a literal without Huffman coding.
#[inline]
pub fn write_plain(out: &mut Vec<u8>, text: &[u8]) {
    write_plain_as(out, 0, LENGTH, text);
}

/// Writes a literal without Huffman coding. `pattern` has the bits of the first byte above the
/// length and its Huffman bit.
#[inline]
pub fn write_plain_as(out: &mut Vec<u8>, pattern: u8, mask: u8, text: &[u8]) {
    integer::write(out, pattern, mask, text.len());
    out.extend_from_slice(text);
}

/// Writes a literal as a Huffman string if that is shorter.
pub fn write_shorter(out: &mut Vec<u8>, text: &[u8]) {
    write_shorter_as(out, 0, LENGTH, text);
}

/// Like [`write_plain_as`], but as a Huffman string if that is shorter.
pub fn write_shorter_as(out: &mut Vec<u8>, pattern: u8, mask: u8, text: &[u8]) {
    let len = huffman::encoded_bytes(text);
    if len >= text.len() {
        return write_plain_as(out, pattern, mask, text);
    }
    integer::write(out, pattern | (mask + 1), mask, len);
    huffman::encode(text, out);
}
