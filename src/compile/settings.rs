//! Compiles the settings of the process.

use std::time::Duration;

use super::{Compiler, http2, http3, listeners};
use crate::http1::parse::HEADERS_MAX;
use crate::message;
use crate::model::{self, Item, Model};
use crate::snapshot::{Drain, Limits, OutboundDrain};

/// The range of `limits.header_bytes`.
const HEADER_BYTES_MIN: usize = 256;
const HEADER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The minimum of `limits.buffer_bytes`.
const BUFFER_BYTES_MIN: usize = 1024 * 1024;

/// The default of `dns.gone_after`.
const GONE_AFTER: Duration = Duration::from_secs(30);

pub(super) fn gone_after(model: &Model) -> Duration {
    model.settings.gone_after.unwrap_or(GONE_AFTER)
}

pub(super) fn drain(model: &Model) -> Drain {
    let (written, default) = (model.settings.drain, Drain::default());
    let after = |min| OutboundDrain::AfterInbound { min };
    Drain {
        limit: written.inbound.unwrap_or(default.limit),
        outbound: match written.outbound {
            model::OutboundDrain::After => after(Duration::ZERO),
            model::OutboundDrain::With => OutboundDrain::WithInbound,
            model::OutboundDrain::AtLeast(min) => after(min),
        },
    }
}

pub(super) fn limits(compiler: &mut Compiler<'_>) -> Limits {
    let written = &compiler.model.settings.limits;
    let default = Limits::default();
    if let Some(headers) = &written.headers
        && !(1..=HEADERS_MAX as u32).contains(&headers.value)
    {
        let message = format!("this must be from 1 to {HEADERS_MAX} fields");
        compiler.fault(&headers.origin, message);
    }
    if let Some(bytes) = &written.header_bytes
        && !(HEADER_BYTES_MIN..=HEADER_BYTES_MAX).contains(&bytes.value)
    {
        let message = format!("this must be from {HEADER_BYTES_MIN} B to 16 MiB");
        compiler.fault(&bytes.origin, message);
    }
    if let Some(bytes) = written.buffer_bytes.as_ref().filter(|b| b.value < BUFFER_BYTES_MIN) {
        let help = "without this key, it is a quarter of the memory";
        compiler.fault_with_help(&bytes.origin, "this must be at least 1 MiB", help);
    }
    if let Some(keys) = written.rate_limit_keys.as_ref().filter(|keys| keys.value == 0) {
        let help = "write a number from 1; the default is 100000";
        compiler.fault_with_help(&keys.origin, "a rate limit needs room for a key", help);
    }
    let default_connections = format!("the default, {}", default.connections);
    let connections =
        listeners::at_least_one(compiler, written.connections.as_ref(), &default_connections);
    let header_bytes = |bytes: &Item<usize>| bytes.value;
    let (of, chunks) = (default.message, written.chunk_extension_bytes);
    Limits {
        connections: connections.unwrap_or(default.connections),
        buffer_bytes: written.buffer_bytes.as_ref().map(|bytes| bytes.value),
        mirrored_requests: written.mirrored_requests.unwrap_or(default.mirrored_requests),
        message: message::Limits {
            header_bytes: written.header_bytes.as_ref().map_or(of.header_bytes, header_bytes),
            headers: written.headers.as_ref().map_or(of.headers, |n| n.value as usize),
            uri_bytes: written.uri_bytes.unwrap_or(of.uri_bytes),
            chunk_extension_bytes: chunks.unwrap_or(of.chunk_extension_bytes),
            trailer_bytes: written.trailer_bytes.unwrap_or(of.trailer_bytes),
        },
        http2: http2::limits(compiler, &written.http2),
        http3: http3::limits(compiler, &written.http3),
    }
}
