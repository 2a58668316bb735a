//! Converts HTTP/2 heads to a [`Head`], with offsets into a block, like HTTP/1.1.
//!
//! The `h2` crate checks pseudo-fields, names and lengths (RFC 9113 8). Input that the crate
//! accepts but HTTP/1.1 would read differently is refused here and never repaired (RFC 9113 10.3).

use h2::ext::Protocol;
use http::header::{COOKIE, HOST};
use http::request::Parts;
use http::{HeaderMap, StatusCode};

use super::websocket;
use crate::error::Refusal;
use crate::http1::chunked;
use crate::http1::framing;
use crate::message::Limits;
use crate::message::{Field, Head, Method, Span, Version};

/// Writes the head of a request to `out` and fills `head`. `out` will be at the offset `base` of
/// its block. `ends`: the stream has no body. `nonce` is for the key of an HTTP/1.1 upgrade.
///
/// # Errors
/// 400 if HTTP/1.1 cannot express the request or could understand it in two ways, 431 for too many
/// fields, 501 for an extended CONNECT to anything but a WebSocket.
pub fn request_head(
    out: &mut Vec<u8>,
    base: usize,
    parts: &Parts,
    ends: bool,
    nonce: impl FnOnce() -> [u8; 16],
    limits: &Limits,
    head: &mut Head,
) -> Result<(), Refusal> {
    let mut writer = Writer::begin(out, base, head);
    let protocol = parts.extensions.get::<Protocol>();
    if protocol.is_some_and(|protocol| protocol.as_str() != websocket::PROTOCOL) {
        return Err(Refusal::downstream(501, "an extended CONNECT to an unknown protocol"));
    }
    // HTTP/1.1 requests a WebSocket with GET. Use GET here too, so that routes and rules see the
    // same method.
    let method = if protocol.is_some() { "GET" } else { parts.method.as_str() };
    writer.head.method = Method::from_bytes(method.as_bytes());
    writer.head.method_span = writer.put(method.as_bytes());
    writer.head.ends = ends && protocol.is_none();
    writer.put_target(parts)?;
    writer.put_host(parts)?;
    writer.put_cookies(&parts.headers);
    writer.put_fields(&parts.headers, &[HOST, COOKIE]).map_err(bad)?;
    if protocol.is_some() {
        writer.put_upgrade();
        writer.field(websocket::KEY, websocket::key(nonce()).as_bytes());
    }
    writer.finish();
    if head.fields.len() > limits.headers {
        return Err(Refusal { status: 431, ..bad("the request has too many fields") });
    }
    Ok(())
}

/// Writes the head of a response to `out`, like [`request_head`]. `asked_with` is the key of an
/// upgrade request; with it, 200 means the 101 of HTTP/1.1.
///
/// # Errors
/// 502 if HTTP/1.1 cannot express the response, and for too many fields.
pub fn response_head(
    out: &mut Vec<u8>,
    base: usize,
    (status, fields): (StatusCode, &HeaderMap),
    ends: bool,
    asked_with: Option<&[u8]>,
    limits: &Limits,
    head: &mut Head,
) -> Result<(), Refusal> {
    let mut writer = Writer::begin(out, base, head);
    writer.head.status = status.as_u16();
    writer.head.ends = ends;
    if status.as_u16() == 101 {
        return Err(Refusal::upstream("101 in HTTP/2")); // RFC 9113 8.6
    }
    if status.as_u16() > 599 {
        // The same text as for HTTP/1.1.
        return Err(Refusal::upstream("the response has a status outside 100 to 599"));
    }
    if fields.len() > limits.headers {
        return Err(Refusal::upstream("the response has too many fields"));
    }
    writer.put_fields(fields, &[]).map_err(Refusal::upstream)?;
    if let (Some(key), true) = (asked_with, status.is_success()) {
        writer.head.status = 101;
        writer.put_upgrade();
        writer.field(websocket::ACCEPT, websocket::accept(key).as_bytes());
    }
    writer.finish();
    Ok(())
}

