//! The head of a request or a response: offsets into the block of bytes that holds it.
//!
//! Nothing is copied out of the block and no field gets a string of its own: an HTTP/1 head is
//! its received bytes, HTTP/2 and HTTP/3 heads are decoded into one such block. A [`Head`] is
//! reused from exchange to exchange, so its field table is allocated once per concurrent exchange.

use super::Method;

/// A run of bytes in the block: `start..start + len`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte from the start of the block.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

impl Span {
    /// The span `start..end`. Blocks are limited by `limits.header_bytes`, far below `u32::MAX`.
    pub fn new(start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end <= u32::MAX as usize);
        Self { start: start as u32, len: (end - start) as u32 }
    }

    /// One past the last byte.
    pub fn end(self) -> usize {
        self.start as usize + self.len as usize
    }

    /// The bytes of the span; empty if it does not lie within `block`.
    pub fn of(self, block: &[u8]) -> &[u8] {
        block.get(self.start as usize..self.end()).unwrap_or_default()
    }

    /// True when nothing is in it.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// One field line: its name with the case it came in, and its value without outer white space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// The name.
    pub name: Span,
    /// The value.
    pub value: Span,
}

/// The HTTP version a peer speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// RFC 1945: closes after the response unless `keep-alive` was agreed.
    Http10,
    /// RFC 9112.
    #[default]
    Http11,
    /// RFC 9113. Its heads come without the fields of connections, its bodies end by themselves.
    Http2,
}

/// The head of one message. `method`, `target`, `authority` and `path` mean something in a
/// request, `status` and `reason` in a response.
#[derive(Debug, Default)]
pub struct Head {
    /// Version from the start line.
    pub version: Version,
    /// Request method.
    pub method: Method,
    /// The method's bytes (for [`Method::Other`] and for logs).
    pub method_span: Span,
    /// The request target as received (RFC 9112 3.2): origin, absolute, authority or `*` form.
    pub target: Span,
    /// Host and optional port: of the absolute-form or authority-form target, else of Host.
    /// Empty when an HTTP/1.0 request has neither.
    pub authority: Span,
    /// The path of the target without its query; empty for authority-form, `*` for asterisk-form,
    /// and empty (meaning "/") for an absolute-form target without a path.
    pub path: Span,
    /// The query after `?`, without the `?`; empty when there is none.
    pub query: Span,
    /// Response status code, 100..=599.
    pub status: u16,
    /// Response reason phrase.
    pub reason: Span,
    /// The field lines in the order received.
    pub fields: Vec<Field>,
    /// Bytes of the whole head, start line to the empty line that ends it, from block offset
    /// [`Head::start`].
    pub len: usize,
    /// Block offset of the start line.
    pub start: usize,
    /// In HTTP/2: nothing follows the head.
    pub ends: bool,
}

impl Head {
    /// Forgets the message and keeps the field table's memory.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// The head together with the block its offsets point into.
    pub fn view<'a>(&'a self, block: &'a [u8]) -> HeadView<'a> {
        HeadView { head: self, block }
    }
}

/// A [`Head`] and its block: the form in which the dry rooms read a message.
#[derive(Clone, Copy)]
pub struct HeadView<'a> {
    /// The offsets.
    pub head: &'a Head,
    /// The bytes they point into.
    pub block: &'a [u8],
}

impl<'a> HeadView<'a> {
    /// The method's bytes.
    pub fn method_name(&self) -> &'a [u8] {
        self.head.method_span.of(self.block)
    }

    /// The request target as received.
    pub fn target(&self) -> &'a [u8] {
        self.head.target.of(self.block)
    }

    /// Host and optional port.
    pub fn authority(&self) -> &'a [u8] {
        self.head.authority.of(self.block)
    }

    /// The path; "/" stands for an empty one, except in CONNECT where there is none.
    pub fn path(&self) -> &'a [u8] {
        match self.head.path.of(self.block) {
            b"" if self.head.method != Method::Connect => b"/",
            path => path,
        }
    }

    /// The query without its `?`.
    pub fn query(&self) -> &'a [u8] {
        self.head.query.of(self.block)
    }

    /// All field lines as (name, value), in the order received.
    pub fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let block = self.block;
        self.head.fields.iter().map(move |field| (field.name.of(block), field.value.of(block)))
    }

    /// The values of every field called `name` (compared without case), in order.
    pub fn values<'n>(&self, name: &'n [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.fields()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The first value of the field called `name` (compared without case).
    pub fn value(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.values(name).next()
    }
}
