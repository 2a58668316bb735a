//! Host patterns: `shop.example.com`, `*.example.com`, `*`, each with an optional port.

/// A host pattern, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPattern {
    /// The name without the wildcard. Empty means `*`.
    pub name: Box<[u8]>,
    /// Whether the pattern matches every host below `name`, or every host if `name` is empty.
    pub wildcard: bool,
    /// The port that a request must name to match. `None` means any port.
    pub port: Option<u16>,
}

impl HostPattern {
    /// Parses a host pattern.
    ///
    /// # Errors
    /// A text for the operator that names the mistake.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') && !host.ends_with(':') => {
                let port = port.parse().map_err(|_| "the port is not a number up to 65535")?;
                (host, Some(port))
            }
            _ => (text, None),
        };
        if host == "*" {
            return Ok(Self { name: Box::default(), wildcard: true, port });
        }
        let (name, wildcard) = match host.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (host, false),
        };
        let in_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~[]:".contains(&byte);
        if name.contains('*') {
            return Err("a wildcard may only be the first label: *.example.com");
        }
        if name.is_empty() || !name.bytes().all(in_host) {
            return Err("it is not a host name");
        }
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        Ok(Self { name: name.into_bytes().into(), wildcard, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (text, name, wildcard, port) in [
            ("*", "", true, None),
            ("*:8080", "", true, Some(8080)),
            ("Example.COM.", "example.com", false, None),
            ("*.example.com:80", "example.com", true, Some(80)),
            ("[::1]", "[::1]", false, None),
            ("[::1]:80", "[::1]", false, Some(80)),
        ] {
            let expected = HostPattern { name: name.as_bytes().into(), wildcard, port };
            assert_eq!(HostPattern::parse(text), Ok(expected), "{text}");
        }
        for text in ["", "*.", "a.*.b", "*a.b", "a b", "a/b", "a:port", "a:70000"] {
            assert!(HostPattern::parse(text).is_err(), "{text}");
        }
    }
}
