//! Finds the frames in the bytes of a connection. The reader parses frame headers and skips
//! payloads.

use super::flood::Flood;

/// Length of a frame header (RFC 9113 4.1).
const HEAD_BYTES: usize = 9;

/// Length of an error code (RFC 9113 6.4).
const CODE_BYTES: usize = 4;

/// Length of the GOAWAY payload before its debug data (RFC 9113 6.8).
const GOAWAY_BYTES: usize = 8;

/// The maximum number of payload bytes that are read.
const PEEK_BYTES: usize = GOAWAY_BYTES + Flood::DEBUG_BYTES_MAX;

/// The first bytes of a frame.
type Begin = [u8; HEAD_BYTES + PEEK_BYTES];

/// A kind of frame (RFC 9113 6, RFC 9218 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    PushPromise,
    Ping,
    WindowUpdate,
    Continuation,
    GoAway,
    Other,
}

/// The flag END_STREAM of DATA and HEADERS.
const END_STREAM: u8 = 0x1;
/// The flag END_HEADERS of HEADERS, PUSH_PROMISE and CONTINUATION.
const END_HEADERS: u8 = 0x4;
/// The flag PADDED of DATA, HEADERS and PUSH_PROMISE.
const PADDED: u8 = 0x8;

/// The known properties of a frame before its payload has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) stream: u32,
    /// The number of payload bytes without padding.
    pub(super) content_bytes: u32,
    /// The error code of RST_STREAM.
    pub(super) code: u32,
    /// The limit that the debug data of GOAWAY names.
    pub(super) flood: Option<Flood>,
    flags: u8,
}

impl Frame {
    /// Whether the frame ends its stream.
    pub(super) fn ends_stream(&self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Headers) && self.flags & END_STREAM != 0
    }

    /// For a frame of a header block: whether the block ends with it.
    pub(super) fn block(&self) -> Option<bool> {
        let of_a_block =
            matches!(self.kind, Kind::Headers | Kind::PushPromise | Kind::Continuation);
        of_a_block.then_some(self.flags & END_HEADERS != 0)
    }

    /// Parses a frame header and the payload bytes that [`peeked_bytes`] requested.
    fn read(begin: &Begin) -> Self {
        let word = |at: usize| {
            u32::from_be_bytes([begin[at], begin[at + 1], begin[at + 2], begin[at + 3]])
        };
        let (len, flags, kind) = (word(0) >> 8, begin[4], kind(begin[3]));
        let peek = &begin[HEAD_BYTES..HEAD_BYTES + peeked_bytes(begin)];
        let (mut padding, mut code, mut flood) = (0, 0, None);
        match (kind, peek.len()) {
            (Kind::Reset, CODE_BYTES) => code = word(HEAD_BYTES),
            (Kind::Data | Kind::Headers, 1) => padding = u32::from(peek[0]) + 1,
            (Kind::GoAway, GOAWAY_BYTES..) => flood = Flood::named_in(&peek[GOAWAY_BYTES..]),
            _ => {}
        }
        let stream = word(5) & 0x7fff_ffff;
        Self { kind, stream, content_bytes: len.saturating_sub(padding), code, flood, flags }
    }
}

fn kind(number: u8) -> Kind {
    match number {
        0x0 => Kind::Data,
        0x1 => Kind::Headers,
        // PRIORITY_UPDATE has the same purpose.
        0x2 | 0x10 => Kind::Priority,
        0x3 => Kind::Reset,
        0x4 => Kind::Settings,
        0x5 => Kind::PushPromise,
        0x6 => Kind::Ping,
        0x7 => Kind::GoAway,
        0x8 => Kind::WindowUpdate,
        0x9 => Kind::Continuation,
        _ => Kind::Other,
    }
}

fn payload_bytes(head: &Begin) -> usize {
    u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize
}

/// How many payload bytes to read for this frame header.
fn peeked_bytes(head: &Begin) -> usize {
    let wanted = match kind(head[3]) {
        Kind::Reset => CODE_BYTES,
        Kind::GoAway => PEEK_BYTES,
        Kind::Data | Kind::Headers if head[4] & PADDED != 0 => 1,
        _ => 0,
    };
    wanted.min(payload_bytes(head))
}

/// Follows one direction of a connection.
#[derive(Debug)]
pub(super) struct Walker {
    /// Bytes to skip: of the preface, or of a payload.
    skip: usize,
    /// The first bytes of the current frame, and how many have arrived.
    begin: Begin,
    have: usize,
    /// The frame whose payload is being skipped.
    passing: Option<Frame>,
}

