//! Lines of the access log as log records of OTLP (opentelemetry-proto 1).

use serde_json::Value;

use super::otlp::{envelope, put_attribute, put_value};
use super::span::Attribute;
use crate::grpc::protobuf::{put_bytes, put_fixed64, put_nested, put_number};

/// The path of the service over HTTP.
pub const HTTP_PATH: &str = "/v1/logs";

/// The path of the method over gRPC.
pub const GRPC_PATH: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// The severities, each as its number and its name.
const INFO: (u64, &str) = (9, "INFO");
const ERROR: (u64, &str) = (17, "ERROR");

/// Writes an `ExportLogsServiceRequest` with `lines`, which each end with a line feed, of the
/// resource with these attributes.
pub fn request(out: &mut Vec<u8>, resource: &[(String, String)], lines: &[u8], now_unix_ns: u64) {
    envelope(out, resource, |out| {
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            put_nested(out, 2, |out| put_record(out, line, now_unix_ns));
        }
    });
}

fn put_record(out: &mut Vec<u8>, line: &[u8], now_unix_ns: u64) {
    put_fixed64(out, 11, now_unix_ns);
    let value = if line.starts_with(b"{") { serde_json::from_slice(line).ok() } else { None };
    let Some(Value::Object(fields)) = value else {
        // A text format. Its author has decided what it tells.
        put_fixed64(out, 1, now_unix_ns);
        put_severity(out, INFO);
        let text = String::from_utf8_lossy(line).into_owned();
        return put_nested(out, 5, |out| put_value(out, &Attribute::Text(text.into())));
    };
    let text = |key: &str| fields.get(key).and_then(Value::as_str);
    put_fixed64(out, 1, text("time").and_then(unix_ns).unwrap_or(now_unix_ns));
    let status = fields.get("status").and_then(Value::as_u64);
    let failed =
        status.is_some_and(|it| it >= 500) || text("response_flags").is_some_and(|it| it != "-");
    put_severity(out, if failed { ERROR } else { INFO });
    let body = match text("method").filter(|method| !method.is_empty()) {
        Some(method) => {
            let (authority, target) = (text("authority"), text("target"));
            format!("{method} {}{}", authority.unwrap_or_default(), target.unwrap_or_default())
        }
        None => format!("{} connection", text("protocol").unwrap_or("a")),
    };
    put_nested(out, 5, |out| put_value(out, &Attribute::Text(body.into())));
    for (key, value) in &fields {
        let value = match value {
            Value::Null => continue,
            Value::String(text) => Attribute::Text(text.clone().into()),
            Value::Number(number) if number.is_i64() => {
                Attribute::Number(number.as_i64().unwrap_or_default())
            }
            other => Attribute::Text(other.to_string().into()),
        };
        put_nested(out, 6, |out| put_attribute(out, key, &value));
    }
    if let Some(id) = text("trace_id").and_then(bytes_of_hex) {
        put_bytes(out, 9, &id);
    }
}

fn put_severity(out: &mut Vec<u8>, (number, name): (u64, &str)) {
    put_number(out, 2, number);
    put_bytes(out, 3, name.as_bytes());
}

/// The 16 bytes of a trace id.
fn bytes_of_hex(text: &str) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(text, 16).ok()?;
    (text.len() == 32).then(|| number.to_be_bytes())
}

/// Reads a time of the access log, such as `2026-11-30T09:12:44.018Z`, as nanoseconds since the
/// Unix epoch.
fn unix_ns(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1970..=2500).contains(&year) || !(1..=12).contains(&month) || !text.ends_with('Z') {
        return None;
    }
    let fraction = text.get(20..text.len() - 1).unwrap_or_default();
    let digits = fraction.len().min(9) as u32;
    let ns = fraction.get(..digits as usize)?.parse::<u64>().unwrap_or(0) * 10u64.pow(9 - digits);
    // Days since the epoch, with years that begin in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000_000 + ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::protobuf::{Fields, Value as Raw};

    #[test]
    fn times_of_lines_are_read() {
        for (text, expected) in [
            ("1970-01-01T00:00:00.000Z", Some(0)),
            ("2000-02-29T12:30:45.250Z", Some(951_827_445_250_000_000)),
            ("2026-11-30T09:12:44.018Z", Some(1_796_029_964_018_000_000)),
            ("2026-11-30T09:12:44Z", Some(1_796_029_964_000_000_000)),
            ("2026-13-30T09:12:44Z", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(unix_ns(text), expected, "{text}");
        }
    }

    /// The bytes of the fields `path` of a message, of the first that has them.
    fn inner<'a>(message: &'a [u8], path: &[u64]) -> Vec<&'a [u8]> {
        let Some((first, rest)) = path.split_first() else { return vec![message] };
        let fields = Fields::of(message).map(Result::unwrap);
        let found = fields.filter_map(|(number, value)| match value {
            Raw::Bytes(bytes) if number == *first => Some(inner(bytes, rest)),
            _ => None,
        });
        found.flatten().collect()
    }

    #[test]
    fn each_line_is_one_record_whatever_it_has() {
        let lines =
            b"{\"time\":\"2026-11-30T09:12:44.018Z\",\"method\":\"GET\",\"authority\":\"a\",\
            \"target\":\"/b\",\"status\":503,\"response_flags\":\"UF\",\"failed\":true,\
            \"trace_id\":\"0af7651916cd43dd8448eb211c80319c\",\"x\":null}\n\
            plain \xff text\n\n{broken\n{\"protocol\":\"TCP\"}\n";
        let mut out = Vec::new();
        request(&mut out, &[("service.name".into(), "shop".into())], lines, 7);
        let texts = |path: &[u64]| -> Vec<String> {
            let found = inner(&out, path);
            found.into_iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect()
        };
        assert_eq!(inner(&out, &[1, 2, 2]).len(), 4);
        assert_eq!(
            texts(&[1, 2, 2, 5, 1]),
            ["GET a/b", "plain \u{fffd} text", "{broken", "TCP connection"]
        );
        assert_eq!(texts(&[1, 2, 2, 3]), ["ERROR", "INFO", "INFO", "INFO"]);
        let keys = texts(&[1, 2, 2, 6, 1]);
        assert_eq!(keys.len(), 9, "{keys:?}");
        assert_eq!(inner(&out, &[1, 2, 2, 9])[0][..2], [0x0a, 0xf7]);
        assert_eq!(texts(&[1, 1, 1, 1]), ["service.name"]);
    }
}
