//! WebSockets (RFC 6455, RFC 8441) and CONNECT (RFC 9110 9.3.6, RFC 9113 8.5): bytes in both
//! directions, between clients and services of both HTTP versions.

use crate::support::frames::{Frames, block, kind, setting};
use crate::support::http::Client;
use crate::support::origin::{Origin, Peer};
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

/// The way in which a tunnel is opened.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Opening {
    WebSocket,
    Connect,
}

/// The behaviour of an endpoint in a tunnel.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Behaviour {
    /// Echoes all bytes until the client ends, and then ends too.
    Echo,
    /// Like `Echo`, but the endpoint ends first, after a message that contains [`CLOSE`].
    CloseFirst,
    /// Answers 404.
    Refuse,
}

const VERSIONS: [u8; 2] = [1, 2];

/// A close frame (RFC 6455 5.5.1) with the code 1000.
const CLOSE: &[u8] = b"\x88\x02\x03\xe8";

/// The key of the example in RFC 6455 1.3, and the `sec-websocket-accept` for it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const PROOF: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The HPACK static table has `:status: 200` at index 8 and `:status: 404` at index 13 (RFC 7541
/// A).
const STATUS_200: u8 = 0x88;
const STATUS_404: u8 = 0x8d;

/// An endpoint with this HTTP version.
fn endpoint(version: u8, opening: Opening, behaviour: Behaviour) -> Origin {
    Origin::scripted(move |peer| match version {
        1 => serve_http1(peer, opening, behaviour),
        _ => serve_http2(peer, behaviour),
    })
}

fn serve_http1(peer: &mut Peer, opening: Opening, behaviour: Behaviour) {
    while let Some(request) = peer.request() {
        let lower = request.to_ascii_lowercase();
        if request.starts_with("GET /known") {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nknown");
            continue;
        }
        match opening {
            Opening::Connect => {
                assert!(request.starts_with("CONNECT db.internal:5432 HTTP/1.1\r\n"), "{request}");
            }
            Opening::WebSocket => {
                assert!(request.starts_with("GET /chat HTTP/1.1\r\n"), "{request}");
                assert!(lower.contains("upgrade: websocket\r\n"), "{request}");
                assert!(lower.contains("sec-websocket-version: 13\r\n"), "{request}");
                assert!(lower.contains("sec-websocket-key: "), "{request}");
            }
        }
        if behaviour == Behaviour::Refuse {
            peer.send("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno");
            continue;
        }
        match opening {
            Opening::Connect => peer.send("HTTP/1.1 200 OK\r\n\r\n"),
            Opening::WebSocket => peer.send(format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {PROOF}\r\n\r\n"
            )),
        }
        while let Some(said) = peer.portion() {
            if said.ends_with(CLOSE) && behaviour == Behaviour::CloseFirst {
                peer.send(&said);
                peer.stream.shutdown(std::net::Shutdown::Write).ok();
                peer.until_closed();
                return;
            }
            peer.send(said);
        }
        return;
    }
}

fn serve_http2(peer: &mut Peer, behaviour: Behaviour) {
    let allowed = [(setting::ENABLE_CONNECT_PROTOCOL, 1)];
    let Some(mut frames) = Frames::accept(peer, &allowed) else { return };
    while let Some(frame) = frames.next() {
        match frame.kind {
            // A request that ends with its head does not open a tunnel.
            kind::HEADERS if frame.ends() => frames.respond(frame.stream, "known"),
            kind::HEADERS if behaviour == Behaviour::Refuse => {
                frames.headers(frame.stream, &[(":status", "404")], false);
                frames.data(frame.stream, b"no", true);
            }
            kind::HEADERS => frames.headers(frame.stream, &[(":status", "200")], false),
            kind::DATA if behaviour != Behaviour::Refuse => {
                let ends = frame.ends() || frame.payload.ends_with(CLOSE);
                frames.data(frame.stream, &frame.payload, ends);
                frames.send(kind::WINDOW_UPDATE, 0, 0, &[0, 1, 0, 0]);
                if !frame.ends() {
                    frames.send(kind::WINDOW_UPDATE, 0, frame.stream, &[0, 1, 0, 0]);
                }
            }
            _ => {}
        }
    }
}

