//! A head to send, in the form of the `h2` crate.
//!
//! A head from HTTP/2 already has its fields in the crate's form: fields that must not be forwarded
//! are removed, and the proxy's own fields are added. For any other head, each forwarded field is
//! copied; the values share one copy of the head's memory.

use bytes::Bytes;
use h2::ext::Protocol;
use http::header::{COOKIE, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
};

use super::{names, websocket};
use crate::error::Refusal;
use crate::http1::framing;
use crate::http1::sink::Sink;
use crate::message::{Field, HeadView, is_named};

/// The head of a request for an endpoint.
pub struct Outbound {
    /// The request in the crate's form.
    pub request: Request<()>,
    /// The WebSocket key of an upgrade request. The endpoint gets an extended CONNECT.
    pub asked_with: Option<HeaderValue>,
}

/// The parts of a head from HTTP/2 that can be forwarded unchanged.
pub struct Received {
    /// The fields.
    pub fields: HeaderMap,
    /// The target of a request.
    pub target: Option<PathAndQuery>,
}

/// A head to send. See the module.
pub struct Draft {
    fields: HeaderMap,
    /// The received target.
    came_target: Option<PathAndQuery>,
    /// The memory of copied values, and its offset in the block of the head. `None` if the kept
    /// fields are already in `fields`.
    copy: Option<(Bytes, usize)>,
    method: Method,
    target: Option<PathAndQuery>,
    authority: Option<Authority>,
    /// The authority of the last request, which is likely to repeat.
    last_authority: Option<Authority>,
    status: StatusCode,
    /// The requested protocol. Empty means none.
    upgrade: Bytes,
    /// Whether HTTP/2 cannot express this head.
    unspeakable: bool,
}

impl Draft {
    /// A draft for `head`, which came by HTTP/1.1, or by HTTP/2 without its fields.
    pub fn of(head: HeadView<'_>) -> Self {
        let HeadView { head, block } = head;
        // Allocate enough memory for the fields that the proxy adds. Growing the map later is
        // expensive.
        let fields = HeaderMap::with_capacity(head.fields.len() + 2);
        let text = block.get(head.start..head.start + head.len).unwrap_or_default();
        let copy = Some((Bytes::copy_from_slice(text), head.start));
        Self { copy, ..Self::with(fields, None) }
    }

    /// A draft for a head from HTTP/2.
    pub fn of_received(received: Received) -> Self {
        Self::with(received.fields, received.target)
    }

    fn with(fields: HeaderMap, came_target: Option<PathAndQuery>) -> Self {
        Self {
            fields,
            came_target,
            copy: None,
            method: Method::GET,
            target: None,
            authority: None,
            last_authority: None,
            status: StatusCode::OK,
            upgrade: Bytes::new(),
            unspeakable: false,
        }
    }

    /// Sets the `authority` of the previous request on the connection. It usually repeats, and then
    /// needs no check of each byte.
    pub fn after(mut self, authority: Option<Authority>) -> Self {
        self.last_authority = authority;
        self
    }

