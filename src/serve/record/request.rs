//! The parts of a request that the access log needs.

use std::cell::RefCell;
use std::net::IpAddr;

use super::ExchangeRecord;
use crate::message::HeadView;
use crate::observe::HeaderCopy;
use crate::runtime::io::Io;

/// The parts of a request that the access log and the gRPC counters need, as copies.
#[derive(Default)]
pub struct Request {
    pub(super) protocol: &'static str,
    /// The client's address for policies.
    pub(super) client: Option<IpAddr>,
    /// Copies of the fields that the filter and the format of the access log read.
    pub(super) headers: HeaderCopy,
    /// Whether only the parts for a story were copied.
    pub(super) is_brief: bool,
    block: Vec<u8>,
    /// The end of each part in `block`. The parts are in the order of [`PARTS`].
    ends: [usize; PARTS],
}

/// The number of parts: method, authority, target, `user-agent`, `x-forwarded-for`, `x-request-id`,
/// path.
const PARTS: usize = 7;

/// The maximum number of copies that are kept for reuse, and their maximum size in bytes.
const POOLED_MAX: usize = 64;
const POOLED_BYTES_MAX: usize = 4096;

/// Copies of requests that are no longer needed. Their memory is used again.
#[derive(Default)]
pub struct RequestPool(RefCell<Pooled>);

/// A record holds a boxed copy, so the boxes are kept, too.
#[allow(clippy::vec_box)]
type Pooled = Vec<Box<Request>>;

impl RequestPool {
    pub(super) fn take(&self) -> Box<Request> {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn give(&self, request: Box<Request>) {
        let mut pool = self.0.borrow_mut();
        if pool.len() < POOLED_MAX && request.block.capacity() <= POOLED_BYTES_MAX {
            pool.push(request);
        }
    }
}

impl Request {
    /// Copies all parts of the request.
    pub(super) fn fill(&mut self, view: HeadView<'_>, client: Option<IpAddr>, headers: HeaderCopy) {
        let field = |name: &'static [u8]| view.value(name).unwrap_or_default();
        let fields = [field(b"user-agent"), field(b"x-forwarded-for"), field(b"x-request-id")];
        (self.client, self.headers, self.is_brief) = (client, headers, false);
        self.copy(view, fields, view.path());
    }

    /// Copies only the parts for a story. `id` is the `x-request-id` of the client.
    pub(super) fn fill_briefly(&mut self, view: HeadView<'_>, id: &[u8]) {
        (self.client, self.headers, self.is_brief) = (None, HeaderCopy::default(), true);
        self.copy(view, [b"", b"", id], b"");
    }

    fn copy(&mut self, view: HeadView<'_>, fields: [&[u8]; 3], path: &[u8]) {
        let [agent, forwarded, id] = fields;
        let parts: [&[u8]; PARTS] =
            [view.method_name(), view.authority(), view.target(), agent, forwarded, id, path];
        let block = &mut self.block;
        block.clear();
        block.reserve(parts.iter().map(|part| part.len()).sum());
        self.ends = parts.map(|part| {
            block.extend_from_slice(part);
            block.len()
        });
        self.protocol = protocol(view);
    }

    pub(super) fn part(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.block[start..self.ends[index]]
    }
}

/// The protocol of a request, for the log.
pub(super) fn protocol(view: HeadView<'_>) -> &'static str {
    view.head.version.name()
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
