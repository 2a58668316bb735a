//! Writes the frames of streams.

use std::cell::RefCell;
use std::task::Context;

use super::core::{Core, Failure, Leaving, Outbox};
use super::draft::{self, Draft};
use super::frame::{Code, END_HEADERS, END_STREAM, FrameHead, HEAD_BYTES, Kind};
use super::meter::Peer;
use super::streams::{Cut, Half, Stream, WINDOW_BYTES_MAX, wait, wake};
use crate::hpack::Encoder;
use crate::message::Method;

/// The number of reset streams that a connection remembers. Frames that were in flight for them are
/// not errors of the peer.
const RESET_STREAMS_MAX: usize = 1000;

/// The maximum number of bytes that one stream may write at once while other streams wait.
const TURN_BYTES: usize = 16 * 1024;

/// The minimum share of the connection's window that one stream may use at once. Smaller shares
/// would cost more reads than they save memory.
const SHARE_BYTES_MIN: usize = 8 * 1024;

/// How much of a body part was sent without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// All bytes, and the end of the stream if it was given.
    All,
    /// This many bytes. The peer's windows or our buffer are full, or other streams wait.
    Bytes(usize),
}

/// The stream has ended, is in the wrong state for this frame, or its trailers are not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unsendable;

thread_local! {
    /// Working memory for the encoding of header blocks.
    static BLOCK: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Outbox {
    pub(super) fn window_update(&mut self, stream: u32, bytes: u32) {
        self.frame(Kind::WindowUpdate, 0, stream, &bytes.to_be_bytes());
    }

    /// Writes a header block in HEADERS and CONTINUATION frames of at most `payload_bytes_max`.
    fn block(&mut self, stream: u32, ends: bool, block: &[u8], payload_bytes_max: usize) {
        let mut rest = block;
        let mut kind = Kind::Headers;
        loop {
            let (part, more) = rest.split_at(rest.len().min(payload_bytes_max));
            let mut flags = if more.is_empty() { END_HEADERS } else { 0 };
            if ends && kind == Kind::Headers {
                flags |= END_STREAM;
            }
            self.frame(kind, flags, stream, part);
            if more.is_empty() {
                return;
            }
            (rest, kind) = (more, Kind::Continuation);
        }
    }
}

impl Core {
    /// The number of streams that the peer and our settings allow us to open.
    pub(super) fn streams_max(&self) -> usize {
        self.peers.streams_max.min(self.settings.streams_max as usize)
    }

    /// Whether the connection can open new streams.
    pub(super) fn is_accepting(&self) -> bool {
        let ids_left = i64::from(self.next_stream) < WINDOW_BYTES_MAX;
        self.end.is_none() && !self.is_left && self.leaving == Leaving::No && ids_left
    }

    fn write_block(
        &mut self,
        id: u32,
        ends: bool,
        encode: impl FnOnce(&mut Encoder, &mut Vec<u8>),
    ) {
        BLOCK.with_borrow_mut(|block| {
            block.clear();
            self.encoder.begin(block);
            encode(&mut self.encoder, block);
            self.out.block(id, ends, block, self.peers.payload_bytes_max);
        });
        wake(&mut self.driver);
    }

    /// Opens a stream with the head of a request, and returns its id. `ends`: the request has no
    /// body.
    pub(super) fn open(&mut self, head: &Draft, ends: bool) -> u32 {
        let id = self.next_stream;
        self.next_stream += 2;
        self.meter.opened(id);
        let window = self.new_receive_window();
        let mut stream = Stream::new(id, self.peers.initial_window_bytes, window);
        stream.sending = if ends { Half::Ended } else { Half::Body };
        stream.is_head = head.method() == Method::Head;
        self.streams.add(stream);
        let is_secure = self.is_secure;
        self.write_block(id, ends, |encoder, out| head.encode_request(encoder, out, is_secure));
        id
    }

    fn sendable(&self, id: u32) -> Result<&Stream, Unsendable> {
        let stream = self.streams.get(id).ok_or(Unsendable)?;
        match stream.cut.is_none() && stream.sending != Half::Ended {
            true => Ok(stream),
            false => Err(Unsendable),
        }
    }

    /// Sends the head of a response. `ends`: the response has no body.
    pub(super) fn respond(&mut self, id: u32, head: &Draft, ends: bool) -> Result<(), Unsendable> {
        if self.sendable(id)?.sending != Half::Head {
            return Err(Unsendable);
        }
        self.write_block(id, ends, |encoder, out| head.encode_response(encoder, out));
        if head.status() >= 200 {
            self.sent(id, if ends { Half::Ended } else { Half::Body });
        }
        Ok(())
    }

    fn sent(&mut self, id: u32, half: Half) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.sending = half;
        }
        if half == Half::Ended {
            if self.peer == Peer::Client {
                self.meter.answered();
            }
            self.streams.forget_if_over(id);
        }
    }

    /// Sends as much of `data` as the peer's windows and the outbox allow now. If `end` is given,
    /// then ends the stream with these trailer lines.
    pub(super) fn send(
        &mut self,
        id: u32,
        data: &[u8],
        end: Option<&[u8]>,
    ) -> Result<Sent, Unsendable> {
        let stream = self.sendable(id)?;
        let lines = end.filter(|lines| !lines.is_empty());
        let trailers = lines.map(draft::trailers);
        if trailers.as_ref().is_some_and(|trailers| trailers.check_response().is_err()) {
            return Err(Unsendable);
        }
        let ends = end.is_some() && lines.is_none();
        let credit = stream.send_window.min(self.send_window).max(0) as usize;
        let mut rest = &data[..credit.min(data.len())];
        while !rest.is_empty() {
            let room = self.out.room().saturating_sub(HEAD_BYTES);
            let turn = if self.turns.is_empty() { usize::MAX } else { TURN_BYTES };
            let len = rest.len().min(room).min(self.peers.payload_bytes_max).min(turn);
            if len == 0 {
                break;
            }
            let (part, more) = rest.split_at(len);
            let last = ends && more.is_empty() && credit >= data.len();
            self.write_data(id, part, last);
            rest = more;
            if turn != usize::MAX {
                break;
            }
        }
        let sent = credit.min(data.len()) - rest.len();
        if sent < data.len() {
            return Ok(Sent::Bytes(sent));
        }
        if let Some(trailers) = trailers {
            self.write_block(id, true, |encoder, out| trailers.encode_fields(encoder, out));
            self.sent(id, Half::Ended);
        } else if ends && data.is_empty() {
            self.write_data(id, b"", true);
        }
        Ok(Sent::All)
    }

    fn write_data(&mut self, id: u32, part: &[u8], last: bool) {
        let flags = if last { END_STREAM } else { 0 };
        let head =
            FrameHead { payload_bytes: part.len(), kind: Kind::Data, flags, stream: id }.bytes();
        self.out.append(&head);
        self.out.append(part);
        self.meter.sent_data(part.len());
        self.send_window -= part.len() as i64;
        if let Some(stream) = self.streams.get_mut(id) {
            stream.send_window -= part.len() as i64;
        }
        if last {
            self.sent(id, Half::Ended);
        }
        wake(&mut self.driver);
    }

    /// Whether the stream can send DATA now, or has ended. If not, `context` is woken when it can.
    pub(super) fn is_sendable(&mut self, id: u32, context: &Context<'_>) -> bool {
        let has_room = self.send_window > 0 && self.out.has_room();
        let Some(stream) = self.streams.get_mut(id) else { return true };
        if stream.cut.is_some() || (has_room && stream.send_window > 0) {
            return true;
        }
        wait(&mut stream.writer, context);
        if stream.send_window > 0 && !std::mem::replace(&mut stream.is_queued, true) {
            self.turns.push_back(id);
        }
        false
    }

    /// How many bytes of a body should be read now for the stream: at most its own window, and its
    /// share of the connection's window. Without shares, each waiting stream would read as much as
    /// the window allows, but only one of them could send it. `usize::MAX` if the stream has ended.
    pub(super) fn share(&self, id: u32) -> usize {
        let Some(stream) = self.streams.get(id).filter(|stream| stream.cut.is_none()) else {
            return usize::MAX;
        };
        let of_all = self.send_window.max(0) as usize;
        let share = (of_all / self.streams.known().max(1)).max(SHARE_BYTES_MIN).min(of_all);
        share.min(stream.send_window.max(0) as usize)
    }

    /// Wakes the streams that wait for the connection's window or the buffer, in the order of their
    /// arrival.
    pub(super) fn give_turns(&mut self) {
        for id in std::mem::take(&mut self.turns) {
            if let Some(stream) = self.streams.get_mut(id) {
                stream.is_queued = false;
                wake(&mut stream.writer);
            }
        }
    }

    /// Sends RST_STREAM, and remembers the stream so that its late frames are ignored.
    pub(super) fn send_reset(&mut self, id: u32, code: Code) -> Result<(), Failure> {
        self.out.frame(Kind::Reset, 0, id, &code.0.to_be_bytes());
        if self.reset.len() >= RESET_STREAMS_MAX {
            self.reset.pop_front();
        }
        self.reset.push_back(id);
        wake(&mut self.driver);
        self.streams.forget_if_over(id);
        self.meter.sent_reset(code)?;
        Ok(())
    }

    /// Resets a stream for a reason of our own, unless the stream has ended.
    pub(super) fn abandon(&mut self, id: u32, code: Code) {
        let Some(stream) = self.streams.get_mut(id).filter(|stream| stream.is_open()) else {
            return;
        };
        stream.cut(Cut::Ours);
        if let Err(failure) = self.send_reset(id, code) {
            self.fail(&failure);
        }
    }

    /// Records that the exchange of a stream has ended. Resets an open stream with `code`.
    pub(super) fn release(&mut self, id: u32, code: Code) {
        self.abandon(id, code);
        if let Some(stream) = self.streams.get_mut(id) {
            self.unread -= stream.inbox.len();
            stream.inbox.clear();
            stream.is_used = false;
            self.streams.forget_if_over(id);
            self.refill_connection();
        }
    }
}
