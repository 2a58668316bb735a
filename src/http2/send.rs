//! A head as `http1::encode` writes it, as the `h2` crate takes it.
//!
//! The text is ours: it has one space after each colon and CR LF at each end, so taking it apart is
//! a search for two bytes. Values share the text's memory.

use std::cell::RefCell;

use bytes::Bytes;
use h2::ext::Protocol;
use http::header::COOKIE;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
};

use super::{names, websocket};
use crate::error::Refusal;
use crate::http1::framing;

/// The head of a request on its way to an endpoint.
pub struct Outbound {
    /// For the crate.
    pub request: Request<()>,
    /// The key of a request for an upgrade: the endpoint is asked by extended CONNECT.
    pub asked_with: Option<HeaderValue>,
}

/// A request out of its text. `secure`: it goes through TLS. `last_authority` is that of the
/// request before it on the same connection, mostly the same.
///
/// # Errors
/// 400 for what HTTP/2 cannot say; among it an upgrade to anything but a WebSocket (501).
pub fn request(
    head: &[u8],
    secure: bool,
    last_authority: &RefCell<Option<Authority>>,
) -> Result<Outbound, Refusal> {
    let text = Bytes::copy_from_slice(head);
    let (line, mut rest) = first_line(&text);
    let mut words = line.split(|&byte| byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut host = Bytes::new();
    let mut upgrade = Bytes::new();
    let mut fields = HeaderMap::with_capacity(fields_in(&text));
    while let Some((name, value)) = next_field(&text, &mut rest) {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => host = value,
            6 if name.eq_ignore_ascii_case(b"cookie") => put_cookies(&mut fields, &value)?,
            7 if framing::is_upgrade(name) => upgrade = value,
            _ => put(&mut fields, name, value)?,
        }
    }
    let connect = method == b"CONNECT";
    let websocket = !upgrade.is_empty();
    // Only GET asks for a WebSocket (RFC 6455 4.1): extended CONNECT could not say another method.
    let is_websocket = upgrade.eq_ignore_ascii_case(websocket::PROTOCOL.as_bytes());
    if websocket && (!is_websocket || method != b"GET") {
        return Err(UNSPEAKABLE_UPGRADE);
    }
    let key = if websocket { fields.remove(websocket::KEY) } else { None };
    let mut uri = http::uri::Parts::default();
    uri.authority = Some(authority(host, last_authority)?);
    if !connect {
        uri.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
        let target = text.slice_ref(target);
        uri.path_and_query =
            Some(PathAndQuery::from_maybe_shared(target).map_err(|_| UNSPEAKABLE)?);
    }
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| UNSPEAKABLE)?;
    *request.headers_mut() = fields;
    if websocket {
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static(websocket::PROTOCOL));
    } else {
        *request.method_mut() = Method::from_bytes(method).map_err(|_| UNSPEAKABLE)?;
    }
    Ok(Outbound { request, asked_with: key })
}

/// `host` as an authority: the last one if it is the same, which saves a look at each byte.
fn authority(host: Bytes, last: &RefCell<Option<Authority>>) -> Result<Authority, Refusal> {
    let mut last = last.borrow_mut();
    if let Some(last) = &*last
        && last.as_str().as_bytes() == host
    {
        return Ok(last.clone());
    }
    // In memory of its own, because it stays: what it comes from is a whole head.
    let own = Bytes::copy_from_slice(&host);
    let authority = Authority::from_maybe_shared(own).map_err(|_| UNSPEAKABLE)?;
    Ok(last.insert(authority).clone())
}

/// A response out of its text. 101 is the 200 with which a tunnel begins.
///
/// # Errors
/// 502 for what HTTP/2 cannot say.
pub fn response(head: &[u8]) -> Result<Response<()>, Refusal> {
    let text = Bytes::copy_from_slice(head);
    let (line, mut rest) = first_line(&text);
    let status = line.get(9..12).unwrap_or_default();
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_bytes(status).map_err(|_| UNSPEAKABLE_ANSWER)?;
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let mut fields = HeaderMap::with_capacity(fields_in(&text));
    while let Some((name, value)) = next_field(&text, &mut rest) {
        if !(switches && name.eq_ignore_ascii_case(websocket::ACCEPT.as_bytes())) {
            put(&mut fields, name, value).map_err(|_| UNSPEAKABLE_ANSWER)?;
        }
    }
    if switches {
        *response.status_mut() = StatusCode::OK;
    }
    *response.headers_mut() = fields;
    Ok(response)
}

