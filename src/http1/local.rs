//! Answers of our own.

use std::io::Write as _;

use super::encode::{finish, put_field, put_status_line, reason};
use crate::message::HeaderEdits;

/// An answer of our own.
pub struct LocalReply<'a> {
    /// Its status.
    pub status: u16,
    /// The value of `location`; empty for none.
    pub location: &'a [u8],
    /// Its body, as text.
    pub body: &'a [u8],
    /// More fields, and changes to ours.
    pub headers: &'a HeaderEdits,
    /// How it tells a client of gRPC, which looks for nothing else.
    pub call: Option<CallReply>,
    /// The connection stays open.
    pub keep: bool,
    /// The body is only announced.
    pub is_head: bool,
}

/// How an answer of our own ends a call of gRPC.
pub struct CallReply {
    /// The content type that the client expects.
    pub content_type: &'static str,
    /// The number of the status.
    pub status: u8,
    /// The message, as the field wants it.
    pub message: String,
}

/// Appends a whole answer of our own to `out` and says how many bytes of it are its head.
pub fn local_reply(out: &mut Vec<u8>, reply: &LocalReply<'_>) -> usize {
    let before = out.len();
    put_status_line(out, reply.status, reason(reply.status).as_bytes());
    let may_have_body = reply.status >= 200 && !matches!(reply.status, 204 | 304);
    if !reply.location.is_empty() {
        put_field(out, b"location", reply.location);
    }
    if let Some(call) = &reply.call {
        put_field(out, b"content-type", call.content_type.as_bytes());
        // Writing to a Vec does not fail.
        write!(out, "grpc-status: {}\r\n", call.status).ok();
        put_field(out, b"grpc-message", call.message.as_bytes());
    }
    if may_have_body {
        if !reply.body.is_empty() && !reply.headers.drops(b"content-type") {
            out.extend_from_slice(b"content-type: text/plain; charset=utf-8\r\n");
        }
        // Writing to a Vec does not fail.
        write!(out, "content-length: {}\r\n", reply.body.len()).ok();
    }
    if !reply.keep {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    finish(out, reply.headers);
    let head_bytes = out.len() - before;
    if may_have_body && !reply.is_head {
        out.extend_from_slice(reply.body);
    }
    head_bytes
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
                call: None,
                keep,
                is_head,
            };
            local_reply(&mut out, &reply);
            String::from_utf8(out).unwrap()
        };
        let head = "HTTP/1.1 404 Not Found\r\ncontent-type: text/plain; charset=utf-8\r\n\
                    content-length: 2\r\n";
        assert_eq!(reply(404, false, true), format!("{head}\r\nno"));
        assert_eq!(reply(404, true, false), format!("{head}Connection: close\r\n\r\n"));
        assert_eq!(reply(204, false, true), "HTTP/1.1 204 No Content\r\n\r\n");
    }
}
