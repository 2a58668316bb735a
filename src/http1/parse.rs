//! Parses the heads of requests and responses (RFC 9112 sections 2 to 5).
//!
//! httparse splits the head into parts. This file refuses input that httparse accepts but a strict
//! proxy must not accept: a lone LF, or a target that differs from Host. Nothing is repaired.

use std::mem::MaybeUninit;
use std::ops::Range;

use memchr::{memchr, memchr_iter};

use crate::error::{Flag, Refusal};
use crate::message::{Field, Head, Limits, Method, Span, Version, is_named, is_token_byte};

/// The largest value that `limits.headers` may have.
pub const HEADERS_MAX: usize = 256;

/// Whether a head is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    Partial,
    /// `head` is filled in.
    Complete,
}

/// Parses the head of a request from `block[window]`. Offsets in `head` are relative to the start
/// of `block`. After [`Progress::Partial`], the caller calls again with more bytes in the window.
/// `head` stores how far the bytes were scanned, so a peer that sends single bytes does not cause a
/// full parse for each of them.
///
/// # Errors
/// 400 for invalid or ambiguous HTTP/1, 414 or 431 if the head exceeds `limits`.
pub fn request(
    block: &[u8],
    window: Range<usize>,
    limits: &Limits,
    head: &mut Head,
) -> Result<Progress, Refusal> {
    let mut start = window.start;
    if block[window.clone()].starts_with(b"\r\n") {
        start += 2; // one empty line before a request is tolerated (RFC 9112 2.2)
    }
    let bytes = &block[start..window.end];
    match bytes {
        [] => return Ok(Progress::Partial),
        [b'\r'] if start == window.start => return Ok(Progress::Partial),
        [first, ..] if is_token_byte(*first) => {}
        _ => return Err(bad("the request does not begin with a method")),
    }
    if still_partial(bytes, start, limits, head)? {
        return Ok(Progress::Partial);
    }
    let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let fields = &mut fields[..limits.headers.min(HEADERS_MAX)];
    let mut parsed = httparse::Request::new(&mut []);
    let len = match parsed.parse_with_uninit_headers(bytes, fields) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return partial(bytes, start, limits, head),
        Err(error) => {
            return match as_http11(error, block, bytes, start) {
                Some(known) => request(&known, window, limits, head),
                None => Err(request_error(error)),
            };
        }
    };
    if len > limits.header_bytes {
        return Err(too_large());
    }
    lines_end_in_crlf(&bytes[..len]).map_err(bad)?;
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(bad("no request line"));
    };
    head.clear();
    head.start = start;
    head.len = len;
    head.version = if parsed.version == Some(0) { Version::Http10 } else { Version::Http11 };
    head.method = Method::from_bytes(method.as_bytes());
    head.method_span = span_of(block, method.as_bytes());
    head.target = span_of(block, target.as_bytes());
    fill_fields(block, parsed.headers, head);
    understand(block, limits, head)?;
    Ok(Progress::Complete)
}

/// Splits the target of a request and checks that it agrees with Host. `head` must have the method,
/// the target and the fields.
///
/// # Errors
/// 400 for an invalid target or host, or if the two differ; 414 for a target that is too long.
pub fn understand(block: &[u8], limits: &Limits, head: &mut Head) -> Result<(), Refusal> {
    if head.method == Method::Other && Method::is_miscased(head.method_span.of(block)) {
        return Err(bad("the method differs from a standard method in its case only"));
    }
    if head.target.len as usize > limits.uri_bytes {
        return Err(Refusal { status: 414, ..bad("the request target is too long") });
    }
    split_target(block, head)?;
    check_host(block, head)
}

