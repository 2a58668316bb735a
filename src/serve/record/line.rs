//! Writes the access log: one line for each exchange or L4 connection.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use time::OffsetDateTime;
use time::macros::format_description;

use crate::error::Flag;
use crate::net::Address;
use crate::snapshot::LogFormat;

/// The values of an access log line. Header fields that may contain a secret are not among them.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The start time, in microseconds since the Unix epoch.
    pub began_unix_us: u64,
    /// The duration in microseconds.
    pub duration_us: u64,
    /// The time from the beginning of the last attempt to the head of its response, in
    /// microseconds. `None` if no endpoint was tried.
    pub endpoint_duration_us: Option<u64>,
    /// The number of attempts at endpoints.
    pub attempts: u32,
    /// The name of the listener.
    pub listener: &'a str,
    /// The name of the rule. Empty if no rule matched.
    pub route: &'a str,
    /// The name of the service. Empty if there is none.
    pub service: &'a str,
    /// The endpoint that responded, or that was tried last. `None` if no endpoint was tried.
    pub endpoint: Option<&'a Address>,
    /// The client's address from the socket, or from a PROXY header.
    pub peer: Option<SocketAddr>,
    /// The client's address for policies: the one that trusted proxies report, or else `peer`.
    pub client: Option<IpAddr>,
    /// The original destination of a captured connection. `None` if the connection was not
    /// captured.
    pub original: Option<SocketAddr>,
    /// The client's SPIFFE ID. Empty if there is none.
    pub identity: &'a str,
    /// The authorization rule that denied the exchange. Empty if no rule denied it.
    pub policy: &'a str,
    /// How many lines of requests that the same rate limit refused were left out before this one.
    pub suppressed: u64,
    /// The method. Empty means an L4 connection.
    pub method: &'a [u8],
    /// The host and port of the request.
    pub authority: &'a [u8],
    /// The target of the request, as it was received.
    pub target: &'a [u8],
    /// `HTTP/2`, `HTTP/1.1`, `HTTP/1.0` or `TCP`.
    pub protocol: &'static str,
    /// The status that was sent to the client. 0 if none was sent.
    pub status: u16,
    /// Whether the request opened a tunnel: CONNECT, or an upgrade such as a WebSocket.
    pub tunnel: bool,
    /// The status of a gRPC call. `None` if the request is not a gRPC call.
    pub grpc_status: Option<u8>,
    /// Whether the exchange began with an injected delay. It gets the flag DI in addition to
    /// `flag`.
    pub delayed: bool,
    /// The response flag. `None` if there is none.
    pub flag: Option<Flag>,
    /// The reason of the flag. Empty if there is no flag.
    pub detail: &'a str,
    /// Body bytes (L4: all bytes) from the client.
    pub received_bytes: u64,
    /// Body bytes (L4: all bytes) to the client.
    pub sent_bytes: u64,
    /// The value of `x-request-id`.
    pub request_id: &'a [u8],
    /// The value of `user-agent`.
    pub user_agent: &'a [u8],
    /// The value of `x-forwarded-for`, as it was received.
    pub forwarded_for: &'a [u8],
}

/// Appends one line: a JSON object, or Envoy's default text format. The line is valid whatever
/// bytes a client sends: JSON escapes control characters and replaces invalid UTF-8; the text
/// format escapes both.
pub fn write_line(out: &mut Vec<u8>, format: LogFormat, record: &Record<'_>) {
    match format {
        LogFormat::Json => write_json(out, record),
        LogFormat::Text => write_text(out, record),
    }
    out.push(b'\n');
}

fn write_json(out: &mut Vec<u8>, record: &Record<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    write_time(out, record.began_unix_us);
    out.push(b'"');
    let flags = flags_of(record);
    let texts: [(&str, &[u8]); 14] = [
        ("listener", record.listener.as_bytes()),
        ("route", record.route.as_bytes()),
        ("service", record.service.as_bytes()),
        ("method", record.method),
        ("authority", record.authority),
        ("target", record.target),
        ("protocol", record.protocol.as_bytes()),
        ("response_flags", flags.as_bytes()),
        ("detail", record.detail.as_bytes()),
        ("policy", record.policy.as_bytes()),
        ("identity", record.identity.as_bytes()),
        ("request_id", record.request_id),
        ("user_agent", record.user_agent),
        ("x_forwarded_for", record.forwarded_for),
    ];
    for (key, value) in texts {
        put(out, format_args!(",\"{key}\":"));
        // Writing to a Vec does not fail.
        serde_json::to_writer(&mut *out, &String::from_utf8_lossy(value)).ok();
    }
    put_json_address(out, "peer", record.peer.map(|peer| peer.to_string()));
    put_json_address(out, "client", record.client.map(|client| client.to_string()));
    put_json_address(out, "endpoint", record.endpoint.map(ToString::to_string));
    if let Some(original) = record.original {
        put_json_address(out, "original_destination", Some(original.to_string()));
    }
    let numbers = [
        ("status", u64::from(record.status)),
        ("received_bytes", record.received_bytes),
        ("sent_bytes", record.sent_bytes),
        ("duration_us", record.duration_us),
    ];
    for (key, value) in numbers {
        put(out, format_args!(",\"{key}\":{value}"));
    }
    if let Some(duration_us) = record.endpoint_duration_us {
        put(out, format_args!(",\"endpoint_duration_us\":{duration_us}"));
    }
    if record.suppressed > 0 {
        put(out, format_args!(",\"suppressed\":{}", record.suppressed));
    }
    if record.attempts > 1 {
        put(out, format_args!(",\"attempts\":{}", record.attempts));
    }
    if record.tunnel {
        out.extend_from_slice(b",\"tunnel\":true");
    }
    if let Some(status) = record.grpc_status {
        put(out, format_args!(",\"grpc_status\":{status}"));
    }
    out.push(b'}');
}

