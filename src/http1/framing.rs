//! Decides the length of a message and whether its connection stays open. Only this file reads
//! Content-Length, Transfer-Encoding, Connection, Upgrade and Expect (RFC 9112 6 and 9; RFC 9113
//! 8.1 for HTTP/2).
//!
//! A message that two readers could interpret differently is refused.

use crate::error::Refusal;
use crate::message::{HeadView, Method, Version, elements, is_named, is_token};

/// The body of a message on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// No body.
    None,
    /// A body of this many bytes.
    Length(u64),
    /// A body in chunked coding.
    Chunked,
    /// A body that ends when the connection closes. Only for responses.
    UntilClose,
    /// A body that ends with END_STREAM of its HTTP/2 stream.
    Stream {
        /// The value of content-length, if there is one.
        length: Option<u64>,
    },
}

impl Body {
    /// Whether HTTP/1.1 sends the body in chunks, because its length is unknown.
    pub fn is_chunked(self) -> bool {
        matches!(self, Self::Chunked | Self::Stream { length: None })
    }
}

/// How a request is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFraming {
    /// The body of the request.
    pub body: Body,
    /// The HTTP version of the request.
    pub version: Version,
    /// The client wants to keep the connection open.
    pub keep_alive: bool,
    /// The client waits for status 100 before it sends the body. The expectation is ignored without
    /// a body and in HTTP/1.0 (RFC 9110 10.1.1).
    pub expect_continue: bool,
    /// The client asks for another protocol on the connection. An upgrade to `h2c` is ignored: RFC
    /// 9113 3.1 removed it, and requests in such a tunnel would bypass every rule.
    pub upgrade: bool,
    /// The Connection field names other fields, which are for this hop only.
    pub names_fields: bool,
}

/// How a response is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseFraming {
    /// The body of the response.
    pub body: Body,
    /// The endpoint wants to keep the connection open.
    pub keep_alive: bool,
    /// The connection becomes a tunnel after the head: status 101, or 2xx to CONNECT.
    pub switches: bool,
    /// The Connection field names other fields, which are for this hop only.
    pub names_fields: bool,
    /// Only END_STREAM signals an empty body; there is no content-length.
    pub unsaid: bool,
    /// The response cannot have a body, so its content-length is not forwarded (RFC 9110 8.6).
    pub no_length: bool,
}

impl ResponseFraming {
    /// Returns the framing of the same response with a body of unknown length, because the body
    /// will be rewritten. `None` if there is no body.
    pub fn with_unknown_length(self) -> Option<Self> {
        let is_there = self.body != Body::None;
        is_there.then_some(Self { body: Body::Stream { length: None }, ..self })
    }

    /// Whether the response must tell a client with `version` that the body is empty. Only
    /// the end of the stream signalled it. An HTTP/1 client would otherwise read until the
    /// connection closes.
    pub fn is_empty_for(&self, version: Version) -> bool {
        self.unsaid && !version.is_multiplexed()
    }
}

/// The values of the framing fields, as received.
#[derive(Default)]
struct Said {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrade_listed: bool,
    upgrade: bool,
    expect: Option<bool>,
    names_fields: bool,
}

/// Decides the framing of a request.
///
/// # Errors
/// 400 if the framing is ambiguous, 417 for an unknown expectation, 501 for an unknown coding.
pub fn request(view: HeadView<'_>) -> Result<RequestFraming, Refusal> {
    let version = view.head.version;
    let said = read(view)?;
    if said.chunked && version == Version::Http10 {
        return Err(bad("Transfer-Encoding in an HTTP/1.0 request"));
    }
    let body = match said {
        // An HTTP/2 client may wait for status 100 before it ends its stream. With a length of 0,
        // the proxy sends no 100, so it must not wait for the end of the stream.
        Said { length: Some(0), expect: Some(true), .. } => Body::None,
        _ if version.is_multiplexed() => body_of_stream(view, &said),
        Said { chunked: true, .. } => Body::Chunked,
        Said { length: Some(length @ 1..), .. } => Body::Length(length),
        _ => Body::None,
    };
    if view.head.method == Method::Connect && body != Body::None {
        return Err(bad("CONNECT with a body"));
    }
    let expect_continue = match said.expect {
        None => false,
        Some(true) => version != Version::Http10 && body != Body::None,
        Some(false) => return Err(Refusal { status: 417, ..bad("an unknown expectation") }),
    };
    let upgrade = said.upgrade && said.upgrade_listed && version != Version::Http10;
    // A client may send the first bytes of a tunnel before it gets the answer. If the proxy refuses
    // the CONNECT, it must not read these bytes as requests, so the connection closes.
    let tunnel = view.head.method == Method::Connect && !version.is_multiplexed();
    let keep_alive = keeps_alive(&said, version) && !tunnel;
    let names_fields = said.names_fields;
    Ok(RequestFraming { body, version, keep_alive, expect_continue, upgrade, names_fields })
}