/// Parses the head of a response, like [`request`].
///
/// # Errors
/// Always 502, with the flag UPE.
pub fn response(
    block: &[u8],
    window: Range<usize>,
    limits: &Limits,
    head: &mut Head,
) -> Result<Progress, Refusal> {
    let start = window.start;
    let bytes = &block[window.clone()];
    let upstream = |refusal: Refusal| Refusal::upstream(refusal.detail);
    if still_partial(bytes, start, limits, head).map_err(upstream)? {
        return Ok(Progress::Partial);
    }
    let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let fields = &mut fields[..limits.headers.min(HEADERS_MAX)];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let len = match config.parse_response_with_uninit_headers(&mut parsed, bytes, fields) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => {
            return partial(bytes, start, limits, head).map_err(upstream);
        }
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::upstream("the response has too many fields"));
        }
        Err(error) => {
            return match as_http11(error, block, bytes, start) {
                Some(known) => response(&known, window, limits, head),
                None => Err(Refusal::upstream("the response is not valid HTTP/1")),
            };
        }
    };
    lines_end_in_crlf(&bytes[..len]).map_err(Refusal::upstream)?;
    let status = parsed.code.unwrap_or_default();
    if !(100..=599).contains(&status) {
        return Err(Refusal::upstream("the response has a status outside 100 to 599"));
    }
    head.clear();
    head.start = start;
    head.len = len;
    head.version = if parsed.version == Some(0) { Version::Http10 } else { Version::Http11 };
    head.status = status;
    // Without a reason, or with obs-text in it, the parser returns an empty text that is not part
    // of `block`.
    let reason = parsed.reason.filter(|reason| !reason.is_empty());
    head.reason = reason.map_or_else(Span::default, |reason| span_of(block, reason.as_bytes()));
    fill_fields(block, parsed.headers, head);
    Ok(Progress::Complete)
}

/// Returns a copy of the block with version 1.1 in place of a higher minor version, because such a
/// version only adds to 1.1 (RFC 9110 2.5). All offsets stay the same. Returns `None` if `error`
/// has another reason.
fn as_http11(error: httparse::Error, block: &[u8], bytes: &[u8], start: usize) -> Option<Vec<u8>> {
    if error != httparse::Error::Version {
        return None;
    }
    // The first line may not be complete yet.
    let line = &bytes[..memchr(b'\r', bytes).unwrap_or(bytes.len())];
    let begin = match line.starts_with(b"HTTP/") {
        true => 0,
        false => line.len().checked_sub(b"HTTP/1.x".len())?,
    };
    let version = line.get(begin..)?.strip_prefix(b"HTTP/1.")?;
    let minor = matches!(version, [b'2'..=b'9'] | [b'2'..=b'9', b' ', ..]);
    minor.then(|| {
        let mut known = block.to_vec();
        known[start + begin + b"HTTP/1.".len()] = b'1';
        known
    })
}

/// Whether an earlier call found the head incomplete and the new bytes cannot complete it.
fn still_partial(
    bytes: &[u8],
    start: usize,
    limits: &Limits,
    head: &mut Head,
) -> Result<bool, Refusal> {
    let seen = head.len;
    if head.start != start || seen < 4 || seen > bytes.len() {
        return Ok(false);
    }
    let new = &bytes[seen - 3..];
    let ended = memchr_iter(b'\n', new).any(|at| {
        let rest = &new[at + 1..];
        rest.starts_with(b"\r\n") || rest.starts_with(b"\n")
    });
    if ended {
        return Ok(false);
    }
    partial(bytes, start, limits, head).map(|_| true)
}

/// Stores how much of an incomplete head was scanned. Refuses a head that exceeds a limit already.
fn partial(
    bytes: &[u8],
    start: usize,
    limits: &Limits,
    head: &mut Head,
) -> Result<Progress, Refusal> {
    let line_max = limits.uri_bytes + 64; // the method, the version and two spaces
    if bytes.len() > line_max && memchr(b'\n', &bytes[..line_max]).is_none() {
        return Err(Refusal { status: 414, ..bad("the request target is too long") });
    }
    if bytes.len() >= limits.header_bytes {
        return Err(too_large());
    }
    head.clear();
    head.start = start;
    head.len = bytes.len();
    Ok(Progress::Partial)
}

