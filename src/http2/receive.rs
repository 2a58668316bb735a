//! Turns a decoded header block into a [`Head`] with offsets into a text, as for HTTP/1.1.
//!
//! The stream of a malformed block (RFC 9113 8.1.1) is reset. A well-formed block that HTTP/1.1
//! would interpret differently is refused and never repaired (RFC 9113 10.3).

use super::websocket;
use crate::error::Refusal;
use crate::hpack::Fields;
use crate::http1::chunked;
use crate::http1::framing;
use crate::message::{Field, Head, Limits, Method, Span, Version};
use crate::runtime::buffer::Buf;

/// The overhead of a field line, which is added to the lengths of its name and value (RFC 9113
/// 6.5.2).
const FIELD_OVERHEAD_BYTES: usize = 32;

/// A block that decodes to this many times `limits.header_bytes` ends its connection.
const EXPANSION_MAX: usize = 4;

/// The position of a header block in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The head of a request.
    Request,
    /// The head of a response, interim or final.
    Response,
    /// The fields after the body.
    Trailers,
}

/// The reason why a header block is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The stream is reset with PROTOCOL_ERROR (RFC 9113 8.1.1) or H3_MESSAGE_ERROR (RFC 9114
    /// 4.1.2).
    Malformed(&'static str),
    /// A request gets this response, or the response of an endpoint is replaced by it.
    Refused(Refusal),
    /// The fields are larger than `limits.header_bytes`.
    TooLarge,
}

/// A decoded header block. It is complete after [`Message::finish`].
#[derive(Debug)]
pub struct Message {
    /// The lines of the head or of the trailers, each with CR LF.
    pub text: Vec<u8>,
    /// Offsets into `text`. Not used for trailers.
    pub head: Head,
    /// The reason why the block is not accepted. The first fault counts.
    pub fault: Option<Fault>,
    /// The value of Content-Length.
    pub content_length: Option<u64>,
    place: Place,
    header_bytes: usize,
    /// The size of all fields as defined in RFC 9113 6.5.2.
    size_bytes: usize,
    pseudo: Pseudo,
    /// A field other than a pseudo-field was read.
    regular: bool,
    has_host: bool,
    cookies: Vec<Span>,
    sensitive_cookie: bool,
}

/// The received pseudo-header fields (RFC 9113 8.3).
#[derive(Debug, Default)]
struct Pseudo {
    method: Option<Span>,
    scheme: bool,
    path: Option<Span>,
    authority: Option<Span>,
    protocol: Option<Protocol>,
    status: Option<u16>,
}

/// The value of `:protocol` (RFC 8441 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    WebSocket,
    Unknown,
}

impl Message {
    /// Creates an empty block of HTTP/2 or HTTP/3. `limits.header_bytes` limits its size.
    pub fn new(place: Place, version: Version, limits: &Limits) -> Self {
        Self {
            text: Vec::with_capacity(256),
            head: Head { version, ..Head::default() },
            fault: None,
            content_length: None,
            place,
            header_bytes: limits.header_bytes,
            size_bytes: 0,
            pseudo: Pseudo::default(),
            regular: false,
            has_host: false,
            cookies: Vec::new(),
            sensitive_cookie: false,
        }
    }

    /// Whether the block decodes to several times the limit. This must be an attack.
    pub fn is_way_too_large(&self) -> bool {
        self.size_bytes > EXPANSION_MAX * self.header_bytes
    }

    /// Completes the block. `ends` means that the block has END_STREAM.
    pub fn finish(&mut self, ends: bool, limits: &Limits) {
        self.head.ends = ends;
        if self.fault.is_none() {
            let finished = match self.place {
                Place::Request => self.finish_request(),
                Place::Response => self.finish_response(),
                Place::Trailers => Ok(()),
            };
            self.fault = finished.err();
        }
        if self.fault.is_none() && self.head.fields.len() > limits.headers {
            self.fault = Some(Fault::Refused(match self.place {
                Place::Request => Refusal { status: 431, ..bad("the request has too many fields") },
                _ => Refusal::upstream("the response has too many fields"),
            }));
        }
        self.head.len = self.text.len();
    }