/// A proxy in front of `origin`. Returns the proxy and its port.
fn before(origin: &Origin, version: u8) -> (Proxy, u16) {
    let port = free_port();
    let proxy = Proxy::start_with(
        &format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
             routes: {{\"*\": [{{match: {{method: CONNECT}}, to: app}}, {{to: app}}]}}\n\
             services: {{app: {{endpoints: [\"{}\"], protocol: http{version}}}}}\n",
            origin.address()
        ),
        1,
    );
    (proxy, port)
}

/// A client with a tunnel.
enum Tunnel {
    One(Client),
    Two { frames: Frames, left: Vec<u8>, ended: bool },
}

impl Tunnel {
    /// Asks for a tunnel. Returns the status of the answer.
    #[track_caller]
    fn open(version: u8, port: u16, opening: Opening) -> (u16, Self) {
        match (version, opening) {
            (1, Opening::WebSocket) => {
                let mut client = Client::connect(port);
                client.send(format!(
                    "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
                ));
                let answer = client.response();
                if answer.status == 101 {
                    assert_eq!(answer.field("sec-websocket-accept"), Some(PROOF));
                    assert_eq!(answer.field("upgrade"), Some("websocket"));
                }
                (answer.status, Self::One(client))
            }
            (1, Opening::Connect) => {
                let mut client = Client::connect(port);
                client.send("CONNECT db.internal:5432 HTTP/1.1\r\nHost: db.internal:5432\r\n\r\n");
                let head = client.head().expect("a head");
                (head[9..12].parse().unwrap(), Self::One(client))
            }
            _ => Self::open_http2(port, opening),
        }
    }

    #[track_caller]
    fn open_http2(port: u16, opening: Opening) -> (u16, Self) {
        let mut frames = Frames::connect(port);
        let connect = (":method", "CONNECT");
        match opening {
            Opening::Connect => {
                frames.headers(1, &[connect, (":authority", "db.internal:5432")], false);
            }
            Opening::WebSocket => {
                let settings = frames.next_of(kind::SETTINGS).expect("SETTINGS");
                assert_eq!(settings.setting(setting::ENABLE_CONNECT_PROTOCOL), Some(1));
                let head = [connect, (":protocol", "websocket"), (":scheme", "http")];
                let more =
                    [(":authority", "a"), (":path", "/chat"), ("sec-websocket-version", "13")];
                frames.headers(1, &[&head[..], &more].concat(), false);
            }
        }
        let head = frames.next_of(kind::HEADERS).expect("an answer");
        let status = match head.payload[0] {
            STATUS_200 => 200,
            STATUS_404 => 404,
            _ => 0,
        };
        (status, Self::Two { frames, left: Vec::new(), ended: false })
    }

    fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::One(client) => _ = client.send(bytes),
            Self::Two { frames, .. } => {
                bytes.chunks(16_384).for_each(|portion| frames.data(1, portion, false));
            }
        }
    }

    /// Shuts down the sending side.
    fn finish(&mut self) {
        match self {
            Self::One(client) => _ = client.finish(),
            Self::Two { frames, .. } => frames.data(1, b"", true),
        }
    }

    /// The next `n` bytes.
    #[track_caller]
    fn exactly(&mut self, n: usize) -> Vec<u8> {
        match self {
            Self::One(client) => client.exactly(n).expect("so many bytes"),
            Self::Two { left, .. } if left.len() >= n => left.drain(..n).collect(),
            Self::Two { .. } => {
                assert!(self.more(), "the stream ended early");
                self.exactly(n)
            }
        }
    }

    /// Reads one more DATA frame. Returns whether there was one.
    fn more(&mut self) -> bool {
        let Self::Two { frames, left, ended } = self else { return false };
        while !*ended {
            let frame = frames.next().expect("the connection stays open");
            assert_ne!(frame.kind, kind::RST_STREAM, "{frame:?}");
            *ended = frame.ends();
            if frame.kind == kind::DATA {
                left.extend_from_slice(&frame.payload);
                for stream in [0, 1] {
                    frames.send(kind::WINDOW_UPDATE, 0, stream, &[0, 1, 0, 0]);
                }
                return true;
            }
        }
        false
    }

    /// The remaining bytes, until the other side closes.
    fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        match self {
            Self::One(client) => client.rest(),
            Self::Two { left, .. } => std::mem::take(left),
        }
    }
}

/// Opens two tunnels for each opening and pair of versions, to an endpoint with this behaviour.
/// `run` gets each tunnel, the status of the answer, and the port of the proxy.
#[track_caller]
fn in_all_pairs(behaviour: Behaviour, run: impl Fn(&mut Tunnel, u16, u16)) {
    for opening in [Opening::WebSocket, Opening::Connect] {
        for (front, back) in VERSIONS.map(|front| VERSIONS.map(|back| (front, back))).concat() {
            eprintln!("{opening:?}, HTTP/{front} to HTTP/{back}");
            let origin = endpoint(back, opening, behaviour);
            let (proxy, port) = before(&origin, back);
            for _ in 0..2 {
                let (status, mut tunnel) = Tunnel::open(front, port, opening);
                run(&mut tunnel, status, port);
            }
            let series = "ringway_service_requests_total{service=\"app\"";
            eventually("both to be counted", || (proxy.metric(series) >= 2.0).then_some(()));
            assert_eq!(proxy.metric("ringway_service_response_flags_total"), 0.0);
            assert_eq!(proxy.metric("ringway_worker_panics_total"), 0.0);
        }
    }
}

fn is_open(status: u16) -> bool {
    matches!(status, 101 | 200)
}

/// A text message that the client masks with zeros (RFC 6455 5.2).
fn text(bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match bytes.len() {
        n @ 0..126 => frame.push(0x80 | n as u8),
        n => {
            frame.extend([0xff, 0, 0, 0, 0]);
            frame.extend(u32::try_from(n).unwrap().to_be_bytes());
        }
    }
    [&frame[..], &[0; 4], bytes].concat()
}