fn request_error(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => {
            Refusal { status: 431, ..bad("the request has too many fields") }
        }
        httparse::Error::HeaderName => bad("a field name is not a token"),
        httparse::Error::HeaderValue => bad("a field value has a forbidden character"),
        httparse::Error::NewLine => bad("a line does not end in CR LF"),
        httparse::Error::Token => bad("the request line is not well formed"),
        httparse::Error::Version => bad("the version is neither HTTP/1.0 nor HTTP/1.1"),
        httparse::Error::Status => bad("the request line is not well formed"),
    }
}

/// httparse accepts a lone LF as a line end. Other servers may not, so it is refused. The loop has
/// no branch, so the compiler can compare many bytes at once (SIMD).
fn lines_end_in_crlf(head: &[u8]) -> Result<(), &'static str> {
    let lone = |(before, byte): (&u8, &u8)| (*byte == b'\n') & (*before != b'\r');
    let rest = head.get(1..).unwrap_or_default();
    let any = head.iter().zip(rest).map(lone).fold(false, |any, lone| any | lone);
    match any || head.first() == Some(&b'\n') {
        true => Err("a line ends in LF without CR"),
        false => Ok(()),
    }
}

fn fill_fields(block: &[u8], parsed: &[httparse::Header<'_>], head: &mut Head) {
    head.fields.reserve(parsed.len());
    for field in parsed {
        let name = span_of(block, field.name.as_bytes());
        let mut value = span_of(block, field.value);
        // httparse trims leading white space. RFC 9112 5 also excludes trailing white space from
        // the value.
        while let Some(b' ' | b'\t') = value.of(block).last() {
            value.len -= 1;
        }
        head.fields.push(Field { name, value, sensitive: false });
    }
}

/// Returns the position of `part`, a slice of `block`, in `block`.
fn span_of(block: &[u8], part: &[u8]) -> Span {
    let start = part.as_ptr() as usize - block.as_ptr() as usize;
    Span::new(start, start + part.len())
}

/// Splits a request target of any of the four forms (RFC 9112 3.2).
fn split_target(block: &[u8], head: &mut Head) -> Result<(), Refusal> {
    let target = head.target;
    let bytes = target.of(block);
    if bytes.iter().any(|&byte| !(0x21..=0x7e).contains(&byte) || byte == b'#') {
        return Err(bad("the request target has a forbidden character"));
    }
    if head.method == Method::Connect {
        let port = bytes.iter().rposition(|&byte| byte == b':').map(|at| &bytes[at + 1..]);
        if !is_host(bytes) || port.is_none_or(<[u8]>::is_empty) {
            return Err(bad("the target of CONNECT is not host:port"));
        }
        head.authority = target;
        return Ok(());
    }
    let path_start = match bytes {
        b"*" if head.method == Method::Options => 0,
        [b'/', ..] => 0,
        _ => {
            let scheme = [&b"http://"[..], b"https://"].into_iter().find(|scheme| {
                bytes.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme))
            });
            let Some(scheme) = scheme else {
                return Err(bad("the request target has none of the forms of RFC 9112 3.2"));
            };
            let after = &bytes[scheme.len()..];
            let len = after.iter().position(|b| b"/?".contains(b)).unwrap_or(after.len());
            if len == 0 || !is_host(&after[..len]) {
                return Err(bad("the request target has no valid host"));
            }
            let at = target.start as usize + scheme.len();
            head.authority = Span::new(at, at + len);
            scheme.len() + len
        }
    };
    let start = target.start as usize;
    let query = memchr(b'?', &bytes[path_start..]).map(|at| path_start + at);
    head.path = Span::new(start + path_start, start + query.unwrap_or(bytes.len()));
    if let Some(query) = query {
        head.query = Span::new(start + query + 1, target.end());
    }
    Ok(())
}

