//! The state of one end of a connection, and its reaction to received frames.

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;

use super::super::wire::Cut;
use super::frame::{self, Frame, code, flag, kind, setting};
use super::hpack::{self, Decoder, Fields};

/// The announced SETTINGS.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub stream_window: u32,
    pub streams_max: u32,
    pub table_bytes: u32,
}

/// The reason why a stream cannot continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lost {
    /// The proxy has reset the stream with this code.
    Reset(u32),
    /// Its connection has ended.
    Over,
    /// The stream was not processed: a GOAWAY said so.
    Unprocessed,
}

/// The window grows by at least this many bytes after a read.
const GRANT_BYTES: usize = 3000;

/// The connection window grows by at least this many bytes at once, even if streams are slow.
const CONNECTION_GRANT_BYTES: usize = 4000;

/// The window that every connection begins with (RFC 9113 6.9.2).
const WINDOW: i64 = 65_535;

pub struct State {
    pub client: bool,
    pub read: Vec<u8>,
    pub decoder: Decoder,
    /// An incomplete header block: its stream, whether it ends the stream, and the bytes.
    pub block: Option<(u32, bool, Vec<u8>)>,
    pub out: VecDeque<Vec<u8>>,
    pub over: Option<Cut>,
    /// Nothing more will be sent or read.
    pub closing: bool,
    pub gone: bool,
    /// The last stream that the other side accepts, after its GOAWAY.
    pub goaway: Option<u32>,
    /// The last stream that this side accepts, after its GOAWAY.
    pub left: Option<u32>,
    /// The other side's SETTINGS have arrived.
    pub settled: bool,
    pub terms: Terms,
    pub unacknowledged: VecDeque<Terms>,
    pub their_window: i64,
    pub their_streams_max: u32,
    pub may_send: i64,
    pub may_receive: i64,
    pub to_grant: usize,
    pub pongs: u32,
    pub streams: BTreeMap<u32, StreamState>,
    pub accepted: VecDeque<u32>,
    pub last: u32,
    /// The requests on ignored streams.
    pub unseen: Vec<String>,
    pub wakers: Vec<Waker>,
}

#[derive(Default)]
pub struct StreamState {
    pub may_send: i64,
    pub may_receive: i64,
    pub heads: VecDeque<Fields>,
    pub data: Vec<u8>,
    pub headed: bool,
    pub ended: bool,
    pub reset: Option<u32>,
    pub sent_end: bool,
    pub sent_reset: bool,
    pub ignored: bool,
}

impl StreamState {
    pub fn is_open(&self) -> bool {
        let over = self.ended && self.sent_end;
        self.reset.is_none() && !self.sent_reset && !self.ignored && !over
    }

    /// Whether frames of the stream are still processed.
    pub fn listens(&self) -> bool {
        !self.sent_reset && !self.ignored
    }
}

impl State {
    pub fn new(client: bool, terms: Terms) -> Self {
        // Until SETTINGS are acknowledged, the initial values of RFC 9113 6.5.2 apply.
        let default = Terms { stream_window: 65_535, streams_max: u32::MAX, table_bytes: 4096 };
        Self {
            client,
            read: Vec::new(),
            decoder: Decoder::default(),
            block: None,
            out: VecDeque::new(),
            over: None,
            closing: false,
            gone: false,
            goaway: None,
            left: None,
            settled: false,
            terms: default,
            unacknowledged: VecDeque::from([terms]),
            their_window: WINDOW,
            their_streams_max: u32::MAX,
            may_send: WINDOW,
            may_receive: WINDOW,
            to_grant: 0,
            pongs: 0,
            streams: BTreeMap::new(),
            accepted: VecDeque::new(),
            last: 0,
            unseen: Vec::new(),
            wakers: Vec::new(),
        }
    }

    pub fn add_stream(&mut self, id: u32) -> &mut StreamState {
        self.last = id;
        let windows = (self.their_window, i64::from(self.terms.stream_window));
        let (may_send, may_receive) = windows;
        let stream = StreamState { may_send, may_receive, ..StreamState::default() };
        self.streams.entry(id).or_insert(stream)
    }

