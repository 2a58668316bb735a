//! Writes values into log lines.

use std::cell::RefCell;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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

thread_local! {
    /// The last second that was written, and its text: thousands of lines are of one second.
    static LAST_SECOND: RefCell<(u64, Vec<u8>)> = const { RefCell::new((u64::MAX, Vec::new())) };
}

/// Writes a time in the format of RFC 3339, with milliseconds.
pub(super) fn put_time(out: &mut Vec<u8>, unix_us: u64) {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].");
    let (second, ms) = (unix_us / 1_000_000, unix_us / 1000 % 1000);
    LAST_SECOND.with_borrow_mut(|(last, text)| {
        if *last != second {
            let Some(time) = moment(second * 1_000_000) else { return };
            text.clear();
            // Writing to a Vec does not fail.
            time.format_into(text, &format).ok();
            *last = second;
        }
        out.extend_from_slice(text);
        let digits = [ms / 100, ms / 10 % 10, ms % 10].map(|digit| b'0' + digit as u8);
        out.extend_from_slice(&[digits[0], digits[1], digits[2], b'Z']);
    });
}

/// The time of the calendar.
pub(super) fn moment(unix_us: u64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_us) * 1000).ok()
}

/// The bytes that stand for themselves in a JSON string.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 0x7f {
        plain[byte] = byte != b'"' as usize && byte != b'\\' as usize;
        byte += 1;
    }
    plain
};

/// Writes `text` as a JSON string. Bytes that are not UTF-8 become U+FFFD.
pub(super) fn put_json(out: &mut Vec<u8>, text: &[u8]) {
    // No early end: most texts are short and plain.
    if text.iter().fold(true, |all, &byte| all & PLAIN[usize::from(byte)]) {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
        return;
    }
    // Writing to a Vec does not fail.
    serde_json::to_writer(out, &String::from_utf8_lossy(text)).ok();
}

/// Writes an address and a port. Formatting them costs as much as ten short texts.
pub(super) fn put_socket_address(out: &mut Vec<u8>, address: &SocketAddr) {
    match address {
        SocketAddr::V4(address) => {
            put_ipv4(out, address.ip());
            out.push(b':');
            put_number(out, address.port().into());
        }
        SocketAddr::V6(address) => put(out, format_args!("{address}")),
    }
}

/// Writes an IP address.
pub(super) fn put_ip(out: &mut Vec<u8>, ip: &IpAddr) {
    match ip {
        IpAddr::V4(ip) => put_ipv4(out, ip),
        IpAddr::V6(ip) => put(out, format_args!("{ip}")),
    }
}

fn put_ipv4(out: &mut Vec<u8>, ip: &Ipv4Addr) {
    for (index, octet) in ip.octets().into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        put_number(out, octet.into());
    }
}

pub(super) fn put_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

pub(super) fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec does not fail.
    out.write_fmt(text).ok();
}
