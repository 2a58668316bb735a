//! One stream of an HTTP/2 connection, with the operations that an exchange needs. Outgoing heads
//! are [`Draft`], incoming heads are [`Head`], and bodies are bytes. Flow control works end to end:
//! the peer can send only as fast as the exchange reads, and writes wait for the peer.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::connection::{Connection, StreamRef, gone};
use super::draft::{Draft, UNSPEAKABLE_UPGRADE};
use super::frame::Code;
use super::outbound::Sent;
use super::receive::{Fault, Message};
use super::shared::Slot;
use super::streams::Cut;
use crate::error::Refusal;
use crate::message::{Head, Method};
use crate::runtime::alarm::Alarm;
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Quiet, Read};
use crate::tls::Issued;

/// A stream that a client opened.
pub struct ClientStream {
    stream: StreamRef,
    /// The head of the response, until it is sent.
    head: RefCell<Option<Draft>>,
    /// The error code for RST_STREAM if the stream is dropped before we have sent END_STREAM.
    code: Cell<Code>,
}

impl ClientStream {
    /// Creates the handle of an exchange to the stream `id` of `connection`.
    pub fn new(connection: Rc<Connection>, id: u32) -> Self {
        Self {
            stream: StreamRef::new(connection, id),
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
        self.stream.is_read()
    }

    /// Takes the trailer lines. Empty before the body has ended, and on a second call.
    pub fn take_trailers(&self) -> Vec<u8> {
        self.stream.take_trailers()
    }

    /// Like [`Stream::read`](crate::runtime::io::Stream::read).
    pub async fn read(&self, buf: Buf) -> (io::Result<Read>, Buf) {
        Reading::of(&self.stream, buf, None).await
    }

    /// Like [`Stream::read_or_woken`](crate::runtime::io::Stream::read_or_woken).
    pub async fn read_or_woken(&self, buf: Buf, alarm: &Alarm) -> (io::Result<Read>, Buf) {
        Reading::of(&self.stream, buf, Some(alarm)).await
    }

    /// Like [`Stream::readable`](crate::runtime::io::Stream::readable).
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|context| self.stream.poll_readable(context)).await
    }

    /// Stores the head of the response for [`ClientStream::respond`].
    pub fn put_head(&self, head: Draft) {
        *self.head.borrow_mut() = Some(head);
    }

    /// Sends as much as possible without waiting: the stored head, and `data`, the first part of
    /// the body. If `end` is given, then ends the stream with these trailer lines, which may be
    /// empty. A head with a status of 1xx is sent alone.
    ///
    /// # Errors
    /// When the stream is closed, or HTTP/2 cannot express the head.
    pub fn respond(&self, data: &[u8], end: Option<&[u8]>) -> io::Result<Sent> {
        let head = self.head.borrow_mut().take().ok_or_else(gone)?;
        head.check_response().map_err(io::Error::other)?;
        if head.status() < 200 {
            self.stream.respond(&head, false)?;
            return Ok(Sent::All);
        }
        let ends = data.is_empty() && end.is_some_and(<[u8]>::is_empty);
        self.stream.respond(&head, ends)?;
        if ends { Ok(Sent::All) } else { self.send_ready(data, end) }
    }

    /// Sends as much of `data` as possible without waiting. If `end` is given and all data was
    /// sent, ends the stream with these trailer lines, which may be empty.
    ///
    /// # Errors
    /// When the stream is closed.
    pub fn send_ready(&self, data: &[u8], end: Option<&[u8]>) -> io::Result<Sent> {
        self.stream.send_ready(data, end)
    }

    /// Sends all of `data`, and waits while the peer's windows or our buffer are full. If `end` is
    /// given, then ends the stream with these trailer lines.
    ///
    /// # Errors
    /// When the stream is closed.
    pub async fn send(&self, data: &[u8], end: Option<&[u8]>) -> io::Result<()> {
        send(&self.stream, data, end).await
    }

    /// Like [`Stream::room`](crate::runtime::io::Stream::room), but one free byte is enough.
    pub async fn room(&self) -> usize {
        poll_fn(|context| self.stream.poll_room(context)).await
    }

    /// Like [`ClientStream::room`], but does not wait. The result may be 0.
    pub fn share(&self) -> usize {
        self.stream.share()
    }

    /// Whether `bytes` bytes of DATA can be sent without waiting.
    pub fn takes(&self, bytes: usize) -> bool {
        self.stream.takes(bytes)
    }

    /// Like [`Stream::quiet`](crate::runtime::io::Stream::quiet).
    pub fn quiet(&self) -> Quiet {
        match self.poll_gone(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(()) => Quiet::Closed,
            Poll::Pending if self.stream.has_data() => Quiet::Data,
            Poll::Pending => Quiet::Quiet,
        }
    }

    /// Completes when the client cancels the stream.
    pub fn poll_gone(&self, context: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_gone(context)
    }

    /// Resets the stream with REFUSED_STREAM, so the client may try again.
    pub fn refuse(&self) {
        self.stream.abandon(Code::REFUSED_STREAM);
    }

    /// Ends the body that we send, without trailers.
    pub async fn shutdown_write(&self) {
        if self.stream.is_in_body() {
            self.send(b"", Some(b"")).await.ok();
        }
    }

    /// Changes the reset of an incomplete stream to CANCEL. A gRPC client whose deadline has passed
    /// does not treat this code as a server error.
    pub fn cancel_on_close(&self) {
        self.code.set(Code::CANCEL);
    }
}

