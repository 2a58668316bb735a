//! Writes values into log lines.

use std::io::Write as _;

use time::OffsetDateTime;
use time::macros::format_description;

/// Writes `text`, or `-` if it is empty. Control characters, quotes, backslashes and bytes that are
/// not ASCII become `\xHH`.
pub(super) fn put_escaped(out: &mut Vec<u8>, text: &[u8]) {
    if text.is_empty() {
        out.push(b'-');
    }
    for &byte in text {
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. => put(out, format_args!("\\x{byte:02x}")),
            _ => out.push(byte),
        }
    }
}

/// Writes a time in the format of RFC 3339, with milliseconds.
pub(super) fn put_time(out: &mut Vec<u8>, unix_us: u64) {
    let format =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    if let Some(time) = moment(unix_us) {
        // Writing to a Vec does not fail.
        time.format_into(out, &format).ok();
    }
}

/// The time of the calendar.
pub(super) fn moment(unix_us: u64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_us) * 1000).ok()
}

/// Writes `text` as a JSON string. Bytes that are not UTF-8 become U+FFFD.
pub(super) fn put_json(out: &mut Vec<u8>, text: &[u8]) {
    let is_plain = |byte: &u8| matches!(byte, 0x20..0x7f) && !matches!(byte, b'"' | b'\\');
    if text.iter().all(is_plain) {
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
        return;
    }
    // Writing to a Vec does not fail.
    serde_json::to_writer(out, &String::from_utf8_lossy(text)).ok();
}

pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

pub(super) fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec does not fail.
    out.write_fmt(text).ok();
}