/// Takes the authority from Host. There must be one Host field (in HTTP/1.0 at most one), and it
/// must agree with the target (RFC 9112 3.2, 3.2.2).
fn check_host(block: &[u8], head: &mut Head) -> Result<(), Refusal> {
    let mut host = None;
    for field in &head.fields {
        let is_host = field.name.len == 4 && is_named(field.name.of(block), b"host");
        if is_host && host.replace(field.value).is_some() {
            return Err(bad("more than one Host"));
        }
    }
    let Some(host) = host else {
        return match head.version {
            Version::Http10 => Ok(()),
            _ => Err(bad("no Host")),
        };
    };
    let value = host.of(block);
    if value.is_empty() {
        return Err(bad("Host is empty")); // RFC 9110 4.2.1
    }
    if !is_host(value) {
        return Err(bad("Host is not a valid host"));
    }
    if head.authority.is_empty() {
        head.authority = host;
        return Ok(());
    }
    let without_default = |authority: &[u8]| -> usize {
        let default = [&b":80"[..], b":443"].into_iter().find(|port| authority.ends_with(port));
        authority.len() - default.map_or(0, <[u8]>::len)
    };
    let target = head.authority.of(block);
    let same = target.eq_ignore_ascii_case(value)
        || target[..without_default(target)].eq_ignore_ascii_case(&value[..without_default(value)]);
    match same {
        true => Ok(()),
        false => Err(bad("the request target and Host disagree")),
    }
}

/// Whether `bytes` are `uri-host [":" port]` (RFC 3986 3.2.2), without user information.
fn is_host(bytes: &[u8]) -> bool {
    let (host, port) = match bytes {
        [b'[', rest @ ..] => {
            let Some(end) = memchr(b']', rest) else { return false };
            let address = std::str::from_utf8(&rest[..end]).ok();
            if address.is_none_or(|text| text.parse::<std::net::Ipv6Addr>().is_err()) {
                return false;
            }
            (&rest[..end], &rest[end + 1..])
        }
        _ => bytes.split_at(memchr(b':', bytes).unwrap_or(bytes.len())),
    };
    let port_is_valid = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let in_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%:".contains(byte);
    !host.is_empty() && port_is_valid && host.iter().all(in_host)
}

const fn bad(detail: &'static str) -> Refusal {
    Refusal { status: 400, flag: Flag::DownstreamProtocolError, detail }
}

