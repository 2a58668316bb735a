//! Tokens and lists of tokens: field names, codings, connection options.

/// Whether `name` is `known`, compared case-insensitively (RFC 9110 5.1). `known` must be in lower
/// case. Its length is a constant, so the comparison has no loop over bytes: each field of a head
/// is compared with a dozen names.
#[inline]
pub fn is_named<const N: usize>(name: &[u8], known: &[u8; N]) -> bool {
    let Ok(name) = <&[u8; N]>::try_from(name) else { return false };
    let differs = |(byte, known): (&u8, &u8)| {
        let case = if known.is_ascii_lowercase() { 0x20 } else { 0 };
        (byte ^ known) & !case
    };
    name.iter().zip(known).map(differs).fold(0, |all, bits| all | bits) == 0
}

/// Whether `text` is a token (RFC 9110 5.6.2), like names of fields and methods.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().copied().all(is_token_byte)
}

/// Whether `byte` may be part of a token.
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Splits the value of a list field (RFC 9110 5.6.1) into its elements, without the white space
/// around them.
pub fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_case_of_letters_does_not_matter() {
        for (name, same) in [
            ("keep-alive2", true),
            ("Keep-Alive2", true),
            ("KEEP-ALIVE2", true),
            ("keep-alive", false),
            ("keep-alive22", false),
            ("keep\ralive2", false), // differs from '-' in the bit of the case alone
            ("keep-alive\x12", false),
            ("keep-alivE3", false),
            ("", false),
        ] {
            assert_eq!(is_named(name.as_bytes(), b"keep-alive2"), same, "{name:?}");
        }
        for byte in 0..=u8::MAX {
            for known in [b"a", b"z", b"-", b"0"] {
                assert_eq!(is_named(&[byte], known), [byte].eq_ignore_ascii_case(known), "{byte}");
            }
        }
    }
}
