//! The Huffman code of HPACK and QPACK (RFC 7541 5.2 and Appendix B).

use super::DecodeError;

/// Number of bits of the code of each byte, and of EOS. The code is canonical: codes of one length
/// are consecutive numbers in the order of the symbols. So the lengths define all codes.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

const EOS: usize = 256;
const EOS_BITS: u32 = LENGTHS[EOS] as u32;

/// The code of each byte, and of EOS, in its low bits.
const CODES: [u32; 257] = codes();

const fn codes() -> [u32; 257] {
    let mut codes = [0; 257];
    let (mut code, mut length) = (0, 1);
    while length <= EOS_BITS {
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as u32 == length {
                codes[symbol] = code;
                code += 1;
            }
            symbol += 1;
        }
        code <<= 1;
        length += 1;
    }
    codes
}

/// The code as a tree. A node has one entry for each value of the next eight bits.
const NODES: [[Step; 256]; 15] = nodes();
/// The decoder uses a static, because each use of the constant could make a copy.
static TREE: [[Step; 256]; 15] = NODES;

/// The meaning of the next eight bits: a symbol and its number of bits, or the next node. The high
/// byte is the symbol or the node. The low byte is the number of bits, [`DEEPER`], or [`END`].
type Step = u16;

/// All eight bits belong to a longer code.
const DEEPER: u8 = 0;
/// The code is EOS.
const END: u8 = 255;

const fn nodes() -> [[Step; 256]; 15] {
    let mut nodes = [[0; 256]; 15];
    let (mut used, mut symbol) = (1, 0);
    while symbol < LENGTHS.len() {
        let (mut node, mut bits) = (0, LENGTHS[symbol] as u32);
        while bits > 8 {
            bits -= 8;
            let byte = (CODES[symbol] >> bits) as usize & 255;
            if nodes[node][byte] == 0 {
                nodes[node][byte] = used << 8 | DEEPER as u16;
                used += 1;
            }
            node = (nodes[node][byte] >> 8) as usize;
        }
        // Fill the entries of all bytes that begin with the remaining bits of the code.
        let first = (CODES[symbol] << (8 - bits)) as usize & 255;
        let step = if symbol == EOS { END as u16 } else { (symbol as u16) << 8 | bits as u16 };
        let mut byte = first;
        while byte < first + (1 << (8 - bits)) {
            nodes[node][byte] = step;
            byte += 1;
        }
        symbol += 1;
    }
    assert!(used as usize == nodes.len());
    nodes
}

/// The number of bytes that a buffer must have to decode a string of `encoded_bytes`. The shortest
/// code has five bits, and the decoder writes eight bytes at a time.
pub const fn room(encoded_bytes: usize) -> usize {
    encoded_bytes * 8 / 5 + 8
}

/// Decodes `text` into the front of `out`, which must have [`room`] for it. Returns the number of
/// decoded bytes.
pub fn decode(text: &[u8], out: &mut [u8]) -> Result<usize, DecodeError> {
    let (mut at_bits, mut len) = (0, 0);
    while let Some(word) = text.get(at_bits / 8..).and_then(<[u8]>::first_chunk) {
        // The window has at least 57 bits: seven codes of up to eight bits.
        let mut window = u64::from_be_bytes(*word) << (at_bits % 8);
        let Some(symbols) = out.get_mut(len..).and_then(<[u8]>::first_chunk_mut::<8>) else {
            return Err(DecodeError::StringTooLong);
        };
        let mut count = 0;
        for symbol in &mut symbols[..7] {
            let step = TREE[0][(window >> 56) as usize];
            if step as u8 == DEEPER {
                break;
            }
            *symbol = (step >> 8) as u8;
            let bits = usize::from(step as u8);
            window <<= bits;
            at_bits += bits;
            count += 1;
        }
        if count == 0 {
            let (symbol, bits) = walk(window).ok_or(DecodeError::EndOfString)?;
            symbols[0] = symbol;
            at_bits += bits as usize;
            count = 1;
        }
        len += count;
    }
    decode_end(text.get(at_bits / 8..).unwrap_or_default(), at_bits % 8, out, len)
}

/// Decodes the end of a string. `text` has fewer than eight bytes. Its first `skip_bits` bits are
/// decoded already.
fn decode_end(
    text: &[u8],
    skip_bits: usize,
    out: &mut [u8],
    mut len: usize,
) -> Result<usize, DecodeError> {
    // The bits after the string are ones, like the padding.
    let mut word = [0xff; 8];
    word[..text.len()].copy_from_slice(text);
    let mut left = (text.len() * 8 - skip_bits) as u32;
    let mut window = !(!u64::from_be_bytes(word) << skip_bits);
    loop {
        match walk(window) {
            Some((symbol, bits)) if bits <= left => {
                *out.get_mut(len).ok_or(DecodeError::StringTooLong)? = symbol;
                len += 1;
                window = !(!window << bits);
                left -= bits;
            }
            Some(_) => return Err(DecodeError::PaddingNotOnes),
            None if left < 8 => return Ok(len),
            None if left < EOS_BITS => return Err(DecodeError::PaddingTooLong),
            None => return Err(DecodeError::EndOfString),
        }
    }
}

/// Decodes the first symbol of `window`. Returns the symbol and its number of bits; `None` for EOS.
#[inline]
fn walk(mut window: u64) -> Option<(u8, u32)> {
    let (mut node, mut before) = (0, 0);
    loop {
        let step = TREE[node][(window >> 56) as usize];
        let above = (step >> 8) as u8;
        match step as u8 {
            END => return None,
            DEEPER => node = usize::from(above),
            bits => return Some((above, before + u32::from(bits))),
        }
        window <<= 8;
        before += 8;
    }
}

