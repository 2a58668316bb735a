//! Messages that change their version on the way: from HTTP/1.1 to HTTP/2 and back they are the
//! same one message with the same boundaries, from HTTP/2 to HTTP/1.1 one message or none.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri};
use ringway::http1::chunked::Decoder;
use ringway::http1::encode::{self, ClientCert, RequestEdits, ResponseEdits};
use ringway::http1::framing::{self, Body};
use ringway::http1::parse::{self, Progress};
use ringway::http1::sink::Sink;
use ringway::http2::{self, Draft, Received};
use ringway::message::Limits;
use ringway::message::{Head, HeadView, HeaderEdits, Method as Known, Version};

/// Whether all of it holds for `input`.
pub fn holds(input: &[u8]) {
    let Some((first, bytes)) = input.split_first() else { return };
    let method = if first & 8 == 0 { Known::Get } else { Known::Head };
    match first & 3 {
        0 => request_there_and_back(bytes),
        1 => response_there_and_back(bytes, method),
        2 => request_of_http2(bytes, first & 4 != 0),
        _ => response_of_http2(bytes, first & 4 != 0, method),
    }
}

/// What comes of limits is not what is looked at here.
fn generous() -> Limits {
    Limits { header_bytes: 1 << 20, headers: 250, uri_bytes: 1 << 20, ..Limits::default() }
}

fn request_there_and_back(bytes: &[u8]) {
    let mut head = Head::default();
    let parsed = parse::request(bytes, 0..bytes.len(), &Limits::default(), &mut head);
    let Ok(Progress::Complete) = parsed else { return };
    let view = head.view(bytes);
    let Ok(received) = framing::request(view) else { return };
    let mut text = Vec::new();
    encode_request(&mut text, view, &received);
    let mut draft = Draft::of(view);
    encode_request(&mut draft, view, &received);
    let Ok(outbound) = draft.into_request(false) else { return };
    let (parts, ()) = outbound.request.into_parts();
    if parts.method == Method::CONNECT && received.body != Body::None {
        return; // a stream refuses that
    }
    let ends = received.body == Body::None && !received.upgrade;
    let said = format!("{parts:?}");
    let again = as_http1(&parts, ends).unwrap_or_else(|| panic!("not taken back: {said}"));
    let mut read = Head::default();
    let sent = one_request(&again, &mut read);
    let framed = framing::request(sent).expect("framing that we wrote");
    assert_eq!((received.body, received.upgrade), (framed.body, framed.upgrade), "{said}");
    assert_eq!(view.method_name(), sent.method_name());
    let path = if view.path().is_empty() { view.target() } else { view.path() };
    let came = if sent.path().is_empty() { sent.target() } else { sent.path() };
    assert_eq!((path, view.query()), (came, sent.query()));
    assert!(view.authority().eq_ignore_ascii_case(sent.authority()));
    nothing_smuggled(head_of(&text, &mut Head::default()), sent);
    if received.body == Body::Chunked {
        trailers_there_and_back(&bytes[head.start + head.len..]);
    }
}

fn response_there_and_back(bytes: &[u8], method: Known) {
    let mut head = Head::default();
    let parsed = parse::response(bytes, 0..bytes.len(), &Limits::default(), &mut head);
    let Ok(Progress::Complete) = parsed else { return };
    let view = head.view(bytes);
    if head.status < 200 {
        return; // nothing is framed by an interim response
    }
    let Ok(received) = framing::response(view, method, false) else { return };
    let mut draft = Draft::of(view);
    encode_response(&mut draft, view, &received, Version::Http2);
    let Ok(response) = draft.into_response() else { return };
    let ends = received.body == Body::None;
    let mut again = Head::default();
    let mut block = Vec::new();
    let answer = (response.status(), response.headers());
    let made = http2::response_head(&mut block, 0, answer, ends, None, &generous(), &mut again);
    assert!(made.is_ok(), "not taken back: {response:?}");
    let back = http1_response(again.view(&block), method).expect("a response that we sent");
    let mut read = Head::default();
    let sent = one_response(&back, &mut read);
    let framed = framing::response(sent, method, false).expect("framing that we wrote");
    let expected = match received.body {
        Body::UntilClose | Body::Chunked => Body::Chunked,
        other => other,
    };
    assert_eq!(framed.body, expected, "{}", String::from_utf8_lossy(&back));
    assert_eq!(sent.head.status, head.status);
    nothing_smuggled(view, sent);
}

