//! The head of a request or a response, as offsets into the block of bytes that contains it.
//!
//! Fields are not copied out of the block. The block of an HTTP/1 head is its received bytes; an
//! HTTP/2 head is decoded into such a block. A [`Head`] is reused by later exchanges, so its field
//! table is allocated once per concurrent exchange.

use super::Method;

/// A range of bytes in the block: `start..start + len`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte from the start of the block.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

impl Span {
    /// Creates the span `start..end`. `limits.header_bytes` keeps blocks far below `u32::MAX`.
    pub fn new(start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end <= u32::MAX as usize);
        Self { start: start as u32, len: (end - start) as u32 }
    }

    /// The offset after the last byte.
    pub fn end(self) -> usize {
        self.start as usize + self.len as usize
    }

    /// The bytes of the span. Empty if it does not lie within `block`.
    pub fn of(self, block: &[u8]) -> &[u8] {
        block.get(self.start as usize..self.end()).unwrap_or_default()
    }

    /// True when the span is empty.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// One field line: its name in the received case, and its value without outer white space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// The position of the name.
    pub name: Span,
    /// The position of the value.
    pub value: Span,
    /// HPACK and QPACK must never put the field into a table (RFC 7541 7.1.3, RFC 9204 7.1.3).
    pub sensitive: bool,
}

/// The HTTP version of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0 (RFC 1945). The connection closes after the response unless both sides agreed on
    /// `keep-alive`.
    Http10,
    /// HTTP/1.1 (RFC 9112).
    #[default]
    Http11,
    /// HTTP/2 (RFC 9113). Heads have no hop-by-hop fields, and bodies end with their stream.
    Http2,
    /// HTTP/3 (RFC 9114). Heads and bodies are like those of HTTP/2.
    Http3,
}

impl Version {
    /// Whether a message has a stream of its own, as in HTTP/2 and HTTP/3: the stream ends the
    /// body, trailers need no chunks, and the connection stays open after the message.
    pub const fn is_multiplexed(self) -> bool {
        matches!(self, Self::Http2 | Self::Http3)
    }

    /// The name for the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
            Self::Http3 => "HTTP/3",
        }
    }
}

/// The head of one message. Requests use `method`, `target`, `authority` and `path`; responses use
/// `status` and `reason`.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// The version from the start line.
    pub version: Version,
    /// The request method.
    pub method: Method,
    /// The name of the method (for [`Method::Other`] and for logs).
    pub method_span: Span,
    /// The request target as received (RFC 9112 3.2): origin, absolute, authority or `*` form.
    pub target: Span,
    /// Host and optional port, from an absolute-form or authority-form target, else from the Host
    /// field. Empty if an HTTP/1.0 request has neither.
    pub authority: Span,
    /// The path of the target without its query: `*` for asterisk-form, and empty for
    /// authority-form. It is also empty for an absolute-form target without a path, which means
    /// "/".
    pub path: Span,
    /// The query after `?`, without the `?`. Empty if there is none.
    pub query: Span,
    /// The status code of a response, 100 to 599.
    pub status: u16,
    /// The reason phrase of a response.
    pub reason: Span,
    /// The field lines in the order received.
    pub fields: Vec<Field>,
    /// The length of the complete head in bytes, from [`Head::start`] to the end of the empty line.
    pub len: usize,
    /// The offset of the start line in the block.
    pub start: usize,
    /// Only HTTP/2 and HTTP/3: whether the stream ends with the head.
    pub ends: bool,
}

impl Head {
    /// Clears the head but keeps the memory of the field table.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// Adds `bytes` to all offsets, because the head was copied that far into another block.
    pub fn shift(&mut self, bytes: usize) {
        let bytes = bytes as u32;
        for field in &mut self.fields {
            field.name.start += bytes;
            field.value.start += bytes;
        }
        let Self { method_span, target, authority, path, query, reason, .. } = self;
        for span in [method_span, target, authority, path, query, reason] {
            span.start += bytes;
        }
        self.start += bytes as usize;
    }

    /// The head together with its block.
    pub fn view<'a>(&'a self, block: &'a [u8]) -> HeadView<'a> {
        HeadView { head: self, block }
    }
}

/// A [`Head`] and its block. Modules without I/O read messages in this form.
#[derive(Clone, Copy)]
pub struct HeadView<'a> {
    /// The offsets into the block.
    pub head: &'a Head,
    /// The bytes of the head.
    pub block: &'a [u8],
}

impl<'a> HeadView<'a> {
    /// The name of the method.
    pub fn method_name(&self) -> &'a [u8] {
        self.head.method_span.of(self.block)
    }

    /// The request target, as received.
    pub fn target(&self) -> &'a [u8] {
        self.head.target.of(self.block)
    }

    /// The host with an optional port: see [`Head::authority`].
    pub fn authority(&self) -> &'a [u8] {
        self.head.authority.of(self.block)
    }

    /// The path. An empty path counts as "/", except for CONNECT, which has no path.
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

    /// The values of all fields called `name` (case-insensitive), in order.
    pub fn values<'n>(&self, name: &'n [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.fields()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The first value of the field called `name` (case-insensitive).
    pub fn value(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.values(name).next()
    }
}
