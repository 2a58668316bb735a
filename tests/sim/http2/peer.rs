//! One end of a connection of HTTP/2 as clients and endpoints use it: it keeps the rules itself, and
//! asserts that the proxy does. None of it is the proxy's own code, nor the library's.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use ringway::runtime::io::{Io, Read, Stream};
use ringway::runtime::sim::{SimIo, SimStream};

use super::super::wire::{Cut, beside};
use super::super::world::World;
use super::frame::{self, Frame, code, flag, kind, setting};
use super::hpack::{self, Decoder, Fields};

/// What is announced in SETTINGS.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub stream_window: u32,
    pub streams_max: u32,
    pub table_bytes: u32,
}

/// Frames that wait to be written, before whoever adds one has to wait.
const QUEUED_FRAMES_MAX: usize = 6;

/// Bytes that are granted at least when some were read.
const GRANT_BYTES: usize = 3000;

/// What is granted again of the window of the connection, at once, however slow its streams are.
const CONNECTION_GRANT_BYTES: usize = 4000;

/// The window that every connection begins with (RFC 9113 6.9.2).
const WINDOW: i64 = 65_535;

/// How long the other side may take to close, too.
const LINGER: Duration = Duration::from_secs(2);

/// Why a stream does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lost {
    /// The proxy has reset it, with this code.
    Reset(u32),
    /// Its connection has ended.
    Over,
    /// It was not processed: a GOAWAY has said so.
    Unprocessed,
}

/// See the module.
pub struct Peer {
    pub io: SimIo,
    world: Rc<World>,
    /// Who it is, for the trace.
    name: (&'static str, u32),
    stream: SimStream,
    state: RefCell<State>,
}

struct State {
    client: bool,
    read: Vec<u8>,
    decoder: Decoder,
    /// The header block that is not complete, of a stream that ends with it or not.
    block: Option<(u32, bool, Vec<u8>)>,
    out: VecDeque<Vec<u8>>,
    over: Option<Cut>,
    /// Nothing more will be sent; nothing more is read either.
    closing: bool,
    gone: bool,
    /// The last stream that the other side takes, once it has said so.
    goaway: Option<u32>,
    /// The last stream that we take, once we have said so.
    left: Option<u32>,
    /// The other side's SETTINGS have come.
    settled: bool,
    terms: Terms,
    unacknowledged: VecDeque<Terms>,
    their_window: i64,
    their_streams_max: u32,
    may_send: i64,
    may_receive: i64,
    to_grant: usize,
    pongs: u32,
    streams: BTreeMap<u32, StreamState>,
    accepted: VecDeque<u32>,
    last: u32,
    /// What was asked for on streams that are ignored.
    unseen: Vec<String>,
    wakers: Vec<Waker>,
}

#[derive(Default)]
struct StreamState {
    may_send: i64,
    may_receive: i64,
    heads: VecDeque<Fields>,
    data: Vec<u8>,
    headed: bool,
    ended: bool,
    reset: Option<u32>,
    sent_end: bool,
    sent_reset: bool,
    ignored: bool,
}

impl StreamState {
    fn is_open(&self) -> bool {
        self.reset.is_none() && !self.sent_reset && !self.ignored && !(self.ended && self.sent_end)
    }

    /// Whether what comes on it is still looked at.
    fn listens(&self) -> bool {
        !self.sent_reset && !self.ignored
    }
}

impl State {
    fn new(client: bool, terms: Terms) -> Self {
        // Until SETTINGS are acknowledged, those of RFC 9113 6.5.2 hold.
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

    fn add_stream(&mut self, id: u32) -> &mut StreamState {
        self.last = id;
        let windows = (self.their_window, i64::from(self.terms.stream_window));
        let (may_send, may_receive) = windows;
        let stream = StreamState { may_send, may_receive, ..StreamState::default() };
        self.streams.entry(id).or_insert(stream)
    }

    fn open_streams(&self) -> usize {
        self.streams.values().filter(|stream| stream.is_open()).count()
    }

    /// Why `id` does not go on, if it does not.
    fn lost(&self, id: u32) -> Option<Lost> {
        let stream = &self.streams[&id];
        match (stream.reset, self.goaway) {
            (Some(code), _) => Some(Lost::Reset(code)),
            (None, Some(last)) if self.client && id > last => Some(Lost::Unprocessed),
            _ => self.over.map(|_| Lost::Over),
        }
    }
}

impl Peer {
    /// The side that opens streams.
    pub fn client(world: &Rc<World>, io: &SimIo, stream: SimStream, terms: Terms) -> Rc<Self> {
        Self::start(world, io, stream, terms, true)
    }

    /// The side that answers.
    pub fn server(world: &Rc<World>, io: &SimIo, stream: SimStream, terms: Terms) -> Rc<Self> {
        Self::start(world, io, stream, terms, false)
    }

