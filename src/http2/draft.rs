//! The head of an outgoing HTTP/2 or HTTP/3 message. `http1::encode` writes the head through a
//! [`Sink`]. The connection encodes it with HPACK or QPACK when the exchange sends it.

use super::receive::is_value;
use super::websocket;
use crate::error::Refusal;
use crate::hpack::{FieldEncoder, Indexing, indexing};
use crate::http1::framing;
use crate::http1::sink::Sink;
use crate::message::{Field, Method, Span, is_named, is_token};

/// The head of an outgoing message before HPACK or QPACK encodes it.
#[derive(Debug, Default)]
pub struct Draft {
    /// All names (in lower case) and values. Each [`Span`] below is a range of this text.
    text: Vec<u8>,
    fields: Vec<Field>,
    method: Span,
    target: Span,
    authority: Span,
    status: u16,
    /// The protocol of the Upgrade field. Empty if there is no such field.
    upgrade: Span,
    /// Whether HTTP/2 and HTTP/3 cannot express this head.
    unspeakable: bool,
}

impl Draft {
    /// The request method.
    pub fn method(&self) -> Method {
        Method::from_bytes(self.method.of(&self.text))
    }

    /// The status of a response. Status 101 becomes 200, which starts a tunnel in HTTP/2 and
    /// HTTP/3.
    pub fn status(&self) -> u16 {
        if self.status == 101 { 200 } else { self.status }
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Whether the request asks for an upgrade. It is sent to the endpoint as extended CONNECT (RFC
    /// 8441).
    pub fn is_upgrade(&self) -> bool {
        !self.upgrade.is_empty()
    }

    /// Checks that HTTP/2 and HTTP/3 can express the request.
    ///
    /// # Errors
    /// 400 if they cannot. 501 for an upgrade that is not a WebSocket upgrade with the method
    /// GET.
    pub fn check_request(&self) -> Result<(), Refusal> {
        // A WebSocket request uses GET (RFC 6455 4.1). Extended CONNECT cannot carry another
        // method.
        let upgrade = self.upgrade.of(&self.text);
        let is_websocket = upgrade.eq_ignore_ascii_case(websocket::PROTOCOL.as_bytes());
        if self.is_upgrade() && (!is_websocket || self.method() != Method::Get) {
            return Err(UNSPEAKABLE_UPGRADE);
        }
        let speakable = !self.unspeakable && !self.authority.is_empty();
        if speakable { Ok(()) } else { Err(UNSPEAKABLE) }
    }

    /// Checks that HTTP/2 and HTTP/3 can express the response.
    ///
    /// # Errors
    /// 502 if they cannot.
    pub fn check_response(&self) -> Result<(), Refusal> {
        if self.unspeakable { Err(UNSPEAKABLE_ANSWER) } else { Ok(()) }
    }

    /// Removes and returns the value of Sec-WebSocket-Key. Extended CONNECT does not use it.
    pub fn take_key(&mut self) -> Vec<u8> {
        self.take(websocket::KEY)
    }

    fn take(&mut self, name: &str) -> Vec<u8> {
        let at = self.fields.iter().position(|field| field.name.of(&self.text) == name.as_bytes());
        match at {
            Some(at) => self.fields.remove(at).value.of(&self.text).to_vec(),
            None => Vec::new(),
        }
    }

    /// Encodes the head of a request with HPACK or QPACK. `secure`: the connection uses TLS.
    pub fn encode_request(&self, encoder: &mut impl FieldEncoder, out: &mut Vec<u8>, secure: bool) {
        let text = &self.text;
        let mut put = |name: &[u8], value: &[u8]| encoder.field(out, name, value, indexing(name));
        let (method, authority) = (self.method.of(text), self.authority.of(text));
        let upgrade = self.is_upgrade();
        put(b":method", if upgrade { b"CONNECT" } else { method });
        if upgrade {
            put(b":protocol", websocket::PROTOCOL.as_bytes());
        }
        if upgrade || self.method() != Method::Connect {
            put(b":scheme", if secure { b"https" } else { b"http" });
            put(b":path", self.target.of(text));
        }
        put(b":authority", authority);
        self.encode_fields(encoder, out);
    }

    /// Encodes the head of a response with HPACK or QPACK.
    pub fn encode_response(&self, encoder: &mut impl FieldEncoder, out: &mut Vec<u8>) {
        let status = self.status();
        let digit = |n: u16| b'0' + (n % 10) as u8;
        let digits = [digit(status / 100), digit(status / 10), digit(status)];
        encoder.field(out, b":status", &digits, Indexing::Table);
        self.encode_fields(encoder, out);
    }

    /// Encodes all fields except the pseudo-header fields (RFC 9113 8.3).
    pub fn encode_fields(&self, encoder: &mut impl FieldEncoder, out: &mut Vec<u8>) {
        for field in &self.fields {
            let (name, value) = (field.name.of(&self.text), field.value.of(&self.text));
            let indexing = if field.sensitive { Indexing::Never } else { indexing(name) };
            encoder.field(out, name, value, indexing);
        }
    }

    /// Reserves memory for a typical head.
    fn reserve(&mut self) {
        self.text.reserve(512);
        self.fields.reserve(16);
    }

    fn put(&mut self, parts: &[&[u8]]) -> Span {
        let start = self.text.len();
        parts.iter().for_each(|part| self.text.extend_from_slice(part));
        Span::new(start, self.text.len())
    }

    fn put_field(&mut self, name: &[u8], value: &[&[u8]], sensitive: bool) {
        match name.len() {
            6 if is_named(name, b"cookie") => return self.put_cookies(value, sensitive),
            7 if framing::is_upgrade(name) => {
                self.upgrade = self.put(value);
                return;
            }
            _ => {}
        }
        let name = self.put_name(name);
        if framing::is_of_connections(name.of(&self.text)) {
            return;
        }
        let value = self.put(value);
        self.fields.push(Field { name, value, sensitive });
    }

    fn put_name(&mut self, name: &[u8]) -> Span {
        let span = self.put(&[name]);
        self.text[span.start as usize..].make_ascii_lowercase();
        span
    }

    /// Writes one field for each cookie, so that HPACK finds unchanged ones in its table (RFC 9113
    /// 8.2.3).
    fn put_cookies(&mut self, value: &[&[u8]], sensitive: bool) {
        let name = self.put_name(b"cookie");
        let whole = self.put(value);
        let mut start = whole.start as usize;
        while start < whole.end() {
            let rest = &self.text[start..whole.end()];
            let len = memchr::memchr(b';', rest).unwrap_or(rest.len());
            let cookie = &rest[..len];
            let begin = start + cookie.len() - cookie.trim_ascii_start().len();
            let value = Span::new(begin, begin + cookie.trim_ascii().len());
            self.fields.push(Field { name, value, sensitive });
            start += len + 1;
        }
    }
}

impl Sink for Draft {
    fn request_line(&mut self, method: &[u8], target: &[&[u8]]) {
        self.reserve();
        self.method = self.put(&[method]);
        self.target = self.put(target);
        self.unspeakable |= !is_token(method) || !is_target(self.target.of(&self.text));
    }

    fn status_line(&mut self, status: u16, _: &[u8]) {
        self.reserve();
        self.status = status;
        self.unspeakable |= !(100..1000).contains(&status);
    }

    fn authority(&mut self, authority: &[u8]) {
        self.authority = self.put(&[authority]);
        self.unspeakable |= !is_target(authority);
    }

    fn keep(&mut self, field: Field, block: &[u8]) {
        // Fields that the proxy received were checked by the parser.
        self.put_field(field.name.of(block), &[field.value.of(block)], field.sensitive);
    }

    fn leave(&mut self, _: &[u8]) {}

    fn add(&mut self, name: &[u8], value: &[&[u8]]) {
        self.unspeakable |= !is_token(name) || !value.iter().all(|part| is_value(part));
        self.put_field(name, value, false);
    }

    fn add_hop(&mut self, _: &[u8], _: &[u8]) {}

    fn end(&mut self) {
        if self.status == 101 {
            self.take(websocket::ACCEPT);
        }
    }
}

/// Whether `text` can be a target or an authority: only printable ASCII characters, no space.
fn is_target(text: &[u8]) -> bool {
    text.iter().all(|byte| (0x21..=0x7e).contains(byte))
}

/// Parses trailer lines, each of which ends with CR LF. Drops connection-specific fields.
pub fn trailers(lines: &[u8]) -> Draft {
    let mut draft = Draft::default();
    for line in lines.split_inclusive(|&byte| byte == b'\n') {
        if let Some(colon) = memchr::memchr(b':', line) {
            draft.add(&line[..colon], &[line[colon + 1..].trim_ascii()]);
        }
    }
    draft
}

const UNSPEAKABLE: Refusal =
    Refusal::downstream(400, "a request that HTTP/2 and HTTP/3 cannot express");

/// The refusal of an upgrade that is not a WebSocket upgrade with GET and without a body, and of a
/// CONNECT with a body.
pub(crate) const UNSPEAKABLE_UPGRADE: Refusal = Refusal { status: 501, ..UNSPEAKABLE };

const UNSPEAKABLE_ANSWER: Refusal =
    Refusal::upstream("a response that HTTP/2 and HTTP/3 cannot express");

#[cfg(test)]
#[path = "draft_tests.rs"]
mod tests;
