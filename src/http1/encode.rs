//! Writes the heads of forwarded messages: the received fields with the proxy's changes.
//!
//! Fields from HTTP/1.1 keep their case and order. Hop-by-hop fields are removed (RFC 9110 7.6.1).
//! The framing fields are not copied: they follow the decision in `framing`.

use super::framing::{self, RequestFraming, ResponseFraming};
use super::sink::{More, Sink};
use crate::message::{HeadView, HeaderEdits, Version, elements, is_named};

/// The changes to a request for an endpoint.
pub struct RequestEdits<'a> {
    /// Replaces the value of Host.
    pub host: Option<&'a [u8]>,
    /// Replaces path and query.
    pub target: Option<&'a [u8]>,
    /// Appended to `x-forwarded-for`. Empty if the client has no IP address (a Unix-domain socket).
    pub client_ip: &'a [u8],
    /// The value of `x-forwarded-proto`. It replaces the client's value.
    pub forwarded_proto: &'a str,
    /// How to change `x-forwarded-client-cert`.
    pub client_cert: ClientCert<'a>,
    /// Added as `x-request-id`. The request must not have one.
    pub request_id: Option<&'a [u8]>,
    /// The proxy's pseudonym in `via`. `None` means that `via` is not added.
    pub via: Option<&'a str>,
    /// The name of the field that held the token; it is removed.
    pub token_field: Option<&'a str>,
    /// Fields that replace the received fields of the same name.
    pub replaced: &'a [Replaced],
    /// The header edits of the rule.
    pub headers: &'a HeaderEdits,
}