    /// Returns the finished request. `secure`: the connection uses TLS.
    ///
    /// # Errors
    /// 400 if HTTP/2 cannot express the request; 501 for an upgrade to anything but a WebSocket.
    pub fn into_request(mut self, secure: bool) -> Result<Outbound, Refusal> {
        let websocket = !self.upgrade.is_empty();
        // A WebSocket request uses GET (RFC 6455 4.1). Extended CONNECT cannot carry another
        // method.
        let is_websocket = self.upgrade.eq_ignore_ascii_case(websocket::PROTOCOL.as_bytes());
        if websocket && (!is_websocket || self.method != Method::GET) {
            return Err(UNSPEAKABLE_UPGRADE);
        }
        if self.unspeakable {
            return Err(UNSPEAKABLE);
        }
        let asked_with = if websocket { self.fields.remove(websocket::KEY) } else { None };
        let mut uri = http::uri::Parts::default();
        uri.authority = self.authority;
        if self.method != Method::CONNECT {
            uri.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
            uri.path_and_query = self.target;
        }
        let mut request = Request::new(());
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_| UNSPEAKABLE)?;
        *request.headers_mut() = self.fields;
        *request.method_mut() = self.method;
        if websocket {
            *request.method_mut() = Method::CONNECT;
            request.extensions_mut().insert(Protocol::from_static(websocket::PROTOCOL));
        }
        Ok(Outbound { request, asked_with })
    }

    /// Returns the finished response. A 101 becomes the 200 that starts a tunnel.
    ///
    /// # Errors
    /// 502 if HTTP/2 cannot express the response.
    pub fn into_response(mut self) -> Result<Response<()>, Refusal> {
        if self.unspeakable {
            return Err(UNSPEAKABLE_ANSWER);
        }
        if self.status == StatusCode::SWITCHING_PROTOCOLS {
            self.status = StatusCode::OK;
            self.fields.remove(websocket::ACCEPT);
        }
        let mut response = Response::new(());
        *response.status_mut() = self.status;
        *response.headers_mut() = self.fields;
        Ok(response)
    }

    fn put_target(&mut self, target: &[&[u8]]) -> Option<()> {
        let whole = match target {
            [whole] => *whole,
            parts => &parts.concat(),
        };
        let came = self.came_target.take().filter(|came| came.as_str().as_bytes() == whole);
        // An unchanged target needs no check of each byte.
        self.target = Some(match came {
            Some(came) => came,
            None => PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(whole)).ok()?,
        });
        Some(())
    }

    fn put(&mut self, name: &[u8], value: Bytes) -> Option<()> {
        match name.len() {
            6 if is_named(name, b"cookie") => return self.put_cookies(&value),
            7 if framing::is_upgrade(name) => {
                self.upgrade = value;
                return Some(());
            }
            _ => {}
        }
        put(&mut self.fields, name, value)
    }

    /// Write one field for each cookie, so that HPACK finds unchanged ones in its table (RFC 9113
    /// 8.2.3).
    fn put_cookies(&mut self, cookies: &Bytes) -> Option<()> {
        for cookie in cookies.split(|&byte| byte == b';') {
            let cookie = cookies.slice_ref(cookie.trim_ascii());
            let value = HeaderValue::from_maybe_shared(cookie).ok()?;
            self.fields.try_append(COOKIE, value).ok()?;
        }
        Some(())
    }

    fn note(&mut self, speakable: Option<()>) {
        self.unspeakable |= speakable.is_none();
    }
}

/// An empty draft, for a head that the proxy makes itself.
impl Default for Draft {
    fn default() -> Self {
        Self::with(HeaderMap::new(), None)
    }
}

impl Sink for Draft {
    fn request_line(&mut self, method: &[u8], target: &[&[u8]]) {
        let known = Method::from_bytes(method).map(|method| self.method = method);
        self.note(known.ok());
        if self.method != Method::CONNECT {
            let put = self.put_target(target);
            self.note(put);
        }
    }

    fn status_line(&mut self, status: u16, _: &[u8]) {
        let known = StatusCode::from_u16(status).map(|status| self.status = status);
        self.note(known.ok());
    }

    fn authority(&mut self, authority: &[u8]) {
        let last = self.last_authority.take();
        self.authority = last
            .filter(|last| last.as_str().as_bytes() == authority)
            .or_else(|| Authority::from_maybe_shared(Bytes::copy_from_slice(authority)).ok());
        self.unspeakable |= self.authority.is_none();
    }

    fn keep(&mut self, field: Field, block: &[u8]) {
        let (name, value) = (field.name.of(block), field.value.of(block));
        if let Some(copy) = &self.copy {
            let value = shared_value(copy, field, value);
            let put = self.put(name, value);
            return self.note(put);
        }
        if let Some(known) = names::known(name).filter(|known| known.changes)
            && let Some(value) = self.fields.get_mut(&known.name)
        {
            value.set_sensitive(true);
        }
    }

    fn leave(&mut self, name: &[u8]) {
        match std::str::from_utf8(name) {
            _ if self.copy.is_some() => {}
            // Most requests have only :authority. Remove Host.
            Ok("host") => drop(self.fields.remove(HOST)),
            Ok(name) => drop(self.fields.remove(name)),
            Err(_) => {}
        }
    }

    fn add(&mut self, name: &[u8], value: &[&[u8]]) {
        let value = match value {
            [b"http"] => Bytes::from_static(b"http"),
            [whole] => Bytes::copy_from_slice(whole),
            parts => parts.concat().into(),
        };
        let put = self.put(name, value);
        self.note(put);
    }

    fn add_hop(&mut self, _: &[u8], _: &[u8]) {}

    fn end(&mut self) {}
}

/// The value of a field, as a slice of the copied head.
fn shared_value((memory, base): &(Bytes, usize), field: Field, value: &[u8]) -> Bytes {
    let start = (field.value.start as usize).wrapping_sub(*base);
    match memory.get(start..start.wrapping_add(value.len())) {
        Some(_) => memory.slice(start..start + value.len()),
        None => Bytes::copy_from_slice(value),
    }
}

