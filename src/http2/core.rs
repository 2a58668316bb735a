//! The state of an HTTP/2 connection (RFC 9113). It takes bytes and the time, and makes frames and
//! events. It does no I/O and reads no clock. This file handles frames of the connection. `inbound`
//! handles the frames of streams, and `outbound` writes them.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use super::flood::{Excess, Flood, FloodLimits};
use super::frame::{
    ACK, Code, FrameHead, HEAD_BYTES, Kind, PAYLOAD_BYTES_MAX, number, without_padding,
};
use super::held::HeldBytes;
use super::meter::{Meter, Peer};
use super::receive::Message;
use super::settings::Settings;
use super::streams::{Cut, Half, ReceiveWindow, Streams, WINDOW_BYTES, WINDOW_BYTES_MAX, wake};
use super::{PREFACE, TABLE_BYTES};
use crate::hpack::{Decoder, Encoder};
use crate::message::Limits;
use crate::runtime::buffer::{Buf, BufferPool};
use crate::time::Time;

/// The settings of a new connection.
pub struct Config<'a> {
    /// The kind of peer: a client or an endpoint.
    pub peer: Peer,
    /// Limits on heads and trailers.
    pub message: &'a Limits,
    /// Limits on floods of frames.
    pub floods: FloodLimits,
    /// The windows, the maximum number of streams, and the PING times.
    pub settings: &'a Settings,
    /// Time limit for receiving a header block, or a frame other than DATA.
    pub header_timeout: Duration,
    /// The pool for the buffer of outgoing frames.
    pub pool: BufferPool,
    /// Whether the connection uses TLS.
    pub is_secure: bool,
}

/// The reason why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The transport connection was closed, by either side.
    Closed,
    /// The peer violated the protocol.
    Breach(&'static str),
    /// The peer exceeded a limit.
    Flood(Excess),
}

/// The reason why a connection must be ended with GOAWAY.
pub(super) enum Failure {
    Protocol(Code, &'static str),
    Flood(Excess),
}

impl From<Excess> for Failure {
    fn from(excess: Excess) -> Self {
        Self::Flood(excess)
    }
}

/// A connection error with PROTOCOL_ERROR.
pub(super) const fn protocol(why: &'static str) -> Failure {
    Failure::Protocol(Code::PROTOCOL_ERROR, why)
}

pub(super) const fn frame_size(why: &'static str) -> Failure {
    Failure::Protocol(Code::FRAME_SIZE_ERROR, why)
}

/// A header block whose last CONTINUATION frame has not arrived.
pub(super) struct OpenBlock {
    pub(super) stream: u32,
    pub(super) ends: bool,
    pub(super) bytes: Vec<u8>,
}

/// The state of our graceful shutdown (RFC 9113 6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    No,
    /// We have sent the first GOAWAY and a PING, and wait for the answer.
    Told,
    /// We wait for the answer to a second PING. A client may send requests that it began earlier
    /// right after its answer to the first one, as gRPC's C++ core does.
    Asked,
    /// We have sent the last GOAWAY. Streams after this id are not served.
    After(u32),
}

/// The settings of the peer that we use (RFC 9113 6.5.2, RFC 8441 3).
pub(super) struct PeerSettings {
    pub(super) initial_window_bytes: i64,
    pub(super) payload_bytes_max: usize,
    pub(super) streams_max: usize,
    pub(super) extended_connect: bool,
    /// The peer has sent its first SETTINGS.
    pub(super) are_known: bool,
}

/// The maximum number of open streams until the peer sends SETTINGS_MAX_CONCURRENT_STREAMS.
const STREAMS_MAX_AT_FIRST: usize = 100;

/// No DATA is added while this many bytes or more wait to be written.
const DATA_BYTES_MAX: usize = 32 * 1024;

/// The payloads of our PINGs. The first checks that the peer is alive. The second follows GOAWAY.
const PING_ALIVE: [u8; 8] = *b"ringway?";
const PING_LEAVE: [u8; 8] = *b"leaving!";