    pub fn open_streams(&self) -> usize {
        self.streams.values().filter(|stream| stream.is_open()).count()
    }

    /// The reason why stream `id` cannot continue, if there is one.
    pub fn lost(&self, id: u32) -> Option<Lost> {
        let stream = &self.streams[&id];
        match (stream.reset, self.goaway) {
            (Some(code), _) => Some(Lost::Reset(code)),
            (None, Some(last)) if self.client && id > last => Some(Lost::Unprocessed),
            _ => self.over.map(|_| Lost::Over),
        }
    }
}

impl State {
    /// Lets the other side send more on a stream: as much as was read, and a little if it is stuck.
    pub fn grant(&mut self, id: u32, read: usize) {
        let stream = self.streams.get_mut(&id).unwrap();
        let missing = usize::try_from(-stream.may_receive).unwrap_or(0);
        let stuck = stream.may_receive <= 0 && stream.data.is_empty();
        if stream.is_open() && !stream.ended && (stuck || read > 0) {
            let n = missing + read.max(GRANT_BYTES);
            stream.may_receive += n as i64;
            self.out.push_back(frame::window_update(id, n));
            self.wakers.drain(..).for_each(Waker::wake);
        }
    }

    fn on_reset(&mut self, frame: &Frame) {
        let stream = self.streams.get_mut(&frame.id).expect("a reset of a stream");
        let reason = frame.word(0);
        assert_eq!(stream.reset, None, "reset twice: {}", frame.id);
        // An endpoint may send the whole answer before the request is complete (RFC 9113 8.1).
        let answered = self.client && stream.ended;
        assert!(!answered || reason == code::NO_ERROR, "answered, and reset");
        stream.reset = Some(reason);
    }

    pub fn on_frame(&mut self, frame: Frame) {
        let of_block = frame.kind == kind::CONTINUATION;
        assert_eq!(self.block.is_some(), of_block, "a header block is interrupted: {frame:?}");
        assert!(self.settled || frame.kind == kind::SETTINGS, "SETTINGS come first: {frame:?}");
        match frame.kind {
            kind::DATA => self.on_data(&frame),
            kind::HEADERS => {
                let block = frame.unpadded().to_vec();
                self.block = Some((frame.id, frame.has(flag::END_STREAM), block));
                self.on_block(frame.has(flag::END_HEADERS));
            }
            kind::CONTINUATION => {
                let (id, _, block) = self.block.as_mut().unwrap();
                assert_eq!(*id, frame.id);
                block.extend_from_slice(&frame.payload);
                self.on_block(frame.has(flag::END_HEADERS));
            }
            kind::RST_STREAM => self.on_reset(&frame),
            kind::SETTINGS if frame.has(flag::ACK) => self.on_acknowledged(),
            kind::SETTINGS => self.on_settings(&frame),
            kind::PING if frame.has(flag::ACK) => self.pongs += 1,
            kind::PING => self.out.push_back(frame::ping(flag::ACK)),
            kind::GOAWAY => {
                let last = frame.word(0);
                assert!(self.goaway.is_none_or(|before| last <= before), "GOAWAY takes it back");
                let reason = frame.word(4);
                assert!(reason != code::PROTOCOL_ERROR || !self.client, "we are in the wrong");
                self.goaway = Some(last);
            }
            kind::WINDOW_UPDATE => {
                let n = i64::from(frame.word(0));
                assert!(n > 0);
                match frame.id {
                    0 => self.may_send += n,
                    id => self.streams.get_mut(&id).expect("a stream").may_send += n,
                }
            }
            kind::PRIORITY => {}
            other => panic!("a frame that nobody asked for: {other}"),
        }
    }

