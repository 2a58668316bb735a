//! HTTP/2 (RFC 9113) in the words of HTTP/1.1, which is what the rest of the proxy speaks.
//!
//! `request` says the head of a request as text, `response` takes the text of a response apart:
//! both are dry. `stream` is one stream of a connection in that dialect, over the `h2` crate, whose
//! frames and flow control `serve::http2` drives.

mod request;
mod response;
mod stream;

pub use request::{RequestBody, request_head};
pub use response::{Event, ResponseReader};
pub use stream::ClientStream;

/// What every connection with prior knowledge begins with (RFC 9113 3.4), as far as no HTTP/1.1
/// request can.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