/// A request as the `h2` crate gives it, of whatever it lets pass.
fn request_of_http2(bytes: &[u8], ends: bool) {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let (method, path, authority) = (next(), next(), next());
    let mut uri = http::uri::Parts::default();
    if !authority.is_empty() {
        let Ok(authority) = authority.try_into() else { return };
        uri.authority = Some(authority);
        uri.scheme = Some(http::uri::Scheme::HTTP);
    }
    if !path.is_empty() {
        let Ok(path) = path.try_into() else { return };
        uri.path_and_query = Some(path);
    }
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method), Uri::from_parts(uri)) else { return };
    let Some(fields) = fields_of(lines) else { return };
    let promised = fields.get("content-length").map(HeaderValue::as_bytes).unwrap_or_default();
    if ends && promised.iter().any(|&byte| byte != b'0') {
        return; // the crate does not let that pass (RFC 9113 8.1.1)
    }
    let mut request = http::Request::new(());
    (*request.method_mut(), *request.uri_mut()) = (method, uri);
    *request.headers_mut() = fields;
    let (parts, ()) = request.into_parts();
    let Some(text) = as_http1(&parts, ends) else { return };
    let mut head = Head::default();
    let view = one_request(&text, &mut head);
    let framed = framing::request(view).expect("framing that we wrote");
    let none = framed.body == Body::None;
    // A length of nothing is none, and a tunnel has no body.
    assert!(none || !ends, "{parts:?}");
    assert_eq!(view.method_name(), parts.method.as_str().as_bytes());
    goes_on_like_a_copy(&parts, ends);
    let mut draft = Draft::of(view);
    encode_request(&mut draft, view, &framed);
    let Ok(outbound) = draft.into_request(false) else { return };
    let (again, ()) = outbound.request.into_parts();
    assert_eq!(again.method, parts.method);
    if parts.method != Method::CONNECT && parts.uri.path_and_query().is_some() {
        let path = |uri: &Uri| uri.path_and_query().map(|path| path.as_str().to_owned());
        assert_eq!(path(&again.uri), path(&parts.uri), "{}", String::from_utf8_lossy(&text));
    }
    fields_stay(&parts.headers, &again.headers);
}

fn response_of_http2(bytes: &[u8], ends: bool, method: Known) {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let Ok(status) = StatusCode::from_bytes(lines.next().unwrap_or_default()) else { return };
    let Some(fields) = fields_of(lines) else { return };
    if status.is_informational() {
        return;
    }
    let (mut block, mut head) = (Vec::new(), Head::default());
    let answer = (status, &fields);
    if http2::response_head(&mut block, 0, answer, ends, None, &generous(), &mut head).is_err() {
        return;
    }
    let Some(text) = http1_response(head.view(&block), method) else { return };
    let mut read = Head::default();
    let view = one_response(&text, &mut read);
    let framed = framing::response(view, method, false).expect("framing that we wrote");
    let bodiless = method == Known::Head || matches!(status.as_u16(), 204 | 304);
    match (ends || bodiless, framed.body) {
        (true, Body::None) | (false, Body::Chunked) => {}
        // What the crate has held against what came.
        (_, Body::Length(_)) | (false, Body::None) => {
            assert!(fields.contains_key("content-length"));
        }
        (_, body) => panic!("{body:?} for {status} {fields:?}, ends: {ends}"),
    }
    let as_it_came = Draft::of_received(Received { fields: fields.clone(), target: None });
    for mut draft in [Draft::of(view), as_it_came] {
        encode_response(&mut draft, view, &framed, Version::Http2);
        let again = draft.into_response().expect("a response that came by HTTP/2");
        assert_eq!(again.status(), status);
        fields_stay(&fields, again.headers());
    }
}

