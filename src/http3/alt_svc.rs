//! Reads the field `alt-svc` (RFC 7838): where a server offers HTTP/3.

use std::time::Duration;

/// How long an offer without `ma` holds (RFC 7838 3.1).
const AGE: Duration = Duration::from_secs(86_400);

/// What a value says about HTTP/3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AltSvc {
    /// HTTP/3 on this UDP port of the same host, for this time.
    Http3 {
        /// The port.
        port: u16,
        /// How long the offer holds.
        age: Duration,
    },
    /// All earlier offers have ended.
    Clear,
}

/// Reads a value of the field. `None` if it does not offer HTTP/3 on the same host. Of several
/// offers, the first one counts, because the server prefers it.
pub fn alt_svc(value: &[u8]) -> Option<AltSvc> {
    let value = std::str::from_utf8(value).ok()?.trim();
    if value == "clear" {
        return Some(AltSvc::Clear);
    }
    let offer = |entry: &str| {
        let mut parts = entry.split(';').map(str::trim);
        let (protocol, authority) = parts.next()?.split_once('=')?;
        // A port alone: another host would be another endpoint.
        let port = authority.strip_prefix("\":")?.strip_suffix('"')?.parse().ok()?;
        let ages = parts.filter_map(|part| part.split_once('='));
        let mut ages = ages.filter(|(name, _)| *name == "ma");
        let age = match ages.next() {
            Some((_, seconds)) => Duration::from_secs(seconds.parse().ok()?),
            None => AGE,
        };
        (protocol == "h3" && port != 0).then_some(AltSvc::Http3 { port, age })
    };
    value.split(',').find_map(|entry| offer(entry.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_of_http3_on_the_same_host_is_read() {
        let http3 = |port, seconds| Some(AltSvc::Http3 { port, age: Duration::from_secs(seconds) });
        for (value, expected) in [
            ("clear", Some(AltSvc::Clear)),
            ("h3=\":443\"", http3(443, 86_400)),
            ("h3=\":8443\"; ma=60", http3(8443, 60)),
            ("h3=\":8443\";persist=1;ma=0", http3(8443, 0)),
            ("h2=\":443\"; ma=5, h3=\":444\"; ma=6,h3=\":445\"", http3(444, 6)),
            ("h3=\"other.example:443\", h3=\":444\"", http3(444, 86_400)),
            ("h3-29=\":443\"; ma=5", None),
            ("h3=\":0\"", None),
            ("h3=\":70000\"", None),
            ("h3=\":443\"; ma=x", None),
            ("h3=443", None),
            ("h3=\":443", None),
            ("", None),
            ("Clear", None),
        ] {
            assert_eq!(alt_svc(value.as_bytes()), expected, "{value}");
        }
        assert_eq!(alt_svc(b"h3=\":443\xff\""), None);
    }
}