/// Decides the framing of the response to a `method` request.
///
/// # Errors
/// 502 if the framing is ambiguous, or if the response is an unrequested 101.
pub fn response(
    view: HeadView<'_>,
    method: Method,
    upgrade_requested: bool,
) -> Result<ResponseFraming, Refusal> {
    let said = read(view).map_err(|refusal| Refusal::upstream(refusal.detail))?;
    let status = view.head.status;
    if said.chunked && view.head.version == Version::Http10 {
        return Err(Refusal::upstream("Transfer-Encoding in an HTTP/1.0 response"));
    }
    let names_fields = said.names_fields;
    let keep_alive = keeps_alive(&said, view.head.version);
    let bodiless = ResponseFraming {
        body: Body::None,
        keep_alive,
        switches: false,
        names_fields,
        unsaid: false,
        no_length: false,
    };
    if status == 101 {
        if !upgrade_requested || !said.upgrade {
            return Err(Refusal::upstream("status 101 without an upgrade request"));
        }
        return Ok(ResponseFraming { switches: true, no_length: true, ..bodiless });
    }
    let successful = (200..300).contains(&status);
    if method == Method::Connect && successful {
        // Any 2xx to CONNECT starts a tunnel (RFC 9110 9.3.6).
        return Ok(ResponseFraming { switches: true, no_length: true, ..bodiless });
    }
    if status < 200 || status == 204 {
        // A server must send neither Transfer-Encoding (RFC 9112 6.1) nor Content-Length (RFC 9110
        // 8.6).
        if said.chunked || said.length.is_some_and(|length| length > 0) {
            return Err(Refusal::upstream("a body in a response that cannot have one"));
        }
        return Ok(ResponseFraming { no_length: true, ..bodiless });
    }
    if method == Method::Head || status == 304 {
        return Ok(bodiless);
    }
    let (body, keep_alive) = match said {
        _ if view.head.version.is_multiplexed() => (body_of_stream(view, &said), true),
        Said { chunked: true, .. } => (Body::Chunked, keep_alive),
        Said { length: Some(0), .. } => (Body::None, keep_alive),
        Said { length: Some(length), .. } => (Body::Length(length), keep_alive),
        _ => (Body::UntilClose, false),
    };
    let unsaid = view.head.ends && said.length.is_none();
    Ok(ResponseFraming { body, keep_alive, unsaid, ..bodiless })
}

/// Returns the body of an HTTP/2 or HTTP/3 message. A tunnel has no body.
fn body_of_stream(view: HeadView<'_>, said: &Said) -> Body {
    let tunnel = view.head.method == Method::Connect || said.upgrade;
    if view.head.ends || tunnel { Body::None } else { Body::Stream { length: said.length } }
}

/// Whether a field is specific to an HTTP/1.1 connection and not allowed in HTTP/2 and HTTP/3
/// (RFC 9113 8.2.2, RFC 9114 4.2). `name` is in lower case.
pub fn is_of_connections(name: &[u8]) -> bool {
    matches!(
        name,
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade"
    )
}

/// Fields that decide the framing of a message. Only the proxy writes them.
pub const FRAMING_FIELDS: [&str; 5] =
    ["content-length", "transfer-encoding", "connection", "upgrade", "te"];

/// The field with the length of a body, in lower case.
pub const LENGTH_FIELD: &str = "content-length";

/// The fields that request or confirm an upgrade of an HTTP/1.1 connection to `protocol` (RFC 9110
/// 7.8).
pub fn upgrade_fields(protocol: &'static str) -> [(&'static str, &'static str); 2] {
    [("connection", "upgrade"), ("upgrade", protocol)]
}

/// Whether `name` is the Expect field.
pub fn is_expect(name: &[u8]) -> bool {
    is_named(name, b"expect")
}

/// Whether `name` is the Upgrade field.
pub fn is_upgrade(name: &[u8]) -> bool {
    is_named(name, b"upgrade")
}

/// Whether the Connection field names `name`, so that the field is not forwarded. Fields that
/// define the message are forwarded anyway: without them, the endpoint would get a different
/// request. Upgrade has its own rules.
pub fn is_named_by_connection(view: HeadView<'_>, name: &[u8]) -> bool {
    const ESSENTIAL: [&[u8]; 5] =
        [b"host", b"content-length", b"content-type", b"cookie", b"upgrade"];
    if ESSENTIAL.iter().any(|essential| essential.eq_ignore_ascii_case(name)) {
        return false;
    }
    view.values(b"connection").flat_map(elements).any(|token| token.eq_ignore_ascii_case(name))
}

