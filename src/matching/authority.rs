//! Splits an authority into its host and its port.

/// Splits an authority into the host, without a trailing dot, and the port.
pub fn split_authority(authority: &[u8]) -> (&[u8], Option<u16>) {
    let after_brackets = memchr::memrchr(b']', authority).map_or(0, |at| at + 1);
    let colon = memchr::memchr(b':', &authority[after_brackets..]).map(|at| after_brackets + at);
    let (host, port) = match colon {
        None => (authority, None),
        Some(at) => (&authority[..at], port_of(&authority[at + 1..])),
    };
    (host.strip_suffix(b".").unwrap_or(host), port)
}

/// Parses a port of 1 to 5 digits.
fn port_of(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let port = digits.iter().fold(0, |port, digit| port * 10 + u32::from(digit - b'0'));
    u16::try_from(port).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        for (text, host, port) in [
            ("a", "a", None),
            ("a.:80", "a", Some(80)),
            ("[::1]:80", "[::1]", Some(80)),
            ("[::1]", "[::1]", None),
            ("", "", None),
            ("a:65535", "a", Some(65535)),
            ("a:00080", "a", Some(80)),
            ("a:65536", "a", None),
            ("a:+80", "a", None),
            ("a:", "a", None),
        ] {
            assert_eq!(split_authority(text.as_bytes()), (host.as_bytes(), port), "{text}");
        }
    }
}