/// Trailers out of their lines.
///
/// # Errors
/// The detail of a refusal.
pub fn trailers(lines: &[u8]) -> Result<HeaderMap, Refusal> {
    let text = Bytes::copy_from_slice(lines);
    let mut rest = 0;
    let mut fields = HeaderMap::new();
    while let Some((name, value)) = next_field(&text, &mut rest) {
        let value = text.slice_ref(value.trim_ascii());
        put(&mut fields, name, value)?;
    }
    Ok(fields)
}

/// How many fields a head has, about: each has a line, as have its beginning and its end. A map
/// that grows while it is filled costs more than its fields, and so does one with too much room.
fn fields_in(head: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', head).count().saturating_sub(2)
}

fn first_line(text: &Bytes) -> (&[u8], usize) {
    let end = memchr::memchr(b'\n', text).unwrap_or(text.len());
    (text[..end].trim_ascii_end(), (end + 1).min(text.len()))
}

/// The field whose line begins at `rest`, which moves on.
fn next_field<'a>(text: &'a Bytes, rest: &mut usize) -> Option<(&'a [u8], Bytes)> {
    let line = &text[*rest..];
    let end = memchr::memchr(b'\n', line)?;
    *rest += end + 1;
    let line = line[..end].trim_ascii_end();
    let colon = memchr::memchr(b':', line)?;
    Some((&line[..colon], text.slice_ref(line[colon + 1..].trim_ascii_start())))
}

/// Adds a field, unless it is about connections of HTTP/1.1.
fn put(fields: &mut HeaderMap, name: &[u8], value: Bytes) -> Result<(), Refusal> {
    let mut value = HeaderValue::from_maybe_shared(value).map_err(|_| UNSPEAKABLE)?;
    let name = match names::known(name) {
        Some(known) => {
            value.set_sensitive(known.changes);
            known.name.clone()
        }
        None => {
            let name = HeaderName::from_bytes(name).map_err(|_| UNSPEAKABLE)?;
            if framing::is_of_connections(name.as_str()) {
                return Ok(());
            }
            name
        }
    };
    fields.try_append(name, value).map_err(|_| UNSPEAKABLE)?;
    Ok(())
}

/// One field a cookie: HPACK finds those again that stay the same (RFC 9113 8.2.3).
fn put_cookies(fields: &mut HeaderMap, cookies: &Bytes) -> Result<(), Refusal> {
    for cookie in cookies.split(|&byte| byte == b';') {
        let cookie = cookies.slice_ref(cookie.trim_ascii());
        let value = HeaderValue::from_maybe_shared(cookie).map_err(|_| UNSPEAKABLE)?;
        fields.try_append(COOKIE, value).map_err(|_| UNSPEAKABLE)?;
    }
    Ok(())
}

const UNSPEAKABLE: Refusal = Refusal::downstream(400, "a request that cannot be said in HTTP/2");

/// For an upgrade that HTTP/2 does not have: to another protocol, by another method, with a body.
pub(super) const UNSPEAKABLE_UPGRADE: Refusal = Refusal { status: 501, ..UNSPEAKABLE };

const UNSPEAKABLE_ANSWER: Refusal = Refusal::upstream("a response that cannot be said in HTTP/2");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_said_in_http2() {
        for (text, expected) in [
            (
                "GET /p?q HTTP/1.1\r\nHost: a:1\r\nX-A: 1\r\nx-a: 2\r\nConnection: te\r\n\
                 TE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n",
                "GET http://a:1/p?q {\"x-a\": \"1\", \"x-a\": \"2\", \"te\": \"trailers\"}",
            ),
            (
                "POST * HTTP/1.1\r\nHost: a\r\nCookie: b=1; c=2\r\n\r\n",
                "POST http://a* {\"cookie\": \"b=1\", \"cookie\": \"c=2\"}",
            ),
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
            let Outbound { request, .. } =
                request(text.as_bytes(), false, &RefCell::default()).unwrap();
            let said = format!("{} {} {:?}", request.method(), request.uri(), request.headers());
            assert_eq!(said, expected, "{text}");
        }
    }

    #[test]
    fn what_http2_cannot_say_is_refused() {
        for (text, status) in [
            ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: foo\r\nConnection: upgrade\r\n\r\n", 501),
            ("PUT / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", 501),
            ("GET / HTTP/1.1\r\nHost: \r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nx-a: \x7f\r\n\r\n", 400),
        ] {
            let made = request(text.as_bytes(), true, &RefCell::default());
            assert_eq!(made.map_err(|refusal| refusal.status).err(), Some(status));
        }
    }

    #[test]
    fn responses_and_trailers_are_said_in_http2() {
        let said = |text: &str| {
            let response = response(text.as_bytes()).unwrap();
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