/// The refusal of a head that is larger than `limits.header_bytes`.
pub const fn too_large() -> Refusal {
    Refusal { status: 431, ..bad("the head is larger than limits.header_bytes") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<(Progress, Head), Refusal> {
        let mut head = Head::default();
        request(bytes, 0..bytes.len(), &Limits::default(), &mut head).map(|p| (p, head))
    }

    #[test]
    fn targets_are_taken_apart() {
        // (method and target, Host, authority, path, query)
        for (line, host, authority, path, query) in [
            ("GET /a/b?c=d", "x", "x", "/a/b", "c=d"),
            ("GET /", "x:80", "x:80", "/", ""),
            ("GET /?", "x", "x", "/", ""),
            ("GET http://x/y?z", "x", "x", "/y", "z"),
            ("GET HTTP://X", "x", "X", "/", ""),
            ("GET http://x:80?z", "x", "x:80", "/", "z"),
            ("OPTIONS *", "x", "x", "*", ""),
            ("CONNECT x:443", "x:443", "x:443", "", ""),
            ("GET /", "[::1]:8080", "[::1]:8080", "/", ""),
        ] {
            let text = format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let (progress, head) = parse(text.as_bytes()).unwrap();
            assert_eq!(progress, Progress::Complete, "{text}");
            let view = head.view(text.as_bytes());
            let seen = (view.authority(), view.path(), view.query());
            assert_eq!(seen, (authority.as_bytes(), path.as_bytes(), query.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_higher_minor_version_is_read_as_1_1() {
        for minor in 1..=9 {
            let text = format!("\r\nGET /a HTTP/1.{minor}\r\nHost: x\r\n\r\n");
            let (progress, head) = parse(text.as_bytes()).unwrap();
            assert_eq!((progress, head.version), (Progress::Complete, Version::Http11), "{text}");
            assert_eq!(head.view(text.as_bytes()).path(), b"/a");
            for end in 0..text.len() {
                let progress = parse(&text.as_bytes()[..end]).map(|(progress, _)| progress);
                assert_eq!(progress, Ok(Progress::Partial), "{minor}, {end}");
            }
            let text = format!("HTTP/1.{minor} 200 OK\r\nA: b\r\n\r\n");
            let mut head = Head::default();
            response(text.as_bytes(), 0..text.len(), &Limits::default(), &mut head).unwrap();
            assert_eq!((head.version, head.status), (Version::Http11, 200), "{text}");
            assert_eq!(head.view(text.as_bytes()).value(b"a"), Some(&b"b"[..]));
            for end in 0..text.len() {
                let mut head = Head::default();
                let progress = response(text.as_bytes(), 0..end, &Limits::default(), &mut head);
                assert_eq!(progress, Ok(Progress::Partial), "{minor}, {end}");
            }
        }
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        let host = "Host: x\r\n";
        for (what, text) in [
            ("bare LF", "GET / HTTP/1.1\nHost: x\r\n\r\n".to_owned()),
            ("bare LF at the end", "GET / HTTP/1.1\r\nHost: x\r\n\n".to_owned()),
            ("bare CR in a value", format!("GET / HTTP/1.1\r\n{host}A: b\rc\r\n\r\n")),
            ("NUL", format!("GET / HTTP/1.1\r\n{host}A: \0\r\n\r\n")),
            ("fold", format!("GET / HTTP/1.1\r\n{host}A: b\r\n c\r\n\r\n")),
            ("space before colon", "GET / HTTP/1.1\r\nHost : x\r\n\r\n".to_owned()),
            ("space before name", format!("GET / HTTP/1.1\r\n {host}\r\n")),
            ("empty name", format!("GET / HTTP/1.1\r\n{host}: b\r\n\r\n")),
            ("two spaces", format!("GET  / HTTP/1.1\r\n{host}\r\n")),
            ("tab", format!("GET\t/ HTTP/1.1\r\n{host}\r\n")),
            ("no version", format!("GET /\r\n{host}\r\n")),
            ("version 2", format!("GET / HTTP/2.0\r\n{host}\r\n")),
            ("version 1.x", format!("GET / HTTP/1.x\r\n{host}\r\n")),
            ("version 1.20", format!("GET / HTTP/1.20\r\n{host}\r\n")),
            ("version 0.9", format!("GET / HTTP/0.9\r\n{host}\r\n")),
            ("lower-case method", format!("get / HTTP/1.1\r\n{host}\r\n")),
            ("miscased method", format!("DeLETE / HTTP/1.1\r\n{host}\r\n")),
            ("empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n".to_owned()),
            ("empty Host in HTTP/1.0", "GET / HTTP/1.0\r\nHost: \r\n\r\n".to_owned()),
            ("empty Host beside a host", "GET http://x/ HTTP/1.1\r\nHost:\r\n\r\n".to_owned()),
            ("lower-case version", format!("GET / http/1.1\r\n{host}\r\n")),
            ("fragment", format!("GET /#a HTTP/1.1\r\n{host}\r\n")),
            ("relative", format!("GET a HTTP/1.1\r\n{host}\r\n")),
            ("ftp", format!("GET ftp://x/ HTTP/1.1\r\n{host}\r\n")),
            ("asterisk", format!("GET * HTTP/1.1\r\n{host}\r\n")),
            ("CONNECT with a path", format!("CONNECT /a HTTP/1.1\r\n{host}\r\n")),
            ("CONNECT without a port", format!("CONNECT x HTTP/1.1\r\n{host}\r\n")),
            ("no Host", "GET / HTTP/1.1\r\nA: b\r\n\r\n".to_owned()),
            ("two Hosts", format!("GET / HTTP/1.1\r\n{host}{host}\r\n")),
            ("user in Host", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n".to_owned()),
            ("two hosts in Host", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".to_owned()),
            ("path in Host", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".to_owned()),
            ("bad port", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n".to_owned()),
            ("disagreement", format!("GET http://y/ HTTP/1.1\r\n{host}\r\n")),
            ("user in target", format!("GET http://a@x/ HTTP/1.1\r\n{host}\r\n")),
            ("two empty lines first", format!("\r\n\r\nGET / HTTP/1.1\r\n{host}\r\n")),
            ("TLS", "\x16\x03\x01\x02".to_owned()),
        ] {
            let refusal = parse(text.as_bytes()).map(|(progress, _)| progress);
            assert_eq!(refusal.map_err(|r| r.status), Err(400), "{what}");
        }
    }

    #[test]
    fn a_byte_at_a_time_is_the_same_as_at_once() {
        let text = b"\r\nPOST /a?b HTTP/1.1\r\nHost: x\r\nA:  b c \t\r\nEmpty:\r\n\r\nrest";
        let mut head = Head::default();
        let limits = Limits::default();
        let whole = text.len() - 4;
        for end in 1..whole {
            let progress = request(text, 0..end, &limits, &mut head).unwrap();
            assert_eq!(progress, Progress::Partial, "{end}");
        }
        assert_eq!(request(text, 0..whole, &limits, &mut head).unwrap(), Progress::Complete);
        let dripped: Vec<_> = head.fields.clone();
        let (_, at_once) = parse(text).unwrap();
        assert_eq!(dripped, at_once.fields);
        assert_eq!((at_once.start, at_once.len), (2, whole - 2));
        let view = at_once.view(text);
        assert_eq!(view.value(b"a"), Some(&b"b c"[..]));
        assert_eq!(view.value(b"EMPTY"), Some(&b""[..]));
    }

    #[test]
    fn limits_have_their_status() {
        let limits = Limits { header_bytes: 200, headers: 2, uri_bytes: 50, ..Limits::default() };
        let long = "x".repeat(300);
        for (text, status) in [
            (format!("GET / HTTP/1.1\r\nHost: {long}\r\n\r\n"), 431),
            (format!("GET / HTTP/1.1\r\nHost: {long}"), 431),
            (format!("GET /{long}"), 414),
            (format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", &long[..60]), 414),
            ("GET / HTTP/1.1\r\nHost: x\r\nA: b\r\nC: d\r\n\r\n".to_owned(), 431),
        ] {
            let mut head = Head::default();
            let result = request(text.as_bytes(), 0..text.len(), &limits, &mut head);
            assert_eq!(result.map_err(|refusal| refusal.status), Err(status), "{text}");
        }
    }

    #[test]
    fn responses() {
        let check = |text: &str| {
            let mut head = Head::default();
            response(text.as_bytes(), 0..text.len(), &Limits::default(), &mut head)
                .map(|progress| (progress, head.status))
                .map_err(|refusal| (refusal.status, refusal.flag))
        };
        let bad = Err((502, Flag::UpstreamProtocolError));
        assert_eq!(check("HTTP/1.1 204 \r\n\r\n"), Ok((Progress::Complete, 204)));
        assert_eq!(check("HTTP/1.0 200 OK\r\nA: b\r\n\r\n"), Ok((Progress::Complete, 200)));
        assert_eq!(check("HTTP/1.1 200 Sch\u{f6}n\r\n\r\n"), Ok((Progress::Complete, 200)));
        assert_eq!(check("HTTP/1.1 200\r\n\r\n"), Ok((Progress::Complete, 200)));
        assert_eq!(check("HTTP/1.1 2"), Ok((Progress::Partial, 0)));
        assert_eq!(check("HTTP/1.1 200 OK\nA: b\n\n"), bad);
        assert_eq!(check("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"), bad);
        assert_eq!(check("HTTP/1.1 200 OK\r\nA : b\r\n\r\n"), bad);
        assert_eq!(check("HTTP/1.1 600 High\r\n\r\n"), bad);
        assert_eq!(check("HTTP/1.1 99 Low\r\n\r\n"), bad);
        assert_eq!(check("ICY 200 OK\r\n\r\n"), bad);
    }
}