    fn finish_request(&mut self) -> Result<(), Fault> {
        self.begin_regular()?;
        let Pseudo { method, scheme, path, authority, protocol, .. } = &self.pseudo;
        let Some(method) = *method else { return Err(Fault::Malformed("no :method")) };
        let connect = method.of(&self.text) == b"CONNECT";
        let target = match (connect && protocol.is_none(), path) {
            (true, Some(_)) => return Err(Fault::Malformed(":path with CONNECT")),
            (true, None) if *scheme => return Err(Fault::Malformed(":scheme with CONNECT")),
            (true, None) => authority.ok_or(Fault::Malformed("CONNECT without :authority"))?,
            (false, None) => return Err(Fault::Malformed("no :path")),
            (false, Some(_)) if !scheme => return Err(Fault::Malformed("no :scheme")),
            (false, Some(path)) => *path,
        };
        if protocol.is_some() && !connect {
            return Err(Fault::Malformed(":protocol without CONNECT"));
        }
        if *protocol == Some(Protocol::Unknown) {
            let detail = "an extended CONNECT to an unknown protocol";
            return Err(Fault::Refused(Refusal::downstream(501, detail)));
        }
        self.head.method_span = method;
        if protocol.is_some() {
            // HTTP/1.1 requests a WebSocket with GET. Use GET here too, so that routes and rules
            // match the same method.
            self.head.method_span = self.put(b"GET");
            self.head.ends = false;
        }
        self.head.method = Method::from_bytes(self.head.method_span.of(&self.text));
        self.head.target = target;
        let target = target.of(&self.text);
        let asterisk = target == b"*" && self.head.method == Method::Options;
        if self.head.method != Method::Connect && !target.starts_with(b"/") && !asterisk {
            return Err(Fault::Refused(bad(":path does not begin with a slash")));
        }
        if !self.has_host {
            return Err(Fault::Refused(bad("neither :authority nor host")));
        }
        self.put_cookies();
        Ok(())
    }

    fn finish_response(&mut self) -> Result<(), Fault> {
        let Some(status) = self.pseudo.status else { return Err(Fault::Malformed("no :status")) };
        self.head.status = status;
        let detail = match status {
            101 => "status 101 is not allowed in HTTP/2 and HTTP/3", // RFC 9113 8.6, RFC 9114 4.5
            100..600 => return Ok(()),
            // The same text as for HTTP/1.1.
            _ => "the response has a status outside 100 to 599",
        };
        Err(Fault::Refused(Refusal::upstream(detail)))
    }

    /// Copies the head to the end of `buf`, and shifts its offsets.
    pub fn place(&mut self, buf: &mut Buf) {
        if buf.room() < self.text.len() {
            buf.grow(buf.len() + self.text.len());
        }
        let base = buf.window().end;
        buf.append(&self.text);
        self.head.shift(base);
    }

    /// Whether the request asks for a WebSocket by extended CONNECT (RFC 8441 5).
    pub fn is_websocket(&self) -> bool {
        self.pseudo.protocol == Some(Protocol::WebSocket)
    }

    /// Whether the method of the request is safe.
    pub fn is_safe(&self) -> bool {
        let method = self.pseudo.method;
        method.is_some_and(|method| Method::from_bytes(method.of(&self.text)).is_safe())
    }

    /// Adds the fields of an HTTP/1.1 upgrade to a WebSocket request. Sec-WebSocket-Key is the
    /// base64 of `nonce`.
    pub fn upgrade(&mut self, nonce: [u8; 16]) {
        self.put_upgrade();
        self.put_field(websocket::KEY.as_bytes(), websocket::key(nonce).as_bytes(), false);
        self.head.len = self.text.len();
    }

    /// Turns a successful response to an extended CONNECT into the status 101 of HTTP/1.1. `key` is
    /// the Sec-WebSocket-Key of the request.
    pub fn switch(&mut self, key: &[u8]) {
        if !(200..300).contains(&self.head.status) {
            return;
        }
        self.head.status = 101;
        self.put_upgrade();
        self.put_field(websocket::ACCEPT.as_bytes(), websocket::accept(key).as_bytes(), false);
        self.head.len = self.text.len();
    }

    fn put_upgrade(&mut self) {
        for (name, value) in framing::upgrade_fields(websocket::PROTOCOL) {
            self.put_field(name.as_bytes(), value.as_bytes(), false);
        }
    }

    fn put(&mut self, part: &[u8]) -> Span {
        let start = self.text.len();
        self.text.extend_from_slice(part);
        Span::new(start, start + part.len())
    }

    /// Writes a field line in the format of HTTP/1.1, so that the line can be copied unchanged.
    fn put_field(&mut self, name: &[u8], value: &[u8], sensitive: bool) {
        let name = self.put(name);
        self.text.extend_from_slice(b": ");
        let value = self.put(value);
        self.text.extend_from_slice(b"\r\n");
        if self.place != Place::Trailers {
            self.head.fields.push(Field { name, value, sensitive });
        }
    }

