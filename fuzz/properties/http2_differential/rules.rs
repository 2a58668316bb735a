//! The differences between the sides that RFC 9113 allows. After one of them, the comparison ends.
//!
//! One difference is not a rule. A head that HTTP/1.1 would read differently gets an answer of the
//! proxy's own (400, 431, 501 or 502). For the crate, it is malformed or no error at all.

use ringway::hpack::{Decoder, Fields};

use super::script::Step;
use super::{Line, Reaction};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION_ERROR: u32 = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Fields that the script sends in trailers, and that must be in a head.
const LATE: [&[u8]; 4] = [b"content-length", b"host", b"te", b"transfer-encoding"];

/// The peer's frames so far, as far as the rules need them.
#[derive(Default)]
pub struct Blocks {
    decoder: Option<Decoder>,
    block: Vec<u8>,
    /// The kind, the flags and the stream of the last frame.
    last: (u8, u8, u32),
    /// Whether the last header block was not the first of its stream.
    is_trailers: bool,
    /// The last header block. `None` if it is not complete or cannot be read.
    lines: Option<Vec<Line>>,
    has_left: bool,
    /// The streams that both sides have reset.
    reset: Vec<u32>,
    /// The streams whose final heads were read.
    begun: Vec<u32>,
    /// The streams whose responses have no content: the answers to HEAD, 204 and 304. Also streams
    /// with an interim response with Content-Length: the crate takes it for the final one's.
    bodiless: Vec<u32>,
    /// The streams that the peer has reset.
    cancelled: Vec<u32>,
    /// The number of streams that the client's application has opened.
    opened: u32,
}

impl Blocks {
    /// Records frames of the peer.
    pub fn read(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.strip_prefix(ringway::http2::PREFACE).unwrap_or(bytes);
        while let Some((&[a, b, c, kind, flags, w, x, y, z], rest)) = bytes.split_first_chunk() {
            let (payload, rest) = rest.split_at(u32::from_be_bytes([0, a, b, c]) as usize);
            bytes = rest;
            let id = u32::from_be_bytes([w, x, y, z]) & 0x7fff_ffff;
            self.last = (kind, flags, id);
            self.has_left |= kind == GO_AWAY;
            self.cancelled.extend((kind == RESET).then_some(id));
            if kind == HEADERS || kind == CONTINUATION {
                self.is_trailers = self.begun.contains(&id);
                self.read_block(kind, flags, payload);
                let status = self.value(b":status");
                let is_interim = status.is_some_and(|status| status.starts_with(b"1"));
                let has_length = self.value(b"content-length").is_some();
                let is_bodiless =
                    matches!(status, Some(b"204" | b"304")) || (is_interim && has_length);
                self.bodiless.extend(is_bodiless.then_some(id));
                self.begun.extend((self.lines.is_some() && !is_interim).then_some(id));
            }
        }
    }

    /// Records a stream that the client's application has opened.
    pub fn has_opened(&mut self, head: bool) {
        if head {
            self.bodiless.push(2 * self.opened + 1);
        }
        self.opened += 1;
    }

    /// Whether the stream has a response without content.
    pub fn is_bodiless(&self, id: u32) -> bool {
        self.bodiless.contains(&id)
    }

    fn read_block(&mut self, kind: u8, flags: u8, mut payload: &[u8]) {
        self.lines = None;
        if kind == HEADERS {
            self.block.clear();
            let padding = if flags & 8 != 0 { payload.first().copied() } else { None };
            let before = usize::from(flags & 8 != 0) + if flags & 0x20 != 0 { 5 } else { 0 };
            let end = payload.len().saturating_sub(padding.unwrap_or(0).into());
            payload = payload.get(before..end).unwrap_or_default();
        }
        self.block.extend_from_slice(payload);
        if flags & 4 != 0 {
            let mut lines = Lines::default();
            let decoder = self.decoder.get_or_insert_with(|| Decoder::new(4096));
            self.lines = decoder.decode(&self.block, &mut lines).ok().map(|()| lines.0);
        }
    }

    /// The stream of the last frame.
    pub fn id(&self) -> u32 {
        self.last.2
    }

    /// Records the streams that both sides have reset.
    pub fn has_reset(&mut self, reaction: &Reaction) {
        self.reset.extend(reaction.resets.iter().map(|reset| reset.0));
    }

