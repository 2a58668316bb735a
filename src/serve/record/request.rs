//! The parts of a request that the access log needs.

use std::net::IpAddr;

use super::ExchangeRecord;
use crate::message::{HeadView, Version};
use crate::observe::HeaderCopy;
use crate::runtime::io::Io;

/// The parts of a request that the access log and the gRPC counters need, as copies.
pub(super) struct Request {
    pub(super) protocol: &'static str,
    /// The client's address for policies.
    pub(super) client: Option<IpAddr>,
    /// Copies of the fields that the filter and the format of the access log read.
    pub(super) headers: HeaderCopy,
    block: Vec<u8>,
    /// The end of each part in `block`. The parts are in the order of [`PARTS`].
    ends: [usize; PARTS],
}

/// The number of parts: method, authority, target, `user-agent`, `x-forwarded-for`, `x-request-id`,
/// path.
const PARTS: usize = 7;

impl Request {
    pub(super) fn of(view: HeadView<'_>, client: Option<IpAddr>, headers: HeaderCopy) -> Self {
        let field = |name: &'static [u8]| view.value(name).unwrap_or_default();
        let parts: [&[u8]; PARTS] = [
            view.method_name(),
            view.authority(),
            view.target(),
            field(b"user-agent"),
            field(b"x-forwarded-for"),
            field(b"x-request-id"),
            view.path(),
        ];
        let mut block = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        let ends = parts.map(|part| {
            block.extend_from_slice(part);
            block.len()
        });
        let protocol = match view.head.version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        };
        Self { protocol, client, headers, block, ends }
    }

    pub(super) fn part(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.block[start..self.ends[index]]
    }
}

/// Copies the parts of a request when it is dropped, if the exchange gets an access log line. So if
/// only failures are logged, a successful request is not copied.
pub struct LateCopy<'a, I: Io> {
    record: &'a ExchangeRecord<I>,
    request: HeadView<'a>,
}

impl<'a, I: Io> LateCopy<'a, I> {
    /// Creates the guard. It must be dropped before the head of `request` is dropped.
    pub fn of(record: &'a ExchangeRecord<I>, request: HeadView<'a>) -> Self {
        Self { record, request }
    }
}

impl<I: Io> Drop for LateCopy<'_, I> {
    fn drop(&mut self) {
        self.record.keep_logged(self.request);
    }
}
