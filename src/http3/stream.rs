//! One stream of an HTTP/3 connection, with the operations that an exchange needs. They are those
//! of `http2::ClientStream`.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::code::Code;
use super::connection::{Connection, Core, HEAD_READ_BYTES, WRITE_BYTES_MAX, gone};
use super::streams::{Cut, Stream, wait};
use crate::http2::{Draft, Sent};
use crate::quic::StreamId;
use crate::runtime::alarm::Alarm;
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Quiet, Read};

/// A stream that a client opened.
pub struct ClientStream {
    stream: StreamRef,
    /// The head of the response, until it is sent.
    head: RefCell<Option<Draft>>,
    /// The error code of a stream that is dropped before its response is complete.
    code: Cell<Code>,
}

impl ClientStream {
    /// Creates the handle of an exchange to the stream `id` of `connection`.
    pub fn new(connection: Rc<Connection>, id: StreamId) -> Self {
        Self {
            stream: StreamRef { connection, id },
            head: RefCell::default(),
            code: Cell::new(Code::INTERNAL_ERROR),
        }
    }

    /// Appends the received part of the body to `buf`, without waiting.
    pub fn read_ready(&self, buf: &mut Buf) {
        // The read ignores an error, because a later read returns the same error.
        drop(self.stream.poll_read(&Context::from_waker(Waker::noop()), buf));
    }

    /// Whether the peer has ended the body and all of it was read.
    pub fn ended(&self) -> bool {
        self.stream.with(|core, id| {
            core.streams.get(&id).is_none_or(|stream| stream.ended && stream.data.is_empty())
        })
    }

    /// Takes the trailer lines. Empty before the body has ended, and on a second call.
    pub fn take_trailers(&self) -> Vec<u8> {
        self.stream.with(|core, id| match core.streams.get_mut(&id) {
            Some(stream) if stream.data.is_empty() => std::mem::take(&mut stream.trailers),
            _ => Vec::new(),
        })
    }

    /// Like [`Stream::read`](crate::runtime::io::Stream::read).
    pub async fn read(&self, buf: Buf) -> (io::Result<Read>, Buf) {
        Reading { stream: &self.stream, buf: Some(buf), alarm: None }.await
    }

    /// Like [`Stream::read_or_woken`](crate::runtime::io::Stream::read_or_woken).
    pub async fn read_or_woken(&self, buf: Buf, alarm: &Alarm) -> (io::Result<Read>, Buf) {
        Reading { stream: &self.stream, buf: Some(buf), alarm: Some(alarm) }.await
    }

    /// Like [`Stream::readable`](crate::runtime::io::Stream::readable).
    ///
    /// # Errors
    /// When the stream ended early.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|context| self.stream.poll_readable(context)).await
    }

    /// Stores the head of the response for [`ClientStream::respond`].
    pub fn put_head(&self, head: Draft) {
        *self.head.borrow_mut() = Some(head);
    }

    /// Like [`http2::ClientStream::respond`](crate::http2::ClientStream::respond).
    ///
    /// # Errors
    /// When the stream is closed, or HTTP/3 cannot express the head.
    pub fn respond(&self, data: &[u8], end: Option<&[u8]>) -> io::Result<Sent> {
        let head = self.head.borrow_mut().take().ok_or_else(gone)?;
        head.check_response().map_err(io::Error::other)?;
        let ends = data.is_empty() && end.is_some_and(<[u8]>::is_empty) && head.status() >= 200;
        self.stream.with(|core, id| core.respond(id, &head, ends))?;
        if ends || head.status() < 200 { Ok(Sent::All) } else { self.send_ready(data, end) }
    }

    /// Sends as much of `data` as possible without waiting. If `end` is given and all data was
    /// sent, ends the stream with these trailer lines, which may be empty.
    ///
    /// # Errors
    /// When the stream is closed.
    pub fn send_ready(&self, data: &[u8], end: Option<&[u8]>) -> io::Result<Sent> {
        self.stream.with(|core, id| core.send(id, data, end))
    }

    /// Sends all of `data`, and waits while the peer's windows are full. If `end` is given, then
    /// ends the stream with these trailer lines.
    ///
    /// # Errors
    /// When the stream is closed.
    pub async fn send(&self, mut data: &[u8], end: Option<&[u8]>) -> io::Result<()> {
        loop {
            match self.send_ready(data, end)? {
                Sent::All => return Ok(()),
                Sent::Bytes(sent) => data = &data[sent..],
            }
            poll_fn(|context| self.stream.poll_sendable(context)).await;
        }
    }

    /// Like [`Stream::room`](crate::runtime::io::Stream::room), but one free byte is enough.
    pub async fn room(&self) -> usize {
        poll_fn(|context| self.stream.poll_sendable(context)).await;
        WRITE_BYTES_MAX
    }

    /// Like [`ClientStream::room`], but does not wait. The result may be 0.
    pub fn share(&self) -> usize {
        if self.takes(1) { WRITE_BYTES_MAX } else { 0 }
    }

    /// Whether data can be sent without waiting: probably, because QUIC says it only after a write.
    pub fn takes(&self, _: usize) -> bool {
        self.stream.with(|core, id| core.streams.get(&id).is_some_and(|stream| !stream.is_blocked))
    }

    /// Like [`Stream::quiet`](crate::runtime::io::Stream::quiet).
    pub fn quiet(&self) -> Quiet {
        let context = &mut Context::from_waker(Waker::noop());
        match self.poll_gone(context) {
            Poll::Ready(()) => Quiet::Closed,
            Poll::Pending if self.stream.poll_readable(context).is_ready() => Quiet::Data,
            Poll::Pending => Quiet::Quiet,
        }
    }

    /// Completes when the client cancels the stream.
    pub fn poll_gone(&self, context: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_gone(context)
    }

    /// Resets the stream with H3_REQUEST_REJECTED, so the client may try again.
    pub fn refuse(&self) {
        self.stream.with(|core, id| core.abandon(id, Code::REQUEST_REJECTED));
    }

    /// Ends the body that we send, without trailers.
    pub async fn shutdown_write(&self) {
        let in_body = self.stream.with(|core, id| {
            core.streams.get(&id).is_some_and(|stream| stream.head_sent && stream.can_send())
        });
        if in_body {
            self.send(b"", Some(b"")).await.ok();
        }
    }

    /// Changes the error code of an incomplete stream to H3_REQUEST_CANCELLED. A gRPC client whose
    /// deadline has passed does not treat this code as a server error.
    pub fn cancel_on_close(&self) {
        self.code.set(Code::REQUEST_CANCELLED);
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        let code = self.code.get();
        self.stream.with(|core, id| core.release(id, code));
    }
}

