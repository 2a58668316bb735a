//! Each error of a peer has its code (RFC 9114 8.1, RFC 9204 6).

use super::frame::write_frame;
use super::tests::{exchange, read, session};
use super::*;
use crate::hpack::qpack::Encoder;
use crate::hpack::{FieldEncoder as _, Indexing};
use crate::http1::framing::LENGTH_FIELD;
use crate::http2::Peer;
use crate::message::Method;
use crate::time::Time;

/// A frame of this type.
fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_frame(&mut out, kind, payload);
    out
}

/// A HEADERS frame with these fields, which does not use the dynamic table.
fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    let (mut encoder, mut section, mut lines) = (Encoder::new(), Vec::new(), Vec::new());
    encoder.begin(0);
    for (name, value) in fields {
        encoder.field(&mut lines, name.as_bytes(), value.as_bytes(), Indexing::Table);
    }
    encoder.end(&mut section);
    section.append(&mut lines);
    frame(1, &section)
}

fn post(length: &str) -> Vec<u8> {
    let pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", "a"), (":path", "/")];
    headers(&[&pseudo[..], &[(LENGTH_FIELD, length)]].concat())
}

fn get() -> Vec<u8> {
    headers(&[(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")])
}

fn ok(length: &str) -> Vec<u8> {
    headers(&[(":status", "200"), (LENGTH_FIELD, length)])
}

/// The code that ends a stream or a connection, and which of the two. `None` for a message without
/// an error.
type Failed = Option<(&'static str, Code)>;

/// See [`Failed`].
fn code(error: Error) -> (&'static str, Code) {
    match error {
        Error::Stream(code, _) => ("stream", code),
        Error::Connection(ConnectionError { code, .. }) => ("connection", code),
    }
}

/// Reads a message in portions of all sizes. Returns its error, which must always be the same.
fn failure(peer: Peer, inbound: fn() -> Inbound, bytes: &[u8]) -> Failed {
    let failed = |portion| read(&mut session(peer), &mut inbound(), bytes, portion).err().map(code);
    let at_once = failed(bytes.len().max(1));
    for portion in 1..bytes.len().min(20) {
        assert_eq!(failed(portion), at_once, "{portion}: {bytes:x?}");
    }
    at_once
}

#[test]
fn wrong_requests() {
    const S: &str = "stream";
    const C: &str = "connection";
    let trailers = || headers(&[("x-t", "1")]);
    let connect = || headers(&[(":method", "CONNECT"), (":authority", "a:1")]);
    let upgrade = || {
        let protocol = [(":method", "CONNECT"), (":protocol", "websocket")];
        let others = [(":scheme", "https"), (":authority", "a"), (":path", "/")];
        headers(&[&protocol[..], &others[..]].concat())
    };
    let data = || frame(0, b"hello");
    let cases: &[(&[Vec<u8>], Failed)] = &[
        (&[get()], None),
        (&[get(), data(), data(), trailers()], None),
        (&[frame(0x21, b"?"), get(), frame(0x40, b""), data(), frame(0x5f, b"x")], None),
        (&[post("10"), data(), data(), trailers(), frame(0x21, b"")], None),
        (&[connect(), data()], None),
        // The end of the stream.
        (&[], Some((S, Code::REQUEST_INCOMPLETE))),
        (&[frame(0x21, b"?")], Some((S, Code::REQUEST_INCOMPLETE))),
        (&[vec![0x01]], Some((C, Code::FRAME_ERROR))),
        (&[vec![0x40]], Some((C, Code::FRAME_ERROR))),
        (&[get()[..9].to_vec()], Some((C, Code::FRAME_ERROR))),
        (&[get(), data()[..4].to_vec()], Some((C, Code::FRAME_ERROR))),
        (&[get(), vec![0x21, 9, 1]], Some((C, Code::FRAME_ERROR))),
        // The order of frames.
        (&[data()], Some((C, Code::FRAME_UNEXPECTED))),
        (&[get(), trailers(), data()], Some((C, Code::FRAME_UNEXPECTED))),
        (&[get(), trailers(), trailers()], Some((C, Code::FRAME_UNEXPECTED))),
        (&[connect(), trailers()], Some((C, Code::FRAME_UNEXPECTED))),
        (&[upgrade(), trailers()], Some((C, Code::FRAME_UNEXPECTED))),
        // Content-Length.
        (&[post("1")], Some((S, Code::MESSAGE_ERROR))),
        (&[post("6"), data()], Some((S, Code::MESSAGE_ERROR))),
        (&[post("6"), data(), trailers()], Some((S, Code::MESSAGE_ERROR))),
        (&[post("4"), data()], Some((S, Code::MESSAGE_ERROR))),
        (&[post("5"), data(), data()], Some((S, Code::MESSAGE_ERROR))),
        (&[post("x")], Some((S, Code::MESSAGE_ERROR))),
        // Heads and trailers.
        (&[headers(&[])], Some((S, Code::MESSAGE_ERROR))),
        (&[headers(&[(":method", "GET")])], Some((S, Code::MESSAGE_ERROR))),
        (&[headers(&[(":status", "200")])], Some((S, Code::MESSAGE_ERROR))),
        (&[headers(&[("X-A", "1")])], Some((S, Code::MESSAGE_ERROR))),
        (&[headers(&[("connection", "close")])], Some((S, Code::MESSAGE_ERROR))),
        (&[get(), headers(&[(":path", "/")])], Some((S, Code::MESSAGE_ERROR))),
        (&[get(), headers(&[(LENGTH_FIELD, "1")])], Some((S, Code::MESSAGE_ERROR))),
        (&[get(), headers(&[("x", &"y".repeat(5000))])], Some((S, Code::EXCESSIVE_LOAD))),
        // QPACK.
        (&[frame(1, b"")], Some((C, Code::QPACK_DECOMPRESSION_FAILED))),
        (&[frame(1, b"\0\0\x80")], Some((C, Code::QPACK_DECOMPRESSION_FAILED))),
        (&[frame(1, b"\0\0\xff\x24")], Some((C, Code::QPACK_DECOMPRESSION_FAILED))),
        (&[frame(1, b"\0\x80")], Some((C, Code::QPACK_DECOMPRESSION_FAILED))),
        (&[frame(1, b"\xff\x02\0")], Some((C, Code::QPACK_DECOMPRESSION_FAILED))),
    ];
    for (parts, expected) in cases {
        let bytes = parts.concat();
        assert_eq!(failure(Peer::Client, Inbound::request, &bytes), *expected, "{bytes:x?}");
    }
    // These types belong to the control stream or to HTTP/2, and are an error everywhere.
    for kind in [0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9, 0xd, 0xf0700, 0xf0701] {
        for before in [vec![], get(), [get(), trailers()].concat()] {
            let bytes = [before, frame(kind, b"\0")].concat();
            let failed = failure(Peer::Client, Inbound::request, &bytes);
            assert_eq!(failed, Some((C, Code::FRAME_UNEXPECTED)), "{kind:x}");
        }
    }
}

#[test]
fn wrong_responses() {
    const S: &str = "stream";
    const C: &str = "connection";
    let early = || headers(&[(":status", "103")]);
    let data = || frame(0, b"hello");
    let cases: &[(&[Vec<u8>], Failed)] = &[
        (&[early(), early(), ok("5"), data()], None),
        (&[headers(&[(":status", "304"), (LENGTH_FIELD, "5")])], None),
        // An endpoint that uses status 101 gets a response of our own; it is not malformed.
        (&[headers(&[(":status", "101")])], None),
        (&[], Some((S, Code::MESSAGE_ERROR))),
        (&[early()], Some((S, Code::MESSAGE_ERROR))),
        (&[early(), frame(0x21, b"")], Some((S, Code::MESSAGE_ERROR))),
        (&[early(), data()], Some((C, Code::FRAME_UNEXPECTED))),
        (&[ok("5")], Some((S, Code::MESSAGE_ERROR))),
        (&[ok("4"), data()], Some((S, Code::MESSAGE_ERROR))),
        (&[headers(&[(":status", "2000")])], Some((S, Code::MESSAGE_ERROR))),
        (&[frame(5, b"\0\0\0")], Some((C, Code::ID_ERROR))),
        (&[ok("5"), frame(5, b"\0\0\0")], Some((C, Code::ID_ERROR))),
        (&[frame(4, b"")], Some((C, Code::FRAME_UNEXPECTED))),
    ];
    for (parts, expected) in cases {
        let bytes = parts.concat();
        let inbound = || Inbound::response(Method::Get);
        assert_eq!(failure(Peer::Endpoint, inbound, &bytes), *expected, "{bytes:x?}");
    }
    let head = || Inbound::response(Method::Head);
    assert_eq!(failure(Peer::Endpoint, head, &ok("5")), None);
    let connect = || Inbound::response(Method::Connect);
    let tunnel = [headers(&[(":status", "200")]), headers(&[("x", "y")])].concat();
    assert_eq!(failure(Peer::Endpoint, connect, &tunnel), Some((C, Code::FRAME_UNEXPECTED)));
}

#[test]
fn a_head_that_is_too_large_is_refused_and_not_an_error() {
    let fields = vec![("x", "y"); 150];
    let many =
        headers(&[&[(":method", "GET"), (":scheme", "a"), (":path", "/")], &fields[..]].concat());
    let large = headers(&[(":method", "GET"), ("x", &"y".repeat(5000))]);
    for head in [many, large] {
        let bytes = [head, frame(0, b"body")].concat();
        for portion in [1, 1000, 10_000] {
            let said = read(&mut session(Peer::Client), &mut Inbound::request(), &bytes, portion);
            assert!(said.unwrap().contains("TooLarge"), "{portion}");
        }
    }
}

/// Reads streams of a client's or an endpoint's connection: the id, the bytes, and whether they
/// end.
fn connection(
    peer: Peer,
    streams: &[(u64, &[u8], bool)],
    portion_bytes: usize,
) -> Result<Uni, Code> {
    let mut session = session(peer);
    let mut last = Uni::Continue;
    for (stream, bytes, fin) in streams {
        let mut portions = bytes.chunks(portion_bytes).peekable();
        while let Some(portion) = portions.next() {
            let fin = *fin && portions.peek().is_none();
            last = session.receive_uni(*stream, portion, fin).map_err(|error| error.code)?;
        }
    }
    Ok(last)
}

/// A control stream with empty SETTINGS and this frame.
fn after(kind: u64, payload: &[u8]) -> Vec<u8> {
    [b"\0\x04\0".to_vec(), frame(kind, payload)].concat()
}

const FINE: Result<Uni, Code> = Ok(Uni::Continue);

/// Checks streams, each with its result, in portions of several sizes.
fn check(cases: &[(Peer, Vec<u8>, Result<Uni, Code>)]) {
    for (peer, bytes, expected) in cases {
        for portion in [1, 3, bytes.len()] {
            let said = connection(*peer, &[(2, bytes, false)], portion);
            assert_eq!(said, *expected, "{peer:?} {bytes:x?}");
        }
    }
}

#[test]
fn settings_and_frames_of_the_control_stream() {
    use Peer::{Client, Endpoint};
    let settings = |payload: &[u8]| [vec![0], frame(4, payload)].concat();
    check(&[
        // SETTINGS.
        (Client, settings(b"\x01\x40\x64\x06\x05\x07\x10\x08\x01\x33\x01\x21\x3f"), FINE),
        (Client, vec![0, 0x21, 0], Err(Code::MISSING_SETTINGS)),
        (Client, vec![0, 7, 1, 0], Err(Code::MISSING_SETTINGS)),
        (Client, vec![0, 0, 1], Err(Code::MISSING_SETTINGS)),
        (Client, after(4, b""), Err(Code::FRAME_UNEXPECTED)),
        (Client, settings(b"\x01"), Err(Code::FRAME_ERROR)),
        (Client, settings(b"\x01\x40"), Err(Code::FRAME_ERROR)),
        (Client, settings(b"\x06\x01\x06\x01"), Err(Code::SETTINGS_ERROR)),
        (Client, settings(b"\x21\x01\x21\x01"), Err(Code::SETTINGS_ERROR)),
        (Client, settings(b"\x02\x00"), Err(Code::SETTINGS_ERROR)),
        (Client, settings(b"\x03\x00"), Err(Code::SETTINGS_ERROR)),
        (Client, settings(b"\x04\x00"), Err(Code::SETTINGS_ERROR)),
        (Client, settings(b"\x05\x00"), Err(Code::SETTINGS_ERROR)),
        (Client, settings(b"\x08\x02"), Err(Code::SETTINGS_ERROR)),
        (Client, settings(b"\x33\x02"), Err(Code::SETTINGS_ERROR)),
        (Client, settings(&[0; 2000]), Err(Code::EXCESSIVE_LOAD)),
        // Frames that are not allowed on the control stream.
        (Client, after(0, b""), Err(Code::FRAME_UNEXPECTED)),
        (Client, after(1, b""), Err(Code::FRAME_UNEXPECTED)),
        (Client, after(5, b""), Err(Code::FRAME_UNEXPECTED)),
        (Client, after(2, b""), Err(Code::FRAME_UNEXPECTED)),
        (Client, after(6, b""), Err(Code::FRAME_UNEXPECTED)),
        (Client, after(8, b""), Err(Code::FRAME_UNEXPECTED)),
        (Client, after(9, b""), Err(Code::FRAME_UNEXPECTED)),
        (Endpoint, after(0xd, b"\0"), Err(Code::FRAME_UNEXPECTED)),
        (Endpoint, after(0xf0700, b"\0"), Err(Code::FRAME_UNEXPECTED)),
        (Endpoint, after(0xf0701, b"\0"), Err(Code::FRAME_UNEXPECTED)),
    ]);
}

#[test]
fn ids_and_sizes_on_the_control_stream() {
    use Peer::{Client, Endpoint};
    let go_away_twice = |a, b| [after(7, &[a]), frame(7, &[b])].concat();
    let long = |kind| after(kind, &[0xc0, 0, 0, 0, 0, 0, 0, 0, 0]);
    check(&[
        // Ids.
        (Client, go_away_twice(9, 9), FINE),
        (Client, go_away_twice(8, 9), Err(Code::ID_ERROR)),
        (Endpoint, go_away_twice(8, 4), FINE),
        (Endpoint, go_away_twice(4, 8), Err(Code::ID_ERROR)),
        (Endpoint, after(7, b"\x05"), Err(Code::ID_ERROR)),
        (Client, [after(0xd, b"\x05"), frame(0xd, b"\x05")].concat(), FINE),
        (Client, [after(0xd, b"\x05"), frame(0xd, b"\x04")].concat(), Err(Code::ID_ERROR)),
        (Client, after(3, b"\0"), Err(Code::ID_ERROR)),
        (Endpoint, after(3, b"\0"), Err(Code::ID_ERROR)),
        (Client, after(0xf0700, b"\x08u=1, i"), FINE),
        (Client, after(0xf0700, b"\x05u=1"), Err(Code::ID_ERROR)),
        (Client, after(0xf0701, b"\0u=1"), Err(Code::ID_ERROR)),
        // Sizes.
        (Client, after(7, b""), Err(Code::FRAME_ERROR)),
        (Client, after(7, b"\0\0"), Err(Code::FRAME_ERROR)),
        (Client, long(7), Err(Code::FRAME_ERROR)),
        (Client, after(0xd, b"\x40"), Err(Code::FRAME_ERROR)),
        (Client, after(3, b""), Err(Code::FRAME_ERROR)),
        (Client, after(0xf0700, b""), Err(Code::FRAME_ERROR)),
        (Client, after(0xf0701, b"\x40"), Err(Code::FRAME_ERROR)),
        // A large frame of an unknown type is skipped.
        (Client, after(0x21, &[7; 5000]), FINE),
    ]);
}

#[test]
fn streams_of_the_connection() {
    use Peer::{Client, Endpoint};
    check(&[
        // Types of streams.
        (Client, vec![1], Err(Code::STREAM_CREATION_ERROR)),
        (Endpoint, vec![1, 0], Err(Code::ID_ERROR)),
        (Client, vec![0x40, 0x54], Ok(Uni::Ignore)),
        (Client, vec![0x40], FINE),
        // QPACK: a capacity above ours, an entry above the capacity, unknown entries.
        (Client, b"\x02\x3f\xe2\x1f".to_vec(), Err(Code::QPACK_ENCODER_STREAM_ERROR)),
        (Client, b"\x02\x41x\x01y".to_vec(), Err(Code::QPACK_ENCODER_STREAM_ERROR)),
        (Client, b"\x02\x3f\xe1\x1f\x00".to_vec(), Err(Code::QPACK_ENCODER_STREAM_ERROR)),
        (Client, b"\x02\x3f\xe1\x1f\x80\x01y".to_vec(), Err(Code::QPACK_ENCODER_STREAM_ERROR)),
        (Client, b"\x02\x3f\xe1\x1f\xff\x24\x01y".to_vec(), Err(Code::QPACK_ENCODER_STREAM_ERROR)),
        (Client, b"\x03\x80".to_vec(), Err(Code::QPACK_DECODER_STREAM_ERROR)),
        (Client, b"\x03\x00".to_vec(), Err(Code::QPACK_DECODER_STREAM_ERROR)),
        (Client, b"\x03\x01".to_vec(), Err(Code::QPACK_DECODER_STREAM_ERROR)),
    ]);
    // Streams that must stay open, and exist once.
    for kind in [0, 2, 3] {
        let again = connection(Client, &[(2, &[kind], false), (6, &[kind], false)], 1);
        assert_eq!(again, Err(Code::STREAM_CREATION_ERROR));
        assert_eq!(connection(Client, &[(2, &[kind], true)], 1), Err(Code::CLOSED_CRITICAL_STREAM));
        let mut session = session(Client);
        session.receive_uni(2, &[kind], false).unwrap();
        assert_eq!(session.uni_reset(6), Ok(()));
        assert_eq!(session.uni_reset(2).unwrap_err().code, Code::CLOSED_CRITICAL_STREAM);
        assert_eq!(Session::uni_stopped().code, Code::CLOSED_CRITICAL_STREAM);
    }
    // A stream that ends without a type is no error; too many of them at once are.
    assert_eq!(connection(Client, &[(2, &[0x40], true), (6, &[0x21], false)], 1), Ok(Uni::Ignore));
    let untyped: Vec<_> = (0..20).map(|n| (4 * n + 2, &[0x40][..], false)).collect();
    assert_eq!(connection(Client, &untyped, 1), Err(Code::EXCESSIVE_LOAD));
}

/// How many times `round` succeeds, and the label of the limit that it exceeds.
fn taken(
    peer: Peer,
    mut round: impl FnMut(&mut Session) -> Result<(), Error>,
) -> (u32, &'static str) {
    let mut session = session(peer);
    session.receive_uni(2, b"\0\x04\0", false).unwrap();
    session.receive_uni(6, b"\x02\x3f\xe1\x1f", false).unwrap();
    for n in 0..5000 {
        match round(&mut session) {
            Ok(()) => {}
            Err(Error::Connection(ConnectionError { code, excess: Some(excess), .. })) => {
                assert_eq!(code, Code::EXCESSIVE_LOAD);
                return (n, excess.flood.label());
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    (5000, "")
}

#[test]
fn each_flood_ends_at_its_limit() {
    let control = |bytes: Vec<u8>| {
        move |session: &mut Session| Ok(session.receive_uni(2, &bytes, false).map(drop)?)
    };
    assert_eq!(taken(Peer::Client, control(frame(0x21, b"grease"))), (100, "other_frames"));
    assert_eq!(taken(Peer::Client, control(frame(7, b"\0"))), (100, "other_frames"));
    assert_eq!(taken(Peer::Client, control(frame(0xd, b"\0"))), (100, "other_frames"));
    let priorities = control(frame(0xf0700, b"\0u=1"));
    assert_eq!(taken(Peer::Client, priorities), (1000, "priority_frames"));
    let unknown = |session: &mut Session| Ok(session.receive_uni(10, b"\x21", false).map(drop)?);
    assert_eq!(taken(Peer::Client, unknown), (100, "other_frames"));
    let insert =
        |session: &mut Session| Ok(session.receive_uni(6, b"\x41x\x01y", false).map(drop)?);
    assert_eq!(taken(Peer::Client, insert).1, "table_changes");
    let reset = |session: &mut Session| Ok(session.reset_by_peer(0)?);
    assert_eq!(taken(Peer::Client, reset), (1000, "stream_resets"));
    assert_eq!(taken(Peer::Endpoint, reset), (5000, ""));
    let provoked = |session: &mut Session| Ok(session.reset_by_us(0, Code::MESSAGE_ERROR)?);
    assert_eq!(taken(Peer::Client, provoked), (500, "provoked_resets"));
    let cancelled = |session: &mut Session| Ok(session.reset_by_us(0, Code::REQUEST_CANCELLED)?);
    assert_eq!(taken(Peer::Client, cancelled), (5000, ""));
    // A client that gives up 5000 requests before their heads, and does not read our answers.
    let given_up = |session: &mut Session| {
        (0..100).try_for_each(|n| session.reset_by_us(4 * n, Code::REQUEST_CANCELLED))?;
        Ok(())
    };
    assert_eq!(taken(Peer::Client, given_up).1, "unread_answers");
    // In a message.
    let mut inbound = Inbound::request();
    let mut feed = |session: &mut Session, bytes: &[u8]| {
        let mut rest = bytes;
        while !matches!(inbound.feed(session, 0, &mut rest, false)?, Event::NeedMore) {}
        Ok(())
    };
    feed(&mut session(Peer::Client), &get()).unwrap();
    let empty = |session: &mut Session| feed(session, &frame(0, b""));
    assert_eq!(taken(Peer::Client, empty), (100, "empty_frames"));
    let mut inbound = Inbound::request();
    let other = |session: &mut Session| {
        let bytes = frame(0x21, b"");
        let event = inbound.feed(session, 0, &mut &bytes[..], false)?;
        assert!(matches!(event, Event::NeedMore));
        Ok(())
    };
    assert_eq!(taken(Peer::Client, other), (100, "other_frames"));
    // Each line of this section is an entry of 3 KB.
    let bomb = |session: &mut Session| {
        let value = [&b"\x41x\x7f\x81\x17"[..], &[b'y'; 3072]].concat();
        session.receive_uni(6, &value, false)?;
        let section = [&b"\x02\0"[..], &[0x80; 3000]].concat();
        let bytes = frame(1, &section);
        Inbound::request().feed(session, 0, &mut &bytes[..], false).map(drop)
    };
    assert_eq!(taken(Peer::Client, bomb), (0, "header_bytes"));
}

#[test]
fn a_normal_peer_is_never_told_to_calm_down() {
    let mut session = session(Peer::Client);
    session.receive_uni(2, b"\0\x04\0", false).unwrap();
    session.receive_uni(6, b"\x02\x3f\xe1\x1f", false).unwrap();
    let request = [get(), frame(0x21, b"grease")].concat();
    for n in 0..20_000_u64 {
        session.pass_time(Time::from_micros(n * 1000));
        // A browser sends a priority for each request, and some entries for the table.
        session.receive_uni(2, &frame(0xf0700, b"\0u=1"), false).unwrap();
        session.receive_uni(6, &b"\x41x\x01y".repeat(20), false).unwrap();
        let mut rest = &request[..];
        let mut inbound = Inbound::request();
        while !matches!(inbound.feed(&mut session, 4 * n, &mut rest, true).unwrap(), Event::End) {}
        // Half of the requests are answered. The others time out after 300 ms.
        match n % 2 {
            0 => session.answered(),
            _ if n > 300 => session.reset_by_peer(4 * (n - 300)).unwrap(),
            _ => {}
        }
        session.outputs().decoder.clear();
    }
}

#[test]
fn a_shutdown_has_two_steps() {
    let (mut server, mut client) = (session(Peer::Client), session(Peer::Endpoint));
    exchange(&mut server, &mut client).unwrap();
    assert_eq!(client.goaway(), None);
    server.leave();
    exchange(&mut server, &mut client).unwrap();
    assert_eq!(client.goaway(), Some((1 << 62) - 4));
    assert!(!server.is_refused(400));
    server.leave_after(400);
    server.leave_after(800);
    exchange(&mut server, &mut client).unwrap();
    assert_eq!(client.goaway(), Some(400));
    assert!(server.is_refused(400) && !server.is_refused(396));
}

#[test]
fn codes_have_the_names_of_the_rfcs() {
    for (code, name) in [
        (0x100, Some("H3_NO_ERROR")),
        (0x10e, Some("H3_MESSAGE_ERROR")),
        (0x110, Some("H3_VERSION_FALLBACK")),
        (0x202, Some("QPACK_DECODER_STREAM_ERROR")),
        (0x111, None),
    ] {
        assert_eq!(Code(code).name(), name);
    }
    assert_eq!(format!("{:?} {:?}", Code::ID_ERROR, Code(0x21)), "H3_ID_ERROR 0x21");
}
