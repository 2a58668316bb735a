//! Translation of messages. From HTTP/1.1 to HTTP/2 and back, a message keeps its meaning and its
//! boundaries. From HTTP/2 to HTTP/1.1, a message becomes exactly one message, or is refused.

use ringway::hpack::{Decoder as Unpacker, Encoder, Fields as _};
use ringway::http1::chunked::Decoder;
use ringway::http1::encode::{self, ClientCert, RequestEdits, ResponseEdits};
use ringway::http1::framing::{self, Body};
use ringway::http1::parse::{self, Progress};
use ringway::http1::sink::Sink;
use ringway::http2::{self, Draft, Message, Place};
use ringway::message::Limits;
use ringway::message::{Head, HeadView, HeaderEdits, Method as Known, Version};

/// Checks the property for `input`.
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

/// High limits, because this property is not about limits.
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
    let Some(draft) = drafted(view, &received) else { return };
    if draft.method() == Known::Connect && received.body != Body::None {
        return; // HTTP/2 refuses a CONNECT with a body
    }
    let ends = received.body == Body::None && !received.upgrade;
    let came =
        packed(Place::Request, ends, |encoder, out| draft.encode_request(encoder, out, false));
    let again = as_http1(came).unwrap_or_else(|| panic!("not taken back: {draft:?}"));
    let mut read = Head::default();
    let sent = one_request(&again, &mut read);
    let framed = framing::request(sent).expect("framing that we wrote");
    assert_eq!((received.body, received.upgrade), (framed.body, framed.upgrade), "{draft:?}");
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
        return; // an interim response has no body
    }
    let Ok(received) = framing::response(view, method, false) else { return };
    let mut draft = Draft::default();
    encode_response(&mut draft, view, &received, Version::Http2);
    if draft.check_response().is_err() {
        return;
    }
    let ends = received.body == Body::None;
    let came = packed(Place::Response, ends, |encoder, out| draft.encode_response(encoder, out));
    assert_eq!(came.fault, None, "not taken back: {draft:?}");
    let back = http1_response(came.head.view(&came.text), method).expect("a response that we sent");
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

/// Checks a request that is received by HTTP/2.
fn request_of_http2(bytes: &[u8], ends: bool) {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let (method, path, authority) = (next(), next(), next());
    let mut message = Message::new(Place::Request, Version::Http2, &generous());
    for (name, value) in [(&b":method"[..], method), (b":path", path), (b":authority", authority)] {
        if !value.is_empty() {
            message.field(name, value, false);
        }
    }
    if method != b"CONNECT" {
        message.field(b":scheme", b"https", false);
    }
    if !take_fields(&mut message, lines) {
        return;
    }
    message.finish(ends, &generous());
    if ends && message.content_length.is_some_and(|length| length > 0) {
        return; // the connection refuses this (RFC 9113 8.1.1)
    }
    let Some(text) = as_http1(message) else { return };
    let mut head = Head::default();
    let view = one_request(&text, &mut head);
    let framed = framing::request(view).expect("framing that we wrote");
    let none = framed.body == Body::None;
    // A stream that ends with its head has no body.
    assert!(none || !ends, "{}", String::from_utf8_lossy(&text));
    assert_eq!(view.method_name(), method);
    let Some(draft) = drafted(view, &framed) else { return };
    let again =
        packed(Place::Request, ends, |encoder, out| draft.encode_request(encoder, out, true));
    assert_eq!(again.fault, None, "{draft:?}");
    let again = again.head.view(&again.text);
    assert_eq!((again.method_name(), again.target()), (method, view.target()));
    fields_stay(view, again);
}

fn response_of_http2(bytes: &[u8], ends: bool, method: Known) {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let mut message = Message::new(Place::Response, Version::Http2, &generous());
    message.field(b":status", lines.next().unwrap_or_default(), false);
    if !take_fields(&mut message, lines) {
        return;
    }
    message.finish(ends, &generous());
    if message.fault.is_some() || message.head.status < 200 {
        return;
    }
    let status = message.head.status;
    let came = message.head.view(&message.text);
    let Some(text) = http1_response(came, method) else { return };
    let mut read = Head::default();
    let view = one_response(&text, &mut read);
    let framed = framing::response(view, method, false).expect("framing that we wrote");
    let bodiless = method == Known::Head || matches!(status, 204 | 304);
    match (ends || bodiless, framed.body) {
        (true, Body::None) | (false, Body::Chunked) => {}
        // The connection has already compared the body with its length.
        (_, Body::Length(_)) | (false, Body::None) => assert!(message.content_length.is_some()),
        (_, body) => panic!("{body:?} for {status}, ends: {ends}"),
    }
    let mut draft = Draft::default();
    encode_response(&mut draft, view, &framed, Version::Http2);
    let again = packed(Place::Response, ends, |encoder, out| draft.encode_response(encoder, out));
    assert_eq!((again.fault, again.head.status), (None, status));
    fields_stay(came, again.head.view(&again.text));
}

