//! Turns the bytes of a script into frames of the peer and acts of the application. Nearly all
//! frames are valid in their stream's state, so that the connections live long.

use std::collections::BTreeMap;

use ringway::hpack::{Encoder, Indexing};
use ringway::http2::PREFACE;

use super::{Act, Role, Seen};

/// A step of both sides.
#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    /// The peer sends these frames.
    Frames(Vec<u8>),
    Act(Act),
    /// The applications stop reading bodies, or read again.
    Pause(bool),
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Frames(bytes) if bytes.len() > 120 => {
                write!(f, "{:x?}... {} bytes", &bytes[..100], bytes.len())
            }
            Self::Frames(bytes) => write!(f, "{bytes:x?}"),
            Self::Act(act) => write!(f, "{act:?}"),
            Self::Pause(pause) => write!(f, "pause {pause}"),
        }
    }
}

/// The state of a stream, as the peer and the application know it.
#[derive(Clone, Copy, Debug)]
struct Stream {
    id: u32,
    /// The peer has sent its final head, or END_STREAM.
    peer_has_head: bool,
    peer_ended: bool,
    /// The application has sent its head, or the end of its message.
    head_sent: bool,
    ended: bool,
    /// The stream has ended early.
    gone: bool,
    dropped: bool,
}

pub struct Script<'a> {
    role: Role,
    bytes: &'a [u8],
    begun: u8,
    encoder: Encoder,
    streams: Vec<Stream>,
    next: u32,
    paused: bool,
}

const FIELDS: [(&[u8], &[u8]); 14] = [
    (b"x-a", b"1"),
    (b"x-a", b"2"),
    (b"x-b", b""),
    (b"cookie", b"a=1"),
    (b"cookie", b"b=2"),
    (b"content-length", b"0"),
    (b"content-length", b"3"),
    (b"content-length", b"10"),
    (b"content-type", b"text/plain"),
    (b"te", b"trailers"),
    (b"accept", b"*/*"),
    (b"x-long", &[b'l'; 3000]),
    (b"x-obs", b"\xe9"),
    (b"etag", b"\"a\tb\""),
];

/// Fields that make a head malformed or ambiguous.
const BAD_FIELDS: [(&[u8], &[u8]); 20] = [
    (b"connection", b"close"),
    (b"transfer-encoding", b"chunked"),
    (b"upgrade", b"h2c"),
    (b"keep-alive", b"1"),
    (b"proxy-connection", b"1"),
    (b"X-A", b"1"),
    (b"x a", b"1"),
    (b"", b"1"),
    (b"x-a", b"\x01"),
    (b"x-a", b"a\r\nb: c"),
    (b"x-a", b" y"),
    (b"te", b"gzip"),
    (b"content-length", b"x"),
    (b"content-length", b"99999999999999999999"),
    (b":path", b"/"),
    (b":status", b"200"),
    (b":protocol", b"websocket"),
    (b":other", b"1"),
    (b"host", b"b"),
    (b":method", b""),
];

impl<'a> Script<'a> {
    pub fn new(role: Role, bytes: &'a [u8]) -> Self {
        let (streams, encoder) = (Vec::new(), Encoder::new());
        Self { role, bytes, begun: 0, encoder, streams, next: 1, paused: false }
    }

    /// The next step. `None` at the end of the script. `seen` is what an application has received.
    pub fn next(&mut self, seen: &BTreeMap<u32, Seen>) -> Option<Step> {
        self.look(seen);
        let is_over = |stream: &&Stream| {
            !stream.dropped
                && seen.get(&stream.id).is_some_and(|seen| seen.cut || (seen.ended && seen.sent))
        };
        if let Some(stream) = self.streams.iter().find(is_over) {
            return Some(Step::Act(Act::Drop { id: stream.id }));
        }
        self.begun += u8::from(self.begun < 2);
        match self.begun {
            1 => return Some(Step::Frames(self.greeting())),
            _ if self.bytes.is_empty() => return None,
            _ => {}
        }
        for _ in 0..16 {
            if let Some(step) = self.step() {
                return Some(step);
            }
        }
        None
    }

    /// Learns which streams have ended early.
    fn look(&mut self, seen: &BTreeMap<u32, Seen>) {
        for stream in &mut self.streams {
            stream.gone |= seen.get(&stream.id).is_none_or(|seen| seen.cut);
            stream.dropped |= !seen.contains_key(&stream.id);
        }
    }