/// Parses trailer lines into fields.
///
/// # Errors
/// The detail of a refusal.
pub fn trailers(lines: &[u8]) -> Result<HeaderMap, Refusal> {
    let text = Bytes::copy_from_slice(lines);
    let mut fields = HeaderMap::new();
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let value = text.slice_ref(line[colon + 1..].trim_ascii());
        put(&mut fields, &line[..colon], value).ok_or(UNSPEAKABLE)?;
    }
    Ok(fields)
}

/// Adds a field, unless it is specific to HTTP/1.1 connections. Returns `None` if HTTP/2 cannot
/// express the field.
fn put(fields: &mut HeaderMap, name: &[u8], value: Bytes) -> Option<()> {
    let mut value = HeaderValue::from_maybe_shared(value).ok()?;
    let name = match names::known(name) {
        Some(known) => {
            value.set_sensitive(known.changes);
            known.name.clone()
        }
        None => {
            let name = HeaderName::from_bytes(name).ok()?;
            if framing::is_of_connections(name.as_str()) {
                return Some(());
            }
            name
        }
    };
    fields.try_append(name, value).ok()?;
    Some(())
}

const UNSPEAKABLE: Refusal = Refusal::downstream(400, "a request that HTTP/2 cannot express");

/// The refusal for an upgrade that HTTP/2 does not support: another protocol, another method, or a
/// body.
pub(super) const UNSPEAKABLE_UPGRADE: Refusal = Refusal { status: 501, ..UNSPEAKABLE };