    fn on_data(&mut self, frame: &Frame) {
        let n = frame.payload.len();
        self.may_receive -= n as i64;
        assert!(self.may_receive >= 0, "more than the window of the connection");
        self.to_grant += n;
        if self.to_grant >= CONNECTION_GRANT_BYTES {
            let granted = std::mem::take(&mut self.to_grant);
            self.may_receive += granted as i64;
            self.out.push_back(frame::window_update(0, granted));
        }
        let id = frame.id;
        let stream = self.streams.get_mut(&id).expect("data of a stream that is open");
        assert!(!stream.ended && stream.reset.is_none(), "data after the end of {id}");
        if stream.listens() {
            assert!(stream.headed, "data before the head of {id}");
            stream.may_receive -= n as i64;
            assert!(n == 0 || stream.may_receive >= 0, "more than the window of {id}");
            stream.data.extend_from_slice(frame.unpadded());
        }
        stream.ended = frame.has(flag::END_STREAM);
    }

    fn on_block(&mut self, whole: bool) {
        if !whole {
            return;
        }
        let (id, ends, block) = self.block.take().unwrap();
        let fields = self.decoder.decode(&block);
        check_fields(&fields);
        if !self.client && !self.streams.contains_key(&id) {
            assert!(id % 2 == 1 && id > self.last, "stream {id} after {}", self.last);
            let open = self.open_streams();
            let known = self.unacknowledged.is_empty();
            assert!(!known || open < self.terms.streams_max as usize, "too many streams");
            let ignored = self.left.is_some();
            let last = self.last;
            self.add_stream(id).ignored = ignored;
            if ignored {
                self.last = last;
                self.unseen.extend(field(&fields, ":path").map(str::to_owned));
            } else {
                self.accepted.push_back(id);
            }
        }
        let stream = self.streams.get_mut(&id).expect("a head of a stream that is open");
        assert!(!stream.ended && stream.reset.is_none(), "a head after the end of {id}");
        let interim =
            fields.iter().any(|(name, value)| name == ":status" && value.starts_with('1'));
        assert!(ends || !stream.headed, "{id} has two heads");
        stream.headed |= !interim;
        stream.ended = ends;
        if stream.listens() {
            stream.heads.push_back(fields);
        }
    }

    fn on_acknowledged(&mut self) {
        let terms = self.unacknowledged.pop_front().expect("SETTINGS to acknowledge");
        let more = i64::from(terms.stream_window) - i64::from(self.terms.stream_window);
        self.streams.values_mut().for_each(|stream| stream.may_receive += more);
        self.decoder.allowed = terms.table_bytes as usize;
        self.terms = terms;
    }

    fn on_settings(&mut self, frame: &Frame) {
        self.settled = true;
        for pair in frame.payload.chunks(6) {
            let value = u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]);
            match u16::from_be_bytes([pair[0], pair[1]]) {
                setting::MAX_CONCURRENT_STREAMS => self.their_streams_max = value,
                setting::INITIAL_WINDOW_SIZE => {
                    let more = i64::from(value) - self.their_window;
                    self.their_window += more;
                    self.streams.values_mut().for_each(|stream| stream.may_send += more);
                }
                _ => {}
            }
        }
        self.out.push_back(frame::acknowledgement());
    }
}

fn check_fields(fields: &Fields) {
    let of_connections =
        ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
    let mut pseudo = true;
    for (name, value) in fields {
        pseudo &= name.starts_with(':');
        assert_eq!(pseudo, name.starts_with(':'), "pseudo-fields come first: {fields:?}");
        assert!(!of_connections.contains(&name.as_str()), "{name} in HTTP/2");
        assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()));
        assert!(value.bytes().all(|byte| byte >= b' '), "{name}: {value:?}");
    }
}

/// The value of a field that must not occur twice.
pub fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    let mut found = fields.iter().filter(|(field, _)| field == name);
    let first = found.next();
    assert!(found.next().is_none(), "{name} twice: {fields:?}");
    first.map(|(_, value)| &**value)
}

/// A block of `fields`.
pub fn block_of(fields: &Fields) -> Vec<u8> {
    let mut block = Vec::new();
    fields.iter().for_each(|(name, value)| hpack::put(&mut block, name, value));
    block
}
