//! Reads the field `alt-svc` (RFC 7838): where a server offers HTTP/3.

use std::time::Duration;

/// How long an offer without `ma` holds (RFC 7838 3.1), in seconds.
const AGE: u32 = 86_400;

/// The offer of HTTP/3 in a response. Its field replaces all earlier offers (RFC 7838 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AltSvc {
    /// HTTP/3 on this UDP port of the same host, for this time after the response was made.
    Http3 {
        /// The port.
        port: u16,
        /// How long the offer holds.
        age: Duration,
    },
    /// Offers that are of no use here.
    Other,
    /// All offers have ended, also those of this response.
    Clear,
}

impl AltSvc {
    /// The offer of two lines of the field in one response. Of several offers, the first counts,
    /// because the server prefers it.
    pub fn and(self, next: Self) -> Self {
        match (self, next) {
            (Self::Clear, _) | (_, Self::Clear) => Self::Clear,
            (Self::Http3 { .. }, _) => self,
            (Self::Other, _) => next,
        }
    }
}

/// Reads a line of the field. Of several offers of HTTP/3 on the same host, the first one counts.
pub fn alt_svc(value: &[u8]) -> AltSvc {
    let value = value.trim_ascii();
    if value == b"clear" {
        return AltSvc::Clear;
    }
    let value = std::str::from_utf8(value).unwrap_or_default();
    let offer = |entry: &str| {
        let mut parts = entry.split(';').map(str::trim);
        let (protocol, authority) = parts.next()?.split_once('=')?;
        // A port alone: another host would be another endpoint.
        let port = authority.strip_prefix("\":")?.strip_suffix('"')?.parse().ok()?;
        let ages = parts.filter_map(|part| part.split_once('='));
        let mut ages = ages.filter(|(name, _)| name.eq_ignore_ascii_case("ma"));
        let age = match ages.next() {
            Some((_, value)) => {
                let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
                seconds(quoted.unwrap_or(value).as_bytes())?
            }
            None => AGE,
        };
        let age = Duration::from_secs(age.into());
        (protocol == "h3" && port != 0).then_some(AltSvc::Http3 { port, age })
    };
    value.split(',').find_map(|entry| offer(entry.trim())).unwrap_or(AltSvc::Other)
}

/// Reads a number of seconds. A number that is too large counts as the largest one (RFC 9111
/// 1.2.2).
pub fn seconds(digits: &[u8]) -> Option<u32> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let digit = |sum: u32, digit: &u8| sum.saturating_mul(10).saturating_add((digit - b'0').into());
    is_number.then(|| digits.iter().fold(0, digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_of_http3_on_the_same_host_is_read() {
        let http3 = |port, seconds| AltSvc::Http3 { port, age: Duration::from_secs(seconds) };
        for (value, expected) in [
            ("clear", AltSvc::Clear),
            (" clear ", AltSvc::Clear),
            ("h3=\":443\"; ma=\"3600\"; persist=1", http3(443, 3600)),
            ("h3=\":443\"; MA=7", http3(443, 7)),
            ("h3=\":443\"; ma=99999999999999999999", http3(443, u64::from(u32::MAX))),
            ("h3=\":443\"; ma=-1", AltSvc::Other),
            ("h3=\":443\"; ma=", AltSvc::Other),
            ("h3=\":443\"; ma=\"5", AltSvc::Other),
            ("h3=\":443\"", http3(443, 86_400)),
            ("h3=\":8443\"; ma=60", http3(8443, 60)),
            ("h3=\":8443\";persist=1;ma=0", http3(8443, 0)),
            ("h2=\":443\"; ma=5, h3=\":444\"; ma=6,h3=\":445\"", http3(444, 6)),
            ("h3=\"other.example:443\", h3=\":444\"", http3(444, 86_400)),
            ("h3-29=\":443\"; ma=5", AltSvc::Other),
            ("h3=\":0\"", AltSvc::Other),
            ("h3=\":70000\"", AltSvc::Other),
            ("h3=\":443\"; ma=x", AltSvc::Other),
            ("h3=443", AltSvc::Other),
            ("h3=\":443", AltSvc::Other),
            ("", AltSvc::Other),
            ("Clear", AltSvc::Other),
        ] {
            assert_eq!(alt_svc(value.as_bytes()), expected, "{value}");
        }
        assert_eq!(alt_svc(b"h3=\":443\xff\""), AltSvc::Other);
    }

    #[test]
    fn all_lines_of_a_response_count_together() {
        let http3 = |port| AltSvc::Http3 { port, age: Duration::from_secs(AGE.into()) };
        for (lines, expected) in [
            (&["h2=\":1\"", "h3=\":2\"", "h3=\":3\""][..], http3(2)),
            (&["h3=\":2\"", "h2=\":1\""], http3(2)),
            (&["h3=\":2\"", "clear"], AltSvc::Clear),
            (&["clear", "h3=\":2\""], AltSvc::Clear),
            (&["h2=\":1\"", "x"], AltSvc::Other),
        ] {
            let lines = lines.iter().map(|line| alt_svc(line.as_bytes()));
            assert_eq!(lines.reduce(AltSvc::and), Some(expected));
        }
    }
}