/// A field by its lower-case name. Its value replaces all fields of that name. `None` removes them.
pub type Replaced = (&'static str, Option<Vec<u8>>);

/// How to change `x-forwarded-client-cert`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCert<'a> {
    /// Remove the client's field.
    Drop,
    /// Replace the client's field with this.
    Set(&'a str),
    /// Append this to the client's field.
    Append(&'a str),
}

/// The changes to a response for the client.
pub struct ResponseEdits<'a> {
    /// Whether the connection closes after the response.
    pub close: bool,
    /// Whether an HTTP/1.0 client must be told that the connection stays open.
    pub keep_alive: bool,
    /// Whether the body is sent without chunked coding.
    pub dechunk: bool,
    /// Whether an HTTP/1 client must be told that the body is empty.
    pub empty: bool,
    /// The proxy's pseudonym in `via`. `None` means that `via` is not added.
    pub via: Option<&'a str>,
    /// The value of `alt-svc`. `None` means that it is not added.
    pub alt_svc: Option<&'a str>,
    /// Fields that replace the received fields of the same name.
    pub replaced: &'a [Replaced],
    /// A function that writes additional fields.
    pub more: Option<More<'a>>,
    /// The header edits of the rule.
    pub headers: &'a HeaderEdits,
}

/// Writes the head of a request to `out`, in origin-form (CONNECT: authority-form).
pub fn request(
    out: &mut dyn Sink,
    view: HeadView<'_>,
    framing: &RequestFraming,
    edits: &RequestEdits<'_>,
) {
    put_request_line(out, view, edits.target);
    out.authority(edits.host.unwrap_or_else(|| view.authority()));
    let plain = edits.headers.is_empty();
    let (mut was_forwarded, mut had_client_cert, mut wants_trailers) = (false, false, false);
    for &field in &view.head.fields {
        let (name, value) = (field.name.of(view.block), field.value.of(view.block));
        let kept = match request_field(name) {
            Known::Ordinary => true,
            Known::Ours | Known::Hop => false,
            Known::Length => true,
            Known::Upgrade => framing.upgrade,
            Known::Expect => framing.expect_continue,
            Known::Te => {
                wants_trailers |= elements(value).any(|token| token == b"trailers");
                false
            }
            Known::ForwardedFor => {
                was_forwarded = true;
                false
            }
            Known::ClientCert => {
                had_client_cert = true;
                false
            }
        };
        let kept =
            kept && !is_replaced(edits.replaced, name) && (plain || !edits.headers.drops(name));
        let token =
            edits.token_field.is_some_and(|field| name.eq_ignore_ascii_case(field.as_bytes()));
        if kept && !token && !(framing.names_fields && framing::is_named_by_connection(view, name))
        {
            out.keep(field, view.block);
        } else {
            out.leave(name);
        }
    }
    put_forwarded(out, was_forwarded.then_some(view), edits);
    if !edits.headers.drops(CLIENT_CERT) {
        put_client_cert(out, had_client_cert.then_some(view), edits.client_cert);
    }
    if let Some(id) = edits.request_id {
        out.add(b"x-request-id", &[id]);
    }
    put_via(out, view.head.version, edits.via);
    put_replaced(out, edits.replaced);
    if framing.body.is_chunked() {
        out.add_hop(b"Transfer-Encoding", b"chunked");
    }
    match (framing.upgrade, wants_trailers) {
        (true, _) => out.add_hop(b"Connection", b"upgrade"),
        (_, true) => {
            out.add_hop(b"Connection", b"te");
            out.add(b"TE", &[b"trailers"]);
        }
        _ => {}
    }
    finish(out, edits.headers);
}

/// Writes the head of a response to `out`.
pub fn response(
    out: &mut dyn Sink,
    view: HeadView<'_>,
    framing: &ResponseFraming,
    edits: &ResponseEdits<'_>,
) {
    out.status_line(view.head.status, reason_of(view));
    let plain = edits.headers.is_empty();
    for &field in &view.head.fields {
        let name = field.name.of(view.block);
        let kept = match response_field(name) {
            Known::Hop => false,
            Known::Length => !framing.no_length,
            Known::Upgrade => framing.switches,
            _ => true,
        };
        let kept =
            kept && !is_replaced(edits.replaced, name) && (plain || !edits.headers.drops(name));
        if kept && !(framing.names_fields && framing::is_named_by_connection(view, name)) {
            out.keep(field, view.block);
        } else {
            out.leave(name);
        }
    }
    put_via(out, view.head.version, edits.via);
    if let Some(alt_svc) = edits.alt_svc {
        out.add(b"alt-svc", &[alt_svc.as_bytes()]);
    }
    put_replaced(out, edits.replaced);
    if framing.body.is_chunked() && !edits.dechunk {
        out.add_hop(b"Transfer-Encoding", b"chunked");
    }
    if edits.empty {
        out.add(b"content-length", &[b"0"]);
    }
    if framing.switches {
        if view.head.status == 101 {
            out.add_hop(b"Connection", b"upgrade");
        }
    } else if edits.close {
        out.add_hop(b"Connection", b"close");
    } else if edits.keep_alive {
        out.add_hop(b"Connection", b"keep-alive");
    }
    if let Some(more) = edits.more {
        more(out);
    }
    finish(out, edits.headers);
}

/// Writes an interim response (1xx) to `out`.
pub fn informational(out: &mut dyn Sink, view: HeadView<'_>) {
    out.status_line(view.head.status, reason_of(view));
    for &field in &view.head.fields {
        let name = field.name.of(view.block);
        match response_field(name) {
            Known::Ordinary => out.keep(field, view.block),
            _ => out.leave(name),
        }
    }
    out.end();
}

/// The field that carries the client's certificate to the services.
const CLIENT_CERT: &[u8; 23] = b"x-forwarded-client-cert";

/// The field with the addresses of the client and of earlier proxies.
const FORWARDED_FOR: &[u8; 15] = b"x-forwarded-for";

/// How the proxy handles a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Forward the field.
    Ordinary,
    /// Remove the field, because the proxy writes its own.
    Ours,
    /// Remove the field, because it is hop-by-hop.
    Hop,
    /// Forward the field if the connection switches protocols.
    Upgrade,
    /// Forward the field if the message can have a body.
    Length,
    /// Forward the field if a body follows.
    Expect,
    /// Forward only the element `trailers`.
    Te,
    /// Append the client's address to the field.
    ForwardedFor,
    /// Change the field according to [`ClientCert`].
    ClientCert,
}