fn read(view: HeadView<'_>) -> Result<Said, Refusal> {
    let mut said = Said::default();
    let mut lengths = 0;
    let mut codings = 0;
    for (name, value) in view.fields() {
        match name.len() {
            6 if is_named(name, b"expect") => {
                said.expect = Some(is_named(value, b"100-continue"));
            }
            7 if is_named(name, b"upgrade") => {
                let given_up = elements(value).any(|token| is_named(token, b"h2c"));
                said.upgrade = !value.is_empty() && !given_up;
            }
            10 if is_named(name, b"connection") => read_connection(value, &mut said),
            14 if is_named(name, b"content-length") => {
                lengths += 1;
                said.length = Some(length_of(value)?);
            }
            17 if is_named(name, b"transfer-encoding") => {
                codings += 1;
                check_coding(value)?;
                said.chunked = true;
            }
            _ => {}
        }
    }
    match (lengths, codings) {
        (0 | 1, 0) | (0, 1) => Ok(said),
        (1.., 1..) => Err(bad("both Content-Length and Transfer-Encoding")),
        (2.., _) => Err(bad("more than one Content-Length")),
        _ => Err(bad("more than one Transfer-Encoding")),
    }
}

/// Checks that the value of Transfer-Encoding is `chunked` and nothing else.
fn check_coding(value: &[u8]) -> Result<(), Refusal> {
    if is_named(value, b"chunked") {
        return Ok(());
    }
    let well_formed = elements(value).all(is_token);
    match well_formed && elements(value).any(|token| !is_named(token, b"chunked")) {
        true => Err(Refusal { status: 501, ..bad("an unknown transfer coding") }), // RFC 9112 6.1
        false => Err(bad("a Transfer-Encoding that is not well formed")),
    }
}

fn read_connection(value: &[u8], said: &mut Said) {
    for token in elements(value) {
        match token.len() {
            5 if is_named(token, b"close") => said.close = true,
            10 if is_named(token, b"keep-alive") => said.keep_alive = true,
            7 if is_named(token, b"upgrade") => said.upgrade_listed = true,
            0 => {}
            _ => said.names_fields = true,
        }
    }
}

fn keeps_alive(said: &Said, version: Version) -> bool {
    match version {
        Version::Http11 => !said.close,
        Version::Http10 => said.keep_alive && !said.close,
        Version::Http2 | Version::Http3 => true,
    }
}

/// Parses the value of Content-Length: `1*DIGIT` (RFC 9110 8.6) and nothing else.
fn length_of(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(bad("Content-Length is not a number"));
    }
    let mut length: u64 = 0;
    for digit in value {
        let next = length.checked_mul(10).and_then(|ten| ten.checked_add(u64::from(digit - b'0')));
        length = next.ok_or(bad("Content-Length is too large"))?;
    }
    Ok(length)
}

