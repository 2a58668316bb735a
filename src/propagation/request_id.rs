//! `x-request-id`: a random UUID (RFC 9562 version 4).

/// A request id as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId([u8; 36]);

impl RequestId {
    /// Creates a random id.
    pub fn new(random: &mut fastrand::Rng) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&random.u64(..).to_be_bytes());
        bytes[8..].copy_from_slice(&random.u64(..).to_be_bytes());
        bytes[6] = (bytes[6] & 0x0f) | 0x40; // version 4
        bytes[8] = (bytes[8] & 0x3f) | 0x80; // the variant of RFC 9562
        let mut text = [b'-'; 36];
        for (byte, at) in bytes.into_iter().zip(PLACES) {
            text[at..at + 2].copy_from_slice(&HEX[usize::from(byte)]);
        }
        Self(text)
    }

    /// The bytes of the text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The position of each byte in the text, which has dashes between some bytes.
const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// The two digits of each byte.
const HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut hex = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        hex[byte] = [digits[byte >> 4], digits[byte & 0x0f]];
        byte += 1;
    }
    hex
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_version_4_uuids_and_differ() {
        let mut random = fastrand::Rng::with_seed(7);
        let (one, other) = (RequestId::new(&mut random), RequestId::new(&mut random));
        assert_ne!(one, other);
        let text = std::str::from_utf8(one.as_bytes()).unwrap();
        let dashes: Vec<_> = text.match_indices('-').map(|(at, _)| at).collect();
        assert_eq!(dashes, [8, 13, 18, 23]);
        assert_eq!(text.as_bytes()[14], b'4');
        assert!(matches!(text.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        assert!(text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit()));
    }
}