    /// Joins the cookie fields to one line for HTTP/1.1 (RFC 9113 8.2.3).
    fn put_cookies(&mut self) {
        let cookies = std::mem::take(&mut self.cookies);
        if cookies.is_empty() {
            return;
        }
        let name = self.put(b"cookie");
        self.text.extend_from_slice(b": ");
        let start = self.text.len();
        for (number, cookie) in cookies.iter().enumerate() {
            if number > 0 {
                self.text.extend_from_slice(b"; ");
            }
            self.text.extend_from_within(cookie.start as usize..cookie.end());
        }
        let value = Span::new(start, self.text.len());
        self.text.extend_from_slice(b"\r\n");
        self.head.fields.push(Field { name, value, sensitive: self.sensitive_cookie });
    }

    /// Writes Host from `:authority` before the first regular field.
    fn begin_regular(&mut self) -> Result<(), Fault> {
        if self.regular {
            return Ok(());
        }
        self.regular = true;
        match (self.place, self.pseudo.authority) {
            (Place::Request, Some(authority)) => {
                let name = self.put(b"host");
                self.text.extend_from_slice(b": ");
                let start = self.text.len();
                self.text.extend_from_within(authority.start as usize..authority.end());
                let value = Span::new(start, self.text.len());
                self.text.extend_from_slice(b"\r\n");
                self.head.fields.push(Field { name, value, sensitive: false });
                self.has_host = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn pseudo_field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Fault> {
        if self.regular || self.place == Place::Trailers {
            return Err(Fault::Malformed("a pseudo-field after other fields"));
        }
        if !is_value(value) {
            return Err(Fault::Malformed("a forbidden character in a pseudo-field"));
        }
        let is_request = self.place == Place::Request;
        let again = match name {
            b":method" if is_request => {
                if !crate::message::is_token(value) {
                    return Err(Fault::Malformed(":method is not a token"));
                }
                let span = self.put(value);
                self.pseudo.method.replace(span).is_some()
            }
            b":path" if is_request && !value.is_empty() => {
                let span = self.put(value);
                self.pseudo.path.replace(span).is_some()
            }
            b":authority" if is_request => {
                let span = self.put(value);
                self.pseudo.authority.replace(span).is_some()
            }
            b":scheme" if is_request && is_scheme(value) => {
                std::mem::replace(&mut self.pseudo.scheme, true)
            }
            b":protocol" if is_request => {
                let known = match value == websocket::PROTOCOL.as_bytes() {
                    true => Protocol::WebSocket,
                    false => Protocol::Unknown,
                };
                self.pseudo.protocol.replace(known).is_some()
            }
            b":status" if !is_request => {
                let status = status(value).ok_or(Fault::Malformed(":status is not a number"))?;
                self.pseudo.status.replace(status).is_some()
            }
            _ => return Err(Fault::Malformed("an unknown or invalid pseudo-field")),
        };
        match again {
            true => Err(Fault::Malformed("the same pseudo-field twice")),
            false => Ok(()),
        }
    }

    fn regular_field(&mut self, name: &[u8], value: &[u8], sensitive: bool) -> Result<(), Fault> {
        self.begin_regular()?;
        if name.is_empty() || !name.iter().all(|&byte| NAME_BYTES[byte as usize]) {
            return Err(Fault::Malformed("a field name with a forbidden character"));
        }
        if !is_value(value) {
            return Err(Fault::Malformed("a field value with a forbidden character"));
        }
        if framing::is_of_connections(name) {
            return Err(Fault::Malformed("a connection-specific field"));
        }
        if value.trim_ascii().len() != value.len() {
            // White space around a value is not allowed (RFC 9113 8.2.1).
            return Err(self.refused("a field value with white space around it"));
        }
        match (name, self.place) {
            (b"te", Place::Request) if !value.eq_ignore_ascii_case(b"trailers") => {
                return Err(Fault::Malformed("te has a value other than trailers"));
            }
            (_, Place::Trailers) if chunked::is_forbidden_trailer(name) => {
                return Err(self.refused("a trailer with a field that belongs in the head"));
            }
            (b"host", Place::Request) => return self.host_field(name, value, sensitive),
            (b"cookie", Place::Request) => {
                let span = self.put(value);
                self.cookies.push(span);
                self.sensitive_cookie |= sensitive;
                return Ok(());
            }
            (name, Place::Request | Place::Response)
                if name == framing::LENGTH_FIELD.as_bytes() =>
            {
                let length = length(value).ok_or(Fault::Malformed("an invalid content-length"))?;
                if self.content_length.replace(length).is_some_and(|other| other != length) {
                    return Err(Fault::Malformed("content-length has two values"));
                }
            }
            _ => {}
        }
        self.put_field(name, value, sensitive);
        Ok(())
    }

    /// A Host field must have the value of `:authority` (RFC 9113 8.3.1).
    fn host_field(&mut self, name: &[u8], value: &[u8], sensitive: bool) -> Result<(), Fault> {
        match self.pseudo.authority {
            Some(authority) if authority.of(&self.text).eq_ignore_ascii_case(value) => Ok(()),
            Some(_) => Err(self.refused(":authority and host differ")),
            None if self.has_host => Err(self.refused("more than one host")),
            None => {
                self.has_host = true;
                self.put_field(name, value, sensitive);
                Ok(())
            }
        }
    }

    fn refused(&self, detail: &'static str) -> Fault {
        Fault::Refused(match self.place {
            Place::Request => bad(detail),
            Place::Response | Place::Trailers => Refusal::upstream(detail),
        })
    }
}

impl Fields for Message {
    fn field(&mut self, name: &[u8], value: &[u8], never_indexed: bool) {
        self.size_bytes += name.len() + value.len() + FIELD_OVERHEAD_BYTES;
        if self.size_bytes > self.header_bytes {
            self.fault.get_or_insert(Fault::TooLarge);
        }
        if self.fault.is_some() {
            return;
        }
        let taken = match name.first() {
            Some(b':') => self.pseudo_field(name, value),
            _ => self.regular_field(name, value, never_indexed),
        };
        self.fault = taken.err();
    }
}

/// The bytes of a field name: those of a token, except upper case (RFC 9113 8.2.1).
const NAME_BYTES: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut number = 0;
    while number < allowed.len() {
        let byte = number as u8;
        allowed[number] = byte.is_ascii_lowercase()
            || byte.is_ascii_digit()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        number += 1;
    }
    allowed
};

/// Whether `value` has no control characters except tabs (RFC 9110 5.5).
pub(super) fn is_value(value: &[u8]) -> bool {
    value.iter().fold(true, |all, &byte| all & ((byte >= 0x20 && byte != 0x7f) | (byte == b'\t')))
}

/// Whether `value` is a scheme (RFC 3986 3.1).
fn is_scheme(value: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    value.first().is_some_and(u8::is_ascii_alphabetic) && value.iter().all(is_part)
}

fn status(value: &[u8]) -> Option<u16> {
    let &[a, b, c] = value else { return None };
    let digits = [a, b, c].map(|byte| byte.wrapping_sub(b'0'));
    let [a, b, c] = digits.map(u16::from);
    (digits.iter().all(|&digit| digit <= 9)).then_some(a * 100 + b * 10 + c)
}

fn length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok())?
}

