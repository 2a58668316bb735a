//! gRPC status codes.

use crate::error::{Flag, Refusal};

/// A status code of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(u8);

impl Code {
    /// Success.
    pub const OK: Self = Self(0);
    /// The client cancelled the call.
    pub const CANCELLED: Self = Self(1);
    /// An error that has no more specific code.
    pub const UNKNOWN: Self = Self(2);
    /// The request is wrong.
    pub const INVALID_ARGUMENT: Self = Self(3);
    /// The deadline passed.
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    /// The requested object does not exist.
    pub const NOT_FOUND: Self = Self(5);
    /// The client has no permission.
    pub const PERMISSION_DENIED: Self = Self(7);
    /// A limit or a quota was exceeded.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// The method is not implemented.
    pub const UNIMPLEMENTED: Self = Self(12);
    /// An internal error of the server.
    pub const INTERNAL: Self = Self(13);
    /// The service is temporarily unavailable.
    pub const UNAVAILABLE: Self = Self(14);
    /// The client is not authenticated.
    pub const UNAUTHENTICATED: Self = Self(16);

    /// The number of codes.
    pub const COUNT: usize = 17;

    /// Parses the value of a `grpc-status` field. An invalid value is UNKNOWN.
    pub fn from_value(value: &[u8]) -> Self {
        let number = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok());
        number.filter(|&code: &u8| usize::from(code) < Self::COUNT).map_or(Self::UNKNOWN, Self)
    }

    /// Returns the code in trailer lines. `None` if there is none.
    pub fn from_trailers(lines: &[u8]) -> Option<Self> {
        trailer(lines, b"grpc-status").map(Self::from_value)
    }

    /// Whether the code means a failure of the server, like a status of 5xx.
    pub fn is_server_error(self) -> bool {
        const DATA_LOSS: Code = Code(15);
        matches!(
            self,
            Self::UNKNOWN
                | Self::DEADLINE_EXCEEDED
                | Self::UNIMPLEMENTED
                | Self::INTERNAL
                | Self::UNAVAILABLE
                | DATA_LOSS
        )
    }

    /// Returns the code with this name in capitals, such as `UNAVAILABLE`, or with this number.
    pub fn parse(text: &str) -> Option<Self> {
        let at = Self::NAMES.iter().position(|(name, _)| *name == text);
        let number = at.or_else(|| text.parse().ok().filter(|&number| number < Self::COUNT));
        number.map(|number| Self(number as u8))
    }

    /// The names of all codes, in the order of their numbers.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().map(|(name, _)| *name)
    }

    /// The name of the code, in capitals.
    pub fn name(self) -> &'static str {
        Self::NAMES[usize::from(self.0)].0
    }

    /// The HTTP status that corresponds to the code (`google.rpc.Code`).
    pub fn http_status(self) -> u16 {
        Self::NAMES[usize::from(self.0)].1
    }

    /// The name and the HTTP status of each code.
    const NAMES: [(&'static str, u16); Self::COUNT] = [
        ("OK", 200),
        ("CANCELLED", 499),
        ("UNKNOWN", 500),
        ("INVALID_ARGUMENT", 400),
        ("DEADLINE_EXCEEDED", 504),
        ("NOT_FOUND", 404),
        ("ALREADY_EXISTS", 409),
        ("PERMISSION_DENIED", 403),
        ("RESOURCE_EXHAUSTED", 429),
        ("FAILED_PRECONDITION", 400),
        ("ABORTED", 409),
        ("OUT_OF_RANGE", 400),
        ("UNIMPLEMENTED", 501),
        ("INTERNAL", 500),
        ("UNAVAILABLE", 503),
        ("DATA_LOSS", 500),
        ("UNAUTHENTICATED", 401),
    ];

    /// The number of the code. It is below [`Code::COUNT`].
    pub fn number(self) -> u8 {
        self.0
    }
}

/// Returns the value of the field `name` in trailer lines, or `None` if the field is absent.
pub fn trailer<'a>(lines: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    lines.split(|&byte| byte == b'\n').find_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        let (found, value) = line.split_at(colon);
        found.eq_ignore_ascii_case(name).then(|| value[1..].trim_ascii())
    })
}

/// Returns the code for a refused call. Without a flag that determines the code, the HTTP status is
/// mapped as gRPC clients do (http-grpc-status-mapping).
pub fn code_of_refusal(refusal: &Refusal) -> Code {
    match (refusal.flag, refusal.status) {
        (Flag::UpstreamTimeout | Flag::DownstreamTimeout, _) => Code::DEADLINE_EXCEEDED,
        (Flag::DownstreamConnectionTermination, _) => Code::CANCELLED,
        (Flag::RateLimited, _) => Code::RESOURCE_EXHAUSTED,
        (Flag::StreamIdle, _) => Code::UNAVAILABLE,
        (_, 401) => Code::UNAUTHENTICATED,
        (_, 403) => Code::PERMISSION_DENIED,
        (_, 404 | 501) => Code::UNIMPLEMENTED,
        (_, 413 | 414 | 431) => Code::RESOURCE_EXHAUSTED,
        (_, 429 | 502..=504) => Code::UNAVAILABLE,
        (_, 400..=499) => Code::INTERNAL,
        _ => Code::UNKNOWN,
    }
}

/// Encodes a message for `grpc-message`: all characters except printable ASCII are percent-encoded.
pub fn percent_encoded(message: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_from_values_and_trailers() {
        for (lines, code) in [
            ("grpc-status: 0\r\n", Some(0)),
            ("x: y\r\nGrpc-Status:16\r\ngrpc-message: no\r\n", Some(16)),
            ("grpc-status: 17\r\n", Some(2)),
            ("grpc-status: -1\r\n", Some(2)),
            ("x-grpc-status: 1\r\n", None),
            ("", None),
        ] {
            assert_eq!(Code::from_trailers(lines.as_bytes()).map(Code::number), code, "{lines:?}");
        }
    }

    #[test]
    fn codes_have_names_and_statuses() {
        for (text, code, status) in [
            ("UNAVAILABLE", Some(14), 503),
            ("CANCELLED", Some(1), 499),
            ("14", Some(14), 503),
            ("UNAUTHENTICATED", Some(16), 401),
            ("17", None, 0),
            ("unavailable", None, 0),
            ("", None, 0),
        ] {
            let parsed = Code::parse(text);
            assert_eq!(parsed.map(Code::number), code, "{text}");
            assert_eq!(parsed.map_or(0, Code::http_status), status, "{text}");
        }
        assert_eq!(Code::names().count(), Code::COUNT);
        for name in Code::names() {
            assert_eq!(Code::parse(name).unwrap().name(), name);
        }
    }

    #[test]
    fn messages_are_printable() {
        assert_eq!(percent_encoded("100% ä\n"), "100%25 %C3%A4%0A");
    }
}
