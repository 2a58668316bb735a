//! The messages of OTLP (opentelemetry-proto 1): exports of spans, and the answers to them.

use super::span::{Attribute, Side, Span};
use crate::grpc::protobuf::{
    Fields, Malformed, Value, put_bytes, put_fixed64, put_nested, put_number,
};

/// The path of the service over HTTP.
pub const HTTP_PATH: &str = "/v1/traces";

/// The path of the method over gRPC.
pub const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// The flags of a span (opentelemetry-proto `SpanFlags`): whether the parent is remote is known,
/// and whether it is.
const KNOWS_REMOTE: u64 = 0x100;
const IS_REMOTE: u64 = 0x200;

/// Writes an `ExportTraceServiceRequest` with `spans` of the resource with these attributes.
pub fn request(out: &mut Vec<u8>, resource: &[(String, String)], spans: &[Span]) {
    envelope(out, resource, |out| {
        for span in spans {
            put_nested(out, 2, |out| put_span(out, span));
        }
    });
}

/// Writes the message around spans or log records: the resource with these attributes, and the
/// scope. `content` writes the spans or records.
pub(super) fn envelope(
    out: &mut Vec<u8>,
    resource: &[(String, String)],
    content: impl FnOnce(&mut Vec<u8>),
) {
    put_nested(out, 1, |out| {
        put_nested(out, 1, |out| {
            for (key, value) in resource {
                put_nested(out, 1, |out| put_attribute(out, key, &value.as_str().into()));
            }
        });
        put_nested(out, 2, |out| {
            put_nested(out, 1, |out| {
                put_bytes(out, 1, b"ringway");
                put_bytes(out, 2, env!("CARGO_PKG_VERSION").as_bytes());
            });
            content(out);
        });
    });
}

fn put_span(out: &mut Vec<u8>, span: &Span) {
    put_bytes(out, 1, &span.trace);
    put_bytes(out, 2, &span.id);
    put_bytes(out, 3, span.state.as_bytes());
    put_bytes(out, 4, span.parent.as_ref().map_or(&[][..], |parent| parent));
    put_bytes(out, 5, span.name.as_bytes());
    put_number(
        out,
        6,
        match span.side {
            Side::Server => 2,
            Side::Client => 3,
        },
    );
    put_fixed64(out, 7, span.began_unix_ns);
    put_fixed64(out, 8, span.ended_unix_ns);
    for (key, value) in &span.attributes {
        put_nested(out, 9, |out| put_attribute(out, key, value));
    }
    if let Some(error) = &span.error {
        put_nested(out, 15, |out| {
            put_bytes(out, 2, error.as_bytes());
            put_number(out, 3, 2); // STATUS_CODE_ERROR
        });
    }
    let remote = if span.parent_is_remote { IS_REMOTE } else { 0 };
    // The flag of W3C that the span is sampled: only such spans are exported.
    let flags = (KNOWS_REMOTE | remote | 1) as u32;
    out.push(0x85); // field 16, fixed32
    out.push(0x01);
    out.extend_from_slice(&flags.to_le_bytes());
}

pub(super) fn put_attribute(out: &mut Vec<u8>, key: &str, value: &Attribute) {
    put_bytes(out, 1, key.as_bytes());
    put_nested(out, 2, |out| put_value(out, value));
}

/// Writes the content of an `AnyValue`.
pub(super) fn put_value(out: &mut Vec<u8>, value: &Attribute) {
    match value {
        Attribute::Text(text) if text.is_empty() => out.extend_from_slice(&[0x0a, 0]),
        Attribute::Text(text) => put_bytes(out, 1, text.as_bytes()),
        Attribute::Number(number) => {
            out.push(3 << 3);
            crate::grpc::protobuf::put_varint(out, *number as u64);
        }
    }
}

/// The part of an export that a collector has refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partial {
    /// The number of spans or log records that it refused.
    pub rejected: u64,
    /// Its reason.
    pub message: String,
}

/// Reads an `ExportTraceServiceResponse` or an `ExportLogsServiceResponse`, which are alike.
///
/// # Errors
/// If it is malformed.
pub fn answer(message: &[u8]) -> Result<Partial, Malformed> {
    let mut partial = Partial::default();
    for field in Fields::of(message) {
        let (1, Value::Bytes(inner)) = field? else { continue };
        for field in Fields::of(inner) {
            match field? {
                (1, Value::Number(rejected)) => {
                    // A negative number has no meaning.
                    partial.rejected = u64::try_from(rejected as i64).unwrap_or_default();
                }
                (2, Value::Bytes(text)) => {
                    let shown = &text[..text.len().min(200)];
                    partial.message = String::from_utf8_lossy(shown).into_owned();
                }
                _ => {}
            }
        }
    }
    Ok(partial)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_say_what_was_refused() {
        assert_eq!(answer(b""), Ok(Partial::default()));
        let partial = Partial { rejected: 300, message: "too old".into() };
        assert_eq!(answer(b"\x0a\x0c\x08\xac\x02\x12\x07too old"), Ok(partial));
        // An unknown field is skipped.
        assert_eq!(answer(b"\x12\x01a\x0a\x02\x08\x01").map(|it| it.rejected), Ok(1));
        for malformed in [&b"\x0a\x05\x08"[..], b"<html>", b"\x0a", b"{\"a\":1}"] {
            assert!(answer(malformed).is_err(), "{malformed:?}");
        }
    }
}
