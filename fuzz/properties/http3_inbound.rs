//! The reader of an HTTP/3 message never panics, and reads the same however the bytes are split.

use ringway::http2::{Message, Peer};
use ringway::http3::{Config, Error, Event, FloodLimits, Inbound, Session};
use ringway::message::{Limits, Method};
use ringway::time::Time;

/// The first byte selects the message and the size of the portions.
pub fn holds(input: &[u8]) {
    let Some((&first, bytes)) = input.split_first() else { return };
    let (at_once, all) = read(first, bytes, bytes.len());
    let (in_portions, part) = read(first, bytes, usize::from(first >> 2) + 1);
    assert_eq!(at_once, in_portions);
    assert!(at_once.is_err() || all == part);
}

type Said = (Result<(), Error>, String);

fn read(kind: u8, bytes: &[u8], portion_bytes: usize) -> Said {
    let limits = Limits { header_bytes: 2048, ..Limits::default() };
    let peer = if kind & 1 == 0 { Peer::Client } else { Peer::Endpoint };
    let config = Config { peer, message: &limits, floods: FloodLimits::default() };
    let mut session = Session::new(&config, Time::default());
    // Some entries for the dynamic table: the capacity is 4096, then x: y, and :path: /z.
    let entries = b"\x02\x3f\xe1\x1f\x41x\x01y\xc1\x02/z";
    session.receive_uni(2, entries, false).unwrap();
    let mut inbound = match (kind & 1, kind & 2) {
        (0, _) => Inbound::request(),
        (_, 0) => Inbound::response(Method::Get),
        _ => Inbound::response(Method::Head),
    };
    let mut said = String::new();
    let mut portions = bytes.chunks(portion_bytes.max(1)).peekable();
    let mut body = 0;
    loop {
        let mut portion = portions.next().unwrap_or_default();
        let fin = portions.peek().is_none();
        loop {
            let before = portion.len();
            let event = match inbound.feed(&mut session, 0, &mut portion, fin) {
                Ok(event) => event,
                Err(error) => return (Err(error), said),
            };
            assert!(portion.len() <= before);
            match event {
                Event::NeedMore => break,
                Event::Head(message) => said += &head(&message),
                Event::Data(part) => {
                    assert!(!part.is_empty());
                    body += part.len();
                }
                Event::Trailers(lines) => {
                    said += &format!("{body} {:?}", String::from_utf8_lossy(&lines));
                }
                Event::End => {
                    assert!(inbound.content_left().is_none_or(|left| left == 0));
                    return (Ok(()), format!("{said} {body}"));
                }
                Event::Blocked => return (Ok(()), format!("{said} {body} blocked")),
            }
        }
        assert!(portion.is_empty());
        assert!(!fin);
    }
}

fn head(message: &Message) -> String {
    let view = message.head.view(&message.text);
    let mut said = format!("{:?} {} {:?}", message.fault, view.head.status, view.head.ends);
    for (name, value) in view.fields() {
        said += &format!(" {name:?}={value:?}");
    }
    said
}
