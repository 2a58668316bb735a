//! Messages to the syslog daemon (RFC 5424).

use std::io::Write as _;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The facility `daemon` and the severity `info`.
const PRIORITY: u8 = 3 * 8 + 6;

static HOST: OnceLock<String> = OnceLock::new();

/// The name of this host. `-` stands for a field of the header without a value.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    let is_valid = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    if is_valid { name.to_owned() } else { "-".to_owned() }
}

/// The message for one line of a log, sent at `now`.
pub(super) fn message(line: &[u8], now: SystemTime) -> Vec<u8> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let host = HOST.get_or_init(host);
    let mut message = Vec::with_capacity(line.len() + 96);
    let time = humantime::format_rfc3339_millis(now);
    let process = std::process::id();
    // Writing to a Vec does not fail.
    write!(message, "<{PRIORITY}>1 {time} {host} ringway {process} - - ").ok();
    message.extend_from_slice(line);
    message
}
