//! The host and the port of an authority.

/// Splits an authority into the host, without a trailing dot, and the port.
pub fn split_authority(authority: &[u8]) -> (&[u8], Option<u16>) {
    let after_brackets = memchr::memrchr(b']', authority).map_or(0, |at| at + 1);
    let colon = memchr::memchr(b':', &authority[after_brackets..]).map(|at| after_brackets + at);
    let (host, port) = match colon {
        None => (authority, None),
        Some(at) => {
            let digits = std::str::from_utf8(&authority[at + 1..]).ok();
            (&authority[..at], digits.and_then(|digits| digits.parse().ok()))
        }
    };
    (host.strip_suffix(b".").unwrap_or(host), port)
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
        ] {
            assert_eq!(split_authority(text.as_bytes()), (host.as_bytes(), port), "{text}");
        }
    }
}
