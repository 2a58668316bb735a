//! gRPC over HTTP/2 for a proxy: detects calls, reads their deadlines and statuses, and counts
//! messages. Also gRPC-Web, which carries the same calls over HTTP/1.1 and from browsers. Pure: no
//! I/O, no clock.
//!
//! Sources: the gRPC documents PROTOCOL-HTTP2 and PROTOCOL-WEB.

pub mod etcd;
mod messages;
pub mod methods;
pub mod protobuf;
pub mod rate_limit;
mod status;
mod timeout;
mod web;
pub mod workload;
pub mod xds;

pub use messages::MessageCounter;
pub use status::{Code, code_of_refusal, percent_encoded, trailer};
pub use timeout::{parse_timeout, write_timeout};
pub use web::{Encoder, TextDecoder, content_type_to_grpc, content_type_to_web};

use crate::message::{HeadView, Method};

/// How a gRPC call is sent over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// gRPC.
    Grpc,
    /// gRPC-Web in binary.
    Web,
    /// gRPC-Web in base64.
    WebText,
}

impl Kind {
    /// The content type of the response to a call of this kind.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Grpc => "application/grpc",
            Self::Web => "application/grpc-web",
            Self::WebText => "application/grpc-web-text",
        }
    }

    /// Whether the call uses gRPC-Web, in binary or base64.
    pub fn is_web(self) -> bool {
        self != Self::Grpc
    }
}

/// Returns the kind of the gRPC call, or `None` if the request is not a gRPC call.
pub fn kind_of(request: HeadView<'_>) -> Option<Kind> {
    if request.head.method != Method::Post {
        return None;
    }
    kind_by_content_type(request.value(b"content-type")?)
}

/// Returns the kind of the gRPC call with this content type.
fn kind_by_content_type(value: &[u8]) -> Option<Kind> {
    let after = |prefix: &[u8]| {
        let begins = value.get(..prefix.len())?.eq_ignore_ascii_case(prefix);
        let rest = value.get(prefix.len()).copied();
        (begins && matches!(rest, None | Some(b'+' | b';' | b' '))).then_some(())
    };
    let kinds = [
        (&b"application/grpc"[..], Kind::Grpc),
        (b"application/grpc-web", Kind::Web),
        (b"application/grpc-web-text", Kind::WebText),
    ];
    kinds.into_iter().find_map(|(prefix, kind)| after(prefix).map(|()| kind))
}

/// Returns the method of a call from its path, `/package.Service/Method`. `None` if the name must
/// not be used in metrics.
pub fn method_of(path: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(path.strip_prefix(b"/")?).ok()?;
    let (service, method) = name.split_once('/')?;
    let is_name = |part: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        !part.is_empty() && part.bytes().all(known)
    };
    (name.len() <= METHOD_BYTES_MAX && is_name(service) && is_name(method)).then_some(name)
}

/// The longest method name that metrics show, in bytes. Longer names count as `other`.
const METHOD_BYTES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_content_type() {
        for (value, kind) in [
            ("application/grpc", Some(Kind::Grpc)),
            ("application/grpc+proto", Some(Kind::Grpc)),
            ("Application/gRPC; x=y", Some(Kind::Grpc)),
            ("application/grpc-web", Some(Kind::Web)),
            ("application/grpc-web+proto", Some(Kind::Web)),
            ("application/grpc-web-text", Some(Kind::WebText)),
            ("application/grpc-web-text+json", Some(Kind::WebText)),
            ("application/grpcx", None),
            ("application/json", None),
            ("", None),
        ] {
            assert_eq!(kind_by_content_type(value.as_bytes()), kind, "{value}");
        }
    }

    #[test]
    fn methods_are_two_names() {
        for (path, name) in [
            ("/a.b.C/D", Some("a.b.C/D")),
            ("/C/D_2", Some("C/D_2")),
            ("/C", None),
            ("/C/D/E", None),
            ("/C/\"", None),
            ("C/D", None),
        ] {
            assert_eq!(method_of(path.as_bytes()), name, "{path}");
        }
    }
}