impl Drop for ClientStream {
    /// Resets an incomplete stream. After a complete response, NO_ERROR tells the client to stop
    /// its upload (RFC 9113 8.1).
    fn drop(&mut self) {
        let code = if self.stream.is_sending() { self.code.get() } else { Code::NO_ERROR };
        self.stream.release(code);
    }
}

/// A stream that we opened to an endpoint.
pub struct EndpointStream {
    slot: Slot,
    /// The stream. Empty until the request is sent.
    stream: OnceCell<StreamRef>,
    /// Whether the final head of the response was taken.
    answered: Cell<bool>,
    /// The head of the request, until it is sent. An upgrade waits for the endpoint's SETTINGS.
    head: RefCell<Option<Draft>>,
    /// The Sec-WebSocket-Key of an upgrade request.
    key: RefCell<Option<Vec<u8>>>,
    /// The reason why the request was not sent.
    unsent: Cell<Option<Gone>>,
}

/// The reason why there is no response.
#[derive(Clone, Copy, Debug)]
pub enum Gone {
    /// The endpoint reports that it did not process the request (RFC 9113 8.7).
    Unprocessed,
    /// The stream or its connection ended without a response.
    Silent,
    /// The request cannot be sent, or its response cannot be used.
    Refused(Refusal),
}

impl EndpointStream {
    /// Creates a stream in a reserved slot.
    pub fn new(slot: Slot) -> Self {
        Self {
            slot,
            stream: OnceCell::new(),
            answered: Cell::new(false),
            head: RefCell::default(),
            key: RefCell::default(),
            unsent: Cell::default(),
        }
    }

    /// The endpoint's certificates. Returns `None` for plain text.
    pub fn issued(&self) -> Option<Rc<[Issued]>> {
        self.slot.issued().cloned()
    }

    /// Stores the head of the request for [`EndpointStream::request`].
    pub fn put_head(&self, head: Draft) {
        *self.head.borrow_mut() = Some(head);
    }

    /// Sends as much as possible without waiting: the stored head, and `data`, the first part of
    /// the body. If `end` is given, then ends the stream with these trailer lines, which may be
    /// empty.
    ///
    /// # Errors
    /// When the connection is closed, or the request cannot be sent.
    pub fn request(&self, data: &[u8], end: Option<&[u8]>) -> io::Result<Sent> {
        let mut head = self.head.borrow_mut().take().ok_or_else(gone)?;
        head.check_request().map_err(|refusal| self.not_sent(Gone::Refused(refusal)))?;
        let upgrade = head.is_upgrade();
        let tunnel = upgrade || head.method() == Method::Connect;
        if tunnel && !(data.is_empty() && end.is_some()) {
            return Err(self.not_sent(Gone::Refused(UNSPEAKABLE_UPGRADE)));
        }
        if upgrade {
            *self.key.borrow_mut() = Some(head.take_key());
            if !self.slot.connection().is_greeted() {
                *self.head.borrow_mut() = Some(head);
                return Ok(Sent::Bytes(0));
            }
        }
        let end = end.filter(|_| !tunnel);
        let ends = data.is_empty() && end.is_some_and(<[u8]>::is_empty);
        self.open(&head, ends)?;
        if ends { Ok(Sent::All) } else { self.send_ready(data, end) }
    }

