//! One stream of an HTTP/3 connection, with the operations that an exchange needs. They are those
//! of `http2::ClientStream`.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::code::Code;
use super::connection::{Connection, WRITE_BYTES_MAX, gone};
use super::stream_ref::StreamRef;
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

    /// Whether the handshake of the connection is not complete.
    pub fn is_early(&self) -> bool {
        self.stream.with(|core, _| core.quic.is_handshaking())
    }

    /// Appends the received part of the body to `buf`, without waiting.
    pub fn read_ready(&self, buf: &mut Buf) {
        // The read ignores an error, because a later read returns the same error.
        drop(self.stream.poll_read(&Context::from_waker(Waker::noop()), buf));
    }

    /// Whether the peer has ended the body and all of it was read.
    pub fn ended(&self) -> bool {
        self.stream.is_read()
    }

    /// Takes the trailer lines. Empty before the body has ended, and on a second call.
    pub fn take_trailers(&self) -> Vec<u8> {
        self.stream.take_trailers()
    }

    /// Like [`Stream::read`](crate::runtime::io::Stream::read).
    pub async fn read(&self, buf: Buf) -> (io::Result<Read>, Buf) {
        self.stream.read(buf, None).await
    }

    /// Like [`Stream::read_or_woken`](crate::runtime::io::Stream::read_or_woken).
    pub async fn read_or_woken(&self, buf: Buf, alarm: &Alarm) -> (io::Result<Read>, Buf) {
        self.stream.read(buf, Some(alarm)).await
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
        self.stream.send_ready(data, end)
    }

    /// Sends all of `data`, and waits while the peer's windows are full. If `end` is given, then
    /// ends the stream with these trailer lines.
    ///
    /// # Errors
    /// When the stream is closed.
    pub async fn send(&self, data: &[u8], end: Option<&[u8]>) -> io::Result<()> {
        self.stream.send(data, end).await
    }

    /// Like [`Stream::room`](crate::runtime::io::Stream::room), but one free byte is enough.
    pub async fn room(&self) -> usize {
        self.stream.room().await
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
        self.stream.shutdown_write().await;
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
