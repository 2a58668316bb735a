//! An HTTP/3 connection, shared by its driver and its streams. All of them run on one thread.
//!
//! QUIC has the streams, their windows and their bytes. This layer reads and writes the frames in
//! them. A body stays in QUIC until its exchange reads it, so flow control works end to end.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::Waker;

use rustc_hash::FxHashMap;

use super::code::{Code, ConnectionError, Error};
use super::flood::Excess;
use super::inbound::{Event, Inbound};
use super::priority::{CRITICAL_PRIORITY, apply_updates, prioritize};
use super::session::{Config, Session};
use super::streams::{Cut, Stream, wake};
use super::unidirectional::Uni;
use crate::http2::{Draft, Message, Peer, Sent};
use crate::quic::{self, Closed, Dir, ReadError, StreamId, WriteError};
use crate::runtime::buffer::Buf;
use crate::time::Time;

/// How many bytes of a stream are read at once while its head is not complete.
pub(super) const HEAD_READ_BYTES: usize = 16 * 1024;

/// How many bytes may be written to a stream at once. QUIC copies what its window takes.
pub(super) const WRITE_BYTES_MAX: usize = 64 * 1024;

/// How many interim heads of an endpoint may wait for their exchange.
const HEADS_MAX: usize = 64;

const TOO_MANY_HEADS: &str = "too many interim responses that nobody reads";

/// Our critical streams (RFC 9114 6.2, RFC 9204 4.2), in the order in which they are opened.
const CRITICAL: usize = 3;

/// The reason why a connection has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// QUIC has ended it.
    Closed(Closed),
    /// The peer has broken the protocol. We have closed it with this code.
    Breach(Code, &'static str),
    /// The peer has exceeded a limit. We have closed it with H3_EXCESSIVE_LOAD.
    Flood(Excess),
}

/// A handle to the state of an HTTP/3 connection.
pub struct Connection(pub(super) RefCell<Core>);

/// A stream that a client has opened.
pub struct Accepted {
    /// The id of the stream.
    pub id: StreamId,
    /// The head of the request.
    pub request: Box<Message>,
}

/// The state of a connection.
pub(super) struct Core {
    pub(super) quic: Rc<quic::Connection>,
    pub(super) session: Session,
    pub(super) peer: Peer,
    /// How many streams we open at once.
    pub(super) streams_max: usize,
    /// Our critical streams, once they are open.
    critical: Vec<StreamId>,
    pub(super) streams: FxHashMap<StreamId, Stream>,
    accepted: VecDeque<StreamId>,
    /// The streams that wait for entries of the QPACK table, by their number.
    pub(super) blocked: FxHashMap<u64, StreamId>,
    /// The requests whose heads were not complete at first, the oldest first.
    pub(super) heads: VecDeque<(StreamId, Time)>,
    /// The time of the last event.
    now: Time,
    /// The first stream id that we do not serve.
    next_unserved: u64,
    /// The tasks that wait for the peer's SETTINGS.
    pub(super) greeters: Vec<Waker>,
    pub(super) end: Option<End>,
}

/// Methods for the driver of the connection.
impl Connection {
    /// Creates a connection over `quic`, whose handshake is complete.
    pub fn new(config: &Config<'_>, quic: Rc<quic::Connection>, now: Time) -> Rc<Self> {
        let mut core = Core {
            quic,
            peer: config.peer,
            session: Session::new(config, now),
            critical: Vec::with_capacity(CRITICAL),
            streams: FxHashMap::default(),
            accepted: VecDeque::new(),
            blocked: FxHashMap::default(),
            heads: VecDeque::new(),
            now,
            next_unserved: 0,
            streams_max: usize::MAX,
            greeters: Vec::new(),
            end: None,
        };
        core.flush_session();
        Rc::new(Self(RefCell::new(core)))
    }

    /// Limits the number of streams that we open at once.
    pub fn limit_streams(&self, streams_max: usize) {
        self.0.borrow_mut().streams_max = streams_max;
    }

    /// The QUIC connection below.
    pub fn quic(&self) -> Rc<quic::Connection> {
        Rc::clone(&self.0.borrow().quic)
    }

    /// Handles an event of QUIC.
    pub fn handle(&self, event: quic::Event, now: Time) {
        let mut core = self.0.borrow_mut();
        core.session.pass_time(now);
        core.now = now;
        if let Err(error) = core.handle(event) {
            core.fail(&error, now);
        }
        core.leave_with_peer();
        core.flush_session();
    }