    fn start(
        world: &Rc<World>,
        io: &SimIo,
        stream: SimStream,
        terms: Terms,
        client: bool,
    ) -> Rc<Self> {
        let state = RefCell::new(State::new(client, terms));
        let name = (if client { "client" } else { "endpoint" }, world.new_id());
        let (io, world) = (io.clone(), Rc::clone(world));
        let peer = Rc::new(Self { io, world, name, stream, state });
        if client {
            peer.push(frame::PREFACE.to_vec());
        }
        peer.push(frame::settings(terms));
        let running = Rc::clone(&peer);
        peer.io.spawn(async move {
            let moving = beside(running.write_frames(), running.read_frames());
            beside(running.wait(|state| state.gone.then_some(())), moving).await;
        });
        peer
    }

    async fn read_frames(&self) {
        loop {
            let (read, buf) = self.stream.read(self.io.buffers().take()).await;
            let cut = match read {
                Ok(Read::Data(_)) => {
                    self.take(buf.data());
                    continue;
                }
                Ok(_) => Cut::Ended,
                Err(_) => Cut::Reset,
            };
            return self.change(|state| state.over = Some(cut));
        }
    }

    async fn write_frames(&self) {
        loop {
            let next = self.wait(|state| match state.out.pop_front() {
                Some(frame) => Some(Some(frame)),
                None => state.closing.then_some(None),
            });
            let Some(frame) = next.await else { break };
            let mut buf = self.io.buffers().take();
            assert_eq!(buf.append(&frame), frame.len());
            if self.stream.write_all(buf).await.0.is_err() {
                self.change(|state| state.over = Some(Cut::Reset));
                break;
            }
            self.change(|_| {});
        }
        self.wait(|state| state.closing.then_some(())).await;
        // Closed with something unread it would be a reset, which may overtake what was said.
        self.stream.shutdown_write().await;
        let late = self.io.sleep(LINGER);
        beside(late, self.wait(|state| state.over.map(|_| state.gone = true))).await;
        self.change(|state| state.gone = true);
    }

    /// Waits until `ready` gives something.
    async fn wait<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T>) -> T {
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            if let Some(done) = ready(&mut state) {
                return Poll::Ready(done);
            }
            if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                state.wakers.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.borrow_mut();
        let changed = change(&mut state);
        state.wakers.drain(..).for_each(Waker::wake);
        changed
    }

    pub fn push(&self, bytes: Vec<u8>) {
        self.change(|state| state.out.push_back(bytes));
    }

    /// Says what is left to say and then closes.
    pub fn close(&self) {
        self.change(|state| state.closing = true);
    }

    /// Is gone, as a process that was killed.
    pub fn abort(&self) {
        self.stream.reset_on_close();
        self.change(|state| {
            (state.closing, state.gone) = (true, true);
            state.over = Some(Cut::Reset);
        });
    }

    pub fn is_over(&self) -> bool {
        let state = self.state.borrow();
        state.over.is_some() || state.goaway.is_some() || state.closing
    }

    /// Changes what was announced.
    pub fn announce(&self, terms: Terms) {
        self.change(|state| {
            state.unacknowledged.push_back(terms);
            state.out.push_back(frame::settings(terms));
        });
    }

    /// Says which streams are taken, and no more after them: all that could come, or those so far.
    pub fn leave(&self, all: bool, reason: u32) {
        self.change(|state| {
            let last = if all { 0x7fff_ffff } else { state.last };
            state.left = (!all).then_some(last);
            state.out.push_back(frame::goaway(last, reason));
        });
    }

    /// Who it is, for the trace.
    pub fn name(&self) -> (&'static str, u32) {
        self.name
    }

    /// Asks, and waits for the answer: what was sent before has come by then.
    pub async fn ping(&self) {
        let asked = self.change(|state| {
            state.out.push_back(frame::ping(0));
            state.pongs
        });
        self.wait(|state| (state.pongs > asked || state.over.is_some()).then_some(())).await;
    }

    /// The next stream that the other side opens; `None` when none will come.
    pub async fn accept(&self) -> Option<u32> {
        self.wait(|state| match state.accepted.pop_front() {
            Some(id) => Some(Some(id)),
            None => (state.over.is_some() || state.left.is_some()).then_some(None),
        })
        .await
    }

    /// Waits until no stream is under way.
    pub async fn settle(&self) {
        self.wait(|state| (state.over.is_some() || state.open_streams() == 0).then_some(())).await;
    }

    /// Opens a stream as soon as there may be one more.
    pub async fn open(&self, fields: &Fields, end: bool) -> Option<u32> {
        let opened = self.wait(|state| {
            if state.over.is_some() || state.goaway.is_some() || state.closing {
                return Some(None);
            }
            // What is not known yet may be less than it will be.
            let streams_max = if state.settled { state.their_streams_max } else { 1 };
            let full = state.open_streams() >= streams_max as usize;
            if full || state.out.len() >= QUEUED_FRAMES_MAX {
                return None;
            }
            let id = if state.last == 0 { 1 } else { state.last + 2 };
            let stream = state.add_stream(id);
            stream.sent_end = end;
            self.world.random(|random| frame::headers(&mut state.out, id, fields, end, random));
            Some(Some(id))
        });
        let id = opened.await;
        self.change(|_| {});
        id
    }