const fn bad(detail: &'static str) -> Refusal {
    Refusal::downstream(400, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::parse;

    /// Converts the fields of a request. Returns method, target and fields as text, or the status
    /// of the refusal.
    fn request(fields: &[(&str, &str)]) -> Result<String, u16> {
        let limits = Limits::default();
        let mut message = Message::new(Place::Request, Version::Http2, &limits);
        for (name, value) in fields {
            message.field(name.as_bytes(), value.as_bytes(), false);
        }
        message.finish(true, &limits);
        if message.fault.is_none() && message.is_websocket() {
            message.upgrade(*b"0123456789abcdef");
        }
        match message.fault {
            None => {}
            Some(Fault::Malformed(_)) => return Err(1),
            Some(Fault::Refused(refusal)) => return Err(refusal.status),
            Some(Fault::TooLarge) => return Err(431),
        }
        let Message { text, mut head, .. } = message;
        parse::understand(&text, &limits, &mut head).map_err(|refusal| refusal.status)?;
        let view = head.view(&text);
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let mut said = format!("{} {}", text(view.method_name()), text(view.target()));
        for (name, value) in view.fields() {
            said += &format!(" {}={}", text(name), text(value));
        }
        Ok(said)
    }

    const GET: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "https"), (":path", "/p?q"), (":authority", "a:1")];

    #[test]
    fn requests_are_heads_like_others() {
        for (fields, expected) in [
            (vec![], "GET /p?q host=a:1"),
            (vec![("x-a", "1"), ("x-a", "2")], "GET /p?q host=a:1 x-a=1 x-a=2"),
            (vec![("host", "A:1"), ("te", "trailers")], "GET /p?q host=a:1 te=trailers"),
            (
                vec![("cookie", "a=1"), ("x-b", ""), ("cookie", "b=2")],
                "GET /p?q host=a:1 x-b= cookie=a=1; b=2",
            ),
            (vec![("content-length", "0")], "GET /p?q host=a:1 content-length=0"),
        ] {
            let fields = [&GET[..], &fields].concat();
            assert_eq!(request(&fields).as_deref(), Ok(expected), "{fields:?}");
        }
        let without_authority = [&GET[..3], &[("x-a", "1"), ("host", "b")]].concat();
        assert_eq!(request(&without_authority).as_deref(), Ok("GET /p?q x-a=1 host=b"));
        let connect = [(":method", "CONNECT"), (":authority", "a:443")];
        assert_eq!(request(&connect).as_deref(), Ok("CONNECT a:443 host=a:443"));
    }

    #[test]
    fn malformed_requests_cost_their_stream_and_ambiguous_ones_are_refused() {
        const MALFORMED: u16 = 1;
        for (fields, expected) in [
            (vec![("", "x")], MALFORMED),
            (vec![("X-A", "x")], MALFORMED),
            (vec![("x\"a", "x")], MALFORMED),
            (vec![("x a", "x")], MALFORMED),
            (vec![("x-a", "a\nb")], MALFORMED),
            (vec![("x-a", "a\0b")], MALFORMED),
            (vec![("connection", "close")], MALFORMED),
            (vec![("transfer-encoding", "chunked")], MALFORMED),
            (vec![("upgrade", "h2c")], MALFORMED),
            (vec![("te", "gzip")], MALFORMED),
            (vec![("x-a", "1"), (":path", "/")], MALFORMED),
            (vec![(":path", "/")], MALFORMED),
            (vec![(":status", "200")], MALFORMED),
            (vec![(":other", "200")], MALFORMED),
            (vec![("content-length", "-1")], MALFORMED),
            (vec![("content-length", "1"), ("content-length", "2")], MALFORMED),
            (vec![(":protocol", "websocket")], MALFORMED),
            (vec![("host", "b")], 400),
            (vec![("x-a", " b")], 400),
            (vec![("x-a", &"y".repeat(70_000))], 431),
        ] {
            let fields = [&GET[..], &fields].concat();
            assert_eq!(request(&fields), Err(expected), "{:?}", fields.get(4).map(|f| f.0));
        }
        for (fields, expected) in [
            (vec![GET[0], GET[1], GET[2]], 400),
            (vec![GET[0], GET[1], GET[2], ("host", "b"), ("host", "b")], 400),
            (vec![GET[0], GET[1], GET[3]], MALFORMED),
            (vec![GET[0], GET[2], GET[3]], MALFORMED),
            (vec![GET[1], GET[2], GET[3]], MALFORMED),
            (vec![GET[0], GET[1], GET[3], (":path", "")], MALFORMED),
            (vec![GET[0], GET[1], GET[3], (":path", "*")], 400),
            (vec![GET[0], GET[1], GET[2], (":authority", "a b")], 400),
            (vec![(":method", "CONNECT"), GET[1], GET[2], GET[3]], MALFORMED),
            (vec![(":method", "CONNECT")], MALFORMED),
            (vec![(":method", "G T"), GET[1], GET[2], GET[3]], MALFORMED),
        ] {
            assert_eq!(request(&fields), Err(expected), "{fields:?}");
        }
        let many: Vec<_> = (0..200).map(|_| ("x", "y")).collect();
        assert_eq!(request(&[&GET[..], &many].concat()), Err(431));
    }

    #[test]
    fn an_extended_connect_is_the_upgrade_of_http1() {
        let connect =
            |protocol| [(":method", "CONNECT"), (":protocol", protocol), GET[1], GET[2], GET[3]];
        let said = request(&connect("websocket")).unwrap();
        assert!(
            said.starts_with("GET /p?q host=a:1 connection=upgrade upgrade=websocket"),
            "{said}"
        );
        assert!(said.contains("sec-websocket-key=MDEyMzQ1Njc4OWFiY2RlZg=="), "{said}");
        assert_eq!(request(&connect("connect-udp")), Err(501));
    }
}