/// What the `h2` crate lets pass as fields.
fn fields_of<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<HeaderMap> {
    let mut fields = HeaderMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let name = HeaderName::from_lowercase(&line[..colon]).ok()?;
        let value = HeaderValue::from_bytes(&line[colon + 1..]).ok()?;
        fields.append(name, value);
    }
    // A few come in on the way, and `generous` has an end too.
    (fields.len() <= 200).then_some(fields)
}

/// A request of HTTP/2 in HTTP/1.1, if it is taken.
fn as_http1(parts: &http::request::Parts, ends: bool) -> Option<Vec<u8>> {
    let (mut block, mut head) = (Vec::new(), Head::default());
    let (view, framed) = read_request(parts, ends, &mut block, &mut head)?;
    let mut text = Vec::new();
    encode_request(&mut text, view, &framed);
    Some(text)
}

/// A request of HTTP/2 as the proxy reads it, if it is taken.
fn read_request<'a>(
    parts: &http::request::Parts,
    ends: bool,
    block: &'a mut Vec<u8>,
    head: &'a mut Head,
) -> Option<(HeadView<'a>, framing::RequestFraming)> {
    let nonce = || *b"0123456789abcdef";
    http2::request_head(block, 0, parts, ends, nonce, &generous(), head).ok()?;
    parse::understand(block, &generous(), head).ok()?;
    let view = head.view(block);
    Some((view, framing::request(view).ok()?))
}

/// From HTTP/2 to HTTP/2 the fields that came go on themselves: that makes no other request than
/// to copy each of them.
fn goes_on_like_a_copy(parts: &http::request::Parts, ends: bool) {
    let (mut block, mut head) = (Vec::new(), Head::default());
    let read = read_request(parts, ends, &mut block, &mut head);
    let (view, framed) = read.expect("what was taken before");
    let (fields, target) = (parts.headers.clone(), parts.uri.path_and_query().cloned());
    // A rule that takes one of the fields out and sets another, and a token that stays here.
    let mut names = parts.headers.keys().map(|name| Box::from(name.as_str()));
    let (token, removed, set) = (names.next(), names.next(), names.next());
    let headers = HeaderEdits {
        remove: removed.into_iter().collect(),
        set: set.map(|name| (name, Box::from("new"))).into_iter().collect(),
        ..HeaderEdits::none()
    };
    let edits = RequestEdits {
        token_field: token.as_deref(),
        replaced: &[("grpc-timeout", Some(b"1S".to_vec())), ("content-type", None)],
        ..no_edits(&headers)
    };
    let drafts = [Draft::of(view), Draft::of_received(Received { fields, target })];
    let [copied, passed] = drafts.map(|mut draft| {
        encode::request(&mut draft, view, &framed, &edits);
        draft.into_request(false).map(|outbound| outbound.request).map_err(|no| no.status)
    });
    let (Ok(copied), Ok(passed)) = (&copied, &passed) else {
        assert_eq!(copied.err(), passed.err(), "{parts:?}");
        return;
    };
    assert_eq!((copied.method(), copied.uri()), (passed.method(), passed.uri()));
    // A copy has each cookie in a field of its own.
    let but_cookies = |request: &http::Request<()>| {
        let mut fields = request.headers().clone();
        let had = fields.remove("cookie").is_some();
        (fields, had)
    };
    assert_eq!(but_cookies(copied), but_cookies(passed), "{parts:?}");
}

fn http1_response(view: HeadView<'_>, method: Known) -> Option<Vec<u8>> {
    let framed = framing::response(view, method, false).ok()?;
    let mut text = Vec::new();
    encode_response(&mut text, view, &framed, Version::Http11);
    Some(text)
}

fn encode_request(out: &mut dyn Sink, view: HeadView<'_>, framed: &framing::RequestFraming) {
    encode::request(out, view, framed, &no_edits(&HeaderEdits::none()));
}

fn no_edits(headers: &HeaderEdits) -> RequestEdits<'_> {
    RequestEdits {
        host: None,
        target: None,
        client_ip: b"",
        forwarded_proto: "http",
        client_cert: ClientCert::Append("x"),
        token_field: None,
        request_id: None,
        via: None,
        replaced: &[],
        headers,
    }
}