/// The trailers as lines of HTTP/1.1, each with CR LF.
///
/// # Errors
/// The detail of a refusal: a field that may not stand in a trailer.
pub fn trailer_lines(fields: &HeaderMap) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(64);
    for (name, value) in fields {
        check_name(name)?;
        let name = name.as_str();
        if framing::is_of_connections(name) || chunked::is_forbidden_trailer(name.as_bytes()) {
            return Err("a trailer with a field that belongs into the head");
        }
        for part in [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    Ok(out)
}

/// The crate accepts one byte in names that is not part of a token (RFC 9110 5.6.2).
fn check_name(name: &http::HeaderName) -> Result<(), &'static str> {
    match name.as_str().contains('"') {
        true => Err("a field name is not a token"),
        false => Ok(()),
    }
}

/// Writes the parts of a head and records their positions.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    base: usize,
    head: &'a mut Head,
}

impl<'a> Writer<'a> {
    fn begin(out: &'a mut Vec<u8>, base: usize, head: &'a mut Head) -> Self {
        head.clear();
        head.version = Version::Http2;
        head.start = base;
        Self { out, base, head }
    }

    fn put(&mut self, part: &[u8]) -> Span {
        let start = self.base + self.out.len();
        self.out.extend_from_slice(part);
        Span::new(start, start + part.len())
    }

    fn field(&mut self, name: &str, value: &[u8]) {
        let field = Field { name: self.put(name.as_bytes()), value: self.put(value) };
        self.head.fields.push(field);
    }

    fn put_upgrade(&mut self) {
        for (name, value) in framing::upgrade_fields(websocket::PROTOCOL) {
            self.field(name, value.as_bytes());
        }
    }

    fn finish(&mut self) {
        self.head.len = self.out.len();
    }

    fn put_target(&mut self, parts: &Parts) -> Result<(), Refusal> {
        let target = match self.head.method {
            Method::Connect => parts.uri.authority().map_or("", http::uri::Authority::as_str),
            _ => parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str),
        };
        let asterisk = target == "*" && self.head.method == Method::Options;
        if self.head.method != Method::Connect && !target.starts_with('/') && !asterisk {
            return Err(bad("a :path that does not begin with a slash"));
        }
        self.head.target = self.put(target.as_bytes());
        Ok(())
    }

    /// Writes the host from `:authority`. A Host field must have the same value (RFC 9113 8.3.1).
    fn put_host(&mut self, parts: &Parts) -> Result<(), Refusal> {
        let mut hosts = parts.headers.get_all(HOST).iter().map(http::HeaderValue::as_bytes);
        let (host, more) = (hosts.next(), hosts.next());
        if more.is_some() {
            return Err(bad("more than one host"));
        }
        let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
        if let (Some(host), Some(authority)) = (host, authority)
            && !host.eq_ignore_ascii_case(authority)
        {
            return Err(bad(":authority and host differ"));
        }
        let Some(host) = authority.or(host) else {
            return Err(bad("neither :authority nor host"));
        };
        self.field("host", host);
        Ok(())
    }

    /// Joins cookie fields to one line for HTTP/1.1 (RFC 9113 8.2.3).
    fn put_cookies(&mut self, fields: &HeaderMap) {
        let mut cookies = fields.get_all(COOKIE).iter();
        let Some(first) = cookies.next() else { return };
        self.field("cookie", first.as_bytes());
        for more in cookies {
            self.put(b"; ");
            self.put(more.as_bytes());
        }
        let end = self.base + self.out.len();
        if let Some(field) = self.head.fields.last_mut() {
            field.value = Span::new(field.value.start as usize, end);
        }
    }

    fn put_fields(
        &mut self,
        fields: &HeaderMap,
        but: &[http::HeaderName],
    ) -> Result<(), &'static str> {
        self.head.fields.reserve(fields.len() + 1);
        for (name, value) in fields {
            if but.contains(name) {
                continue;
            }
            if framing::is_of_connections(name.as_str()) {
                return Err("a field of HTTP/1.1 connections in HTTP/2");
            }
            check_name(name)?;
            let value = value.as_bytes();
            if value.trim_ascii().len() != value.len() {
                return Err("a field value with white space around it"); // RFC 9113 8.2.1
            }
            self.field(name.as_str(), value);
        }
        Ok(())
    }
}

