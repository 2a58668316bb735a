//! One end of an HTTP/2 connection, for clients and endpoints. It follows the protocol, and checks
//! that the proxy does so. It uses no code of the proxy and no HTTP/2 library.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use ringway::runtime::io::{Io, Read, Stream};
use ringway::runtime::sim::{SimIo, SimStream};

use super::super::wire::{Cut, beside};
use super::super::world::World;
use super::frame::{self, Frame};
use super::hpack::Fields;
use super::state::{Lost, State, Terms};

/// How many frames may wait to be written before a sender must wait.
const QUEUED_FRAMES_MAX: usize = 6;

/// How long the other side may take to close after this side has closed.
const LINGER: Duration = Duration::from_secs(2);

/// One end of an HTTP/2 connection.
pub struct Peer {
    pub io: SimIo,
    world: Rc<World>,
    /// The name in the trace.
    name: (&'static str, u32),
    stream: SimStream,
    state: RefCell<State>,
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
        // Closing with unread bytes would cause a reset, which may overtake sent bytes.
        self.stream.shutdown_write().await;
        let late = self.io.sleep(LINGER);
        beside(late, self.wait(|state| state.over.map(|_| state.gone = true))).await;
        self.change(|state| state.gone = true);
    }

    /// Waits until `ready` returns a value.
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

    /// Sends the remaining frames and then closes.
    pub fn close(&self) {
        self.change(|state| state.closing = true);
    }

    /// Ends without closing anything, like a process that was killed.
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

    /// Changes the announced settings.
    pub fn announce(&self, terms: Terms) {
        self.change(|state| {
            state.unacknowledged.push_back(terms);
            state.out.push_back(frame::settings(terms));
        });
    }

    /// Sends GOAWAY. Streams that arrive later are not served. With `all`, the GOAWAY names the
    /// largest stream number, else the last stream received so far.
    pub fn leave(&self, all: bool, reason: u32) {
        self.change(|state| {
            let last = if all { 0x7fff_ffff } else { state.last };
            state.left = (!all).then_some(last);
            state.out.push_back(frame::goaway(last, reason));
        });
    }

    /// The name in the trace.
    pub fn name(&self) -> (&'static str, u32) {
        self.name
    }

    /// Sends a PING and waits for the answer. Then all frames that were sent before have arrived.
    pub async fn ping(&self) {
        let asked = self.change(|state| {
            state.out.push_back(frame::ping(0));
            state.pongs
        });
        self.wait(|state| (state.pongs > asked || state.over.is_some()).then_some(())).await;
    }

    /// The next stream that the other side opens. Returns `None` when no stream will come.
    pub async fn accept(&self) -> Option<u32> {
        self.wait(|state| match state.accepted.pop_front() {
            Some(id) => Some(Some(id)),
            None => (state.over.is_some() || state.left.is_some()).then_some(None),
        })
        .await
    }

    /// Waits until no stream is open.
    pub async fn settle(&self) {
        self.wait(|state| (state.over.is_some() || state.open_streams() == 0).then_some(())).await;
    }

    /// Opens a stream as soon as the limit of streams allows it. Returns `None` if the connection
    /// takes no more streams.
    pub async fn open(&self, fields: &Fields, end: bool) -> Option<u32> {
        let opened = self.wait(|state| {
            if state.over.is_some() || state.goaway.is_some() || state.closing {
                return Some(None);
            }
            // The final limit may be higher than the limit that is known now.
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

    /// Resets a stream, unless it has ended.
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

    /// The next part of the body. Empty at the end of the body.
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

    /// Processes received bytes.
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
