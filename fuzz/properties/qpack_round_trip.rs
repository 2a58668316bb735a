//! QPACK: a decoder reads the field lines that the encoder wrote, however the streams of a
//! connection overtake each other, and no more streams are blocked than the decoder allows.

use std::collections::VecDeque;

use ringway::hpack::qpack::{Decoder, Encoder, Outcome};
use ringway::hpack::{FieldEncoder as _, Fields, Indexing};

/// A field line: name, value, and whether it is never indexed.
type Line = (Vec<u8>, Vec<u8>, bool);

#[derive(Default)]
struct Lines(Vec<Line>);

impl Fields for Lines {
    fn field(&mut self, name: &[u8], value: &[u8], never_indexed: bool) {
        self.0.push((name.to_vec(), value.to_vec(), never_indexed));
    }
}

/// Names from the static table and other names. There are few, so that field lines repeat.
const NAMES: [&[u8]; 14] = [
    b":method",
    b":path",
    b":status",
    b":authority",
    b"accept-encoding",
    b"content-type",
    b"date",
    b"cookie",
    b"x-a",
    b"x-b",
    b"x-a-name-that-is-not-short",
    b"x-request-id",
    b"grpc-status",
    b"",
];

/// A stream whose sections were not all decoded.
#[derive(Default)]
struct Stream {
    id: u64,
    sections: VecDeque<(Vec<u8>, Vec<Line>)>,
    is_blocked: bool,
}

struct Connection {
    encoder: Encoder,
    decoder: Decoder,
    blocked_max: usize,
    streams: Vec<Stream>,
    next_stream: u64,
}

/// Checks the property for `script`: the sizes of the table, sections, arrivals, and streams that
/// are given up.
pub fn holds(mut script: &[u8]) {
    let sizes = byte(&mut script).unwrap_or_default();
    let table_bytes = [0, 40, 100, 220, 500, 1024, 4096, 65_536][usize::from(sizes & 7)];
    let blocked_max = [0, 1, 2, 16][usize::from(sizes >> 3 & 3)];
    let mut connection = Connection {
        encoder: Encoder::new(),
        decoder: Decoder::new(table_bytes, blocked_max),
        blocked_max,
        streams: Vec::new(),
        next_stream: 0,
    };
    connection.encoder.set_peer(table_bytes as u64, blocked_max as u64);
    while let Some(step) = byte(&mut script) {
        let number = usize::from(step & 31);
        match step >> 5 {
            0 => connection.send(&mut script, true),
            1 => connection.send(&mut script, number % 2 == 0),
            2 | 3 => connection.pass_instructions(number * 3),
            4 | 5 => connection.arrive(number),
            6 => connection.pass_answers(number),
            _ if number < 8 => connection.give_up(number),
            _ => connection.pass_answers(number * 4),
        }
    }
    connection.finish();
}

impl Connection {
    /// Sends a section on a new stream, or on one that has sections already.
    fn send(&mut self, script: &mut &[u8], is_new: bool) {
        if is_new || self.streams.is_empty() {
            self.streams.push(Stream { id: self.next_stream, ..Stream::default() });
            self.next_stream += 4;
        }
        let at = usize::from(byte(script).unwrap_or_default());
        let last = self.streams.len() - 1;
        let stream = &mut self.streams[if is_new { last } else { at % (last + 1) }];
        let (mut lines, mut section, mut sent) = (Vec::new(), Vec::new(), Vec::new());
        self.encoder.begin(stream.id);
        for _ in 0..at % 6 {
            let form = byte(script).unwrap_or_default();
            let name =
                NAMES.get(usize::from(form & 15)).map_or_else(|| text(script), |n| n.to_vec());
            let value = text(script);
            let indexing = match form >> 5 {
                0 => Indexing::Never,
                1 => Indexing::Without,
                _ => Indexing::Table,
            };
            self.encoder.field(&mut lines, &name, &value, indexing);
            sent.push((name, value, indexing == Indexing::Never));
        }
        self.encoder.end(&mut section);
        section.extend_from_slice(&lines);
        stream.sections.push_back((section, sent));
        assert!(self.encoder.held_bytes() <= 64 * 1024, "{}", self.encoder.held_bytes());
    }

    /// Passes bytes of the encoder stream to the decoder.
    fn pass_instructions(&mut self, bytes: usize) {
        let out = self.encoder.out();
        let part: Vec<u8> = out.drain(..bytes.min(out.len())).collect();
        self.decoder.instructions(&part).unwrap();
        while let Some(id) = self.decoder.next_ready() {
            let stream = self.streams.iter_mut().find(|stream| stream.id == id).unwrap();
            assert!(stream.is_blocked);
            stream.is_blocked = false;
            let at = self.streams.iter().position(|stream| stream.id == id).unwrap();
            self.decode(at);
            assert!(!self.streams[at].is_blocked);
        }
        assert!(self.decoder.held_bytes() <= 400 * 1024, "{}", self.decoder.held_bytes());
    }

    /// Passes bytes of the decoder stream to the encoder.
    fn pass_answers(&mut self, bytes: usize) {
        let out = self.decoder.out();
        let part: Vec<u8> = out.drain(..bytes.min(out.len())).collect();
        self.encoder.acknowledgements(&part).unwrap();
    }

    /// The next section of a stream arrives.
    fn arrive(&mut self, at: usize) {
        if !self.streams.is_empty() {
            self.decode(at % self.streams.len());
        }
    }

    fn decode(&mut self, at: usize) {
        let stream = &mut self.streams[at];
        let Some((section, sent)) = stream.sections.front() else { return };
        if stream.is_blocked {
            return;
        }
        let mut lines = Lines::default();
        match self.decoder.decode(stream.id, section, &mut lines).unwrap() {
            Outcome::Done => {
                assert_eq!(lines.0, *sent);
                stream.sections.pop_front();
            }
            Outcome::Blocked => stream.is_blocked = true,
        }
        let blocked = self.streams.iter().filter(|stream| stream.is_blocked).count();
        assert!(blocked <= self.blocked_max, "{blocked}");
    }

    /// The reader of a stream gives up.
    fn give_up(&mut self, at: usize) {
        if !self.streams.is_empty() {
            let stream = self.streams.swap_remove(at % self.streams.len());
            self.decoder.cancel(stream.id);
        }
    }

    /// Everything arrives.
    fn finish(&mut self) {
        self.pass_instructions(usize::MAX);
        for at in 0..self.streams.len() {
            while !self.streams[at].sections.is_empty() {
                self.decode(at);
                assert!(!self.streams[at].is_blocked);
            }
        }
        self.pass_answers(usize::MAX);
    }
}

/// A text: some bytes of the script, or one byte many times.
fn text(script: &mut &[u8]) -> Vec<u8> {
    let len = usize::from(byte(script).unwrap_or_default());
    if len >= 0xc0 {
        return vec![byte(script).unwrap_or(b'a'); (len & 0x3f) * 32];
    }
    if len >= 0x40 {
        return vec![b'a' + (len & 3) as u8; 1 + (len >> 2 & 7)];
    }
    let (text, rest) = script.split_at((len & 31).min(script.len()));
    *script = rest;
    text.to_vec()
}

fn byte(script: &mut &[u8]) -> Option<u8> {
    let (byte, rest) = script.split_first()?;
    *script = rest;
    Some(*byte)
}