    /// Sends a head, or trailers.
    pub async fn headers(&self, id: u32, fields: &Fields, end: bool) -> Result<(), Lost> {
        self.turn(id).await?;
        self.change(|state| {
            state.streams.get_mut(&id).unwrap().sent_end |= end;
            self.world.random(|random| frame::headers(&mut state.out, id, fields, end, random));
        });
        Ok(())
    }

    /// Waits until a frame of `id` may be queued.
    async fn turn(&self, id: u32) -> Result<(), Lost> {
        self.wait(|state| match state.lost(id) {
            Some(lost) => Some(Err(lost)),
            None => (state.out.len() < QUEUED_FRAMES_MAX).then_some(Ok(())),
        })
        .await
    }

    /// Sends data as the windows allow, in portions of any size.
    pub async fn data(&self, id: u32, mut bytes: &[u8], end: bool) -> Result<(), Lost> {
        let least = bytes.len() / 40 + 1;
        while !bytes.is_empty() || end {
            self.turn(id).await?;
            let padding = self.world.random(|random| random.u8(..8) == 0).then_some(3);
            let overhead = padding.map_or(0, |padding| i64::from(padding) + 1);
            let wanted = self.world.random(|random| random.usize(least..=least + 16_000));
            let wanted = wanted.min(bytes.len()).min(16_000);
            let sent = self.wait(|state| {
                if let Some(lost) = state.lost(id) {
                    return Some(Err(lost));
                }
                let room = state.may_send.min(state.streams[&id].may_send) - overhead;
                if room < i64::from(wanted > 0) && (wanted > 0 || padding.is_some()) {
                    return None;
                }
                let n = wanted.min(usize::try_from(room).unwrap_or(0));
                let last = end && n == bytes.len();
                let cost = n as i64 + overhead;
                state.may_send -= cost;
                let stream = state.streams.get_mut(&id).unwrap();
                stream.may_send -= cost;
                stream.sent_end |= last;
                state.out.push_back(frame::data(id, &bytes[..n], last, padding));
                Some(Ok(n))
            });
            let n = sent.await?;
            self.change(|_| {});
            bytes = &bytes[n..];
            if bytes.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Gives a stream up, unless it is over already.
    pub fn reset(&self, id: u32, reason: u32) {
        self.change(|state| {
            let stream = state.streams.get_mut(&id).unwrap();
            if stream.is_open() {
                stream.sent_reset = true;
                state.out.push_back(frame::reset(id, reason));
            }
        });
    }

    /// The next head, or the trailers.
    pub async fn head(&self, id: u32) -> Result<Fields, Lost> {
        self.wait(|state| match state.streams.get_mut(&id).unwrap().heads.pop_front() {
            Some(head) => Some(Ok(head)),
            None => state.lost(id).map(Err),
        })
        .await
    }

    /// More of the body; nothing at its end.
    pub async fn body(&self, id: u32) -> Result<Vec<u8>, Lost> {
        let data = self.wait(|state| {
            let stream = state.streams.get_mut(&id).unwrap();
            match (stream.data.is_empty(), stream.ended) {
                (true, false) => {
                    state.grant(id, 0);
                    state.lost(id).map(Err)
                }
                _ => Some(Ok(std::mem::take(&mut stream.data))),
            }
        });
        let data = data.await?;
        self.change(|state| state.grant(id, data.len()));
        Ok(data)
    }

    /// Takes what has come.
    fn take(&self, bytes: &[u8]) {
        self.change(|state| {
            state.read.extend_from_slice(bytes);
            if !state.client && state.streams.is_empty() && !state.settled {
                let begun = state.read.len().min(frame::PREFACE.len());
                assert_eq!(state.read[..begun], frame::PREFACE[..begun], "the preface");
            }
            let mut start = if state.client || state.settled { 0 } else { frame::PREFACE.len() };
            while let Some(frame) = state.read.get(start..).and_then(Frame::first) {
                start += frame.len();
                self.world.note(&self.io, self.name, &frame);
                state.on_frame(frame);
            }
            if state.settled {
                state.read.drain(..start);
            }
            for path in state.unseen.drain(..) {
                self.world.refused(&self.world.plan_of(&path));
            }
        });
    }
}

impl State {
    /// Lets the other side send more on a stream: what was read, and something where it is stuck.
    fn grant(&mut self, id: u32, read: usize) {
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

    fn on_frame(&mut self, frame: Frame) {
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
            kind::RESET => {
                let stream = self.streams.get_mut(&frame.id).expect("a reset of a stream");
                assert!(stream.reset.is_none(), "reset twice: {}", frame.id);
                // A whole answer may come before the request was whole (RFC 9113 8.1).
                let answered = self.client && stream.ended;
                assert!(!answered || frame.word(0) == code::NO_ERROR, "answered, and reset");
                stream.reset = Some(frame.word(0));
            }
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
                setting::STREAMS_MAX => self.their_streams_max = value,
                setting::STREAM_WINDOW => {
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

/// The value of a field that stands at most once.
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