/// The response flags in Envoy's form: `-` if there is none, and commas between several.
fn flags_of(record: &Record<'_>) -> Cow<'static, str> {
    let flag = record.flag.map(Flag::letters);
    match (record.delayed, flag) {
        (false, flag) => flag.unwrap_or("-").into(),
        (true, None) => Flag::DelayInjected.letters().into(),
        (true, Some(flag)) => format!("{},{flag}", Flag::DelayInjected.letters()).into(),
    }
}

fn put_json_address(out: &mut Vec<u8>, key: &str, address: Option<String>) {
    put(out, format_args!(",\"{key}\":"));
    serde_json::to_writer(&mut *out, &address).ok();
}

fn write_text(out: &mut Vec<u8>, record: &Record<'_>) {
    out.push(b'[');
    write_time(out, record.began_unix_us);
    out.extend_from_slice(b"] \"");
    for part in [record.method, record.target, record.protocol.as_bytes()] {
        put_escaped(out, part);
        out.push(b' ');
    }
    out.pop();
    let flag = flags_of(record);
    let duration_ms = record.duration_us / 1000;
    let Record { status, received_bytes, sent_bytes, .. } = record;
    put(out, format_args!("\" {status} {flag} {received_bytes} {sent_bytes} {duration_ms}"));
    match record.endpoint_duration_us {
        Some(duration_us) => put(out, format_args!(" {}", duration_us / 1000)),
        None => out.extend_from_slice(b" -"),
    }
    let quoted = [record.forwarded_for, record.user_agent, record.request_id, record.authority];
    for part in quoted {
        out.extend_from_slice(b" \"");
        put_escaped(out, part);
        out.push(b'"');
    }
    match record.endpoint {
        Some(endpoint) => put(out, format_args!(" \"{endpoint}\"")),
        None => out.extend_from_slice(b" \"-\""),
    }
}

/// Writes `text`, or `-` if it is empty. Control characters, quotes, backslashes and bytes that are
/// not ASCII become `\xHH`.
fn put_escaped(out: &mut Vec<u8>, text: &[u8]) {
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
fn write_time(out: &mut Vec<u8>, unix_us: u64) {
    let format =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_us) * 1000);
    if let Ok(time) = time {
        // Writing to a Vec does not fail.
        time.format_into(out, &format).ok();
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec does not fail.
    out.write_fmt(text).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record<'a>(target: &'a [u8], endpoint: &'a Address) -> Record<'a> {
        Record {
            began_unix_us: 1_700_000_000_123_456,
            duration_us: 2_500,
            endpoint_duration_us: Some(1_900),
            attempts: 1,
            listener: "web",
            route: "r",
            service: "s",
            endpoint: Some(endpoint),
            identity: "",
            policy: "",
            suppressed: 0,
            peer: Some("10.0.0.9:5".parse().unwrap()),
            client: Some("2001:db8::1".parse().unwrap()),
            original: None,
            method: b"GET",
            authority: b"a.b",
            target,
            protocol: "HTTP/1.1",
            status: 503,
            tunnel: false,
            grpc_status: None,
            delayed: false,
            flag: Some(Flag::NoHealthyUpstream),
            detail: "d",
            received_bytes: 1,
            sent_bytes: 2,
            request_id: b"id",
            user_agent: b"",
            forwarded_for: b"",
        }
    }

    #[test]
    fn the_text_line_is_envoys() {
        let endpoint = Address::Tcp("10.0.0.1:80".parse().unwrap());
        let mut out = Vec::new();
        write_line(&mut out, LogFormat::Text, &record(b"/a\"\n\xff", &endpoint));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "[2023-11-14T22:13:20.123Z] \"GET /a\\x22\\x0a\\xff HTTP/1.1\" 503 UH 1 2 2 1 \
             \"-\" \"-\" \"id\" \"a.b\" \"10.0.0.1:80\"\n"
        );
    }

    #[test]
    fn a_delay_has_its_flag_beside_the_other() {
        let endpoint = Address::Tcp("10.0.0.1:80".parse().unwrap());
        for (delayed, flag, expected) in [
            (false, None, "-"),
            (true, None, "DI"),
            (true, Some(Flag::UpstreamTimeout), "DI,UT"),
            (false, Some(Flag::FaultInjected), "FI"),
        ] {
            let line = Record { delayed, flag, ..record(b"/", &endpoint) };
            assert_eq!(flags_of(&line), expected);
        }
    }

    #[test]
    fn the_json_line_is_json_whatever_a_client_sent() {
        let endpoint = Address::Tcp("10.0.0.1:80".parse().unwrap());
        let mut out = Vec::new();
        write_line(&mut out, LogFormat::Json, &record(b"/\"\\\n\xff\0", &endpoint));
        assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1);
        let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(line["time"], "2023-11-14T22:13:20.123Z");
        assert_eq!(line["target"], "/\"\\\n\u{fffd}\0");
        assert_eq!((&line["status"], &line["endpoint_duration_us"]), (&503.into(), &1900.into()));
        assert_eq!((&line["peer"], &line["client"]), (&"10.0.0.9:5".into(), &"2001:db8::1".into()));
        assert_eq!(line["endpoint"], "10.0.0.1:80");
        assert_eq!(line["response_flags"], "UH");
    }
}