/// The number of bytes that [`encode`] writes.
pub fn encoded_bytes(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|&byte| usize::from(LENGTHS[usize::from(byte)])).sum();
    bits.div_ceil(8)
}

/// Encodes `text` and pads it to whole bytes.
pub fn encode(text: &[u8], out: &mut Vec<u8>) {
    static PAIRS: [(u32, u8); 256] = pairs();
    // The low `bits` of the window are not written yet. After each symbol there are fewer than 32.
    let (mut window, mut bits) = (0_u64, 0);
    for &byte in text {
        let (code, length) = PAIRS[usize::from(byte)];
        window = window << length | u64::from(code);
        bits += u32::from(length);
        if bits >= 32 {
            bits -= 32;
            out.extend_from_slice(&((window >> bits) as u32).to_be_bytes());
        }
    }
    let padding = 32 - bits;
    let last = (window << padding | ((1 << padding) - 1)) as u32;
    out.extend_from_slice(&last.to_be_bytes()[..bits.div_ceil(8) as usize]);
}

const fn pairs() -> [(u32, u8); 256] {
    let mut pairs = [(0, 0); 256];
    let mut symbol = 0;
    while symbol < pairs.len() {
        pairs[symbol] = (CODES[symbol], LENGTHS[symbol]);
        symbol += 1;
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut out = vec![0; room(text.len())];
        let len = decode(text, &mut out)?;
        out.truncate(len);
        Ok(out)
    }

    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(text, &mut out);
        assert_eq!(out.len(), encoded_bytes(text));
        out
    }

    #[test]
    fn the_code_is_the_one_of_the_rfc() {
        // The first code of each length (Appendix B).
        let cases: [(usize, u32); 22] = [
            (b'0' as usize, 0x0),
            (b' ' as usize, 0x14),
            (b':' as usize, 0x5c),
            (b'&' as usize, 0xf8),
            (b'!' as usize, 0x3f8),
            (b'\'' as usize, 0x7fa),
            (b'#' as usize, 0xffa),
            (0, 0x1ff8),
            (b'^' as usize, 0x3ffc),
            (b'<' as usize, 0x7ffc),
            (b'\\' as usize, 0x7fff0),
            (128, 0xfffe6),
            (153, 0x1fffdc),
            (129, 0x3fffd2),
            (1, 0x7fffd8),
            (9, 0xffffea),
            (199, 0x1ffffec),
            (192, 0x3ffffe0),
            (203, 0x7ffffde),
            (2, 0xfffffe2),
            (10, 0x3ffffffc),
            (EOS, 0x3fffffff),
        ];
        for (symbol, code) in cases {
            assert_eq!(CODES[symbol], code, "{symbol}");
        }
    }

    #[test]
    fn each_pair_of_bytes_comes_back() {
        for first in 0..=255 {
            for second in 0..=255 {
                let text = [first, second];
                assert_eq!(decoded(&encoded(&text)).as_deref(), Ok(&text[..]));
            }
        }
    }

    #[test]
    fn strings_of_any_length_come_back() {
        // Strings with short and long codes, at each position of the window.
        let mut random = fastrand::Rng::with_seed(1);
        for len in 0..200 {
            for rare in [1, 3, 20, 1000] {
                let byte = |random: &mut fastrand::Rng| {
                    if random.usize(..rare) == 0 { random.u8(..) } else { random.u8(b'a'..=b'z') }
                };
                let text: Vec<u8> = (0..len).map(|_| byte(&mut random)).collect();
                assert_eq!(decoded(&encoded(&text)), Ok(text));
            }
        }
    }

    #[test]
    fn strings_that_end_wrongly_are_refused() {
        use DecodeError::{EndOfString, PaddingNotOnes, PaddingTooLong};
        let cases: [(&[u8], DecodeError); 11] = [
            // "0" has the code 00000, and three bits are left.
            (&[0b0000_0110], PaddingNotOnes),
            (&[0b0000_0011], PaddingNotOnes),
            (&[0b0000_0000], PaddingNotOnes),
            // More than seven bits of padding.
            (&[0xff], PaddingTooLong),
            (&[0b0000_0111, 0xff], PaddingTooLong),
            (&[0xff, 0xff, 0xff], PaddingTooLong),
            // The first eight of the ten bits of the code of "!".
            (&[0xfe], PaddingNotOnes),
            // EOS at the end, and before other symbols.
            (&[0xff, 0xff, 0xff, 0xff], EndOfString),
            (&[0xff, 0xff, 0xff, 0xfc], EndOfString),
            (&[0xff, 0xff, 0xff, 0xfc, 0, 0, 0, 0, 0], EndOfString),
            (&[0b0000_0111, 0xff, 0xff, 0xff, 0xe0, 0, 0, 0, 0, 0, 0], EndOfString),
        ];
        for (text, error) in cases {
            assert_eq!(decoded(text), Err(error), "{text:x?}");
            // The same after a long string.
            let long = [&[0b0000_0000; 25], text].concat();
            assert_eq!(decoded(&long), Err(error), "{text:x?}");
        }
        assert_eq!(decoded(&[0b0000_0111]).as_deref(), Ok(&b"0"[..]));
        assert_eq!(decoded(&[]).as_deref(), Ok(&b""[..]));
    }
}