/// The protocol state of an HTTP/2 connection.
pub struct Core {
    pub(super) peer: Peer,
    pub(super) limits: Limits,
    pub(super) settings: Settings,
    pub(super) is_secure: bool,
    pub(super) meter: Meter,
    pub(super) decoder: Decoder,
    pub(super) encoder: Encoder,
    pub(super) out: Outbox,
    pub(super) streams: Streams,
    pub(super) peers: PeerSettings,
    /// The number of bytes of the client's preface that have not arrived.
    preface_left: usize,
    /// The peer has acknowledged our SETTINGS.
    settings_known: bool,
    pub(super) send_window: i64,
    pub(super) receive_window: ReceiveWindow,
    /// The number of unread bytes of all bodies.
    pub(super) unread: usize,
    /// The id of the last stream that the peer has opened.
    pub(super) last_stream: u32,
    /// The id of the next stream that we open.
    pub(super) next_stream: u32,
    pub(super) block: Option<Box<OpenBlock>>,
    /// Streams that we have reset, the newest last. Frames that were in flight for them are not
    /// errors of the peer.
    pub(super) reset: VecDeque<u32>,
    /// Streams that wait for the connection's window or for room in the outbox.
    pub(super) turns: VecDeque<u32>,
    /// New streams of a client, which no exchange has taken yet.
    pub(super) accepted: VecDeque<(u32, Box<Message>)>,
    pub(super) leaving: Leaving,
    /// The peer has sent GOAWAY.
    pub(super) is_left: bool,
    ping_waits: bool,
    /// A PING was answered.
    pub(super) pong: bool,
    pub(super) end: Option<End>,
    pub(super) driver: Option<Waker>,
    /// Wakers that wait for the peer's SETTINGS.
    pub(super) greeters: Vec<Waker>,
}

impl Core {
    /// Creates a connection. Its first frames are ready to be written.
    pub fn new(config: Config<'_>, now: Time) -> Self {
        let Config { peer, message, floods, settings, header_timeout, pool, is_secure } = config;
        let connection_window = i64::from(settings.connection_window_bytes).max(WINDOW_BYTES);
        let mut core = Self {
            peer,
            limits: *message,
            settings: *settings,
            is_secure,
            meter: Meter::new(message, floods, peer, header_timeout, now),
            decoder: Decoder::new(TABLE_BYTES),
            encoder: Encoder::new(),
            out: Outbox::new(pool),
            streams: Streams::default(),
            peers: PeerSettings {
                initial_window_bytes: WINDOW_BYTES,
                payload_bytes_max: PAYLOAD_BYTES_MAX,
                streams_max: STREAMS_MAX_AT_FIRST,
                extended_connect: false,
                are_known: false,
            },
            preface_left: if peer == Peer::Client { PREFACE.len() } else { 0 },
            settings_known: false,
            send_window: WINDOW_BYTES,
            receive_window: ReceiveWindow::new(connection_window, connection_window),
            unread: 0,
            last_stream: 0,
            next_stream: 1,
            block: None,
            reset: VecDeque::new(),
            turns: VecDeque::new(),
            accepted: VecDeque::new(),
            leaving: Leaving::No,
            is_left: false,
            ping_waits: false,
            pong: false,
            end: None,
            driver: None,
            greeters: Vec::new(),
        };
        core.greet((connection_window - WINDOW_BYTES) as u32);
        core
    }

    /// The value that we send as SETTINGS_INITIAL_WINDOW_SIZE.
    fn stream_window(&self) -> i64 {
        i64::from(self.settings.stream_window_bytes).min(WINDOW_BYTES)
    }

    /// Returns the receive window of a new stream. Our SETTINGS apply only after the peer has
    /// acknowledged them.
    pub(super) fn new_receive_window(&self) -> ReceiveWindow {
        let size = if self.settings_known { self.stream_window() } else { WINDOW_BYTES };
        ReceiveWindow::new(size, self.settings.stream_window_bytes.into())
    }

    /// Writes our preface and SETTINGS, and adds `window_bytes` to the window of the connection.
    fn greet(&mut self, window_bytes: u32) {
        let header_bytes = u32::try_from(self.limits.header_bytes).unwrap_or(u32::MAX);
        let window = self.stream_window() as u32;
        let mut payload = Vec::with_capacity(24);
        let mut put = |id: u16, value: u32| {
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        };
        match self.peer {
            Peer::Client => {
                put(0x3, self.settings.streams_max);
                put(0x8, 1); // RFC 8441 3
            }
            Peer::Endpoint => put(0x2, 0),
        }
        put(0x4, window);
        put(0x6, header_bytes);
        if self.peer == Peer::Endpoint {
            self.out.append(PREFACE);
        }
        self.out.frame(Kind::Settings, 0, 0, &payload);
        if window_bytes > 0 {
            self.out.frame(Kind::WindowUpdate, 0, 0, &window_bytes.to_be_bytes());
        }
    }