fn encode_response(
    out: &mut dyn Sink,
    view: HeadView<'_>,
    framed: &framing::ResponseFraming,
    client: Version,
) {
    let none = HeaderEdits::none();
    let edits = ResponseEdits {
        close: false,
        keep_alive: false,
        dechunk: false,
        empty: framed.is_empty_for(client),
        via: None,
        replaced: &[],
        headers: &none,
    };
    encode::response(out, view, framed, &edits);
}

/// Exactly one request and nothing behind it.
fn one_request<'a>(text: &'a [u8], head: &'a mut Head) -> HeadView<'a> {
    let parsed = parse::request(text, 0..text.len(), &generous(), head);
    assert_eq!(parsed, Ok(Progress::Complete), "{}", String::from_utf8_lossy(text));
    assert_eq!(head.len, text.len(), "one head and nothing behind it");
    head.view(text)
}

fn one_response<'a>(text: &'a [u8], head: &'a mut Head) -> HeadView<'a> {
    let parsed = parse::response(text, 0..text.len(), &generous(), head);
    assert_eq!(parsed, Ok(Progress::Complete), "{}", String::from_utf8_lossy(text));
    assert_eq!(head.len, text.len(), "one head and nothing behind it");
    head.view(text)
}

fn head_of<'a>(text: &'a [u8], head: &'a mut Head) -> HeadView<'a> {
    one_request(text, head)
}

/// No field has come up that was not there.
fn nothing_smuggled(before: HeadView<'_>, after: HeadView<'_>) {
    let ours: [&[u8]; 5] = [b"host", b"content-length", b"transfer-encoding", b"connection", b"te"];
    let websocket = [http_name(b"upgrade"), http_name(b"sec-websocket-key")];
    for (name, value) in after.fields() {
        let name = http_name(name);
        let known = ours.contains(&&name[..])
            || websocket.contains(&name)
            || name == b"cookie"
            || name.starts_with(b"x-forwarded-");
        let same = |(field, was): (&[u8], &[u8])| {
            field.eq_ignore_ascii_case(&name) && was.trim_ascii() == value.trim_ascii()
        };
        let (field, said) = (String::from_utf8_lossy(&name), String::from_utf8_lossy(value));
        assert!(known || before.fields().any(same), "{field}: {said:?} was not there");
    }
}

fn http_name(name: &[u8]) -> Vec<u8> {
    name.to_ascii_lowercase()
}

/// The fields that a proxy does not change are there again.
fn fields_stay(before: &HeaderMap, after: &HeaderMap) {
    for name in before.keys() {
        let text = name.as_str();
        let ours = ["host", "cookie", "te", "content-length", "http2-settings", "expect"];
        if ours.contains(&text) || text.starts_with("x-forwarded-") {
            continue;
        }
        let values = |fields: &HeaderMap| -> Vec<HeaderValue> {
            fields.get_all(name).iter().cloned().collect()
        };
        assert_eq!(values(before), values(after), "{name}");
    }
}

/// Trailers as they go on by HTTP/2 and come back.
fn trailers_there_and_back(body: &[u8]) {
    let mut lines = Vec::new();
    let mut decoder = Decoder::default();
    let step = decoder.decode_parts(body, &generous(), |_| {}, |byte| lines.push(byte));
    if !step.is_ok_and(|step| step.done) {
        return;
    }
    let Ok(fields) = http2::trailers(&lines) else { return };
    let Ok(back) = http2::trailer_lines(&fields) else { return };
    let chunks = [&b"0\r\n"[..], &back, b"\r\n"].concat();
    let mut again = Vec::new();
    let mut decoder = Decoder::default();
    let step = decoder.decode_parts(&chunks, &generous(), |_| {}, |byte| again.push(byte));
    let step = step.expect("trailers that we wrote");
    assert!(step.done && step.consumed == chunks.len(), "{}", String::from_utf8_lossy(&chunks));
    assert_eq!(again, back);
}