    fn open(&self, head: &Draft, ends: bool) -> io::Result<()> {
        let connection = self.slot.connection();
        if head.is_upgrade() && !connection.has_extended_connect() {
            let detail = "the endpoint does not support WebSocket over HTTP/2";
            let refusal = Refusal { status: 501, ..Refusal::upstream(detail) };
            return Err(self.not_sent(Gone::Refused(refusal)));
        }
        let Some(stream) = connection.open(head, ends) else {
            // Nothing was sent, so the request can go to another connection.
            return Err(self.not_sent(Gone::Unprocessed));
        };
        self.stream.set(stream).map_err(|_| gone())
    }

    fn not_sent(&self, because: Gone) -> io::Error {
        self.unsent.set(Some(because));
        gone()
    }

    fn stream(&self) -> io::Result<&StreamRef> {
        self.stream.get().ok_or_else(gone)
    }

    /// Like [`ClientStream::send_ready`].
    ///
    /// # Errors
    /// When the stream is closed.
    pub fn send_ready(&self, data: &[u8], end: Option<&[u8]>) -> io::Result<Sent> {
        self.stream()?.send_ready(data, end)
    }

    /// Like [`ClientStream::send`].
    ///
    /// # Errors
    /// When the stream is closed.
    pub async fn send(&self, data: &[u8], mut end: Option<&[u8]>) -> io::Result<()> {
        if self.head.borrow().is_some() {
            // The endpoint's first SETTINGS say whether it supports extended CONNECT (RFC 8441 3).
            poll_fn(|context| self.slot.connection().poll_greeted(context)).await;
            let Some(head) = self.head.borrow_mut().take() else { return Err(gone()) };
            self.open(&head, false)?;
            end = None; // the tunnel ends the stream
        }
        send(self.stream()?, data, end).await
    }

    /// Like [`ClientStream::room`].
    pub async fn room(&self) -> usize {
        match self.stream.get() {
            Some(stream) => poll_fn(|context| stream.poll_room(context)).await,
            None => usize::MAX,
        }
    }

    /// Waits for the next head of the response, interim or final. Then takes a buffer and puts the
    /// head into it. If the head is final, also the received part of the body.
    ///
    /// # Errors
    /// The reason why there is no response.
    pub async fn response(&self, head: &mut Head, take: impl FnOnce() -> Buf) -> Result<Buf, Gone> {
        let Some(stream) = self.stream.get() else {
            return Err(self.unsent.get().unwrap_or(Gone::Silent));
        };
        let mut message = poll_fn(|context| stream.poll_head(context)).await.map_err(gone_by)?;
        accepted(&message).map_err(Gone::Refused)?;
        let mut buf = take();
        if let Some(key) = &*self.key.borrow() {
            message.switch(key);
        }
        message.place(&mut buf);
        std::mem::swap(head, &mut message.head);
        if head.status >= 200 || head.status == 101 {
            self.answered.set(true);
            // The read ignores an error, because the next read of the body returns the same error.
            drop(stream.poll_read(&Context::from_waker(Waker::noop()), &mut buf));
        }
        Ok(buf)
    }

    /// Whether the endpoint has ended the body and all of it was read.
    pub fn ended(&self) -> bool {
        self.answered.get() && self.stream.get().is_some_and(StreamRef::is_read)
    }

    /// Returns a copy of the trailer lines. [`EndpointStream::take_trailers`] still returns them.
    /// Empty before the body has ended.
    pub fn trailers(&self) -> Vec<u8> {
        self.stream.get().map(StreamRef::trailers).unwrap_or_default()
    }

    /// Takes the trailer lines. Empty before the body has ended, and on a second call.
    pub fn take_trailers(&self) -> Vec<u8> {
        self.stream.get().map(StreamRef::take_trailers).unwrap_or_default()
    }

    /// Like [`Stream::read`](crate::runtime::io::Stream::read).
    pub async fn read(&self, buf: Buf) -> (io::Result<Read>, Buf) {
        match self.stream() {
            Ok(stream) => Reading::of(stream, buf, None).await,
            Err(error) => (Err(error), buf),
        }
    }

