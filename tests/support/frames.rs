//! HTTP/2 frame by frame (RFC 9113 4), for a peer that violates the protocol where a test needs it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::TcpStream;

use super::origin::Peer;
use crate::http2_format::PREFACE;
pub use crate::http2_format::flag::{ACK, END_HEADERS, END_STREAM};
pub use crate::http2_format::{code, frame, kind, setting};

/// One frame as it was received.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 for the connection.
    pub stream: u32,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Whether the frame ends its stream (END_STREAM).
    pub fn ends(&self) -> bool {
        matches!(self.kind, kind::DATA | kind::HEADERS) && self.flags & END_STREAM != 0
    }

    /// The value of a setting, if the frame has it.
    pub fn setting(&self, wanted: u16) -> Option<u32> {
        self.payload.chunks(6).find_map(|entry| {
            let (id, value) = entry.split_first_chunk::<2>()?;
            let value = u32::from_be_bytes(value.try_into().ok()?);
            (u16::from_be_bytes(*id) == wanted).then_some(value)
        })
    }
}

/// One side of a connection.
pub struct Frames {
    stream: TcpStream,
    /// Whether [`Frames::next`] answers PING.
    pub answers_ping: bool,
    /// The body bytes of incomplete requests, by stream.
    begun: BTreeMap<u32, Vec<u8>>,
    /// Complete requests that [`Frames::request`] has not returned yet.
    whole: VecDeque<(u32, Vec<u8>)>,
}

impl Frames {
    /// The server's side: reads the preface and sends SETTINGS with these values.
    pub fn accept(peer: &Peer, settings: &[(u16, u32)]) -> Option<Self> {
        Self::serve(peer.stream.try_clone().ok()?, settings)
    }

    /// Like [`Frames::accept`], for a stream of another listener.
    pub fn serve(stream: TcpStream, settings: &[(u16, u32)]) -> Option<Self> {
        let mut frames = Self::new(stream);
        let mut preface = [0; PREFACE.len()];
        frames.stream.read_exact(&mut preface).ok()?;
        assert_eq!(preface, PREFACE);
        frames.settings(settings);
        Some(frames)
    }

    /// The client's side of a connection to a loopback port.
    pub fn connect(port: u16) -> Self {
        Self::over(TcpStream::connect(("127.0.0.1", port)).unwrap(), &[])
    }

    /// The client's side of a connection, with these settings.
    pub fn over(mut stream: TcpStream, settings: &[(u16, u32)]) -> Self {
        stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
        stream.write_all(PREFACE).unwrap();
        let mut frames = Self::new(stream);
        frames.settings(settings);
        frames
    }

    fn new(stream: TcpStream) -> Self {
        let (begun, whole) = (BTreeMap::new(), VecDeque::new());
        Self { stream, answers_ping: true, begun, whole }
    }

    /// Reads the next frame. Acknowledges SETTINGS and answers PING. Returns `None` at the end of
    /// the connection.
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; len];
        self.stream.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let frame = Frame { kind: head[3], flags: head[4], stream, payload };
        match frame.kind {
            kind::SETTINGS if frame.flags & ACK == 0 => self.send(kind::SETTINGS, ACK, 0, b""),
            kind::PING if frame.flags & ACK == 0 && self.answers_ping => {
                self.send(kind::PING, ACK, 0, &frame.payload);
            }
            _ => {}
        }
        self.note(&frame);
        Some(frame)
    }

    /// The next frame of this kind. Skips other frames.
    pub fn next_of(&mut self, wanted: u8) -> Option<Frame> {
        std::iter::from_fn(|| self.next()).find(|frame| frame.kind == wanted)
    }

    /// Waits for the next complete request. Returns its stream and its body.
    pub fn request(&mut self) -> Option<(u32, Vec<u8>)> {
        loop {
            if let Some(request) = self.whole.pop_front() {
                return Some(request);
            }
            self.next()?;
        }
    }

    /// Records the parts of requests in `frame`.
    fn note(&mut self, frame: &Frame) {
        if !matches!(frame.kind, kind::HEADERS | kind::DATA) {
            return;
        }
        let body = self.begun.entry(frame.stream).or_default();
        if frame.kind == kind::DATA {
            body.extend_from_slice(&frame.payload);
        }
        if frame.ends() {
            let body = std::mem::take(body);
            self.begun.remove(&frame.stream);
            self.whole.push_back((frame.stream, body));
        }
    }

    /// Sends a frame. If the peer has closed the connection, the test does not fail here.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.send_bytes(&frame(kind, flags, stream, payload));
    }

    /// Sends these bytes, which may be frames or parts of frames.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).ok();
    }

    /// Sends SETTINGS.
    pub fn settings(&mut self, settings: &[(u16, u32)]) {
        self.send_bytes(&crate::http2_format::settings(settings));
    }

    /// Sends HEADERS with these fields, in one frame.
    pub fn headers(&mut self, stream: u32, fields: &[(&str, &str)], ends: bool) {
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        self.send(kind::HEADERS, flags, stream, &block(fields));
    }

    /// Sends the head of a gRPC call, with these further fields.
    pub fn call(&mut self, stream: u32, more: &[(&str, &str)]) {
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", "/shop.Cart/Add"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        self.headers(stream, &[&fields[..], more].concat(), false);
    }

    /// Sends DATA.
    pub fn data(&mut self, stream: u32, bytes: &[u8], ends: bool) {
        self.send(kind::DATA, if ends { END_STREAM } else { 0 }, stream, bytes);
    }

    /// Sends a response with 200 and a body.
    pub fn respond(&mut self, stream: u32, body: &str) {
        self.headers(stream, &[(":status", "200")], false);
        self.data(stream, body.as_bytes(), true);
    }

    /// Sends RST_STREAM.
    pub fn reset(&mut self, stream: u32, code: u32) {
        self.send(kind::RST_STREAM, 0, stream, &code.to_be_bytes());
    }

    /// Sends GOAWAY: the streams after `last` were not processed.
    pub fn go_away(&mut self, last: u32, code: u32) {
        self.send(kind::GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat());
    }

    /// Reads until the peer closes.
    pub fn until_closed(&mut self) {
        while self.next().is_some() {}
    }
}

/// A field block of literals that are not indexed (RFC 7541 6.2.2), without Huffman codes.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            // A length below 127 is in seven bits; a larger one continues in more bytes (RFC 7541
            // 5.1).
            let mut rest = text.len();
            if rest < 127 {
                block.push(rest as u8);
            } else {
                block.push(127);
                rest -= 127;
                while rest >= 128 {
                    block.push(rest as u8 | 128);
                    rest >>= 7;
                }
                block.push(rest as u8);
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}
