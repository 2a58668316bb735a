//! Tests of drafts. They encode a head, and compare the decoded `name=value` pairs.

use super::*;
use crate::hpack::{Decoder, Encoder, Fields};
use crate::http1::encode::{self, ClientCert, RequestEdits, ResponseEdits};
use crate::http1::parse;
use crate::message::{Head, HeaderEdits, Limits};

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

#[derive(Default)]
struct Said(String);

impl Fields for Said {
    fn field(&mut self, name: &[u8], value: &[u8], never_indexed: bool) {
        if name == b"x-forwarded-proto" {
            return;
        }
        let mark = if never_indexed { "!" } else { "" };
        let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        self.0 += &format!("{mark}{name}={value} ");
    }
}

fn decoded(encode: impl FnOnce(&mut Encoder, &mut Vec<u8>)) -> String {
    let (mut encoder, mut block, mut said) = (Encoder::new(), Vec::new(), Said::default());
    encoder.begin(&mut block);
    encode(&mut encoder, &mut block);
    Decoder::new(4096).decode(&block, &mut said).unwrap();
    said.0.trim_end().to_owned()
}

/// The head that the endpoint gets for an HTTP/1.1 request.
fn asked(text: &str, edits: &RequestEdits<'_>) -> Result<String, u16> {
    let (mut head, limits) = (Head::default(), Limits::default());
    parse::request(text.as_bytes(), 0..text.len(), &limits, &mut head).unwrap();
    let view = head.view(text.as_bytes());
    let framing = framing::request(view).map_err(|refusal| refusal.status)?;
    let mut draft = Draft::default();
    encode::request(&mut draft, view, &framing, edits);
    draft.check_request().map_err(|refusal| refusal.status)?;
    if draft.is_upgrade() {
        draft.take_key();
    }
    Ok(decoded(|encoder, out| draft.encode_request(encoder, out, false)))
}

#[test]
fn requests_are_said_in_http2() {
    for (text, expected) in [
        (
            "GET /p?q HTTP/1.1\r\nHost: a:1\r\nX-A: 1\r\nx-a: 2\r\nConnection: te\r\n\
             TE: trailers\r\nContent-Length: 0\r\n\r\n",
            ":method=GET :scheme=http :path=/p?q :authority=a:1 x-a=1 x-a=2 content-length=0 \
             te=trailers",
        ),
        (
            "POST http://a/?q HTTP/1.1\r\nHost: a\r\nCookie: b=1; c=2\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
            ":method=POST :scheme=http :path=/?q :authority=a !cookie=b=1 !cookie=c=2",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            ":method=OPTIONS :scheme=http :path=* :authority=a",
        ),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", ":method=CONNECT :authority=a:443"),
        (
            "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: k\r\n\
             Connection: upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n",
            ":method=CONNECT :protocol=websocket :scheme=http :path=/chat :authority=a \
             sec-websocket-version=13",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: of nothing\r\n\r\n",
            ":method=GET :scheme=http :path=/ :authority=a sec-websocket-key=of nothing",
        ),
    ] {
        let said = asked(text, &edits(&NONE)).unwrap();
        let sorted = |text: &str| {
            let mut words: Vec<_> = text.split(' ').map(str::to_owned).collect();
            words.sort_unstable();
            words
        };
        assert_eq!(sorted(&said), sorted(expected), "{text}");
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
        assert_eq!(asked(&text, &edits(headers)), Err(status), "{text}");
    }
    let text = "PUT / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
                Connection: upgrade\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(asked(text, &edits(&NONE)), Err(501));
}

#[test]
fn what_must_never_be_indexed_stays_so() {
    let block = b"x-a: secretx-b: open";
    let span = |start, end| Span::new(start, end);
    let mut draft = Draft::default();
    draft.status_line(200, b"");
    draft.keep(Field { name: span(0, 3), value: span(5, 11), sensitive: true }, block);
    draft.keep(Field { name: span(11, 14), value: span(16, 20), sensitive: false }, block);
    let said = decoded(|encoder, out| draft.encode_response(encoder, out));
    assert_eq!(said, ":status=200 !x-a=secret x-b=open");
}

#[test]
fn responses_and_trailers_are_said_in_http2() {
    let said = |text: &str| {
        let (mut head, limits) = (Head::default(), Limits::default());
        parse::response(text.as_bytes(), 0..text.len(), &limits, &mut head).unwrap();
        let view = head.view(text.as_bytes());
        let framing = framing::response(view, Method::Get, true).unwrap();
        let (close, keep_alive, dechunk, empty) = (true, false, false, false);
        let edits = ResponseEdits {
            close,
            keep_alive,
            dechunk,
            empty,
            via: None,
            alt_svc: None,
            replaced: &[],
            more: None,
            headers: &NONE,
        };
        let mut draft = Draft::default();
        encode::response(&mut draft, view, &framing, &edits);
        draft.check_response().unwrap();
        decoded(|encoder, out| draft.encode_response(encoder, out))
    };
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n";
    assert_eq!(said(text), ":status=200 content-length=2");
    let text = "HTTP/1.1 101 \r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
                sec-websocket-accept: x\r\nsec-websocket-protocol: p\r\n\r\n";
    assert_eq!(said(text), ":status=200 sec-websocket-protocol=p");
    let fields = trailers(b"Grpc-Status: 0\r\nx:  y \r\n");
    let said = decoded(|encoder, out| fields.encode_fields(encoder, out));
    assert_eq!(said, "grpc-status=0 x=y");
}