fn request_field(name: &[u8]) -> Known {
    match name.len() {
        2 if is_named(name, b"te") => Known::Te,
        4 if is_named(name, b"host") => Known::Ours,
        6 if framing::is_expect(name) => Known::Expect,
        7 if is_named(name, b"upgrade") => Known::Upgrade,
        10 if is_named(name, b"connection") || is_named(name, b"keep-alive") => Known::Hop,
        14 if is_named(name, b"http2-settings") => Known::Hop,
        15 if is_named(name, FORWARDED_FOR) => Known::ForwardedFor,
        16 if is_named(name, b"proxy-connection") => Known::Hop,
        17 if is_named(name, b"transfer-encoding") => Known::Hop,
        17 if is_named(name, b"x-forwarded-proto") => Known::Ours,
        23 if is_named(name, CLIENT_CERT) => Known::ClientCert,
        _ => Known::Ordinary,
    }
}

fn response_field(name: &[u8]) -> Known {
    match name.len() {
        7 if is_named(name, b"upgrade") => Known::Upgrade,
        10 if is_named(name, b"connection") || is_named(name, b"keep-alive") => Known::Hop,
        14 if is_named(name, b"content-length") => Known::Length,
        16 if is_named(name, b"proxy-connection") => Known::Hop,
        17 if is_named(name, b"transfer-encoding") => Known::Hop,
        _ => Known::Ordinary,
    }
}

fn put_request_line(out: &mut dyn Sink, view: HeadView<'_>, rewritten: Option<&[u8]>) {
    let method = view.method_name();
    let target = rewritten.unwrap_or_else(|| view.target());
    let whole = matches!(target.first(), Some(b'/' | b'*')) || view.path().is_empty();
    match view.query() {
        _ if rewritten.is_some() || whole => out.request_line(method, &[target]),
        // Absolute-form: the host is written as the Host field.
        b"" => out.request_line(method, &[view.path()]),
        query => out.request_line(method, &[view.path(), b"?", query]),
    }
}

/// Writes `x-forwarded-for`: the earlier addresses and the client's. Several received lines become
/// one list (RFC 9110 5.3).
fn put_forwarded(out: &mut dyn Sink, before: Option<HeadView<'_>>, edits: &RequestEdits<'_>) {
    if !edits.headers.drops(FORWARDED_FOR) {
        put_list(out, FORWARDED_FOR, before, b", ", edits.client_ip);
    }
    out.add(b"x-forwarded-proto", &[edits.forwarded_proto.as_bytes()]);
}

fn put_client_cert(out: &mut dyn Sink, before: Option<HeadView<'_>>, ours: ClientCert<'_>) {
    match ours {
        ClientCert::Drop => {}
        ClientCert::Set(element) => out.add(CLIENT_CERT, &[element.as_bytes()]),
        ClientCert::Append(element) => {
            put_list(out, CLIENT_CERT, before, b",", element.as_bytes());
        }
    }
}

/// Writes a list field: the received elements in their order, and then `ours`, if it is not empty.
fn put_list(
    out: &mut dyn Sink,
    name: &[u8],
    before: Option<HeadView<'_>>,
    separator: &[u8],
    ours: &[u8],
) {
    let Some(before) = before else {
        if !ours.is_empty() {
            out.add(name, &[ours]);
        }
        return;
    };
    let mut value = Vec::new();
    for element in before.values(name).chain([ours]).filter(|element| !element.is_empty()) {
        if !value.is_empty() {
            value.push(separator);
        }
        value.push(element);
    }
    if !value.is_empty() {
        out.add(name, &value);
    }
}

fn is_replaced(replaced: &[Replaced], name: &[u8]) -> bool {
    replaced.iter().any(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()))
}

fn put_replaced(out: &mut dyn Sink, replaced: &[Replaced]) {
    for (name, value) in replaced {
        if let Some(value) = value {
            out.add(name.as_bytes(), &[value]);
        }
    }
}