    /// Like [`Stream::read_or_woken`](crate::runtime::io::Stream::read_or_woken).
    pub async fn read_or_woken(&self, buf: Buf, alarm: &Alarm) -> (io::Result<Read>, Buf) {
        match self.stream() {
            Ok(stream) => Reading::of(stream, buf, Some(alarm)).await,
            Err(error) => (Err(error), buf),
        }
    }

    /// Like [`Stream::readable`](crate::runtime::io::Stream::readable).
    pub async fn readable(&self) -> io::Result<()> {
        let stream = self.stream()?;
        poll_fn(|context| stream.poll_readable(context)).await
    }

    /// Ends the body that we send, without trailers.
    pub async fn shutdown_write(&self) {
        if self.stream.get().is_some_and(StreamRef::is_in_body) {
            self.send(b"", Some(b"")).await.ok();
        }
    }

    /// Resets the stream with CANCEL, unless we have sent END_STREAM.
    pub fn reset_on_close(&self) {
        if let Some(stream) = self.stream.get().filter(|stream| stream.is_sending()) {
            stream.abandon(Code::CANCEL);
        }
    }
}

impl Drop for EndpointStream {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.get() {
            stream.release(Code::CANCEL);
        }
    }
}

/// Checks that the head of a response can be used.
pub(crate) fn accepted(message: &Message) -> Result<(), Refusal> {
    match message.fault {
        None => Ok(()),
        Some(Fault::Refused(refusal)) => Err(refusal),
        Some(Fault::Malformed(why)) => Err(Refusal::upstream(why)),
        Some(Fault::TooLarge) => {
            Err(Refusal::upstream("the head of the response is larger than limits.header_bytes"))
        }
    }
}

/// The reason for a stream that ended before its response.
fn gone_by(cut: Cut) -> Gone {
    match cut {
        Cut::Unprocessed => Gone::Unprocessed,
        Cut::Flood => Gone::Refused(Refusal::upstream("the endpoint exceeded an HTTP/2 limit")),
        Cut::Breach => {
            Gone::Refused(Refusal::upstream("the endpoint violated the HTTP/2 protocol"))
        }
        Cut::Reset(_) | Cut::Closed | Cut::Ours => Gone::Silent,
    }
}

/// Sends all of `data`, and waits while the peer's windows or our buffer are full. If `end` is
/// given, then ends the stream with these trailer lines.
async fn send(stream: &StreamRef, mut data: &[u8], end: Option<&[u8]>) -> io::Result<()> {
    while let Sent::Bytes(sent) = stream.send_ready(data, end)? {
        data = &data[sent..];
        poll_fn(|context| stream.poll_sendable(context)).await;
    }
    Ok(())
}

/// A read of a stream's body. While it waits, it lends its buffer to the stream.
struct Reading<'a> {
    stream: &'a StreamRef,
    /// `None` while the stream holds the buffer, and after the read has ended.
    buf: Option<Buf>,
    is_lent: bool,
    alarm: Option<&'a Alarm>,
}

impl<'a> Reading<'a> {
    fn of(stream: &'a StreamRef, buf: Buf, alarm: Option<&'a Alarm>) -> Self {
        Self { stream, buf: Some(buf), is_lent: false, alarm }
    }
}

impl Future for Reading<'_> {
    type Output = (io::Result<Read>, Buf);

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.is_lent = false;
        let (mut buf, came) = match this.buf.take() {
            Some(buf) => (buf, 0),
            None => this.stream.give_back().expect("the buffer that this read has lent"),
        };
        let read = match this.stream.poll_read(context, &mut buf) {
            Poll::Ready(Ok(Read::Data(more))) => Ok(Read::Data(came + more)),
            _ if came > 0 => Ok(Read::Data(came)),
            Poll::Ready(read) => read,
            Poll::Pending => match this.alarm.map(|alarm| alarm.poll_woken(context)) {
                Some(Poll::Ready(_)) => Ok(Read::Woken),
                Some(Poll::Pending) | None => {
                    this.stream.lend(buf);
                    this.is_lent = true;
                    return Poll::Pending;
                }
            },
        };
        Poll::Ready((read, buf))
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if self.is_lent {
            self.stream.reclaim();
        }
    }
}
