//! An HTTP/2 connection, shared by its driver and its streams. All of them run on one thread.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::core::{Config, Core, End, Leaving};
use super::draft::Draft;
use super::frame::Code;
use super::outbound::{Sent, Unsendable};
use super::receive::Message;
use super::streams::{Cut, Half, wait};
use crate::runtime::buffer::Buf;
use crate::runtime::io::Read;
use crate::time::Time;

/// The limit of bytes that wait to be written. Above it, the driver stops reading, because the
/// frames of a peer that does not read would add even more bytes.
const WAITING_BYTES_MAX: usize = 64 * 1024;

/// A handle to the state of an HTTP/2 connection.
pub struct Connection(RefCell<Core>);

/// A stream that a client has opened.
pub struct Accepted {
    /// The id of the stream.
    pub id: u32,
    /// The head of the request.
    pub request: Box<Message>,
}

/// Methods for the driver of the connection.
impl Connection {
    /// Creates a connection. Its first frames are ready to be written.
    pub fn new(config: Config<'_>, now: Time) -> Rc<Self> {
        Rc::new(Self(RefCell::new(Core::new(config, now))))
    }

    /// Reads the complete frames in `bytes`. Returns the number of bytes that it read. The caller
    /// passes the rest again, with more bytes.
    pub fn receive(&self, bytes: &[u8], now: Time) -> usize {
        self.0.borrow_mut().receive(bytes, now)
    }

    /// How many more bytes complete the frame whose first bytes are `rest`. If its header is not
    /// complete: how many more bytes complete the header.
    pub fn missing_bytes(&self, rest: &[u8]) -> usize {
        self.0.borrow().missing_bytes(rest)
    }

    /// Takes the waiting frames, to write them.
    pub fn transmit(&self) -> Option<Buf> {
        let mut core = self.0.borrow_mut();
        let buf = core.out.take()?;
        core.give_turns();
        Some(buf)
    }

    /// Records that the frames from [`Connection::transmit`] have been written.
    pub fn written(&self) {
        self.0.borrow_mut().out.written();
    }

    /// Whether too many bytes wait to be written. The driver then stops reading from the peer.
    pub fn is_stuck(&self) -> bool {
        self.0.borrow().out.len() > WAITING_BYTES_MAX
    }

    /// Wakes `context` when frames wait to be written, a stream was opened, or the connection has
    /// ended.
    pub fn wait(&self, context: &Context<'_>) {
        wait(&mut self.0.borrow_mut().driver, context);
    }

    /// Takes the next stream that the client has opened and not reset.
    pub fn accept(self: &Rc<Self>) -> Option<Accepted> {
        let mut core = self.0.borrow_mut();
        while let Some((id, request)) = core.accepted.pop_front() {
            if core.streams.get(id).is_some_and(|stream| stream.cut.is_none()) {
                return Some(Accepted { id, request });
            }
            core.release(id, Code::CANCEL);
        }
        None
    }

    /// The deadline for the incomplete frame or header block of the peer. `None` if there is none.
    pub fn deadline(&self) -> Option<Time> {
        self.0.borrow().meter.deadline()
    }

    /// Ends the connection because the peer missed [`Connection::deadline`].
    pub fn late(&self) {
        self.0.borrow_mut().late();
    }

    /// Sends a PING, unless an earlier one is not yet answered.
    pub fn ping(&self) {
        self.0.borrow_mut().ping();
    }

    /// Whether a PING was answered since the last call.
    pub fn take_pong(&self) -> bool {
        std::mem::take(&mut self.0.borrow_mut().pong)
    }

    /// Sends the first GOAWAY of a graceful shutdown to a client. Open streams continue.
    pub fn leave(&self) {
        self.0.borrow_mut().leave();
    }

    /// Whether the client has confirmed our GOAWAY, and all streams have ended.
    pub fn has_left(&self) -> bool {
        let core = self.0.borrow();
        matches!(core.leaving, Leaving::After(_)) && core.streams.open() == 0
    }

    /// Sends GOAWAY with NO_ERROR to an endpoint.
    pub fn say_goodbye(&self) {
        let mut core = self.0.borrow_mut();
        let last_stream = core.last_stream;
        core.out.go_away(last_stream, Code::NO_ERROR);
    }

    /// Records that the transport connection was closed. Open streams end.
    pub fn close(&self) {
        self.0.borrow_mut().close(End::Closed, Cut::Closed);
    }

    /// Ends the connection, and drops the frames that wait to be written and all later ones.
    pub fn discard(&self) {
        let mut core = self.0.borrow_mut();
        core.close(End::Closed, Cut::Closed);
        core.out.close();
    }

    /// The reason why the connection has ended. `None` while it is open.
    pub fn end(&self) -> Option<End> {
        self.0.borrow().end
    }
}

/// Methods for opening streams to an endpoint.
impl Connection {
    /// How many streams may be open at once. 0 if no more can be opened.
    pub fn streams_max(&self) -> usize {
        let core = self.0.borrow();
        if core.is_accepting() { core.streams_max() } else { 0 }
    }