/// Writes `via` with the version of the received message (RFC 9110 7.6.3).
fn put_via(out: &mut dyn Sink, version: Version, pseudonym: Option<&str>) {
    if let Some(pseudonym) = pseudonym {
        let version: &[u8] = match version {
            Version::Http2 => b"2 ",
            Version::Http3 => b"3 ",
            Version::Http10 | Version::Http11 => b"1.1 ",
        };
        out.add(b"via", &[version, pseudonym.as_bytes()]);
    }
}

/// Returns the reason phrase. HTTP/2 and HTTP/3 have none; an HTTP/1.1 client then gets the
/// registered phrase.
fn reason_of<'a>(view: HeadView<'a>) -> &'a [u8] {
    match view.head.version.is_multiplexed() {
        true => reason(view.head.status).as_bytes(),
        false => view.head.reason.of(view.block),
    }
}

pub(super) fn finish(out: &mut dyn Sink, edits: &HeaderEdits) {
    for (name, value) in edits.appended() {
        out.add(name.as_bytes(), &[value.as_bytes()]);
    }
    out.end();
}

/// Returns the registered reason phrase (RFC 9110 15). Empty if there is none.
pub(super) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        410 => "Gone",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::parse;
    use crate::message::Limits;
    use crate::message::{Head, Method};

    fn forwarded(text: &str, edits: &RequestEdits<'_>) -> String {
        let mut head = Head::default();
        let limits = Limits::default();
        parse::request(text.as_bytes(), 0..text.len(), &limits, &mut head).unwrap();
        let view = head.view(text.as_bytes());
        let framing = framing::request(view).unwrap();
        let mut out = Vec::new();
        request(&mut out, view, &framing, edits);
        String::from_utf8(out).unwrap()
    }

    fn returned(text: &str, edits: &ResponseEdits<'_>, upgrade: bool) -> String {
        let mut head = Head::default();
        let limits = Limits::default();
        parse::response(text.as_bytes(), 0..text.len(), &limits, &mut head).unwrap();
        let view = head.view(text.as_bytes());
        let framing = framing::response(view, Method::Get, upgrade).unwrap();
        let mut out = Vec::new();
        response(&mut out, view, &framing, edits);
        String::from_utf8(out).unwrap()
    }

    fn plain(headers: &HeaderEdits) -> RequestEdits<'_> {
        RequestEdits {
            replaced: &[],
            host: None,
            target: None,
            client_ip: b"10.0.0.9",
            forwarded_proto: "http",
            client_cert: ClientCert::Drop,
            token_field: None,
            request_id: None,
            via: None,
            headers,
        }
    }

    #[test]
    fn requests() {
        let none = HeaderEdits::none();
        const OURS: &str = "x-forwarded-for: 10.0.0.9\r\nx-forwarded-proto: http\r\n";
        for (text, expected) in [
            (
                "GET /a?b HTTP/1.1\r\nhOST: x\r\nX-A: 1\r\nx-a: 2\r\n\r\n",
                format!("GET /a?b HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-a: 2\r\n{OURS}\r\n"),
            ),
            (
                "GET http://y:80/a?b HTTP/1.1\r\nHost: y\r\n\r\n",
                format!("GET /a?b HTTP/1.1\r\nHost: y:80\r\n{OURS}\r\n"),
            ),
            (
                "GET / HTTP/1.1\r\nHost: x\r\nConnection: X-Hop, close, host, content-length\r\n\
                 Content-Length: 3\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: a\r\n\r\n",
                format!("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n{OURS}\r\n"),
            ),
            (
                "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade, x-hop\r\n\
                 Upgrade: websocket\r\nX-Hop: 1\r\n\r\n",
                format!(
                    "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n{OURS}\
                     Connection: upgrade\r\n\r\n"
                ),
            ),
            (
                "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4\r\n\
                 X-Forwarded-Proto: https\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: x\r\nx-forwarded-for: 1.2.3.4, 10.0.0.9\r\n\
                 x-forwarded-proto: http\r\n\r\n"
                    .to_owned(),
            ),
            (
                "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4\r\nx-a: 1\r\n\
                 x-forwarded-for: 5.6.7.8\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: x\r\nx-a: 1\r\n\
                 x-forwarded-for: 1.2.3.4, 5.6.7.8, 10.0.0.9\r\nx-forwarded-proto: http\r\n\r\n"
                    .to_owned(),
            ),
            (
                "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n",
                format!(
                    "POST / HTTP/1.1\r\nHost: x\r\n{OURS}Transfer-Encoding: chunked\r\n\
                     Connection: te\r\nTE: trailers\r\n\r\n"
                ),
            ),
            (
                "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
                format!(
                    "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n{OURS}\
                     Connection: upgrade\r\n\r\n"
                ),
            ),
            (
                "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nHTTP2-Settings: a\r\n\r\n",
                format!("GET / HTTP/1.1\r\nHost: x\r\n{OURS}\r\n"),
            ),
        ] {
            assert_eq!(forwarded(text, &plain(&none)), expected, "{text}");
        }
    }

    #[test]
    fn a_rule_changes_fields_host_and_target() {
        let pair = |name: &str, value: &str| (Box::from(name), Box::from(value));
        let headers = HeaderEdits {
            set: vec![pair("X-Set", "new")],
            add: vec![pair("x-add", "2")],
            remove: vec!["x-gone".into(), "x-forwarded-for".into()],
        };
        let edits = RequestEdits {
            host: Some(b"inside"),
            target: Some(b"/v2/a"),
            request_id: Some(b"id"),
            via: Some("ringway"),
            client_ip: b"10.0.0.9",
            ..plain(&headers)
        };
        let text = "GET /a HTTP/1.1\r\nHost: x\r\nx-set: old\r\nX-Add: 1\r\nX-Gone: 1\r\n\
                    X-Forwarded-For: 1.1.1.1\r\n\r\n";
        assert_eq!(
            forwarded(text, &edits),
            "GET /v2/a HTTP/1.1\r\nHost: inside\r\nX-Add: 1\r\nx-forwarded-proto: http\r\n\
             x-request-id: id\r\nvia: 1.1 ringway\r\nX-Set: new\r\nx-add: 2\r\n\r\n"
        );
    }

    #[test]
    fn responses() {
        let none = HeaderEdits::none();
        let edits = |close, keep_alive, dechunk| ResponseEdits {
            replaced: &[],
            more: None,
            close,
            keep_alive,
            dechunk,
            empty: false,
            via: None,
            alt_svc: None,
            headers: &none,
        };
        let chunked = "HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\nETag: a\r\n\r\n";
        for (text, edits, expected) in [
            (
                chunked,
                edits(false, false, false),
                "HTTP/1.1 200 Fine\r\nETag: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            (
                chunked,
                edits(true, false, true),
                "HTTP/1.1 200 Fine\r\nETag: a\r\nConnection: close\r\n\r\n",
            ),
            (
                "HTTP/1.0 200 \r\nContent-Length: 2\r\nConnection: close\r\n\r\n",
                edits(false, true, false),
                "HTTP/1.1 200 \r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n",
            ),
        ] {
            assert_eq!(returned(text, &edits, false), expected);
        }
        for (status, kept) in [("204 No", false), ("103 Early", false), ("304 Not", true)] {
            let text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nETag: a\r\n\r\n");
            let length = if kept { "Content-Length: 0\r\n" } else { "" };
            let expected = format!("HTTP/1.1 {status}\r\n{length}ETag: a\r\n\r\n");
            assert_eq!(returned(&text, &edits(false, false, false), false), expected);
        }
        let empty = ResponseEdits { empty: true, ..edits(false, false, false) };
        let text = "HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n";
        assert_eq!(returned("HTTP/1.1 200 \r\n\r\n", &empty, false), text);
        let switching = "HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
        assert_eq!(
            returned(switching, &edits(true, false, false), true),
            "HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
        );
    }
}