    /// Whether the last header block has a fault that the crate does not see.
    fn is_malformed(&self) -> bool {
        let Some(lines) = &self.lines else { return false };
        let pseudos: Vec<&[u8]> =
            lines.iter().map(|line| &line.0[..]).filter(|name| name.starts_with(b":")).collect();
        let status = self.value(b":status");
        // 8.2.1: white space around a value.
        let is_padded = |line: &Line| line.1.trim_ascii().len() != line.1.len();
        // 8.1: trailers have no pseudo-header fields. RFC 9110 6.5.1: nor fields of a head.
        let is_bad_trailer = self.is_trailers
            && (!pseudos.is_empty() || LATE.iter().any(|name| self.value(name).is_some()));
        // 8.3.2: a response has no pseudo-header field but :status. 8.1: an interim one does not
        // end its stream. 8.3.1: a request has :path, unless it is CONNECT.
        let is_bad_head = match status {
            Some(status) => status.starts_with(b"1") || pseudos.len() > 1,
            None => !pseudos.contains(&&b":path"[..]) && !self.is_trailers,
        };
        lines.iter().any(is_padded) || is_bad_trailer || is_bad_head
    }

    /// Whether the crate no longer decodes what we decode: it takes a line without a name for the
    /// end of an incomplete block.
    pub fn confuse(&self) -> bool {
        self.value(b"").is_some()
    }

    /// The last frame's header block as text.
    pub fn block(&self) -> Option<String> {
        let lines =
            self.lines.as_ref().filter(|_| matches!(self.last.0, HEADERS | CONTINUATION))?;
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        Some(lines.iter().map(|line| format!("  {}={}", text(&line.0), text(&line.1))).collect())
    }

    fn value(&self, name: &[u8]) -> Option<&[u8]> {
        self.lines.as_ref()?.iter().find(|line| line.0 == name).map(|line| &line.1[..])
    }
}

#[derive(Default)]
struct Lines(Vec<Line>);

impl Fields for Lines {
    fn field(&mut self, name: &[u8], value: &[u8], _: bool) {
        self.0.push((name.to_vec(), value.to_vec()));
    }
}

/// The kind of a reaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Nothing,
    /// A stream was reset with this code.
    Reset(u32),
    /// The connection has ended with this code.
    End(u32),
    Other,
}

impl Class {
    fn of(reaction: &Reaction) -> Self {
        match (reaction.end, &reaction.resets[..]) {
            (Some(code), _) => Self::End(code),
            (None, [(_, code)]) => Self::Reset(*code),
            (None, []) if reaction.acknowledged == 0 && reaction.pongs.is_empty() => Self::Nothing,
            (None, _) => Self::Other,
        }
    }
}

/// Whether the RFC allows the different reactions to this step. `crate_is_over`: the crate's
/// connection has ended. `crate_cut`: for the crate's application, the stream of the last frame has
/// ended early.
pub fn allowed(
    step: &Step,
    blocks: &Blocks,
    (ours, theirs): (&Reaction, &Reaction),
    (crate_is_over, crate_cut): (bool, bool),
) -> bool {
    let Step::Frames(bytes) = step else { return false };
    let (kind, flags, id) = &blocks.last;
    if ours.end == Some(STREAM_CLOSED) && blocks.reset.contains(id) {
        // 5.1: the frame may cross our RST_STREAM, unless the peer has sent one of its own.
        return blocks.cancelled.contains(id);
    }
    // 6.8: a connection that the peer leaves may be closed, or serve what it has.
    let has_left = crate_is_over && blocks.has_left && Class::of(theirs) == Class::Nothing;
    let (ours, theirs) = (Class::of(ours), Class::of(theirs));
    has_left
        || match *kind {
            DATA | HEADERS | CONTINUATION => of_streams(blocks, ours, theirs, crate_cut),
            _ => of_connections(bytes, *kind, *flags, (ours, theirs)),
        }
        // 4.2, 4.3, 5.1, 6.5.2, 6.9.1: for these faults the crate says PROTOCOL_ERROR.
        || matches!(
            (ours, theirs),
            (
                Class::End(
                    COMPRESSION_ERROR | FRAME_SIZE_ERROR | FLOW_CONTROL_ERROR | STREAM_CLOSED
                ),
                Class::End(PROTOCOL_ERROR)
            )
        )
}