    /// Records an act that both sides do.
    pub fn has_acted(&mut self, act: Act) {
        let id = match act {
            Act::Open { ends, .. } => {
                self.streams.push(Stream::new(self.next, false, false, true, ends));
                self.next += 2;
                return;
            }
            Act::Respond { id, .. }
            | Act::Data { id, .. }
            | Act::Trailers { id }
            | Act::Reset { id }
            | Act::Drop { id } => id,
        };
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) else { return };
        match act {
            Act::Respond { status, ends, .. } if status >= 200 => {
                (stream.head_sent, stream.ended) = (true, ends);
            }
            Act::Open { .. } | Act::Respond { .. } => {}
            Act::Data { ends, .. } => stream.ended |= ends,
            Act::Trailers { .. } => stream.ended = true,
            Act::Reset { .. } => (stream.gone, stream.dropped) = (true, true),
            Act::Drop { .. } => stream.dropped = true,
        }
    }

    fn greeting(&mut self) -> Vec<u8> {
        let mut bytes = if self.role == Role::Server { PREFACE.to_vec() } else { Vec::new() };
        let payload = if self.byte() < 128 { Vec::new() } else { self.settings() };
        put_frame(&mut bytes, 4, 0, 0, &payload);
        if self.byte() < 250 {
            put_frame(&mut bytes, 4, 1, 0, b"");
        }
        bytes
    }

    /// A step, or `None` if the chosen one is not possible now.
    fn step(&mut self) -> Option<Step> {
        let mut bytes = Vec::new();
        let is_client = self.role == Role::Client;
        match self.byte() % 32 {
            0..6 if is_client => {
                let (ends, head) = (self.chance(2), self.chance(4));
                return Some(Step::Act(Act::Open { ends: ends || head, head }));
            }
            0..6 => self.put_request(&mut bytes),
            6..8 if is_client => self.put_response(&mut bytes)?,
            6..12 => self.put_data(&mut bytes)?,
            12 => self.put_trailers(&mut bytes)?,
            13 => {
                let id = self.id(|stream| !stream.dropped)?;
                let code = self.byte() % 16;
                self.end(id, true);
                put_frame(&mut bytes, 3, 0, id, &[0, 0, 0, code]);
            }
            14 => {
                let id = self.id(|stream| !stream.gone).filter(|_| self.byte() < 160).unwrap_or(0);
                let few = [0, 0, self.byte(), self.byte() | 1];
                let bytes_more =
                    self.one_of(&[few, few, few, few, [0; 4], [0x7f, 0xff, 0xff, 0xff]]);
                put_frame(&mut bytes, 8, 0, id, &bytes_more);
            }
            15 => {
                let payload = self.settings();
                put_frame(&mut bytes, 4, 0, 0, &payload);
            }
            16 => {
                let flags = u8::from(self.chance(8));
                put_frame(&mut bytes, 4, flags, 0, b"");
            }
            17 => {
                let flags = u8::from(self.chance(4));
                put_frame(&mut bytes, 6, flags, 0, b"somebody");
            }
            18 => {
                let id = self.id(|_| true).unwrap_or(self.next);
                let on = self.one_of(&[0, 1, 2, 3, 5]);
                put_frame(&mut bytes, 2, 0, id, &[0, 0, 0, on, 15]);
            }
            19 if self.chance(8) => {
                let last = self.byte() % 16;
                put_frame(&mut bytes, 7, 0, 0, &[0, 0, 0, last, 0, 0, 0, 0]);
            }
            20 => {
                let kind = self.one_of(&[0x10, 0x0a, 0x0c, 0xfa]);
                put_frame(&mut bytes, kind, self.byte_of(&[0, 1, 4, 8]), 0, b"\0\0\0\x01u=1");
            }
            21 if self.chance(4) => self.put_anything(&mut bytes),
            22 if self.chance(4) => self.put_raw_block(&mut bytes)?,
            23 => {
                self.paused = !self.paused;
                return Some(Step::Pause(self.paused));
            }
            _ => return self.act().map(Step::Act),
        }
        (!bytes.is_empty()).then_some(Step::Frames(bytes))
    }

    fn act(&mut self) -> Option<Act> {
        let choice = self.byte() % 8;
        let open = |stream: &Stream| !stream.dropped && !stream.gone && !stream.ended;
        if choice == 7 {
            return Some(Act::Reset { id: self.of(open)? });
        }
        if choice < 3 && self.role == Role::Server {
            let id = self.of(|stream| open(stream) && !stream.head_sent)?;
            let status = self.one_of(&[200, 200, 200, 204, 404, 103]);
            let ends = status >= 200 && self.chance(2);
            return Some(Act::Respond { id, status, ends });
        }
        let id = self.of(|stream| open(stream) && stream.head_sent)?;
        if choice == 6 {
            return Some(Act::Trailers { id });
        }
        let bytes = self.one_of(&[0, 1, 10, 1000, 20_000, 70_000]);
        let ends = self.chance(2);
        (bytes > 0 || ends).then_some(Act::Data { id, bytes, ends })
    }

    fn put_request(&mut self, bytes: &mut Vec<u8>) {
        let id = match self.byte() {
            0..4 => self.next + 1,
            4..8 => self.next.saturating_sub(2),
            8..20 => self.next + 4,
            _ => self.next,
        };
        let ends = self.chance(2);
        let mut lines: Vec<(&[u8], &[u8])> = Vec::new();
        let method = self.one_of(&[&b"GET"[..], b"POST", b"PUT", b"HEAD", b"OPTIONS", b"X"]);
        let path = self.one_of(&[&b"/"[..], b"/a?b=c", b"/%20", b"/a/b/c"]);
        let authority = self.one_of(&[&b"a"[..], b"example.com:80", b"[::1]:80"]);
        match self.byte() {
            0..6 => lines.extend([(&b":method"[..], &b"CONNECT"[..]), (b":authority", b"a:443")]),
            6..10 => lines.extend([
                (&b":method"[..], &b"CONNECT"[..]),
                (b":protocol", b"websocket"),
                (b":scheme", b"http"),
                (b":path", path),
                (b":authority", b"a"),
            ]),
            10..16 => lines.extend([(&b":method"[..], method), (b":scheme", b"http")]),
            _ => lines.extend([
                (&b":method"[..], method),
                (b":scheme", b"http"),
                (b":path", path),
                (b":authority", authority),
            ]),
        }
        self.put_fields(&mut lines);
        self.put_head(bytes, id, ends, &lines);
        if id >= self.next && id % 2 == 1 {
            self.next = id + 2;
            self.streams.push(Stream::new(id, true, ends, false, false));
        }
    }

    fn put_response(&mut self, bytes: &mut Vec<u8>) -> Option<()> {
        let id = self.id(|stream| !stream.gone && !stream.peer_has_head)?;
        let statuses: [&[u8]; 10] =
            [b"200", b"200", b"200", b"200", b"204", b"304", b"404", b"103", b"100", b"999"];
        let status = self.one_of(&statuses);
        let is_final = status[0] != b'1';
        let ends = if is_final { self.chance(2) } else { self.chance(16) };
        let mut lines: Vec<(&[u8], &[u8])> = vec![(b":status", status)];
        self.put_fields(&mut lines);
        self.put_head(bytes, id, ends, &lines);
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) {
            stream.peer_has_head |= is_final;
            stream.peer_ended |= ends;
        }
        Some(())
    }

    fn put_fields(&mut self, lines: &mut Vec<(&[u8], &[u8])>) {
        for _ in 0..self.byte() % 4 {
            lines.push(self.one_of(&FIELDS));
        }
        if self.chance(24) {
            let at = usize::from(self.byte()) % (lines.len() + 1);
            lines.insert(at, self.one_of(&BAD_FIELDS));
        }
        if self.chance(40) {
            let at = usize::from(self.byte()) % lines.len();
            lines.remove(at);
        }
    }

    fn put_trailers(&mut self, bytes: &mut Vec<u8>) -> Option<()> {
        let id = self.id(|stream| !stream.gone && stream.peer_has_head && !stream.peer_ended)?;
        let mut lines: Vec<(&[u8], &[u8])> = vec![(b"x-end", b"1"), (b"grpc-status", b"0")];
        if self.chance(16) {
            lines.push(self.one_of(&BAD_FIELDS));
        }
        let ends = !self.chance(24);
        self.put_head(bytes, id, ends, &lines);
        self.end(id, false);
        Some(())
    }

    fn put_data(&mut self, bytes: &mut Vec<u8>) -> Option<()> {
        let id = self.id(|stream| !stream.gone && stream.peer_has_head && !stream.peer_ended)?;
        let len = self.one_of(&[0, 1, 3, 3, 7, 10, 100, 400, 1000, 1001]);
        let mut payload = Vec::new();
        let mut flags = u8::from(self.chance(4));
        if self.chance(8) {
            flags |= 8;
            payload.push(self.one_of(&[0, 1, 200]));
        }
        payload.resize(payload.len() + len, b'd');
        if flags & 8 != 0 && !self.chance(16) {
            payload.resize(payload.len() + usize::from(payload[0]), 0);
        }
        put_frame(bytes, 0, flags, id, &payload);
        if flags & 1 != 0 {
            self.end(id, false);
        }
        Some(())
    }

    /// HEADERS and perhaps CONTINUATION frames.
    fn put_head(&mut self, bytes: &mut Vec<u8>, id: u32, ends: bool, lines: &[(&[u8], &[u8])]) {
        let mut block = Vec::new();
        self.encoder.begin(&mut block);
        for (name, value) in lines {
            let indexing = if self.chance(3) { Indexing::Never } else { Indexing::Table };
            self.encoder.field(&mut block, name, value, indexing);
        }
        self.put_block(bytes, id, ends, &block);
    }

    fn put_block(&mut self, bytes: &mut Vec<u8>, id: u32, ends: bool, block: &[u8]) {
        let mut payload = Vec::new();
        let mut flags = u8::from(ends);
        let (padded, has_priority) = (self.chance(16), self.chance(16));
        let padding = if padded { self.byte() % 8 } else { 0 };
        if padded {
            flags |= 8;
            payload.push(padding);
        }
        if has_priority {
            flags |= 0x20;
            payload.extend_from_slice(&[0, 0, 0, self.one_of(&[0, 0, 0, 1]), 15]);
        }
        let parts = if self.chance(8) { 1 + usize::from(self.byte() % 4) } else { 1 };
        let part_bytes = block.len().div_ceil(parts).max(1);
        let (first, rest) = block.split_at(part_bytes.min(block.len()));
        payload.extend_from_slice(first);
        payload.resize(payload.len() + usize::from(padding), 0);
        let last = |rest: &[u8]| if rest.is_empty() { 4 } else { 0 };
        put_frame(bytes, 1, flags | last(rest), id, &payload);
        let mut rest = rest;
        while !rest.is_empty() {
            let (part, more) = rest.split_at(part_bytes.min(rest.len()));
            put_frame(bytes, 9, last(more), id, part);
            rest = more;
        }
    }

    /// A header block of any bytes.
    fn put_raw_block(&mut self, bytes: &mut Vec<u8>) -> Option<()> {
        let id = if self.role == Role::Server { self.next } else { self.id(|_| true)? };
        let block = self.any_bytes();
        self.put_block(bytes, id, true, &block);
        Some(())
    }

    fn put_anything(&mut self, bytes: &mut Vec<u8>) {
        let (kind, flags, id) = (self.byte() % 12, self.byte(), self.byte() % 12);
        let payload = self.any_bytes();
        put_frame(bytes, kind, flags, id.into(), &payload);
    }

    fn any_bytes(&mut self) -> Vec<u8> {
        let len = usize::from(self.byte() % 32).min(self.bytes.len());
        let (bytes, rest) = self.bytes.split_at(len);
        self.bytes = rest;
        bytes.to_vec()
    }

    fn settings(&mut self) -> Vec<u8> {
        let mut payload = Vec::new();
        for _ in 0..self.byte() % 3 {
            let ids: [(u8, &[u32]); 7] = [
                (1, &[0, 100, 4096, 65_536]),
                (2, &[0, 0, 0, 0, 1, 2]),
                (3, &[0, 1, 100, 1000]),
                (4, &[0, 1, 100, 65_535, 1_000_000, 0x7fff_ffff, 0x8000_0000]),
                (5, &[16_384, 16_384, 20_000, 16_777_215, 16_383, 16_777_216]),
                (6, &[0, 100, 100_000]),
                (9, &[0, 7]),
            ];
            let (id, values) = self.one_of(&ids);
            payload.extend_from_slice(&[0, id]);
            payload.extend_from_slice(&self.one_of(values).to_be_bytes());
        }
        payload
    }

    /// Records the end of the peer's message, or the early end of a stream.
    fn end(&mut self, id: u32, early: bool) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) {
            stream.peer_ended = true;
            stream.gone |= early;
        }
    }

    /// The id of a stream in the wanted state; rarely of another one.
    fn id(&mut self, wanted: impl Fn(&Stream) -> bool) -> Option<u32> {
        match self.byte() {
            0..2 => Some(u32::from(self.byte() % 24)),
            2..8 => self.of(|_| true),
            _ => self.of(wanted),
        }
    }

    fn of(&mut self, wanted: impl Fn(&Stream) -> bool) -> Option<u32> {
        let choice = usize::from(self.byte());
        let fit: Vec<_> = self.streams.iter().filter(|stream| wanted(stream)).collect();
        (!fit.is_empty()).then(|| fit[choice % fit.len()].id)
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else { return 0x55 };
        self.bytes = rest;
        *first
    }

    /// True once in `n` times.
    fn chance(&mut self, n: u8) -> bool {
        self.byte() % n == 1
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()]
    }

    fn byte_of(&mut self, all: &[u8]) -> u8 {
        self.one_of(all)
    }
}

impl Stream {
    fn new(id: u32, has_head: bool, peer_ended: bool, head_sent: bool, ended: bool) -> Self {
        let (gone, dropped) = (false, false);
        Self { id, peer_has_head: has_head, peer_ended, head_sent, ended, gone, dropped }
    }
}

fn put_frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(payload);
}