    /// Takes the next stream that the client has opened and not reset, and whose head is complete.
    pub fn accept(&self) -> Option<Accepted> {
        let mut core = self.0.borrow_mut();
        while let Some(id) = core.accepted.pop_front() {
            let Some(stream) = core.streams.get_mut(&id) else { continue };
            match (stream.cut, stream.heads.pop_front()) {
                (None, Some(request)) => return Some(Accepted { id, request }),
                _ => core.release(id, Code::REQUEST_CANCELLED),
            }
        }
        None
    }

    /// The reason why the connection has ended. `None` while it is open.
    pub fn end(&self) -> Option<End> {
        self.0.borrow().end.clone()
    }

    /// Sends the first GOAWAY of a graceful shutdown: streams that the client opens before it
    /// receives the GOAWAY are served (RFC 9114 5.2).
    pub fn leave(&self) {
        let mut core = self.0.borrow_mut();
        core.session.leave();
        core.flush_session();
    }

    /// Sends the second GOAWAY: later streams are refused.
    pub fn refuse_later(&self) {
        let mut core = self.0.borrow_mut();
        let first_refused = core.next_unserved;
        core.session.leave_after(first_refused);
        core.flush_session();
    }

    /// Closes the connection without an error. Streams that are still open end.
    pub fn close(&self, now: Time) {
        let mut core = self.0.borrow_mut();
        if !core.quic.is_closed() {
            core.quic.close(now, Code::NO_ERROR.0, "");
        }
        core.close(End::Closed(Closed::Ours));
        core.leave_with_peer();
    }

    /// The time when the oldest request began whose head is not complete.
    pub fn oldest_head(&self) -> Option<Time> {
        self.0.borrow_mut().oldest_head()
    }

    /// Ends the requests that began before `began`, and whose heads are not complete.
    pub fn end_heads(&self, began: Time) {
        self.0.borrow_mut().end_heads(began);
    }

    /// Whether the peer has all messages that we have sent.
    pub fn is_delivered(&self) -> bool {
        let core = self.0.borrow();
        core.quic.sending() <= core.critical.len()
    }
}

impl Core {
    /// Whether no more streams can be opened: the connection has ended, or the endpoint leaves.
    pub(super) fn is_left(&self) -> bool {
        self.end.is_some() || self.session.goaway().is_some() || self.quic.is_closed()
    }

    /// Wakes those that wait for SETTINGS. After GOAWAY of an endpoint, ends the streams that it
    /// does not process (RFC 9114 5.2).
    fn leave_with_peer(&mut self) {
        if self.session.is_greeted() || self.end.is_some() {
            self.greeters.drain(..).for_each(Waker::wake);
        }
        if let (Peer::Endpoint, Some(first)) = (self.peer, self.session.goaway()) {
            for (id, stream) in &mut self.streams {
                if u64::from(*id) >= first && !stream.in_body {
                    stream.cut(Cut::Unprocessed);
                }
            }
        }
    }

    fn handle(&mut self, event: quic::Event) -> Result<(), ConnectionError> {
        match event {
            quic::Event::Opened(Dir::Bi) => self.accept_requests(),
            quic::Event::Opened(Dir::Uni) => {
                while let Some(id) = self.quic.accept(Dir::Uni) {
                    self.read_uni(id)?;
                }
                Ok(())
            }
            quic::Event::Readable(id) if id.dir() == Dir::Uni => self.read_uni(id),
            quic::Event::Readable(id) => self.readable(id),
            quic::Event::Writable(id) => {
                self.writable(id);
                Ok(())
            }
            quic::Event::Stopped(id, _) if self.critical.contains(&id) => {
                Err(Session::uni_stopped())
            }
            quic::Event::Stopped(id, code) => self.stopped(id, code),
            quic::Event::Lost(why) => {
                self.close(End::Closed(why));
                Ok(())
            }
            quic::Event::Connected | quic::Event::Available(_) | quic::Event::Finished(_) => Ok(()),
        }
    }

    fn accept_requests(&mut self) -> Result<(), ConnectionError> {
        while let Some(id) = self.quic.accept(Dir::Bi) {
            if self.peer == Peer::Endpoint {
                // A server must not open such a stream (RFC 9114 6.1).
                let why = "a server has opened a bidirectional stream";
                return Err(ConnectionError::new(Code::STREAM_CREATION_ERROR, why));
            }
            self.next_unserved = self.next_unserved.max(u64::from(id) + 4);
            self.streams.insert(id, Stream::new(Inbound::request()));
            self.readable(id)?;
            if self.streams.get(&id).is_some_and(|stream| !stream.in_body) {
                self.heads.push_back((id, self.now));
            }
        }
        Ok(())
    }

