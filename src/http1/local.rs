//! Local replies: responses that the proxy makes itself.

use super::encode::{finish, reason};
use super::framing::LENGTH_FIELD;
use super::sink::{More, Sink};
use crate::message::HeaderEdits;

/// A response that the proxy makes itself.
pub struct LocalReply<'a> {
    /// The status code.
    pub status: u16,
    /// The value of `location`. Empty means that the field is not sent.
    pub location: &'a [u8],
    /// The body: UTF-8 text.
    pub body: &'a [u8],
    /// Fields to add, and changes to the fields of the reply.
    pub headers: &'a HeaderEdits,
    /// A function that writes additional fields.
    pub more: Option<More<'a>>,
    /// The gRPC status, for a gRPC client.
    pub call: Option<CallReply>,
    /// Whether the connection stays open.
    pub keep: bool,
    /// Whether the request was HEAD: the reply has content-length but no body.
    pub is_head: bool,
}

/// The end of a gRPC call by a local reply.
pub struct CallReply {
    /// The content type that the client expects.
    pub content_type: &'static str,
    /// The status code.
    pub status: u8,
    /// The value of `grpc-message`, percent-encoded.
    pub message: String,
}

impl LocalReply<'_> {
    /// The body to send. Empty after HEAD, and for a status that has no body.
    pub fn sent_body(&self) -> &[u8] {
        if self.may_have_body() && !self.is_head { self.body } else { b"" }
    }

    fn may_have_body(&self) -> bool {
        self.status >= 200 && !matches!(self.status, 204 | 304)
    }
}

/// Writes the head of a local reply to `out`.
pub fn local_reply(out: &mut dyn Sink, reply: &LocalReply<'_>) {
    out.status_line(reply.status, reason(reply.status).as_bytes());
    if !reply.location.is_empty() {
        out.add(b"location", &[reply.location]);
    }
    if let Some(call) = &reply.call {
        out.add(b"content-type", &[call.content_type.as_bytes()]);
        out.add(b"grpc-status", &[call.status.to_string().as_bytes()]);
        out.add(b"grpc-message", &[call.message.as_bytes()]);
    }
    if reply.may_have_body() {
        if !reply.body.is_empty() && !reply.headers.drops(b"content-type") {
            out.add(b"content-type", &[b"text/plain; charset=utf-8"]);
        }
        out.add(LENGTH_FIELD.as_bytes(), &[reply.body.len().to_string().as_bytes()]);
    }
    if !reply.keep {
        out.add_hop(b"Connection", b"close");
    }
    if let Some(more) = reply.more {
        more(out);
    }
    finish(out, reply.headers);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_our_own() {
        let reply = |status, is_head, keep| {
            let headers = HeaderEdits::none();
            let mut out = Vec::new();
            let reply = LocalReply {
                status,
                location: b"",
                body: b"no",
                headers: &headers,
                more: None,
                call: None,
                keep,
                is_head,
            };
            local_reply(&mut out, &reply);
            out.extend_from_slice(reply.sent_body());
            String::from_utf8(out).unwrap()
        };
        let head = "HTTP/1.1 404 Not Found\r\ncontent-type: text/plain; charset=utf-8\r\n\
                    content-length: 2\r\n";
        assert_eq!(reply(404, false, true), format!("{head}\r\nno"));
        assert_eq!(reply(404, true, false), format!("{head}Connection: close\r\n\r\n"));
        assert_eq!(reply(204, false, true), "HTTP/1.1 204 No Content\r\n\r\n");
    }
}