#[test]
fn messages_go_both_ways_until_the_client_closes() {
    in_all_pairs(Behaviour::Echo, |tunnel, status, _| {
        assert!(is_open(status), "{status}");
        // Shorter than the initial window of an HTTP/2 client.
        for message in [&b"hello"[..], b"", &[b'x'; 60_000], b"and again"].map(text) {
            tunnel.send(&message);
            assert!(tunnel.exactly(message.len()) == message, "{} bytes", message.len());
        }
        tunnel.send(CLOSE);
        assert_eq!(tunnel.exactly(CLOSE.len()), CLOSE);
        tunnel.finish();
        assert_eq!(tunnel.rest(), b"");
    });
}

#[test]
fn an_endpoint_may_close_first() {
    in_all_pairs(Behaviour::CloseFirst, |tunnel, status, _| {
        assert!(is_open(status), "{status}");
        tunnel.send(&text(b"hello"));
        assert_eq!(tunnel.exactly(11), text(b"hello"));
        tunnel.send(CLOSE);
        assert_eq!(tunnel.rest(), CLOSE);
        tunnel.finish();
    });
}

#[test]
fn a_refusal_is_an_ordinary_answer() {
    in_all_pairs(Behaviour::Refuse, |tunnel, status, _| {
        assert_eq!(status, 404);
        if let Tunnel::Two { frames, .. } = tunnel {
            let data = frames.next_of(kind::DATA).unwrap();
            assert_eq!(data.payload, b"no");
            // The connection stays open.
            let known = [(":method", "GET"), (":scheme", "http"), (":authority", "a")];
            frames.headers(3, &[&known[..], &[(":path", "/known")]].concat(), true);
            let answer = std::iter::from_fn(|| frames.next());
            let mut answer = answer.filter(|frame| frame.stream == 3 && frame.kind == kind::DATA);
            assert_eq!(answer.next().unwrap().payload, b"known");
        }
    });
}

#[test]
fn rfc8441_3_an_endpoint_that_does_not_offer_it_is_not_asked() {
    let origin = Origin::scripted(|peer| {
        let Some(mut frames) = Frames::accept(peer, &[]) else { return };
        while let Some((stream, _)) = frames.request() {
            frames.respond(stream, "known");
        }
    });
    let (proxy, port) = before(&origin, 2);
    let (status, _) = Tunnel::open(1, port, Opening::WebSocket);
    assert_eq!(status, 501);
    // 501 is not in the HPACK static table.
    assert_eq!(Tunnel::open(2, port, Opening::WebSocket).0, 0);
    assert_eq!(Client::connect(port).get("a", "/known").text(), "known");
    let series = "ringway_service_response_flags_total{service=\"app\",flag=\"UPE\"}";
    eventually("the flags", || (proxy.metric(series) == 2.0).then_some(()));
}

#[test]
fn rfc9113_3_1_an_upgrade_to_h2c_is_passed_over_and_goes_no_further() {
    for version in VERSIONS {
        let origin = endpoint(version, Opening::WebSocket, Behaviour::Echo);
        let (_proxy, port) = before(&origin, version);
        let answer = Client::connect(port).request(
            "GET /known HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        );
        assert_eq!((answer.status, answer.text()), (200, "known"));
        let got = origin.requests().concat().to_ascii_lowercase();
        assert!(!got.contains("upgrade") && !got.contains("http2-settings"), "{got}");
    }
}

#[test]
fn what_a_client_gives_up_ends_at_the_endpoint_and_the_other_way_round() {
    for (front, back) in VERSIONS.map(|front| VERSIONS.map(|back| (front, back))).concat() {
        let (over, is_over) = std::sync::mpsc::channel();
        let origin = Origin::scripted(move |peer| match back {
            1 => {
                serve_http1(peer, Opening::WebSocket, Behaviour::Echo);
                over.send(()).ok();
            }
            _ => {
                let allowed = [(setting::ENABLE_CONNECT_PROTOCOL, 1)];
                let Some(mut frames) = Frames::accept(peer, &allowed) else { return };
                let Some(asked) = frames.next_of(kind::HEADERS) else { return };
                frames.send(kind::HEADERS, 4, asked.stream, &block(&[(":status", "200")]));
                while let Some(frame) = frames.next() {
                    let ended = frame.ends() || frame.kind == kind::RST_STREAM;
                    if frame.stream == asked.stream && ended {
                        over.send(()).ok();
                    }
                }
            }
        });
        let (_proxy, port) = before(&origin, back);
        let (status, tunnel) = Tunnel::open(front, port, Opening::WebSocket);
        assert!(is_open(status), "HTTP/{front} to HTTP/{back}: {status}");
        drop(tunnel);
        let told = is_over.recv_timeout(crate::support::PATIENCE);
        told.unwrap_or_else(|_| panic!("HTTP/{front} to HTTP/{back}: the endpoint is not told"));
    }
}
