//! Integers with a prefix (RFC 7541 5.1).

use super::DecodeError;

/// Reads an integer. `first` is its first byte, the bits of the prefix are set in `mask`, and
/// `rest` begins after the first byte.
///
/// An integer has at most four continuation bytes, so it is below 2^28 + 256.
#[inline]
pub fn read(first: u8, mask: u8, rest: &mut &[u8]) -> Result<usize, DecodeError> {
    let value = first & mask;
    if value < mask { Ok(usize::from(value)) } else { read_more(mask, rest) }
}

fn read_more(mask: u8, rest: &mut &[u8]) -> Result<usize, DecodeError> {
    let mut value = usize::from(mask);
    for shift in [0, 7, 14, 21] {
        let (byte, after) = rest.split_first().ok_or(DecodeError::Truncated)?;
        *rest = after;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(DecodeError::IntegerTooLarge)
}

/// Reads an integer of QPACK, which may have 62 bits (RFC 9204 4.1.1). See [`read`].
#[inline]
pub fn read_long(first: u8, mask: u8, rest: &mut &[u8]) -> Result<u64, DecodeError> {
    let value = u64::from(first & mask);
    if value < u64::from(mask) {
        return Ok(value);
    }
    let mut value = value;
    for shift in (0..63).step_by(7) {
        let (byte, after) = rest.split_first().ok_or(DecodeError::Truncated)?;
        *rest = after;
        value += u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return if value < 1 << 62 { Ok(value) } else { Err(DecodeError::IntegerTooLarge) };
        }
    }
    Err(DecodeError::IntegerTooLarge)
}

/// Writes an integer. `pattern` has the bits of the first byte outside the prefix.
#[inline]
pub fn write(out: &mut Vec<u8>, pattern: u8, mask: u8, value: usize) {
    write_long(out, pattern, mask, value as u64);
}

/// Writes an integer of QPACK. See [`write`].
#[inline]
pub fn write_long(out: &mut Vec<u8>, pattern: u8, mask: u8, value: u64) {
    if value < u64::from(mask) {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | mask);
    let mut rest = value - u64::from(mask);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_the_rfc_and_at_the_edges() {
        // The first three cases are RFC 7541 C.1.1 to C.1.3.
        let cases: [(u8, usize, &[u8]); 9] = [
            (0x1f, 10, &[10]),
            (0x1f, 1337, &[31, 154, 10]),
            (0xff, 42, &[42]),
            (0x7f, 126, &[126]),
            (0x7f, 127, &[127, 0]),
            (0x7f, 128, &[127, 1]),
            (0x0f, 15 + 127, &[15, 127]),
            (0x0f, 15 + 128, &[15, 128, 1]),
            (0xff, 255 + (1 << 28) - 1, &[255, 255, 255, 255, 127]),
        ];
        for (mask, value, bytes) in cases {
            let mut out = Vec::new();
            write(&mut out, 0, mask, value);
            assert_eq!(out, bytes, "{value}");
            let mut rest = &bytes[1..];
            assert_eq!(read(bytes[0] | !mask, mask, &mut rest), Ok(value));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn an_integer_with_superfluous_zeros_is_read() {
        assert_eq!(read(0x1f, 0x1f, &mut &[0x9a, 0x8a, 0x80, 0x00][..]), Ok(1337));
    }

    #[test]
    fn integers_that_are_cut_or_too_long_are_refused() {
        assert_eq!(read(0x1f, 0x1f, &mut &[][..]), Err(DecodeError::Truncated));
        assert_eq!(read(0x1f, 0x1f, &mut &[0x80, 0xff][..]), Err(DecodeError::Truncated));
        let long = [0x80, 0x80, 0x80, 0x80, 0x00];
        assert_eq!(read(0x1f, 0x1f, &mut &long[..]), Err(DecodeError::IntegerTooLarge));
        assert_eq!(read(0x1f, 0x1f, &mut &[0xff; 20][..]), Err(DecodeError::IntegerTooLarge));
    }
}
