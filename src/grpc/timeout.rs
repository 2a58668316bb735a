//! `grpc-timeout`: the client's time limit, with at most eight digits and a unit.

use std::io::Write as _;
use std::time::Duration;

/// Units in nanoseconds, the smallest first.
const UNITS: [(u8, u64); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60_000_000_000),
    (b'H', 3_600_000_000_000),
];

/// The largest number with eight digits.
const DIGITS_MAX: u64 = 99_999_999;

/// Parses the value of `grpc-timeout`. Returns `None` if it is invalid.
pub fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (&unit, digits) = value.split_last()?;
    let &(_, nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let digits = std::str::from_utf8(digits).ok()?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    // 99 999 999 hours are 3.6e20 ns, which is more than a u64 can hold and practically no limit.
    Some(Duration::from_nanos(count.saturating_mul(nanos)))
}

/// Writes `left` as the value of `grpc-timeout`, in the smallest unit for which eight digits are
/// enough. Rounds down, so that the next hop never gets more time than is left.
pub fn write_timeout(out: &mut Vec<u8>, left: Duration) {
    let nanos = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
    let fits = UNITS.iter().find(|(_, unit)| nanos / unit <= DIGITS_MAX);
    let &(name, unit) = fits.unwrap_or(&UNITS[UNITS.len() - 1]);
    // Writing to a Vec cannot fail.
    write!(out, "{}{}", (nanos / unit).min(DIGITS_MAX), char::from(name)).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_and_written() {
        for (value, nanos, again) in [
            ("1S", 1_000_000_000, "1000000u"),
            ("250m", 250_000_000, "250000u"),
            ("99999999n", 99_999_999, "99999999n"),
            ("0n", 0, "0n"),
            ("10H", 36_000_000_000_000, "36000000m"),
            ("99999999H", u64::MAX, "5124095H"),
        ] {
            let read = parse_timeout(value.as_bytes());
            assert_eq!(read, Some(Duration::from_nanos(nanos)), "{value}");
            let mut out = Vec::new();
            write_timeout(&mut out, Duration::from_nanos(nanos));
            assert_eq!(String::from_utf8(out).unwrap(), again, "{value}");
        }
        for value in ["", "S", "1", "1s", "123456789n", "-1S", "1.5S", " 1S"] {
            assert_eq!(parse_timeout(value.as_bytes()), None, "{value}");
        }
    }
}