/// The rules for frames other than DATA and HEADERS.
fn of_connections(bytes: &[u8], kind: u8, flags: u8, reactions: (Class, Class)) -> bool {
    use Class::{End, Nothing, Other, Reset};
    match (kind, reactions.0, reactions.1) {
        // The crate acknowledges SETTINGS with a window that is too large, before it ends.
        (SETTINGS, End(ours), End(theirs)) => ours == theirs,
        // 6.5.3 does not say what an acknowledgement means that nobody waits for.
        (SETTINGS, Nothing, End(PROTOCOL_ERROR)) => flags & 1 == 1,
        // 6.5.2: a server must not send SETTINGS_ENABLE_PUSH with 1. The crate takes it.
        (SETTINGS, End(PROTOCOL_ERROR), _) => {
            bytes.windows(6).any(|setting| setting == [0, 2, 0, 0, 0, 1])
        }
        // 6.9.1: the window of a stream is too large, but the crate has sent all of the stream.
        (WINDOW_UPDATE, Reset(FLOW_CONTROL_ERROR), Nothing) => true,
        (SETTINGS, End(FLOW_CONTROL_ERROR), Other) => true,
        // 5.4.2: a stream that was reset already may be reset again. 5.4.1: a stream error may be
        // treated as a connection error. RFC 7540 5.3.1: a stream that depends on itself is a
        // stream error. It is a connection error for us where the stream is idle.
        (PRIORITY, Reset(_), Nothing | End(PROTOCOL_ERROR)) => true,
        (PRIORITY, End(PROTOCOL_ERROR), Reset(_)) => true,
        // 8.4: push is off. The crate says so after the last frame of the header block.
        (PUSH_PROMISE, End(PROTOCOL_ERROR), Nothing) => flags & 4 == 0,
        (PUSH_PROMISE, End(PROTOCOL_ERROR), Reset(_)) => true,
        // 6.8: the last stream of a second GOAWAY must not be higher. It is nothing to a server.
        (GO_AWAY, Nothing, End(PROTOCOL_ERROR)) => true,
        _ => false,
    }
}

/// The rules for DATA and HEADERS.
fn of_streams(blocks: &Blocks, ours: Class, theirs: Class, crate_cut: bool) -> bool {
    use Class::{End, Nothing, Reset};
    let (kind, flags, id) = &blocks.last;
    let in_parts = *kind == CONTINUATION;
    let is_reset = blocks.reset.contains(id);
    match (ours, theirs) {
        // 5.1: frames that cross our RST_STREAM are ignored. The crate forgets refused streams, and
        // resets a malformed head again.
        (Nothing, Reset(_) | End(PROTOCOL_ERROR)) | (End(PROTOCOL_ERROR), Nothing) if is_reset => {
            true
        }
        // 5.4.2: the crate does not reset a stream that both sides have ended.
        (Reset(_), Nothing) if crate_cut => true,
        // 4.3: of a block in several frames, the crate remembers only the faults of the last one.
        (Reset(PROTOCOL_ERROR), Nothing) | (End(COMPRESSION_ERROR), _) if in_parts => true,
        (Reset(PROTOCOL_ERROR), Nothing) => *kind == HEADERS && blocks.is_malformed(),
        // 5.1: a peer that has reset a stream sends nothing more on it. The crate ignores it.
        (End(STREAM_CLOSED), Nothing) => blocks.cancelled.contains(id) || crate_cut,
        // 5.1, 5.1.2, 8.1.1: the stream has ended or is one too many, and its head is malformed.
        (Reset(STREAM_CLOSED | REFUSED_STREAM), Reset(PROTOCOL_ERROR)) => *kind != DATA,
        // 5.4.1: a stream error may be treated as a connection error.
        (Reset(_), End(PROTOCOL_ERROR)) => *kind != DATA,
        (End(STREAM_CLOSED), Reset(code)) => *kind != DATA || code == STREAM_CLOSED,
        // 5.1, 5.1.1: a wrong stream id is a connection error. The crate looks at the fields first.
        // RFC 7540 5.3.1: a stream that depends on itself is a stream error. It is a connection
        // error for us, because its header block is not decoded.
        (End(PROTOCOL_ERROR), Reset(_)) => *kind != DATA,
        // 8.1.1: the Content-Length of a response without content says nothing about its DATA. We
        // drop the content of such a response with its stream.
        (Nothing, Reset(PROTOCOL_ERROR)) if blocks.is_bodiless(*id) => true,
        // 8.2.2 has a rule for te in requests alone. The crate applies it to responses.
        (Nothing, Reset(PROTOCOL_ERROR)) => {
            blocks.value(b"te").is_some() && blocks.value(b":status").is_some()
        }
        // 4.3: the crate decodes a header block before its last frame.
        (Nothing, End(_)) => *kind != DATA && flags & 4 == 0,
        _ => false,
    }
}