const fn bad(detail: &'static str) -> Refusal {
    Refusal::downstream(400, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::parse;
    use crate::message::Head;
    use crate::message::Limits;

    fn of_request(line: &str, fields: &str) -> Result<RequestFraming, u16> {
        let text = format!("{line}\r\nHost: x\r\n{fields}\r\n");
        let mut head = Head::default();
        let limits = Limits::default();
        parse::request(text.as_bytes(), 0..text.len(), &limits, &mut head).unwrap();
        request(head.view(text.as_bytes())).map_err(|refusal| refusal.status)
    }

    fn of_response(line: &str, fields: &str, method: Method) -> Result<ResponseFraming, u16> {
        let text = format!("{line}\r\n{fields}\r\n");
        let mut head = Head::default();
        let limits = Limits::default();
        parse::response(text.as_bytes(), 0..text.len(), &limits, &mut head).unwrap();
        response(head.view(text.as_bytes()), method, false).map_err(|refusal| refusal.status)
    }

    #[test]
    fn bodies_of_requests() {
        const POST: &str = "POST / HTTP/1.1";
        for (fields, body) in [
            ("", Ok(Body::None)),
            ("Content-Length: 0\r\n", Ok(Body::None)),
            ("content-length: 18446744073709551615\r\n", Ok(Body::Length(u64::MAX))),
            ("Transfer-Encoding: Chunked\r\n", Ok(Body::Chunked)),
            ("Content-Length: 18446744073709551616\r\n", Err(400)),
            ("Content-Length: \r\n", Err(400)),
            ("Content-Length: +1\r\n", Err(400)),
            ("Content-Length: -1\r\n", Err(400)),
            ("Content-Length: 0x1\r\n", Err(400)),
            ("Content-Length: 1 2\r\n", Err(400)),
            ("Content-Length: 1, 1\r\n", Err(400)),
            ("Content-Length: 1\r\nContent-Length: 1\r\n", Err(400)),
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", Err(400)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(400)),
            ("Transfer-Encoding: chunked, chunked\r\n", Err(400)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(501)),
            ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", Err(501)),
            ("Transfer-Encoding: identity\r\n", Err(501)),
            ("Transfer-Encoding: xchunked\r\n", Err(501)),
            ("Transfer-Encoding: gzip;q=1, chunked\r\n", Err(400)),
            ("Transfer-Encoding: chunked,\r\n", Err(400)),
            ("Transfer-Encoding: \"chunked\"\r\n", Err(400)),
            ("Transfer-Encoding: chunked;a=b\r\n", Err(400)),
            ("Transfer-Encoding: \r\n", Err(400)),
        ] {
            assert_eq!(of_request(POST, fields).map(|framing| framing.body), body, "{fields}");
        }
        let connect = "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\nContent-Length: 1\r\n\r\n";
        let mut head = Head::default();
        let limits = Limits::default();
        parse::request(connect.as_bytes(), 0..connect.len(), &limits, &mut head).unwrap();
        assert!(request(head.view(connect.as_bytes())).is_err());
        let old = of_request("POST / HTTP/1.0", "Transfer-Encoding: chunked\r\n");
        assert_eq!(old, Err(400));
    }

    #[test]
    fn what_becomes_of_the_connection() {
        for (line, fields, keep_alive, upgrade) in [
            ("GET / HTTP/1.1", "", true, false),
            ("GET / HTTP/1.1", "Connection: close\r\n", false, false),
            ("GET / HTTP/1.1", "Connection: x, Close\r\n", false, false),
            ("GET / HTTP/1.0", "", false, false),
            ("GET / HTTP/1.0", "Connection: keep-alive\r\n", true, false),
            ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n", true, true),
            ("GET / HTTP/1.1", "Upgrade: websocket\r\n", true, false),
            ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: H2C\r\n", true, false),
            ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: x, h2c\r\n", true, false),
            ("GET / HTTP/1.0", "Connection: Upgrade\r\nUpgrade: websocket\r\n", false, false),
        ] {
            let framing = of_request(line, fields).unwrap();
            assert_eq!((framing.keep_alive, framing.upgrade), (keep_alive, upgrade), "{fields}");
        }
        assert_eq!(of_request("GET / HTTP/1.1", "Expect: tea\r\n"), Err(417));
        for (line, fields, waits) in [
            ("PUT / HTTP/1.1", "Expect: 100-Continue\r\nContent-Length: 1\r\n", true),
            ("PUT / HTTP/1.1", "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", true),
            ("PUT / HTTP/1.1", "Expect: 100-continue\r\nContent-Length: 0\r\n", false),
            ("PUT / HTTP/1.1", "Expect: 100-continue\r\n", false),
            ("PUT / HTTP/1.0", "Expect: 100-continue\r\nContent-Length: 1\r\n", false),
        ] {
            assert_eq!(of_request(line, fields).unwrap().expect_continue, waits, "{line} {fields}");
        }
    }

    #[test]
    fn bodies_of_responses() {
        use Method::{Connect, Get, Head};
        const OK: &str = "HTTP/1.1 200 OK";
        for (line, fields, method, body) in [
            (OK, "Content-Length: 5\r\n", Get, Ok(Body::Length(5))),
            (OK, "Content-Length: 5\r\n", Head, Ok(Body::None)),
            (OK, "Transfer-Encoding: chunked\r\n", Get, Ok(Body::Chunked)),
            (OK, "", Get, Ok(Body::UntilClose)),
            (OK, "Content-Length: 5\r\n", Connect, Ok(Body::None)),
            ("HTTP/1.1 304 Not Modified", "Content-Length: 5\r\n", Get, Ok(Body::None)),
            ("HTTP/1.1 204 No Content", "", Get, Ok(Body::None)),
            ("HTTP/1.1 204 No Content", "Transfer-Encoding: chunked\r\n", Get, Err(502)),
            ("HTTP/1.1 204 No Content", "Content-Length: 5\r\n", Get, Err(502)),
            ("HTTP/1.1 100 Continue", "", Get, Ok(Body::None)),
            ("HTTP/1.1 101 Switching Protocols", "Upgrade: x\r\n", Get, Err(502)),
            (OK, "Content-Length: 5\r\nContent-Length: 5\r\n", Get, Err(502)),
            (OK, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Get, Err(502)),
            ("HTTP/1.0 200 OK", "Transfer-Encoding: chunked\r\n", Get, Err(502)),
        ] {
            let framing = of_response(line, fields, method);
            assert_eq!(framing.map(|framing| framing.body), body, "{line} {fields} {method:?}");
        }
        assert!(!of_response(OK, "", Get).unwrap().keep_alive, "its end is the connection's");
    }
}