    /// Reads the complete frames in `bytes`. Returns the number of bytes that it read. The caller
    /// passes the rest again, with more bytes. After the end of the connection all bytes are
    /// discarded.
    pub fn receive(&mut self, bytes: &[u8], now: Time) -> usize {
        self.meter.pass_time(now);
        let mut rest = bytes;
        let mut progress = false;
        while self.end.is_none() {
            match self.next_frame(&mut rest) {
                Ok(true) => progress |= self.block.is_none(),
                Ok(false) => break,
                Err(failure) => self.fail(&failure),
            }
        }
        if self.end.is_some() {
            return bytes.len();
        }
        let begun = match FrameHead::read(rest) {
            Some(head) => head.kind != Kind::Data,
            None => !rest.is_empty() && self.preface_left == 0,
        };
        self.meter.is_unfinished(begun || self.block.is_some(), progress, now);
        bytes.len() - rest.len()
    }

    /// Reads the preface, or one frame, from the front of `rest`. False if more bytes are needed.
    fn next_frame(&mut self, rest: &mut &[u8]) -> Result<bool, Failure> {
        if self.preface_left > 0 {
            let expected = &PREFACE[PREFACE.len() - self.preface_left..];
            let n = expected.len().min(rest.len());
            if rest[..n] != expected[..n] {
                return Err(protocol("the connection preface is wrong"));
            }
            *rest = &rest[n..];
            self.preface_left -= n;
            return Ok(n > 0);
        }
        let Some(head) = FrameHead::read(rest) else { return Ok(false) };
        if head.payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(frame_size("a frame is larger than SETTINGS_MAX_FRAME_SIZE"));
        }
        let end = HEAD_BYTES + head.payload_bytes;
        let Some(payload) = rest.get(HEAD_BYTES..end) else { return Ok(false) };
        *rest = &rest[end..];
        self.frame(head, payload)?;
        Ok(true)
    }

    /// How many more bytes complete the frame, or the frame header, whose first bytes are `rest`.
    pub(super) fn missing_bytes(&self, rest: &[u8]) -> usize {
        match FrameHead::read(rest) {
            None => HEAD_BYTES.saturating_sub(rest.len()),
            Some(head) => (HEAD_BYTES + head.payload_bytes).saturating_sub(rest.len()),
        }
    }

    fn frame(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Failure> {
        let content = match head.kind {
            Kind::Data | Kind::Headers => without_padding(head, payload)
                .ok_or(protocol("the padding is longer than the frame"))?,
            _ => payload,
        };
        self.meter.received(head, content.len())?;
        if !self.peers.are_known && (head.kind != Kind::Settings || head.has(ACK)) {
            return Err(protocol("the first frame is not SETTINGS"));
        }
        if let Some(block) = &self.block
            && (head.kind != Kind::Continuation || head.stream != block.stream)
        {
            return Err(protocol("another frame is inside a header block"));
        }
        let is_misplaced = match head.kind {
            Kind::Settings | Kind::Ping | Kind::GoAway => head.stream != 0,
            Kind::WindowUpdate | Kind::PriorityUpdate | Kind::Other => false,
            _ => head.stream == 0,
        };
        if is_misplaced {
            return Err(protocol("a frame has a wrong stream id"));
        }
        match head.kind {
            Kind::Data => self.on_data(head, content, payload.len()),
            Kind::Headers => self.on_headers(head, content),
            Kind::Continuation => self.on_continuation(head, content),
            Kind::Reset => self.on_reset(head, payload),
            Kind::WindowUpdate => self.on_window_update(head, payload),
            Kind::Priority => self.on_priority(head, payload),
            Kind::Settings => self.on_settings(head, payload),
            Kind::Ping => self.on_ping(head, payload),
            Kind::GoAway => self.on_go_away(payload),
            Kind::PushPromise => Err(protocol("PUSH_PROMISE is not allowed: push is off")),
            Kind::PriorityUpdate | Kind::Other => Ok(()),
        }
    }

    /// Sends WINDOW_UPDATE for all streams after their windows have shrunk. The peer may have used
    /// up the smaller window already; then no data arrives, and no later read would send the
    /// update.
    fn refill_streams(&mut self) {
        for stream in self.streams.iter_mut() {
            let is_receiving = stream.receiving == Half::Body && stream.cut.is_none();
            let refill = stream.receive_window.refill(stream.inbox.len());
            if is_receiving && refill > 0 {
                self.out.window_update(stream.id, refill);
            }
        }
    }

    fn on_settings(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Failure> {
        if head.has(ACK) {
            if !payload.is_empty() {
                return Err(frame_size("a SETTINGS acknowledgement has a payload"));
            }
            if !std::mem::replace(&mut self.settings_known, true) {
                let change = self.stream_window() - WINDOW_BYTES;
                self.streams.iter_mut().for_each(|stream| stream.receive_window.change(change));
                self.refill_streams();
            }
            return Ok(());
        }
        let (values, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(frame_size("SETTINGS ends inside a setting"));
        }
        for &[a, b, w, x, y, z] in values {
            self.set(u16::from_be_bytes([a, b]), u32::from_be_bytes([w, x, y, z]))?;
        }
        self.out.frame(Kind::Settings, ACK, 0, b"");
        self.peers.are_known = true;
        self.greeters.drain(..).for_each(Waker::wake);
        Ok(())
    }

    fn set(&mut self, id: u16, value: u32) -> Result<(), Failure> {
        match id {
            0x1 => self.encoder.set_table_bytes_max(value),
            0x2 if value > 1 => return Err(protocol("SETTINGS_ENABLE_PUSH is neither 0 nor 1")),
            0x2 if value == 1 && self.peer == Peer::Endpoint => {
                return Err(protocol("a server has enabled push"));
            }
            0x3 => self.peers.streams_max = value as usize,
            0x4 => {
                let value = i64::from(value);
                if value > WINDOW_BYTES_MAX {
                    let why = "SETTINGS_INITIAL_WINDOW_SIZE is too large";
                    return Err(Failure::Protocol(Code::FLOW_CONTROL_ERROR, why));
                }
                let change = value - self.peers.initial_window_bytes;
                self.peers.initial_window_bytes = value;
                for stream in self.streams.iter_mut() {
                    stream.send_window += change;
                    if stream.send_window > WINDOW_BYTES_MAX {
                        let why = "SETTINGS_INITIAL_WINDOW_SIZE makes a window too large";
                        return Err(Failure::Protocol(Code::FLOW_CONTROL_ERROR, why));
                    }
                    wake(&mut stream.writer);
                }
            }
            0x5 => {
                if !(16_384..=16_777_215).contains(&value) {
                    return Err(protocol("SETTINGS_MAX_FRAME_SIZE is out of its range"));
                }
                self.peers.payload_bytes_max = value as usize;
            }
            0x8 if value > 1 => {
                return Err(protocol("SETTINGS_ENABLE_CONNECT_PROTOCOL is neither 0 nor 1"));
            }
            0x8 => self.peers.extended_connect |= value == 1,
            _ => {}
        }
        Ok(())
    }

    fn on_ping(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Failure> {
        if payload.len() != 8 {
            return Err(frame_size("PING does not have 8 bytes"));
        }
        if !head.has(ACK) {
            self.out.frame(Kind::Ping, ACK, 0, payload);
        } else if *payload == PING_ALIVE {
            self.ping_waits = false;
            self.pong = true;
        } else if *payload == PING_LEAVE && self.leaving == Leaving::Told {
            self.leaving = Leaving::Asked;
            self.out.frame(Kind::Ping, 0, 0, &PING_LEAVE);
        } else if *payload == PING_LEAVE && self.leaving == Leaving::Asked {
            // Streams that the client opened before it got the first GOAWAY have arrived by now.
            self.leaving = Leaving::After(self.last_stream);
            self.out.go_away(self.last_stream, Code::NO_ERROR);
        }
        Ok(())
    }

    fn on_go_away(&mut self, payload: &[u8]) -> Result<(), Failure> {
        if payload.len() < 8 {
            return Err(frame_size("GOAWAY has fewer than 8 bytes"));
        }
        self.is_left = true;
        if self.peer == Peer::Endpoint {
            let last = number(payload) & 0x7fff_ffff;
            for stream in self.streams.iter_mut().filter(|stream| stream.id > last) {
                stream.cut(Cut::Unprocessed);
            }
        }
        Ok(())
    }

    /// Sends a PING, unless one waits for its answer.
    pub fn ping(&mut self) {
        if !std::mem::replace(&mut self.ping_waits, true) {
            self.out.frame(Kind::Ping, 0, 0, &PING_ALIVE);
        }
    }

    /// Sends the first GOAWAY of a graceful shutdown to a client, and a PING. Streams that the
    /// client opens before it receives the GOAWAY are served (RFC 9113 6.8).
    pub fn leave(&mut self) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Told;
            self.out.go_away(0x7fff_ffff, Code::NO_ERROR);
            self.out.frame(Kind::Ping, 0, 0, &PING_LEAVE);
        }
    }

    /// Ends the connection because the peer did not complete a frame or a header block in time.
    pub fn late(&mut self) {
        let excess = self.meter.excess(Flood::UnfinishedHeaders);
        self.fail(&Failure::Flood(excess));
    }

    /// Ends the connection and all streams, and sends GOAWAY.
    pub(super) fn fail(&mut self, failure: &Failure) {
        let (code, end, cut) = match *failure {
            Failure::Protocol(code, why) => (code, End::Breach(why), Cut::Breach),
            Failure::Flood(excess) => (Code::ENHANCE_YOUR_CALM, End::Flood(excess), Cut::Flood),
        };
        self.out.go_away(self.last_stream, code);
        self.close(end, cut);
    }

    /// Ends the connection and all streams without GOAWAY.
    pub(super) fn close(&mut self, end: End, cut: Cut) {
        if self.end.is_none() {
            self.end = Some(end);
            self.block = None;
            self.accepted.clear();
            self.streams.iter_mut().for_each(|stream| stream.cut(cut));
            self.greeters.drain(..).for_each(Waker::wake);
        }
        wake(&mut self.driver);
    }
}

