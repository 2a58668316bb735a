//! Two sessions that talk to each other, and tables of errors.

use super::*;
use crate::http1::framing::LENGTH_FIELD;
use crate::http1::sink::Sink as _;
use crate::http2::{Draft, Peer};
use crate::message::{Limits, Method, Version};
use crate::time::Time;

pub fn session(peer: Peer) -> Session {
    let limits = Limits { header_bytes: 4096, ..Limits::default() };
    let config = Config { peer, message: &limits, floods: FloodLimits::default() };
    Session::new(&config, Time::default())
}

/// A request with its fields.
fn request(method: &str, fields: &[(&str, &str)]) -> Draft {
    let mut draft = Draft::default();
    draft.request_line(method.as_bytes(), &[b"/a?b"]);
    draft.authority(b"example.com");
    fields.iter().for_each(|(name, value)| draft.add(name.as_bytes(), &[value.as_bytes()]));
    draft.end();
    draft
}

fn response(status: u16, fields: &[(&str, &str)]) -> Draft {
    let mut draft = Draft::default();
    draft.status_line(status, b"");
    fields.iter().for_each(|(name, value)| draft.add(name.as_bytes(), &[value.as_bytes()]));
    draft.end();
    draft
}

/// Passes the waiting bytes of `from` to `to`. The streams have the ids 2, 6 and 10 of a client.
pub fn exchange(from: &mut Session, to: &mut Session) -> Result<(), ConnectionError> {
    let Outputs { control, encoder, decoder } = from.outputs();
    for (stream, out) in [(2, control), (6, encoder), (10, decoder)] {
        assert_eq!(to.receive_uni(stream, &std::mem::take(out), false)?, Uni::Continue);
    }
    Ok(())
}

/// Reads a whole stream in portions of this size. Returns the parts as text.
pub fn read(
    session: &mut Session,
    inbound: &mut Inbound,
    bytes: &[u8],
    portion_bytes: usize,
) -> Result<String, Error> {
    let mut said = String::new();
    let mut portions = bytes.chunks(portion_bytes).peekable();
    loop {
        let mut portion = portions.next().unwrap_or_default();
        let fin = portions.peek().is_none();
        loop {
            match inbound.feed(session, 0, &mut portion, fin)? {
                Event::NeedMore => break,
                Event::Head(message) => {
                    let view = message.head.view(&message.text);
                    assert_eq!(view.head.version, Version::Http3);
                    let method = String::from_utf8_lossy(view.method_name());
                    said += &format!("[{method}{} {:?}", view.head.status, message.fault);
                    for (name, value) in view.fields() {
                        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                        said += &format!(" {}={}", text(name), text(value));
                    }
                    said += "]";
                }
                Event::Data(part) => said += &String::from_utf8_lossy(part),
                Event::Trailers(lines) => said += &format!("{:?}", String::from_utf8_lossy(&lines)),
                Event::End => return Ok(said),
                Event::Blocked => return Ok(said + "(blocked)"),
            }
        }
    }
}

fn data(out: &mut Vec<u8>, bytes: &[u8]) {
    Session::data_head(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[test]
fn a_request_and_its_response() {
    let (mut client, mut server) = (session(Peer::Endpoint), session(Peer::Client));
    exchange(&mut client, &mut server).unwrap();
    exchange(&mut server, &mut client).unwrap();
    assert!(client.is_greeted() && server.is_greeted());
    assert!(client.has_extended_connect() && !server.has_extended_connect());
    assert_eq!(client.field_section_max(), Some(4096));
    let post = request("POST", &[(LENGTH_FIELD, "5"), ("x-a", "1"), ("cookie", "a; b")]);
    let lines = b"x-t: 1\r\n";
    // The second time, the lines are in the table.
    for _ in 0..2 {
        let mut out = Vec::new();
        client.request(0, &post, true, &mut out);
        data(&mut out, b"hel");
        data(&mut out, b"lo");
        client.trailers(0, lines, &mut out).unwrap();
        exchange(&mut client, &mut server).unwrap();
        for portion in [1, 2, 7, 10_000] {
            let said = read(&mut server, &mut Inbound::request(), &out, portion).unwrap();
            let head = "[POST0 None host=example.com content-length=5 x-a=1 cookie=a; b]";
            assert_eq!(said, format!("{head}hello{:?}", "x-t: 1\r\n"));
        }
        // Only one of the four readers answers, so that the client does not see too many.
        server.outputs().decoder.clear();
        server.outputs().decoder.extend([0x80, 0x80]);
        exchange(&mut server, &mut client).unwrap();
    }
    let mut out = Vec::new();
    server.response(0, &response(103, &[("link", "x")]), &mut out);
    server.response(0, &response(200, &[(LENGTH_FIELD, "2"), ("date", "now")]), &mut out);
    data(&mut out, b"hi");
    exchange(&mut server, &mut client).unwrap();
    let said = read(&mut client, &mut Inbound::response(Method::Get), &out, 3).unwrap();
    assert_eq!(said, "[103 None link=x][200 None content-length=2 date=now]hi");
}

#[test]
fn a_section_waits_for_its_entries() {
    let (mut client, mut server) = (session(Peer::Endpoint), session(Peer::Client));
    exchange(&mut server, &mut client).unwrap();
    let mut out = Vec::new();
    client.request(0, &request("GET", &[("x-a", "1")]), true, &mut out);
    data(&mut out, b"hello");
    let (mut inbound, mut rest) = (Inbound::request(), &out[..]);
    for _ in 0..2 {
        let event = inbound.feed(&mut server, 0, &mut rest, true).unwrap();
        assert!(matches!(event, Event::Blocked), "{event:?}");
        assert_eq!(server.next_ready(), None);
    }
    exchange(&mut client, &mut server).unwrap();
    assert_eq!((server.next_ready(), server.next_ready()), (Some(0), None));
    let said = read(&mut server, &mut inbound, rest, 100).unwrap();
    assert_eq!(said, "[GET0 None host=example.com x-a=1]hello");
}