    /// Whether no more streams can be opened.
    pub fn is_closed(&self) -> bool {
        !self.0.borrow().is_accepting()
    }

    /// Whether the peer's SETTINGS have arrived, or the connection has ended.
    pub fn is_greeted(&self) -> bool {
        let core = self.0.borrow();
        core.peers.are_known || core.end.is_some()
    }

    /// Completes when [`Connection::is_greeted`] holds.
    pub fn poll_greeted(&self, context: &Context<'_>) -> Poll<()> {
        if self.is_greeted() {
            return Poll::Ready(());
        }
        self.0.borrow_mut().greeters.push(context.waker().clone());
        Poll::Pending
    }

    /// Whether the endpoint supports extended CONNECT (RFC 8441 3).
    pub fn has_extended_connect(&self) -> bool {
        self.0.borrow().peers.extended_connect
    }

    /// Opens a stream. `None` if no more can be opened.
    pub(super) fn open(self: &Rc<Self>, head: &Draft, ends: bool) -> Option<StreamRef> {
        let mut core = self.0.borrow_mut();
        if !core.is_accepting() {
            return None;
        }
        let id = core.open(head, ends);
        Some(StreamRef { connection: Rc::clone(self), id })
    }
}

/// An exchange's access to one stream of a connection.
pub(super) struct StreamRef {
    connection: Rc<Connection>,
    id: u32,
}

impl StreamRef {
    pub(super) fn new(connection: Rc<Connection>, id: u32) -> Self {
        Self { connection, id }
    }

    fn with<T>(&self, access: impl FnOnce(&mut Core, u32) -> T) -> T {
        access(&mut self.connection.0.borrow_mut(), self.id)
    }

    /// Takes the next head of the response, interim or final.
    pub(super) fn poll_head(&self, context: &Context<'_>) -> Poll<Result<Message, Cut>> {
        self.with(|core, id| {
            let Some(stream) = core.streams.get_mut(id) else {
                return Poll::Ready(Err(Cut::Closed));
            };
            if let Some(message) = stream.heads.pop_front() {
                return Poll::Ready(Ok(message));
            }
            if let Some(cut) = stream.cut {
                return Poll::Ready(Err(cut));
            }
            wait(&mut stream.reader, context);
            Poll::Pending
        })
    }

    /// Appends received data to `buf`, as much as fits.
    pub(super) fn poll_read(&self, context: &Context<'_>, buf: &mut Buf) -> Poll<io::Result<Read>> {
        self.with(|core, id| {
            let Some(stream) = core.streams.get_mut(id) else { return Poll::Ready(Err(gone())) };
            let new = stream.inbox.read(buf);
            if new > 0 || stream.inbox.len() > 0 {
                core.has_read(id, new);
                return Poll::Ready(Ok(Read::Data(new)));
            }
            if stream.receiving == Half::Ended {
                return Poll::Ready(Ok(Read::End));
            }
            if let Some(cut) = stream.cut {
                return Poll::Ready(Err(unreadable(cut)));
            }
            wait(&mut stream.reader, context);
            Poll::Pending
        })
    }

    /// Lends `buf`, the buffer of a waiting read, to the stream. Received data is copied directly
    /// into it.
    pub(super) fn lend(&self, buf: Buf) {
        self.with(|core, id| {
            if let Some(stream) = core.streams.get_mut(id) {
                stream.inbox.lend(buf);
            }
        });
    }

    /// Takes the lent buffer back. Also returns the number of bytes that were added to it.
    pub(super) fn give_back(&self) -> Option<(Buf, usize)> {
        self.with(|core, id| {
            let (buf, new) = core.streams.get_mut(id)?.inbox.give_back()?;
            if new > 0 {
                core.has_read(id, new);
            }
            Some((buf, new))
        })
    }

    /// Takes the lent buffer back and drops it. Received data in it is kept for the next read.
    pub(super) fn reclaim(&self) {
        let buf = self.with(|core, id| core.streams.get_mut(id)?.inbox.reclaim());
        drop(buf);
    }

    /// Completes when a read would not wait: data, the end of the body or an error is there.
    pub(super) fn poll_readable(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        self.with(|core, id| {
            let Some(stream) = core.streams.get_mut(id) else { return Poll::Ready(Err(gone())) };
            if stream.inbox.len() > 0 || stream.receiving == Half::Ended {
                return Poll::Ready(Ok(()));
            }
            if let Some(cut) = stream.cut {
                return Poll::Ready(Err(unreadable(cut)));
            }
            wait(&mut stream.reader, context);
            Poll::Pending
        })
    }

    /// Whether data waits to be read.
    pub(super) fn has_data(&self) -> bool {
        self.with(|core, id| core.streams.get(id).is_some_and(|stream| stream.inbox.len() > 0))
    }