/// Adds a field for each line. Returns false if there are more fields than the limits allow.
fn take_fields<'a>(message: &mut Message, lines: impl Iterator<Item = &'a [u8]>) -> bool {
    for line in lines.filter(|line| !line.is_empty()) {
        let colon = line.iter().skip(1).position(|&byte| byte == b':').map(|at| at + 1);
        let Some(colon) = colon else { return false };
        message.field(&line[..colon], &line[colon + 1..], false);
    }
    message.head.fields.len() <= 200
}

/// A draft of a request, if HTTP/2 can express it.
fn drafted(view: HeadView<'_>, framed: &framing::RequestFraming) -> Option<Draft> {
    let mut draft = Draft::default();
    encode_request(&mut draft, view, framed);
    draft.check_request().ok()?;
    if draft.is_upgrade() {
        draft.take_key();
    }
    Some(draft)
}

/// Encodes a header block and decodes it, as the peer does.
fn packed(place: Place, ends: bool, encode: impl FnOnce(&mut Encoder, &mut Vec<u8>)) -> Message {
    let (mut encoder, mut block) = (Encoder::new(), Vec::new());
    encoder.begin(&mut block);
    encode(&mut encoder, &mut block);
    let mut message = Message::new(place, Version::Http2, &generous());
    Unpacker::new(4096).decode(&block, &mut message).expect("a block that we wrote");
    message.finish(ends, &generous());
    message
}

/// Translates an HTTP/2 request to HTTP/1.1. Returns `None` if it is refused.
fn as_http1(mut message: Message) -> Option<Vec<u8>> {
    if message.fault.is_some() {
        return None;
    }
    if message.is_websocket() {
        message.upgrade(*b"0123456789abcdef");
    }
    let Message { text: block, mut head, .. } = message;
    parse::understand(&block, &generous(), &mut head).ok()?;
    let view = head.view(&block);
    let framed = framing::request(view).ok()?;
    let mut text = Vec::new();
    encode_request(&mut text, view, &framed);
    Some(text)
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
        alt_svc: None,
        via: None,
        replaced: &[],
        more: None,
        headers: &none,
    };
    encode::response(out, view, framed, &edits);
}

/// Parses `text`, and checks that it is exactly one request.
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

/// Checks that `after` has no field that `before` does not have, except those that the proxy adds.
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

/// Checks that the fields that a proxy must not change are unchanged.
fn fields_stay(before: HeadView<'_>, after: HeadView<'_>) {
    for (name, _) in before.fields() {
        let name = http_name(name);
        let text = String::from_utf8_lossy(&name);
        let ours = ["host", "cookie", "te", "content-length", "http2-settings", "expect"];
        let of_connections = ["connection", "upgrade", "sec-websocket-key", "transfer-encoding"];
        if ours.contains(&&*text)
            || of_connections.contains(&&*text)
            || text.starts_with("x-forwarded-")
        {
            continue;
        }
        let values = |head: HeadView<'_>| -> Vec<Vec<u8>> {
            head.values(&name).map(<[u8]>::to_vec).collect()
        };
        assert_eq!(values(before), values(after), "{text}");
    }
}

/// Checks that trailers stay the same over HTTP/2 and back.
fn trailers_there_and_back(body: &[u8]) {
    let mut lines = Vec::new();
    let mut decoder = Decoder::default();
    let step = decoder.decode_parts(body, &generous(), |_| {}, |byte| lines.push(byte));
    if !step.is_ok_and(|step| step.done) {
        return;
    }
    let draft = http2::trailers(&lines);
    if draft.check_response().is_err() {
        return;
    }
    let back = packed(Place::Trailers, true, |encoder, out| draft.encode_fields(encoder, out));
    if back.fault.is_some() {
        return;
    }
    let chunks = [&b"0\r\n"[..], &back.text, b"\r\n"].concat();
    let mut again = Vec::new();
    let mut decoder = Decoder::default();
    let step = decoder.decode_parts(&chunks, &generous(), |_| {}, |byte| again.push(byte));
    let step = step.expect("trailers that we wrote");
    assert!(step.done && step.consumed == chunks.len(), "{}", String::from_utf8_lossy(&chunks));
    assert_eq!(again, back.text);
}