    /// Reads the critical stream `id` of the peer, or another one whose type is not known.
    fn read_uni(&mut self, id: StreamId) -> Result<(), ConnectionError> {
        loop {
            let (bytes, fin) = match self.quic.read(id, HEAD_READ_BYTES) {
                Ok(Some(bytes)) => (bytes, false),
                Ok(None) => (bytes::Bytes::new(), true),
                Err(ReadError::Blocked | ReadError::Closed) => return Ok(()),
                Err(ReadError::Reset(_)) => return self.session.uni_reset(id.into()),
            };
            match self.session.receive_uni(id.into(), &bytes, fin)? {
                Uni::Continue if fin => return Ok(()),
                Uni::Continue => {}
                Uni::Ignore => {
                    self.quic.stop(id, Code::STREAM_CREATION_ERROR.0);
                    return Ok(());
                }
            }
            apply_updates(&mut self.session, &self.quic, &self.streams);
            self.unblock()?;
        }
    }

    /// Continues the streams that waited for entries of the QPACK table.
    fn unblock(&mut self) -> Result<(), ConnectionError> {
        while let Some(number) = self.session.next_ready() {
            if let Some(id) = self.blocked.remove(&number) {
                self.readable(id)?;
            }
        }
        Ok(())
    }

    /// Reads the heads of a stream. If its exchange reads the body, wakes it instead.
    fn readable(&mut self, id: StreamId) -> Result<(), ConnectionError> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if stream.in_body {
            wake(&mut stream.reader);
            if stream.leaver.is_some() {
                return self.look_for_reset(id);
            }
            return Ok(());
        }
        while self.streams.get(&id).is_some_and(|stream| !stream.in_body && stream.cut.is_none()) {
            if !self.advance(id, HEAD_READ_BYTES)? {
                break;
            }
        }
        Ok(())
    }

    /// Reads at most `bytes_max` bytes of the stream, and handles one event. Returns false if there
    /// is nothing to read now.
    pub(super) fn advance(
        &mut self,
        id: StreamId,
        bytes_max: usize,
    ) -> Result<bool, ConnectionError> {
        let Self { quic, session, streams, accepted, blocked, .. } = self;
        let Some(stream) = streams.get_mut(&id) else { return Ok(false) };
        match stream.fill(quic, id, bytes_max) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(cut) => {
                stream.cut(cut);
                session.reset_by_peer(id.into())?;
                self.forget_unserved(id);
                return Ok(true);
            }
        }
        let whole = stream.rest.clone();
        let mut bytes = &whole[..];
        let event = stream.inbound.feed(session, id.into(), &mut bytes, stream.is_last());
        let event = match event {
            Ok(Event::Data(data)) => {
                stream.data = whole.slice_ref(data);
                None
            }
            other => Some(other),
        };
        stream.rest = whole.slice(whole.len() - bytes.len()..);
        match event {
            None | Some(Ok(Event::Data(_))) => {}
            Some(Ok(Event::NeedMore)) => return Ok(stream.can_fill()),
            Some(Ok(Event::Blocked)) => {
                blocked.insert(id.into(), id);
                return Ok(false);
            }
            Some(Ok(Event::Head(message))) => {
                stream.in_body = message.head.status == 0 || message.head.status >= 200;
                if self.peer == Peer::Client {
                    prioritize(session, quic, id, &message);
                    accepted.push_back(id);
                }
                stream.heads.push_back(message);
                wake(&mut stream.reader);
                if stream.heads.len() > HEADS_MAX {
                    return Err(ConnectionError::new(Code::EXCESSIVE_LOAD, TOO_MANY_HEADS));
                }
            }
            Some(Ok(Event::Trailers(lines))) => stream.trailers = lines,
            Some(Ok(Event::End)) => stream.ended = true,
            Some(Err(Error::Stream(code, _))) => {
                quic.stop(id, code.0);
                quic.reset(id, code.0);
                stream.sent_all = true;
                stream.cut(Cut::Breach);
                session.reset_by_us(id.into(), code)?;
                self.forget_unserved(id);
            }
            Some(Err(Error::Connection(error))) => return Err(error),
        }
        Ok(true)
    }

    fn writable(&mut self, id: StreamId) {
        if let Some(which) = self.critical.iter().position(|known| *known == id) {
            self.flush_critical(which);
            return;
        }
        self.flush(id);
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.pending.is_empty()
        {
            stream.is_blocked = false;
            wake(&mut stream.writer);
        }
    }

    /// Opens our critical streams, and writes to them.
    pub(super) fn flush_session(&mut self) {
        while self.critical.len() < CRITICAL {
            let Some(id) = self.quic.open(Dir::Uni) else { break };
            self.quic.prioritize(id, CRITICAL_PRIORITY);
            self.critical.push(id);
        }
        (0..self.critical.len()).for_each(|which| self.flush_critical(which));
    }

    fn flush_critical(&mut self, which: usize) {
        let outputs = self.session.outputs();
        let out = match which {
            0 => outputs.control,
            1 => outputs.encoder,
            _ => outputs.decoder,
        };
        let Some(id) = self.critical.get(which) else { return };
        // Only a write that is blocked is told when it can go on.
        while !out.is_empty()
            && let Ok(written) = self.quic.write(*id, out)
        {
            out.drain(..written);
        }
    }

    /// Writes the frames of a stream that QUIC did not take yet, and its end.
    pub(super) fn flush(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        while !stream.pending.is_empty() {
            match self.quic.write(id, &stream.pending) {
                Ok(written) => _ = stream.pending.drain(..written),
                Err(WriteError::Blocked) => {
                    stream.is_blocked = true;
                    return;
                }
                Err(WriteError::Closed) => {
                    stream.pending.clear();
                    return;
                }
            }
        }
        if stream.finishing && !stream.sent_all {
            stream.sent_all = true;
            self.quic.finish(id);
        }
        if stream.is_released && stream.sent_all {
            self.forget(id);
        }
    }

    /// Sends the head of a response.
    pub(super) fn respond(&mut self, id: StreamId, head: &Draft, ends: bool) -> io::Result<()> {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.can_send()) else {
            return Err(gone());
        };
        self.session.response(id.into(), head, &mut stream.pending);
        stream.head_sent |= head.status() >= 200;
        stream.finishing |= ends;
        self.flush(id);
        self.flush_session();
        Ok(())
    }

    /// Sends as much of `data` as is possible now. If `end` is given and all was sent, ends the
    /// stream with these trailer lines.
    pub(super) fn send(
        &mut self,
        id: StreamId,
        data: &[u8],
        end: Option<&[u8]>,
    ) -> io::Result<Sent> {
        self.flush(id);
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.can_send()) else {
            return Err(gone());
        };
        if !stream.pending.is_empty() {
            return Ok(Sent::Bytes(0));
        }
        let mut sent = 0;
        while sent < data.len() {
            if stream.frame_left == 0 {
                stream.frame_left = data.len() - sent;
                Session::data_head(stream.frame_left as u64, &mut stream.pending);
            }
            if !stream.pending.is_empty() {
                match self.quic.write(id, &stream.pending) {
                    Ok(written) => _ = stream.pending.drain(..written),
                    Err(WriteError::Closed) => return Err(gone()),
                    Err(WriteError::Blocked) => {}
                }
                if !stream.pending.is_empty() {
                    stream.is_blocked = true;
                    return Ok(Sent::Bytes(sent));
                }
            }
            let part = stream.frame_left.min(data.len() - sent);
            match self.quic.write(id, &data[sent..sent + part]) {
                Ok(written) => {
                    sent += written;
                    stream.frame_left -= written;
                }
                Err(WriteError::Closed) => return Err(gone()),
                Err(WriteError::Blocked) => {
                    stream.is_blocked = true;
                    return Ok(Sent::Bytes(sent));
                }
            }
        }
        if let Some(trailers) = end {
            if !trailers.is_empty() {
                let said = self.session.trailers(id.into(), trailers, &mut stream.pending);
                said.map_err(|refusal| io::Error::other(refusal.detail))?;
            }
            stream.finishing = true;
            self.flush(id);
            self.flush_session();
        }
        Ok(Sent::All)
    }

    fn fail(&mut self, error: &ConnectionError, now: Time) {
        self.quic.close(now, error.code.0, error.why);
        self.close(match error.excess {
            Some(excess) => End::Flood(excess),
            None => End::Breach(error.code, error.why),
        });
    }

    fn close(&mut self, end: End) {
        if self.end.is_none() {
            self.end = Some(end);
            self.accepted.clear();
            self.streams.values_mut().for_each(|stream| stream.cut(Cut::Closed));
        }
    }

    /// Reads the body of a stream into `buf`, as much as fits.
    pub(super) fn read(&mut self, id: StreamId, buf: &mut Buf) -> Result<usize, ConnectionError> {
        let mut read = 0;
        loop {
            let Some(stream) = self.streams.get_mut(&id) else { return Ok(read) };
            if !stream.data.is_empty() {
                let taken = buf.append(&stream.data);
                _ = stream.data.split_to(taken);
                read += taken;
            }
            if buf.room() == 0 || stream.ended || stream.cut.is_some() {
                return Ok(read);
            }
            let room = buf.room();
            if !self.advance(id, room)? {
                return Ok(read);
            }
        }
    }

    /// Ends the connection at once after an error that a stream's reader has found. The time is
    /// that of the last datagram.
    pub(super) fn breach(&mut self, error: &ConnectionError) {
        let now = self.quic.heard();
        self.fail(error, now);
        self.quic.wake();
    }
}

/// The error for a stream that no longer exists.
pub(super) fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}
