//! The times of `%START_TIME(...)%`.

use super::text::{moment, put};
use super::{TextError, text};

/// A part of a format for times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TimePart {
    Literal(char),
    Specifier(char),
    /// A fraction of a second with this many digits.
    Fraction(u8),
}

/// Parses a format of strftime, such as `%Y-%m-%d %H:%M:%S.%3f`.
pub(super) fn parse(format: &str, at: usize) -> Result<Vec<TimePart>, TextError> {
    let mut parts = Vec::new();
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            parts.push(TimePart::Literal(char));
            continue;
        }
        match chars.next() {
            Some('%') => parts.push(TimePart::Literal('%')),
            Some(it @ ('Y' | 'm' | 'd' | 'H' | 'M' | 'S' | 's' | 'b' | 'z' | 'T' | 'F' | 'j')) => {
                parts.push(TimePart::Specifier(it));
            }
            Some('f') => parts.push(TimePart::Fraction(9)),
            Some(digits @ '1'..='9') if chars.next() == Some('f') => {
                parts.push(TimePart::Fraction(digits as u8 - b'0'));
            }
            _ => {
                let message = format!("{format:?} is not a format for times");
                let help = "%Y %m %d %b %j %H %M %S %s %z %F %T and %3f are known";
                return Err(TextError::new(at, message, help));
            }
        }
    }
    Ok(parts)
}

/// Writes a time, in UTC.
pub(super) fn write(out: &mut Vec<u8>, parts: &[TimePart], unix_us: u64) {
    let Some(time) = moment(unix_us) else { return };
    let (date, clock) = (time.date(), time.time());
    for part in parts {
        match part {
            TimePart::Literal(char) => put(out, format_args!("{char}")),
            TimePart::Fraction(digits) => {
                let nanos = format!("{:09}", clock.nanosecond());
                out.extend_from_slice(&nanos.as_bytes()[..usize::from(*digits)]);
            }
            TimePart::Specifier('Y') => put(out, format_args!("{:04}", date.year())),
            TimePart::Specifier('m') => put(out, format_args!("{:02}", date.month() as u8)),
            TimePart::Specifier('d') => put(out, format_args!("{:02}", date.day())),
            TimePart::Specifier('j') => put(out, format_args!("{:03}", date.ordinal())),
            TimePart::Specifier('b') => {
                out.extend_from_slice(&date.month().to_string().as_bytes()[..3]);
            }
            TimePart::Specifier('H') => put(out, format_args!("{:02}", clock.hour())),
            TimePart::Specifier('M') => put(out, format_args!("{:02}", clock.minute())),
            TimePart::Specifier('S') => put(out, format_args!("{:02}", clock.second())),
            TimePart::Specifier('s') => text::put_number(out, unix_us / 1_000_000),
            TimePart::Specifier('z') => out.extend_from_slice(b"+0000"),
            TimePart::Specifier('T') => put(
                out,
                format_args!("{}", {
                    format!("{:02}:{:02}:{:02}", clock.hour(), clock.minute(), clock.second())
                }),
            ),
            TimePart::Specifier('F') => put(out, format_args!("{date}")),
            TimePart::Specifier(_) => {}
        }
    }
}