/// An event in the passing bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A frame has started, and its properties are known.
    Begun(Frame),
    /// A frame has passed with its payload.
    Passed(Frame),
}

impl Walker {
    /// Creates a reader for a direction that starts with `preface_bytes` of other data.
    pub(super) fn new(preface_bytes: usize) -> Self {
        let begin = [0; HEAD_BYTES + PEEK_BYTES];
        Self { skip: preface_bytes, begin, have: 0, passing: None }
    }

    /// Whether the next byte is the first of a frame.
    pub(super) fn between_frames(&self) -> bool {
        self.skip == 0 && self.have == 0
    }

    /// Whether the received bytes show that a frame other than DATA has started.
    pub(super) fn in_control_frame(&self) -> bool {
        let kind = self.passing.map(|frame| frame.kind);
        self.have > 0 || kind.is_some_and(|kind| kind != Kind::Data)
    }

    /// The next event in `portion`. Removes the read bytes from it. Returns `None` when all are
    /// read.
    pub(super) fn next(&mut self, portion: &mut &[u8]) -> Option<Event> {
        loop {
            if self.skip == 0
                && let Some(frame) = self.passing.take()
            {
                return Some(Event::Passed(frame));
            }
            let skipped = self.skip.min(portion.len());
            *portion = &portion[skipped..];
            self.skip -= skipped;
            if self.skip > 0 {
                return None;
            }
            if self.passing.is_some() {
                continue;
            }
            let wanted = match self.have < HEAD_BYTES {
                true => HEAD_BYTES,
                false => HEAD_BYTES + peeked_bytes(&self.begin),
            };
            let taken = (wanted - self.have).min(portion.len());
            self.begin[self.have..self.have + taken].copy_from_slice(&portion[..taken]);
            *portion = &portion[taken..];
            self.have += taken;
            if self.have < wanted {
                return None;
            }
            if self.have < HEAD_BYTES + peeked_bytes(&self.begin) {
                continue;
            }
            let frame = Frame::read(&self.begin);
            self.skip = payload_bytes(&self.begin) + HEAD_BYTES - self.have;
            self.have = 0;
            self.passing = Some(frame);
            return Some(Event::Begun(frame));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn events(bytes: &[u8], portion_bytes: usize) -> (Vec<Event>, bool) {
        let mut walker = Walker::new(3);
        let mut events = Vec::new();
        for mut portion in bytes.chunks(portion_bytes) {
            while let Some(event) = walker.next(&mut portion) {
                events.push(event);
            }
            assert!(portion.is_empty());
        }
        (events, walker.between_frames())
    }

    #[test]
    fn frames_are_the_same_however_they_are_cut() {
        let bytes = [
            b"PRI".to_vec(),
            frame(4, 0, 0, b""),
            frame(1, 5, 1, b"headers"),
            frame(0, 8, 1, &[3, b'x', 0, 0, 0]),
            frame(3, 0, 1, &8u32.to_be_bytes()),
            frame(3, 0, 1, b"no"),
            frame(9, 4, 3, &[0; 300]),
            frame(7, 0, 0, b"\0\0\0\0\0\0\0\x0btoo_many_resets"),
            frame(77, 0, 0, b"grease"),
        ]
        .concat();
        let (whole, _) = events(&bytes, bytes.len());
        let begun: Vec<_> = whole
            .iter()
            .filter_map(|event| match event {
                Event::Begun(f) => Some((f.kind, f.stream, f.content_bytes, f.code)),
                Event::Passed(_) => None,
            })
            .collect();
        assert_eq!(
            begun,
            [
                (Kind::Settings, 0, 0, 0),
                (Kind::Headers, 1, 7, 0),
                (Kind::Data, 1, 1, 0),
                (Kind::Reset, 1, 4, 8),
                (Kind::Reset, 1, 2, 0),
                (Kind::Continuation, 3, 300, 0),
                (Kind::GoAway, 0, 23, 0),
                (Kind::Other, 0, 6, 0),
            ]
        );
        let floods = whole.iter().filter_map(|event| match event {
            Event::Begun(frame) => frame.flood,
            Event::Passed(_) => None,
        });
        assert_eq!(floods.collect::<Vec<_>>(), [Flood::StreamResets]);
        for portion_bytes in 1..60 {
            assert_eq!(events(&bytes, portion_bytes), (whole.clone(), true), "{portion_bytes}");
        }
    }
}