/// The buffer of frames that wait to be written.
pub(super) struct Outbox {
    pool: BufferPool,
    buf: Option<Buf>,
    held: HeldBytes,
    /// The number of taken bytes whose write is not complete.
    writing_bytes: usize,
    /// Whether the outbox was closed, so that new frames are dropped.
    is_closed: bool,
}

impl Outbox {
    fn new(pool: BufferPool) -> Self {
        Self { pool, buf: None, held: HeldBytes::default(), writing_bytes: 0, is_closed: false }
    }

    fn buf(&mut self) -> &mut Buf {
        self.buf.get_or_insert_with(|| self.pool.take())
    }

    /// The number of bytes that DATA frames may add now. Other frames are not limited: the buffer
    /// grows.
    pub(super) fn room(&mut self) -> usize {
        if self.is_closed {
            return 0;
        }
        // Other frames may have made the buffer larger. DATA must not fill the new room, or the
        // buffer would grow again and again while nothing is written.
        let buf = self.buf();
        buf.room().min(DATA_BYTES_MAX.saturating_sub(buf.len()))
    }

    /// Whether a DATA frame fits. Unlike [`Outbox::room`], takes no buffer from the pool.
    pub(super) fn has_room(&self) -> bool {
        let room = |buf: &Buf| buf.room().min(DATA_BYTES_MAX.saturating_sub(buf.len()));
        !self.is_closed && self.buf.as_ref().is_none_or(|buf| room(buf) > HEAD_BYTES)
    }

