//! `Expect: 100-continue` and interim responses (RFC 9110 10.1.1, 15.2), between clients and
//! services of both HTTP versions: no side waits for a body that does not come.

use crate::support::frames::{Frame, Frames, kind};
use crate::support::free_port;
use crate::support::http::Client;
use crate::support::origin::{Origin, Peer};
use crate::support::proxy::Proxy;

const VERSIONS: [u8; 2] = [1, 2];

/// The HPACK static table has `:status: 200` at index 8 (RFC 7541 A).
const STATUS_200: u8 = 0x88;

/// A request without content.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Empty {
    /// No framing field. In HTTP/2 the stream ends with the head.
    Plain,
    /// `Content-Length: 0`. In HTTP/2 the client ends the stream only after it has received 100 or
    /// the answer.
    Zero,
}

/// An origin that trusts an expectation: it sends 100, and answers only after it has received some
/// content.
fn trusting(version: u8) -> Origin {
    Origin::scripted(move |peer| match version {
        1 => trusting_http1(peer),
        _ => {
            let Some(mut frames) = Frames::accept(peer, &[]) else { return };
            while let Some(frame) = frames.next() {
                match frame.kind {
                    kind::HEADERS if !frame.ends() => {
                        frames.headers(frame.stream, &[(":status", "102")], false);
                        frames.headers(frame.stream, &[(":status", "100")], false);
                    }
                    kind::HEADERS => frames.respond(frame.stream, "empty"),
                    kind::DATA if frame.ends() => {
                        let body = String::from_utf8(frame.payload).unwrap();
                        frames.headers(frame.stream, &[(":status", "103")], false);
                        frames.respond(frame.stream, &body);
                    }
                    _ => {}
                }
            }
        }
    })
}

fn trusting_http1(peer: &mut Peer) {
    let mut read = Vec::new();
    loop {
        let Some(portion) = peer.portion() else { return };
        read.extend(portion);
        let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(read.drain(..end + 4).collect()).unwrap();
        if !head.to_ascii_lowercase().contains("expect:") {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nempty");
            continue;
        }
        peer.send("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
        while read.len() < 4 {
            let Some(portion) = peer.portion() else { return };
            read.extend(portion);
        }
        peer.send("HTTP/1.1 103 Early Hints\r\n\r\n");
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody");
        read.clear();
    }
}

/// Runs `ask` for each pair of client version and origin version, with the port of a proxy for this
/// pair.
fn in_all_pairs(ask: impl Fn(u8, u16)) {
    for back in VERSIONS {
        let origin = trusting(back);
        let port = free_port();
        let _proxy = Proxy::start_with(
            &format!(
                "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
                 services: {{app: {{endpoints: [\"{}\"], protocol: http{back}}}}}\n",
                origin.address()
            ),
            1,
        );
        for front in VERSIONS {
            eprintln!("HTTP/{front} to HTTP/{back}");
            ask(front, port);
        }
    }
}

/// Sends HEADERS of a request with an expectation and the fields in `more`.
fn expects(frames: &mut Frames, more: &[(&str, &str)], ends: bool) {
    let head = [(":method", "PUT"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
    frames.headers(1, &[&head[..], &[("expect", "100-continue")], more].concat(), ends);
}

/// The next frame of stream 1.
#[track_caller]
fn answer(frames: &mut Frames) -> Frame {
    let next = std::iter::from_fn(|| frames.next()).find(|frame| frame.stream == 1);
    next.expect("an answer")
}

#[test]
fn an_expectation_without_content_waits_for_nothing() {
    in_all_pairs(|front, port| {
        for empty in [Empty::Plain, Empty::Zero] {
            eprintln!("{empty:?}");
            if front == 1 {
                let mut client = Client::connect(port);
                let length = if empty == Empty::Zero { "Content-Length: 0\r\n" } else { "" };
                for version in ["1.1", "1.1", "1.0"] {
                    let answer = client.request(format!(
                        "PUT / HTTP/{version}\r\nHost: a\r\nExpect: 100-continue\r\n{length}\r\n"
                    ));
                    assert_eq!((answer.status, answer.text()), (200, "empty"));
                }
                continue;
            }
            let mut frames = Frames::connect(port);
            let length = [("content-length", "0")];
            let fields = if empty == Empty::Zero { &length[..] } else { &[] };
            expects(&mut frames, fields, empty == Empty::Plain);
            assert_eq!(answer(&mut frames).payload[0], STATUS_200);
            assert_eq!(answer(&mut frames).payload, b"empty");
            // The client ends its stream only now.
            if empty == Empty::Zero {
                frames.data(1, b"", true);
            }
            let known = [(":method", "GET"), (":scheme", "http"), (":authority", "a")];
            frames.headers(3, &[&known[..], &[(":path", "/")]].concat(), true);
            let next = std::iter::from_fn(|| frames.next());
            let mut next = next.filter(|frame| frame.stream == 3 && frame.kind == kind::DATA);
            assert_eq!(next.next().expect("the connection goes on").payload, b"empty");
        }
    });
}

#[test]
fn content_comes_after_100_and_every_interim_response_passes() {
    in_all_pairs(|front, port| {
        if front == 1 {
            let mut client = Client::connect(port);
            client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n");
            client.send("Content-Length: 4\r\n\r\n");
            assert_eq!([client.response().status, client.response().status], [102, 100]);
            client.send("body");
            assert_eq!(client.response().status, 103);
            let answer = client.response();
            assert_eq!((answer.status, answer.text()), (200, "body"));
            return;
        }
        let mut frames = Frames::connect(port);
        expects(&mut frames, &[("content-length", "4")], false);
        for _ in 0..2 {
            let interim = answer(&mut frames);
            assert!(interim.kind == kind::HEADERS && interim.payload[0] != STATUS_200);
        }
        frames.data(1, b"body", true);
        let mut heads = Vec::new();
        let body = loop {
            let frame = answer(&mut frames);
            match frame.kind {
                kind::HEADERS => heads.push(frame.payload[0] == STATUS_200),
                kind::DATA => break frame.payload,
                _ => {}
            }
        };
        assert_eq!((heads, &body[..]), (vec![false, true], &b"body"[..]));
    });
}

/// The proxy does not forward an expectation of an HTTP/1.0 client, which does not know 100 (RFC
/// 9110 10.1.1).
#[test]
fn an_expectation_of_http1_0_goes_no_further() {
    let origin = Origin::echoing();
    let port = free_port();
    let _proxy = Proxy::start_with(
        &format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
             services: {{app: {{endpoints: [\"{}\"]}}}}\n",
            origin.address()
        ),
        1,
    );
    let answer = Client::connect(port)
        .request("PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!((answer.status, answer.text()), (200, "body"));
    assert!(!origin.requests().concat().to_ascii_lowercase().contains("expect"));
}