    /// Whether the peer has ended the body and all of it was read.
    pub(super) fn is_read(&self) -> bool {
        self.with(|core, id| {
            core.streams
                .get(id)
                .is_none_or(|stream| stream.receiving == Half::Ended && stream.inbox.len() == 0)
        })
    }

    /// Takes the trailer lines. Empty while data is unread.
    pub(super) fn take_trailers(&self) -> Vec<u8> {
        self.with(|core, id| match core.streams.get_mut(id) {
            Some(stream) if stream.inbox.len() == 0 => std::mem::take(&mut stream.trailers),
            _ => Vec::new(),
        })
    }

    /// Returns a copy of the trailer lines. [`StreamRef::take_trailers`] still returns them.
    pub(super) fn trailers(&self) -> Vec<u8> {
        self.with(|core, id| match core.streams.get(id) {
            Some(stream) if stream.inbox.len() == 0 => stream.trailers.clone(),
            _ => Vec::new(),
        })
    }

    /// Sends the head of a response.
    pub(super) fn respond(&self, head: &Draft, ends: bool) -> io::Result<()> {
        self.with(|core, id| core.respond(id, head, ends)).map_err(unsendable)
    }

    /// Sends as much of `data` as is possible now. See [`Core::send`].
    pub(super) fn send_ready(&self, data: &[u8], end: Option<&[u8]>) -> io::Result<Sent> {
        self.with(|core, id| core.send(id, data, end)).map_err(unsendable)
    }

    /// Completes when some data can be sent, or the stream has ended.
    pub(super) fn poll_sendable(&self, context: &Context<'_>) -> Poll<()> {
        match self.with(|core, id| core.is_sendable(id, context)) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Completes when some data can be sent, or the stream has ended. Returns [`StreamRef::share`].
    pub(super) fn poll_room(&self, context: &Context<'_>) -> Poll<usize> {
        self.with(|core, id| match core.is_sendable(id, context) {
            true => Poll::Ready(core.share(id)),
            false => Poll::Pending,
        })
    }

    /// Whether `bytes` bytes of DATA can be sent now.
    pub(super) fn takes(&self, bytes: usize) -> bool {
        self.with(|core, id| core.out.has_room() && core.share(id) >= bytes)
    }

    /// How many bytes of a body should be read now for the stream: see [`Core::share`].
    pub(super) fn share(&self) -> usize {
        self.with(|core, id| core.share(id))
    }

    /// Whether the stream is open and we have not sent END_STREAM.
    pub(super) fn is_sending(&self) -> bool {
        self.with(|core, id| {
            core.streams
                .get(id)
                .is_some_and(|stream| stream.sending != Half::Ended && stream.cut.is_none())
        })
    }

    /// Whether we have sent the final head of our message, but not END_STREAM.
    pub(super) fn is_in_body(&self) -> bool {
        self.with(|core, id| {
            core.streams
                .get(id)
                .is_some_and(|stream| stream.sending == Half::Body && stream.cut.is_none())
        })
    }

    /// Completes when the stream ends early, before we have sent END_STREAM.
    pub(super) fn poll_gone(&self, context: &Context<'_>) -> Poll<()> {
        self.with(|core, id| match core.streams.get_mut(id) {
            None => Poll::Pending,
            Some(stream) if stream.sending == Half::Ended => Poll::Pending,
            Some(stream) if stream.cut.is_some() => Poll::Ready(()),
            Some(stream) => {
                wait(&mut stream.leaver, context);
                Poll::Pending
            }
        })
    }

    /// Resets the stream, unless it has ended.
    pub(super) fn abandon(&self, code: Code) {
        self.with(|core, id| core.abandon(id, code));
    }

    /// Records that no exchange uses the stream any more. If the stream is open, resets it with
    /// `code`.
    pub(super) fn release(&self, code: Code) {
        self.with(|core, id| core.release(id, code));
    }
}

impl Core {
    /// Records that an exchange has read `bytes` bytes, and sends WINDOW_UPDATE frames that are
    /// due.
    fn has_read(&mut self, id: u32, bytes: usize) {
        self.unread -= bytes;
        let Some(stream) = self.streams.get_mut(id) else { return };
        if stream.receiving == Half::Body && stream.cut.is_none() {
            let refill = stream.receive_window.refill(stream.inbox.len());
            if refill > 0 {
                self.out.window_update(id, refill);
            }
        }
        self.refill_connection();
        if self.out.len() > 0 {
            super::streams::wake(&mut self.driver);
        }
    }
}

fn unsendable(_: Unsendable) -> io::Error {
    gone()
}

/// The error for a stream that no longer exists.
pub(super) fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// The error of a body that ended too early.
fn unreadable(cut: Cut) -> io::Error {
    match cut {
        Cut::Breach => io::Error::new(io::ErrorKind::InvalidData, "the peer violated HTTP/2"),
        Cut::Flood => io::Error::new(io::ErrorKind::InvalidData, "the peer exceeded a limit"),
        Cut::Reset(_) | Cut::Unprocessed | Cut::Closed | Cut::Ours => {
            io::Error::other("the stream was reset")
        }
    }
}
