//! A request of HTTP/2 as the head of one of HTTP/1.1.

use http::Method;
use http::header::{CONTENT_LENGTH, COOKIE, HOST};
use http::request::Parts;

use crate::error::Refusal;
use crate::http1::framing;

/// How the body of a request comes after its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestBody {
    /// There is none.
    None,
    /// As it is: its length stands in the head.
    Plain,
    /// In chunks.
    Chunked,
}

/// Writes the head of a request to `out`. `ends`: there is no body.
///
/// # Errors
/// 400 for what cannot be said in HTTP/1.1, or could be understood in two ways: it is refused,
/// never guessed (RFC 9113 10.3). 501 for CONNECT.
pub fn request_head(out: &mut Vec<u8>, parts: &Parts, ends: bool) -> Result<RequestBody, Refusal> {
    if parts.method == Method::CONNECT {
        return Err(Refusal::downstream(501, "CONNECT over HTTP/2 is not supported"));
    }
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let asterisk = target == "*" && parts.method == Method::OPTIONS;
    if !target.starts_with('/') && !asterisk {
        return Err(Refusal::downstream(400, "a :path that does not begin with a slash"));
    }
    for part in [parts.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    put_host(out, parts)?;
    let mut cookies = parts.headers.get_all(COOKIE).iter();
    if let Some(first) = cookies.next() {
        // RFC 9113 8.2.3: what came in several lines is one to an HTTP/1.1 peer.
        out.extend_from_slice(b"cookie: ");
        out.extend_from_slice(first.as_bytes());
        for more in cookies {
            out.extend_from_slice(b"; ");
            out.extend_from_slice(more.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    for (name, value) in &parts.headers {
        if name == HOST || name == COOKIE {
            continue;
        }
        if framing::is_of_connections(name.as_str()) {
            return Err(Refusal::downstream(400, "a field of HTTP/1.1 connections in HTTP/2"));
        }
        put(out, name.as_str(), value.as_bytes());
    }
    let body = match (ends, parts.headers.contains_key(CONTENT_LENGTH)) {
        (true, _) => RequestBody::None,
        (false, true) => RequestBody::Plain,
        (false, false) => RequestBody::Chunked,
    };
    if body == RequestBody::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(body)
}

/// `:authority` is the host; a Host beside it must say the same (RFC 9113 8.3.1).
fn put_host(out: &mut Vec<u8>, parts: &Parts) -> Result<(), Refusal> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let (host, more) = (hosts.next(), hosts.next());
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    if more.is_some() {
        return Err(Refusal::downstream(400, "more than one host"));
    }
    let host = host.map(http::HeaderValue::as_bytes);
    if let (Some(host), Some(authority)) = (host, authority)
        && !host.eq_ignore_ascii_case(authority)
    {
        return Err(Refusal::downstream(400, ":authority and host differ"));
    }
    let Some(host) = authority.or(host) else {
        return Err(Refusal::downstream(400, "neither :authority nor host"));
    };
    put(out, "host", host);
    Ok(())
}

fn put(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str, fields: &[(&str, &str)], ends: bool) -> Result<(String, RequestBody), u16> {
        let mut request = http::Request::builder().uri(uri).method("GET");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let mut out = Vec::new();
        let body = request_head(&mut out, &parts, ends).map_err(|refusal| refusal.status)?;
        Ok((String::from_utf8(out).unwrap(), body))
    }

    #[test]
    fn requests_are_said_in_http1() {
        let x = "https://a:8443/p?q";
        for (uri, fields, ends, expected, body) in [
            (x, &[][..], true, "GET /p?q HTTP/1.1\r\nhost: a:8443\r\n\r\n", RequestBody::None),
            (
                x,
                &[("te", "trailers"), ("x-a", "1"), ("x-a", "2")],
                false,
                "GET /p?q HTTP/1.1\r\nhost: a:8443\r\nte: trailers\r\nx-a: 1\r\nx-a: 2\r\n\
                 transfer-encoding: chunked\r\n\r\n",
                RequestBody::Chunked,
            ),
            (
                "/",
                &[("host", "b"), ("cookie", "a=1"), ("content-length", "3"), ("cookie", "b=2")],
                false,
                "GET / HTTP/1.1\r\nhost: b\r\ncookie: a=1; b=2\r\ncontent-length: 3\r\n\r\n",
                RequestBody::Plain,
            ),
            (
                "http://A/",
                &[("host", "a")],
                true,
                "GET / HTTP/1.1\r\nhost: A\r\n\r\n",
                RequestBody::None,
            ),
        ] {
            assert_eq!(head(uri, fields, ends), Ok((expected.to_owned(), body)), "{uri}");
        }
    }

    #[test]
    fn what_http1_would_understand_otherwise_is_refused() {
        for (uri, fields, status) in [
            ("/", &[][..], 400),
            ("http://a/", &[("host", "b")], 400),
            ("/", &[("host", "a"), ("host", "b")], 400),
            ("http://a/", &[("transfer-encoding", "chunked")], 400),
            ("http://a/", &[("connection", "close")], 400),
            ("http://a/", &[("upgrade", "h2c")], 400),
            ("*", &[("host", "a")], 400),
        ] {
            assert_eq!(head(uri, fields, true), Err(status), "{uri} {fields:?}");
        }
    }
}