/// A read of a stream's body.
struct Reading<'a> {
    stream: &'a StreamRef,
    buf: Option<Buf>,
    alarm: Option<&'a Alarm>,
}

impl Future for Reading<'_> {
    type Output = (io::Result<Read>, Buf);

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let mut done = None;
        if let Some(buf) = &mut this.buf {
            match this.stream.poll_read(context, buf) {
                Poll::Ready(read) => done = Some(read),
                Poll::Pending => {
                    let woken = this.alarm.map(|alarm| alarm.poll_woken(context).is_ready());
                    if woken == Some(true) {
                        done = Some(Ok(Read::Woken));
                    }
                }
            }
        }
        match (done, this.buf.take()) {
            (Some(done), Some(buf)) => Poll::Ready((done, buf)),
            (_, buf) => {
                this.buf = buf;
                Poll::Pending
            }
        }
    }
}

/// An exchange's access to one stream of a connection.
struct StreamRef {
    connection: Rc<Connection>,
    id: StreamId,
}

impl StreamRef {
    fn with<T>(&self, access: impl FnOnce(&mut Core, StreamId) -> T) -> T {
        access(&mut self.connection.0.borrow_mut(), self.id)
    }

    /// Appends received data to `buf`, as much as fits.
    fn poll_read(&self, context: &Context<'_>, buf: &mut Buf) -> Poll<io::Result<Read>> {
        self.with(|core, id| {
            let read = match core.read(id, buf) {
                Ok(read) => read,
                Err(error) => {
                    core.breach(&error);
                    0
                }
            };
            core.flush_session();
            let Some(stream) = core.streams.get_mut(&id) else { return Poll::Ready(Err(gone())) };
            if read > 0 {
                return Poll::Ready(Ok(Read::Data(read)));
            }
            if stream.ended {
                return Poll::Ready(Ok(Read::End));
            }
            if let Some(cut) = stream.cut {
                return Poll::Ready(Err(unreadable(cut)));
            }
            wait(&mut stream.reader, context);
            Poll::Pending
        })
    }

    /// Completes when a read would not wait: data, the end of the body or an error is there.
    fn poll_readable(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        self.with(|core, id| {
            while core.streams.get(&id).is_some_and(Stream::is_waiting) {
                match core.advance(id, HEAD_READ_BYTES) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => core.breach(&error),
                }
            }
            core.flush_session();
            let Some(stream) = core.streams.get_mut(&id) else { return Poll::Ready(Err(gone())) };
            if !stream.data.is_empty() || stream.ended {
                return Poll::Ready(Ok(()));
            }
            if let Some(cut) = stream.cut {
                return Poll::Ready(Err(unreadable(cut)));
            }
            wait(&mut stream.reader, context);
            Poll::Pending
        })
    }

    /// Completes when some data can be sent, or the stream has ended.
    fn poll_sendable(&self, context: &Context<'_>) -> Poll<()> {
        self.with(|core, id| {
            core.flush(id);
            let Some(stream) = core.streams.get_mut(&id) else { return Poll::Ready(()) };
            if !stream.is_blocked || stream.cut.is_some() || stream.sent_all {
                return Poll::Ready(());
            }
            wait(&mut stream.writer, context);
            Poll::Pending
        })
    }

    /// Completes when the stream ends early, before we have ended our message.
    fn poll_gone(&self, context: &Context<'_>) -> Poll<()> {
        self.with(|core, id| match core.streams.get_mut(&id) {
            None => Poll::Pending,
            Some(stream) if stream.finishing => Poll::Pending,
            Some(stream) if stream.cut.is_some() => Poll::Ready(()),
            Some(stream) => {
                wait(&mut stream.leaver, context);
                Poll::Pending
            }
        })
    }
}

/// The error of a body that ended too early.
fn unreadable(cut: Cut) -> io::Error {
    match cut {
        Cut::Breach => io::Error::new(io::ErrorKind::InvalidData, "the peer violated HTTP/3"),
        Cut::Reset(_) | Cut::Closed | Cut::Ours => io::Error::other("the stream was reset"),
    }
}