const UNSPEAKABLE_ANSWER: Refusal = Refusal::upstream("a response that HTTP/2 cannot express");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::encode::{self, ClientCert, RequestEdits, ResponseEdits};
    use crate::http1::parse;
    use crate::message::Limits;
    use crate::message::{Head, HeaderEdits};

    const NONE: HeaderEdits = HeaderEdits::none();

    fn edits<'a>(headers: &'a HeaderEdits) -> RequestEdits<'a> {
        RequestEdits {
            host: None,
            target: None,
            client_ip: b"",
            forwarded_proto: "http",
            client_cert: ClientCert::Drop,
            request_id: None,
            via: None,
            token_field: None,
            replaced: &[],
            headers,
        }
    }

    /// Writes a draft for a request from HTTP/1.1, or for `received`.
    fn asked(
        text: &str,
        received: Option<Received>,
        edits: &RequestEdits<'_>,
    ) -> Result<Outbound, Refusal> {
        let (mut head, limits) = (Head::default(), Limits::default());
        parse::request(text.as_bytes(), 0..text.len(), &limits, &mut head).unwrap();
        let view = head.view(text.as_bytes());
        let framing = framing::request(view)?;
        let mut draft = received.map_or_else(|| Draft::of(view), Draft::of_received);
        encode::request(&mut draft, view, &framing, edits);
        draft.into_request(false)
    }

    fn said(outbound: Result<Outbound, Refusal>) -> Result<String, u16> {
        let Outbound { request, .. } = outbound.map_err(|refusal| refusal.status)?;
        let mut fields = request.headers().clone();
        fields.remove("x-forwarded-proto");
        Ok(format!("{} {} {fields:?}", request.method(), request.uri()))
    }

    #[test]
    fn requests_are_said_in_http2() {
        for (text, expected) in [
            (
                "GET /p?q HTTP/1.1\r\nHost: a:1\r\nX-A: 1\r\nx-a: 2\r\nConnection: te\r\n\
                 TE: trailers\r\nContent-Length: 0\r\n\r\n",
                "GET http://a:1/p?q {\"x-a\": \"1\", \"x-a\": \"2\", \"content-length\": \"0\", \
                 \"te\": \"trailers\"}",
            ),
            (
                "POST http://a/?q HTTP/1.1\r\nHost: a\r\nCookie: b=1; c=2\r\n\
                 Transfer-Encoding: chunked\r\n\r\n",
                "POST http://a/?q {\"cookie\": \"b=1\", \"cookie\": \"c=2\"}",
            ),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS http://a* {}"),
            ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "CONNECT a:443 {}"),
            (
                "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: k\r\n\
                 Connection: upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n",
                "CONNECT http://a/chat {\"sec-websocket-version\": \"13\"}",
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: of nothing\r\n\r\n",
                "GET http://a/ {\"sec-websocket-key\": \"of nothing\"}",
            ),
        ] {
            assert_eq!(said(asked(text, None, &edits(&NONE))).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_http2_cannot_say_is_refused() {
        let headers = HeaderEdits { set: vec![("x-a".into(), "\x7f".into())], ..NONE };
        for (text, headers, status) in [
            ("Host: a\r\nUpgrade: foo\r\nConnection: upgrade\r\n\r\n", &NONE, 501),
            ("Host: a\r\n\r\n", &headers, 400),
        ] {
            let text = format!("GET / HTTP/1.1\r\n{text}");
            assert_eq!(said(asked(&text, None, &edits(headers))), Err(status), "{text}");
        }
        let text = "PUT / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
                    Connection: upgrade\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(said(asked(text, None, &edits(&NONE))), Err(501));
    }

    fn came(fields: &[(&'static str, &'static str)], target: &'static str) -> Received {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        Received { fields: map, target: Some(PathAndQuery::from_static(target)) }
    }

    #[test]
    fn what_came_by_http2_goes_on_with_what_is_ours() {
        let headers = HeaderEdits {
            set: vec![("X-Set".into(), "new".into())],
            remove: vec!["x-gone".into()],
            ..HeaderEdits::none()
        };
        let edits = RequestEdits {
            client_ip: b"10.0.0.9",
            target: Some(b"/v2"),
            host: Some(b"inside"),
            replaced: &[("grpc-timeout", Some(b"5m".to_vec()))],
            ..edits(&headers)
        };
        let fields = [
            ("host", "a"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-set", "old"),
            ("x-forwarded-for", "2.2.2.2"),
            ("authorization", "secret"),
            ("x-gone", "1"),
            ("cookie", "a=1"),
            ("grpc-timeout", "9S"),
            ("cookie", "b=2"),
            ("traceparent", "00-1"),
            ("x-gone", "2"),
        ];
        let lines: String =
            fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let text = format!("GET /p HTTP/1.1\r\n{lines}\r\n");
        let outbound = asked(&text, Some(came(&fields, "/p")), &edits).unwrap();
        let sent = outbound.request.headers();
        assert!(sent["traceparent"].is_sensitive() && !sent["x-set"].is_sensitive());
        assert_eq!(outbound.request.uri(), "http://inside/v2");
        let mut lines: Vec<String> = sent
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort_unstable();
        let expected = [
            "authorization: secret",
            "cookie: a=1",
            "cookie: b=2",
            "grpc-timeout: 5m",
            "traceparent: 00-1",
            "x-forwarded-for: 1.1.1.1, 2.2.2.2, 10.0.0.9",
            "x-forwarded-proto: http",
            "x-set: new",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn an_authority_is_asked_for_again() {
        let last = Authority::from_static("a:1");
        for (host, same) in [("a:1", true), ("a:2", false)] {
            let mut draft = Draft::default().after(Some(last.clone()));
            draft.request_line(b"GET", &[b"/"]);
            draft.authority(host.as_bytes());
            let request = draft.into_request(true).unwrap().request;
            assert_eq!(request.uri().to_string(), format!("https://{host}/"));
            let text = request.uri().authority().unwrap().as_str();
            assert_eq!(text.as_ptr() == last.as_str().as_ptr(), same, "{host}");
        }
    }

    #[test]
    fn responses_and_trailers_are_said_in_http2() {
        let said = |text: &str| {
            let (mut head, limits) = (Head::default(), Limits::default());
            parse::response(text.as_bytes(), 0..text.len(), &limits, &mut head).unwrap();
            let view = head.view(text.as_bytes());
            let framing = framing::response(view, crate::message::Method::Get, true).unwrap();
            let (close, keep_alive, dechunk, empty) = (true, false, false, false);
            let (via, replaced, headers) = (None, &[][..], &NONE);
            let edits = ResponseEdits { close, keep_alive, dechunk, empty, via, replaced, headers };
            let mut draft = Draft::of(view);
            encode::response(&mut draft, view, &framing, &edits);
            let response = draft.into_response().unwrap();
            format!("{} {:?}", response.status().as_u16(), response.headers())
        };
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n";
        assert_eq!(said(text), "200 {\"content-length\": \"2\"}");
        let text = "HTTP/1.1 101 \r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
                    sec-websocket-accept: x\r\nsec-websocket-protocol: p\r\n\r\n";
        assert_eq!(said(text), "200 {\"sec-websocket-protocol\": \"p\"}");
        let fields = trailers(b"Grpc-Status: 0\r\nx:  y \r\n").unwrap();
        assert_eq!(format!("{fields:?}"), "{\"grpc-status\": \"0\", \"x\": \"y\"}");
    }
}