    /// The number of waiting bytes.
    pub(super) fn len(&self) -> usize {
        self.buf.as_ref().map_or(0, Buf::len)
    }

    /// Drops the waiting frames, and all later ones.
    pub(super) fn close(&mut self) {
        (self.buf, self.writing_bytes, self.is_closed) = (None, 0, true);
        self.count();
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        if self.is_closed {
            return;
        }
        let buf = self.buf();
        if buf.room() < bytes.len() {
            let wanted = 2 * buf.len() + bytes.len();
            buf.grow(wanted);
        }
        buf.append(bytes);
        self.count();
    }

    pub(super) fn frame(&mut self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
        let head = FrameHead { payload_bytes: payload.len(), kind, flags, stream };
        self.append(&head.bytes());
        self.append(payload);
    }

    pub(super) fn go_away(&mut self, last_stream: u32, code: Code) {
        let [a, b, c, d] = last_stream.to_be_bytes();
        let [w, x, y, z] = code.0.to_be_bytes();
        self.frame(Kind::GoAway, 0, 0, &[a, b, c, d, w, x, y, z]);
    }

    /// Takes the waiting frames, to write them.
    pub(super) fn take(&mut self) -> Option<Buf> {
        let buf = self.buf.take().filter(|buf| !buf.is_empty())?;
        self.writing_bytes = buf.len();
        self.count();
        Some(buf)
    }

    /// Records that the taken bytes have been written.
    pub(super) fn written(&mut self) {
        self.writing_bytes = 0;
        self.count();
    }

    fn count(&mut self) {
        self.held.set(self.writing_bytes + self.len());
    }
}
