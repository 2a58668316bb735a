//! A forwarded message has the same meaning as the received message. A request that is parsed,
//! encoded and parsed again has the same method, path, framing and boundaries. A chunked body ends
//! at the same byte, however it is split.

use ringway::http1::chunked::Decoder;
use ringway::http1::encode::{self, RequestEdits};
use ringway::http1::framing::{self, Body};
use ringway::http1::parse;
use ringway::message::Limits;
use ringway::message::{Head, HeaderEdits};

pub fn holds(bytes: &[u8]) {
    let limits = Limits::default();
    let mut head = Head::default();
    let parsed = parse::request(bytes, 0..bytes.len(), &limits, &mut head);
    let Ok(parse::Progress::Complete) = parsed else { return };
    let view = head.view(bytes);
    let Ok(received) = framing::request(view) else { return };
    let none = HeaderEdits::none();
    let edits = RequestEdits {
        // The proxy adds a host to an HTTP/1.0 request without one.
        host: view.authority().is_empty().then_some(&b"endpoint"[..]),
        target: None,
        client_ip: b"192.0.2.1",
        forwarded_proto: "http",
        client_cert: encode::ClientCert::Drop,
        token_field: None,
        request_id: None,
        via: None,
        replaced: &[],
        headers: &none,
    };
    let mut out = Vec::new();
    encode::request(&mut out, view, &received, &edits);
    let generous = Limits { header_bytes: 1 << 20, headers: 256, uri_bytes: 1 << 20, ..limits };
    let mut again = Head::default();
    let parsed = parse::request(&out, 0..out.len(), &generous, &mut again);
    assert_eq!(parsed, Ok(parse::Progress::Complete), "{}", String::from_utf8_lossy(&out));
    assert_eq!(again.len, out.len(), "one head and nothing behind it");
    let sent = again.view(&out);
    let read = framing::request(sent).expect("framing that we wrote");
    assert_eq!((received.body, received.upgrade), (read.body, read.upgrade));
    assert_eq!(view.method_name(), sent.method_name());
    assert_eq!((view.path(), view.query()), (sent.path(), sent.query()));
    assert!(view.authority().eq_ignore_ascii_case(sent.authority()));
    if received.body == Body::Chunked {
        chunks_end_alike(&bytes[head.start + head.len..], &limits);
    }
}

fn chunks_end_alike(body: &[u8], limits: &Limits) {
    let mut whole = Decoder::default();
    let at_once = whole.decode(body, limits);
    let mut dripped = Decoder::default();
    let mut consumed = 0;
    let in_parts = loop {
        let portion = &body[consumed..body.len().min(consumed + 1)];
        match dripped.decode(portion, limits) {
            Ok(step) if step.done || portion.is_empty() => {
                break Ok((consumed + step.consumed, step.done));
            }
            Ok(step) => consumed += step.consumed,
            Err(refusal) => break Err(refusal),
        }
    };
    assert_eq!(at_once.map(|step| (step.consumed, step.done)), in_parts);
}
