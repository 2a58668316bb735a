//! HTTP/1.1 and 1.0 (RFC 9112) as bytes in, offsets and bytes out. Pure: no I/O, no clock.

pub mod chunked;
pub mod encode;
pub mod framing;
pub mod local;
pub mod parse;
pub mod sink;