const fn bad(detail: &'static str) -> Refusal {
    Refusal::downstream(400, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::parse;

    /// Converts a request and returns its target, host and fields as text.
    fn head_of(uri: &str, fields: &[(&str, &str)], ends: bool) -> Result<String, u16> {
        let mut request = http::Request::builder().uri(uri).method("GET");
        for (name, value) in fields {
            // Like the crate does for received names.
            let name = http::HeaderName::from_lowercase(name.as_bytes()).unwrap();
            request = request.header(name, *value);
        }
        read(request.body(()).unwrap(), ends)
    }

    fn read(request: http::Request<()>, ends: bool) -> Result<String, u16> {
        let (parts, ()) = request.into_parts();
        let (mut out, mut head) = (Vec::new(), Head::default());
        let limits = Limits::default();
        let nonce = || *b"0123456789abcdef";
        let made = request_head(&mut out, 7, &parts, ends, nonce, &limits, &mut head);
        let block = [&[0; 7][..], &out].concat();
        made.and_then(|()| parse::understand(&block, &limits, &mut head)).map_err(|r| r.status)?;
        let view = head.view(&block);
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let mut said = format!("{} {}", text(view.method_name()), text(view.target()));
        for (name, value) in view.fields() {
            said += &format!(" {}={}", text(name), text(value));
        }
        Ok(said)
    }

    #[test]
    fn requests_are_heads_like_others() {
        let x = "https://a:8443/p?q";
        for (uri, fields, expected) in [
            (x, &[][..], "GET /p?q host=a:8443"),
            (x, &[("x-a", "1"), ("x-a", "2")], "GET /p?q host=a:8443 x-a=1 x-a=2"),
            (
                "/",
                &[("host", "b"), ("cookie", "a=1"), ("te", "trailers"), ("cookie", "b=2")],
                "GET / host=b cookie=a=1; b=2 te=trailers",
            ),
            ("http://A/", &[("host", "a")], "GET / host=A"),
        ] {
            assert_eq!(head_of(uri, fields, true).as_deref(), Ok(expected), "{uri}");
        }
    }

    #[test]
    fn what_http1_would_understand_otherwise_is_refused() {
        for (uri, fields, status) in [
            ("/", &[][..], 400),
            ("http://a/", &[("host", "b")], 400),
            ("/", &[("host", "a"), ("host", "b")], 400),
            ("/", &[("host", "a b")], 400),
            ("http://a/", &[("transfer-encoding", "chunked")], 400),
            ("http://a/", &[("connection", "close")], 400),
            ("http://a/", &[("upgrade", "h2c")], 400),
            ("http://a/", &[("x-a", " b")], 400),
            ("http://a/", &[("x\"a", "b")], 400),
            ("*", &[("host", "a")], 400),
        ] {
            assert_eq!(head_of(uri, fields, true), Err(status), "{uri} {fields:?}");
        }
    }

    #[test]
    fn an_extended_connect_is_the_upgrade_of_http1() {
        let connect = |protocol: &'static str| {
            let request = http::Request::builder().method("CONNECT").uri("https://a/chat");
            request.extension(Protocol::from_static(protocol)).body(()).unwrap()
        };
        let said = read(connect("websocket"), false).unwrap();
        assert!(
            said.starts_with("GET /chat host=a connection=upgrade upgrade=websocket"),
            "{said}"
        );
        assert!(said.contains("sec-websocket-key=MDEyMzQ1Njc4OWFiY2RlZg=="), "{said}");
        assert_eq!(read(connect("connect-udp"), false), Err(501));
    }
}
