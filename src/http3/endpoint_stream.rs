//! A stream that we opened to an endpoint, with the operations of `http2::EndpointStream`.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Waker};

use super::code::Code;
use super::connection::{Connection, gone};
use super::stream_ref::StreamRef;
use super::streams::Cut;
use crate::error::Refusal;
use crate::http2::{Draft, Gone, Sent, Slot, UNSPEAKABLE_UPGRADE, accepted};
use crate::message::{Head, Method};
use crate::runtime::alarm::Alarm;
use crate::runtime::buffer::Buf;
use crate::runtime::io::Read;
use crate::tls::Issued;

/// A stream that we opened to an endpoint.
pub struct EndpointStream {
    slot: Slot<Connection>,
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

impl EndpointStream {
    /// Creates a stream in a reserved slot.
    pub fn new(slot: Slot<Connection>) -> Self {
        Self {
            slot,
            stream: OnceCell::new(),
            answered: Cell::new(false),
            head: RefCell::default(),
            key: RefCell::default(),
            unsent: Cell::default(),
        }
    }

    /// The endpoint's certificates.
    pub fn issued(&self) -> Option<Rc<[Issued]>> {
        self.slot.issued().cloned()
    }

    /// Stores the head of the request for [`EndpointStream::request`].
    pub fn put_head(&self, head: Draft) {
        *self.head.borrow_mut() = Some(head);
    }

    /// Like [`http2::EndpointStream::request`](crate::http2::EndpointStream::request).
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
            let detail = "the endpoint does not support WebSocket over HTTP/3";
            let refusal = Refusal { status: 501, ..Refusal::upstream(detail) };
            return Err(self.not_sent(Gone::Refused(refusal)));
        }
        let room = self.slot.take_room();
        let Some(stream) = room.and_then(|room| connection.begin(room, head, ends)) else {
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

    /// Sends as much of `data` as possible without waiting. If `end` is given and all data was
    /// sent, ends the stream with these trailer lines, which may be empty.
    ///
    /// # Errors
    /// When the stream is closed.
    pub fn send_ready(&self, data: &[u8], end: Option<&[u8]>) -> io::Result<Sent> {
        self.stream()?.send_ready(data, end)
    }

    /// Sends all of `data`, and waits while the peer's windows are full. If `end` is given, then
    /// ends the stream with these trailer lines.
    ///
    /// # Errors
    /// When the stream is closed.
    pub async fn send(&self, data: &[u8], mut end: Option<&[u8]>) -> io::Result<()> {
        if self.head.borrow().is_some() {
            // The endpoint's SETTINGS say whether it supports extended CONNECT (RFC 9220 3).
            poll_fn(|context| self.slot.connection().poll_greeted(context)).await;
            let Some(head) = self.head.borrow_mut().take() else { return Err(gone()) };
            self.open(&head, false)?;
            end = None; // the tunnel ends the stream
        }
        self.stream()?.send(data, end).await
    }

    /// Waits until some data can be sent. Returns how much should be read for it.
    pub async fn room(&self) -> usize {
        match self.stream.get() {
            Some(stream) => stream.room().await,
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

    /// Returns a copy of the trailer lines. Empty before the body has ended.
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
            Ok(stream) => stream.read(buf, None).await,
            Err(error) => (Err(error), buf),
        }
    }

    /// Like [`Stream::read_or_woken`](crate::runtime::io::Stream::read_or_woken).
    pub async fn read_or_woken(&self, buf: Buf, alarm: &Alarm) -> (io::Result<Read>, Buf) {
        match self.stream() {
            Ok(stream) => stream.read(buf, Some(alarm)).await,
            Err(error) => (Err(error), buf),
        }
    }

    /// Like [`Stream::readable`](crate::runtime::io::Stream::readable).
    ///
    /// # Errors
    /// When the stream ended early.
    pub async fn readable(&self) -> io::Result<()> {
        let stream = self.stream()?;
        poll_fn(|context| stream.poll_readable(context)).await
    }

    /// Ends the body that we send, without trailers.
    pub async fn shutdown_write(&self) {
        if let Some(stream) = self.stream.get() {
            stream.shutdown_write().await;
        }
    }

    /// Resets the stream, unless our message is complete.
    pub fn reset_on_close(&self) {
        if let Some(stream) = self.stream.get() {
            stream.with(|core, id| core.abandon_unfinished(id, Code::REQUEST_CANCELLED));
        }
    }
}

impl Drop for EndpointStream {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.get() {
            stream.with(|core, id| core.release(id, Code::REQUEST_CANCELLED));
        }
    }
}

/// The reason why a stream has no response.
fn gone_by(cut: Cut) -> Gone {
    match cut {
        Cut::Unprocessed => Gone::Unprocessed,
        Cut::Reset(code) if code == Code::REQUEST_REJECTED.0 => Gone::Unprocessed,
        Cut::Breach => Gone::Refused(Refusal::upstream("the endpoint violated HTTP/3")),
        Cut::Reset(_) | Cut::Closed | Cut::Ours => Gone::Silent,
    }
}
