//! One stream of an HTTP/2 connection, as an exchange uses it. Outgoing heads are [`Draft`],
//! incoming heads are [`Head`], and bodies are bytes. Flow control works end to end: the peer
//! cannot send more than the exchange reads, and writes wait for a peer that does not read.

use std::cell::{Cell, RefCell, RefMut};
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::draft::{Draft, Outbound, Received, UNSPEAKABLE_UPGRADE};
use super::incoming::{Incoming, read, read_or_woken};
use super::outgoing::{Sent, gone, send_data, send_ready};
use super::receive::response_head;
use super::shared::Slot;
use crate::error::Refusal;
use crate::message::Head;
use crate::message::Limits;
use crate::runtime::alarm::Alarm;
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Quiet, Read};
use crate::tls::Issued;

/// A stream that a client opened.
pub struct ClientStream {
    request: RefCell<Incoming>,
    /// The fields of the request, until they are forwarded.
    received: Cell<Option<Received>>,
    /// The head of the response, until it is sent.
    head: RefCell<Option<Result<Response<()>, Refusal>>>,
    response: RefCell<Sending>,
    /// The error code for a reset if the stream ends incomplete.
    reason: Cell<Reason>,
}

enum Sending {
    /// The head has not been sent.
    Head(SendResponse<Bytes>),
    /// The body is being sent.
    Body(SendStream<Bytes>),
    /// Everything was sent, or the stream was reset.
    Over,
}

impl ClientStream {
    /// Creates a stream whose request body arrives in `frames`.
    pub fn new(frames: RecvStream, respond: SendResponse<Bytes>) -> Self {
        Self {
            request: RefCell::new(Incoming::new(frames)),
            received: Cell::default(),
            head: RefCell::default(),
            response: RefCell::new(Sending::Head(respond)),
            reason: Cell::new(Reason::INTERNAL_ERROR),
        }
    }

    /// Appends the received part of the body to `buf`, without waiting.
    pub fn read_ready(&self, buf: &mut Buf) {
        let context = &mut Context::from_waker(Waker::noop());
        // A later read returns the error again.
        drop(self.poll_read(context, buf));
    }

    /// Whether the peer has ended the body and all of it was read.
    pub fn ended(&self) -> bool {
        self.request.borrow().is_read()
    }

    /// Takes the trailer lines. Empty before the body has ended, and on a second call.
    pub fn take_trailers(&self) -> Vec<u8> {
        std::mem::take(&mut self.request.borrow_mut().trailers)
    }

    /// Like [`Stream::read`](crate::runtime::io::Stream::read).
    pub async fn read(&self, buf: Buf) -> (io::Result<Read>, Buf) {
        read(|context, buf| self.poll_read(context, buf), buf).await
    }

    /// Like [`Stream::read_or_woken`](crate::runtime::io::Stream::read_or_woken).
    pub async fn read_or_woken(&self, buf: Buf, alarm: &Alarm) -> (io::Result<Read>, Buf) {
        read_or_woken(|context, buf| self.poll_read(context, buf), buf, alarm).await
    }

    fn poll_read(&self, context: &mut Context<'_>, buf: &mut Buf) -> Poll<io::Result<Read>> {
        self.request.borrow_mut().poll_read(context, buf)
    }

    /// Like [`Stream::readable`](crate::runtime::io::Stream::readable).
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|context| self.request.borrow_mut().poll_readable(context)).await
    }

    /// Keeps the parts of the request that can be forwarded unchanged. A WebSocket request cannot.
    pub fn set_received(&self, request: Parts) {
        if request.extensions.get::<Protocol>().is_none() {
            let target = request.uri.into_parts().path_and_query;
            self.received.set(Some(Received { fields: request.headers, target }));
        }
    }

    /// Takes the fields of the request; works once.
    pub fn take_received(&self) -> Option<Received> {
        self.received.take()
    }

    /// The head of the response that [`ClientStream::respond`] sends.
    pub fn put_head(&self, head: Draft) {
        *self.head.borrow_mut() = Some(head.into_response());
    }

    /// Sends as much as possible without waiting: the stored head, the first part of the body, and
    /// the end, if `end` has trailer lines. A head with a status of 1xx is sent alone.
    ///
    /// # Errors
    /// When the stream is closed, or HTTP/2 cannot express the head.
    pub fn respond(&self, data: &[u8], end: Option<&[u8]>) -> io::Result<Sent> {
        let head = self.head.borrow_mut().take();
        let response = head.ok_or_else(gone)?.map_err(io::Error::other)?;
        let ends = data.is_empty() && end.is_some_and(<[u8]>::is_empty);
        {
            let mut sending = self.response.borrow_mut();
            let Sending::Head(respond) = &mut *sending else { return Err(gone()) };
            if response.status().is_informational() {
                respond.send_informational(response).map_err(io::Error::other)?;
                return Ok(Sent::All);
            }
            let body = respond.send_response(response, ends).map_err(io::Error::other)?;
            *sending = if ends { Sending::Over } else { Sending::Body(body) };
        }
        if ends { Ok(Sent::All) } else { self.send_ready(data, end) }
    }

    /// Sends as much of a body part as the peer's windows allow now, and the end, if `end` has
    /// trailer lines.
    ///
    /// # Errors
    /// When the stream is closed.
    pub fn send_ready(&self, data: &[u8], end: Option<&[u8]>) -> io::Result<Sent> {
        let sent = send_ready(body_of(&self.response), data, end)?;
        self.over_if(sent, end);
        Ok(sent)
    }

    /// Sends the rest of a part as the peer's windows allow.
    ///
    /// # Errors
    /// When the stream is closed.
    pub async fn send(&self, data: &[u8], end: Option<&[u8]>) -> io::Result<()> {
        send_data(|| body_of(&self.response), data, end).await?;
        self.over_if(Sent::All, end);
        Ok(())
    }

    fn over_if(&self, sent: Sent, end: Option<&[u8]>) {
        if sent == Sent::All && end.is_some() {
            *self.response.borrow_mut() = Sending::Over;
        }
    }

    /// Like [`Stream::quiet`](crate::runtime::io::Stream::quiet).
    pub fn quiet(&self) -> Quiet {
        let context = &mut Context::from_waker(Waker::noop());
        match self.poll_gone(context) {
            Poll::Ready(()) => Quiet::Closed,
            Poll::Pending if self.request.borrow().left.is_empty() => Quiet::Quiet,
            Poll::Pending => Quiet::Data,
        }
    }

    /// Completes when the client cancels the stream.
    pub fn poll_gone(&self, context: &mut Context<'_>) -> Poll<()> {
        match &mut *self.response.borrow_mut() {
            Sending::Head(respond) => respond.poll_reset(context).map(drop),
            Sending::Body(body) => body.poll_reset(context).map(drop),
            Sending::Over => Poll::Pending,
        }
    }

    /// Ends our side.
    pub async fn shutdown_write(&self) {
        if matches!(*self.response.borrow(), Sending::Body(_)) {
            self.send(b"", Some(b"")).await.ok();
        }
    }

    /// Resets an incomplete stream with CANCEL at the end. A gRPC client whose deadline has passed
    /// does not treat this as a server error.
    pub fn cancel_on_close(&self) {
        self.reason.set(Reason::CANCEL);
    }

    /// Ends the exchange and resets an incomplete stream. If the client got its answer before it
    /// sent its whole request, it may stop (RFC 9113 8.1).
    pub fn finish(&self) {
        match std::mem::replace(&mut *self.response.borrow_mut(), Sending::Over) {
            Sending::Body(mut body) => body.send_reset(self.reason.get()),
            Sending::Head(mut respond) => respond.send_reset(self.reason.get()),
            Sending::Over => {}
        }
    }
}

/// The body in progress, if there is one.
fn body_of(sending: &RefCell<Sending>) -> Option<RefMut<'_, SendStream<Bytes>>> {
    RefMut::filter_map(sending.borrow_mut(), |sending| match sending {
        Sending::Body(body) => Some(body),
        Sending::Head(_) | Sending::Over => None,
    })
    .ok()
}

/// A stream that we opened to an endpoint.
pub struct EndpointStream {
    slot: Slot,
    sending: RefCell<Option<SendStream<Bytes>>>,
    response: RefCell<Option<ResponseFuture>>,
    /// The fields of the response, until they are forwarded.
    received: Cell<Option<Received>>,
    incoming: RefCell<Option<Incoming>>,
    /// The head of the request, until it is sent. An upgrade waits for the endpoint's SETTINGS.
    head: RefCell<Option<Result<Outbound, Refusal>>>,
    /// The key of an upgrade request.
    asked_with: RefCell<Option<HeaderValue>>,
    /// The reason why the request was not sent.
    unsent: Cell<Option<Gone>>,
}

/// The destination for the head of a response.
struct Destination<'a> {
    limits: &'a Limits,
    scratch: &'a mut Vec<u8>,
    buf: &'a mut Buf,
    head: &'a mut Head,
}

/// The reason why there is no response.
#[derive(Clone, Copy, Debug)]
pub enum Gone {
    /// The endpoint reports that it did not process the request (RFC 9113 8.7).
    Unprocessed,
    /// The stream or its connection ended first.
    Silent,
    /// The endpoint, or its answer, is not valid HTTP.
    Refused(Refusal),
}

impl EndpointStream {
    /// Creates a stream in a reserved slot.
    pub fn new(slot: Slot) -> Self {
        Self {
            slot,
            sending: RefCell::default(),
            response: RefCell::default(),
            received: Cell::default(),
            incoming: RefCell::default(),
            head: RefCell::default(),
            asked_with: RefCell::default(),
            unsent: Cell::default(),
        }
    }

    /// The endpoint's certificates. Returns `None` for plain text.
    pub fn issued(&self) -> Option<Rc<[Issued]>> {
        self.slot.issued().cloned()
    }

    /// The authority of the last request on the connection.
    pub fn last_authority(&self) -> Option<Authority> {
        self.slot.last_authority()
    }

    /// The head of the request that [`EndpointStream::request`] sends.
    pub fn put_head(&self, head: Draft) {
        let outbound = head.into_request(self.slot.is_secure());
        if let Ok(outbound) = &outbound {
            self.slot.asks(outbound.request.uri().authority());
        }
        *self.head.borrow_mut() = Some(outbound);
    }

    /// Sends as much as possible without waiting: the stored head, the first part of the body, and
    /// the end, if `end` has trailer lines.
    ///
    /// # Errors
    /// When the connection is closed.
    pub fn request(&self, data: &[u8], end: Option<&[u8]>) -> io::Result<Sent> {
        let head = self.head.borrow_mut().take().ok_or_else(gone)?;
        let outbound = head.map_err(|refusal| self.not_sent(Gone::Refused(refusal)))?;
        let tunnel = outbound.request.method() == http::Method::CONNECT;
        if tunnel && !(data.is_empty() && end.is_some()) {
            return Err(self.not_sent(Gone::Refused(UNSPEAKABLE_UPGRADE)));
        }
        if outbound.asked_with.is_some() && !self.slot.is_greeted() {
            *self.head.borrow_mut() = Some(Ok(outbound));
            return Ok(Sent::Bytes(0));
        }
        let end = end.filter(|_| !tunnel);
        let ends = data.is_empty() && end.is_some_and(<[u8]>::is_empty);
        self.open(outbound, ends)?;
        if ends { Ok(Sent::All) } else { self.send_ready(data, end) }
    }

    fn open(&self, outbound: Outbound, ends: bool) -> io::Result<()> {
        let opened = self.slot.send_request(outbound.request, ends);
        let (response, sending) = opened.map_err(|error| self.not_sent(unsent_by(&error)))?;
        *self.asked_with.borrow_mut() = outbound.asked_with;
        *self.response.borrow_mut() = Some(response);
        *self.sending.borrow_mut() = (!ends).then_some(sending);
        Ok(())
    }

    fn not_sent(&self, because: Gone) -> io::Error {
        self.unsent.set(Some(because));
        gone()
    }

    /// Like [`ClientStream::send_ready`].
    ///
    /// # Errors
    /// When the stream is closed.
    pub fn send_ready(&self, data: &[u8], end: Option<&[u8]>) -> io::Result<Sent> {
        let sent = send_ready(self.body(), data, end)?;
        self.over_if(sent, end);
        Ok(sent)
    }

    /// Like [`ClientStream::send`].
    ///
    /// # Errors
    /// When the stream is closed.
    pub async fn send(&self, data: &[u8], mut end: Option<&[u8]>) -> io::Result<()> {
        if self.head.borrow().is_some() {
            // The first SETTINGS tell whether extended CONNECT is supported (RFC 8441 3).
            self.slot.greeted().await;
            let waiting = self.head.borrow_mut().take();
            let Some(Ok(outbound)) = waiting else { return Err(gone()) };
            self.open(outbound, false)?;
            end = None; // the end is that of the tunnel
        }
        send_data(|| self.body(), data, end).await?;
        self.over_if(Sent::All, end);
        Ok(())
    }

    fn body(&self) -> Option<RefMut<'_, SendStream<Bytes>>> {
        RefMut::filter_map(self.sending.borrow_mut(), Option::as_mut).ok()
    }

    fn over_if(&self, sent: Sent, end: Option<&[u8]>) {
        if sent == Sent::All && end.is_some() {
            *self.sending.borrow_mut() = None;
        }
    }

    /// Waits for the head of the next response, including interim ones. Appends it to `buf`, with
    /// the received part of the body. `scratch` is working memory.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn response(
        &self,
        limits: &Limits,
        scratch: &mut Vec<u8>,
        mut buf: Buf,
        head: &mut Head,
    ) -> (Result<(), Gone>, Buf) {
        let mut into = Destination { limits, scratch, buf: &mut buf, head };
        let result = poll_fn(|context| self.poll_response(context, &mut into)).await;
        (result, buf)
    }

    fn poll_response(
        &self,
        context: &mut Context<'_>,
        into: &mut Destination<'_>,
    ) -> Poll<Result<(), Gone>> {
        let mut response = self.response.borrow_mut();
        let Some(waiting) = response.as_mut() else {
            return Poll::Ready(Err(self.unsent.get().unwrap_or(Gone::Silent)));
        };
        match waiting.poll_informational(context) {
            Poll::Ready(Some(Ok(interim))) => {
                let parts = (interim.status(), interim.headers());
                return Poll::Ready(self.read_head(parts, false, into));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(gone_by(&error))),
            Poll::Ready(None) | Poll::Pending => {}
        }
        let (parts, frames) = match ready!(Pin::new(waiting).poll(context)) {
            Ok(answer) => answer.into_parts(),
            Err(error) => return Poll::Ready(Err(gone_by(&error))),
        };
        *response = None;
        let mut incoming = Incoming::new(frames);
        let fields = (parts.status, &parts.headers);
        let made = self.read_head(fields, incoming.ended, into);
        if self.asked_with.borrow().is_none() {
            self.received.set(Some(Received { fields: parts.headers, target: None }));
        }
        // The next read of the body returns this error.
        drop(incoming.poll_read(context, into.buf));
        *self.incoming.borrow_mut() = Some(incoming);
        Poll::Ready(made)
    }

    fn read_head(
        &self,
        parts: (StatusCode, &HeaderMap),
        ends: bool,
        into: &mut Destination<'_>,
    ) -> Result<(), Gone> {
        let Destination { limits, scratch, buf, head } = into;
        let asked_with = self.asked_with.borrow();
        let asked_with = asked_with.as_ref().map(HeaderValue::as_bytes);
        loop {
            scratch.clear();
            let base = buf.window().end;
            response_head(scratch, base, parts, ends, asked_with, limits, head)
                .map_err(Gone::Refused)?;
            if scratch.len() <= buf.room() {
                buf.append(scratch);
                return Ok(());
            }
            // Write it again, because its offsets are relative to the start of its block.
            buf.grow(buf.len() + scratch.len());
        }
    }

    /// Takes the fields of the response, if they can be forwarded unchanged; works once.
    pub fn take_received(&self) -> Option<Received> {
        self.received.take()
    }

    /// Whether the endpoint has ended the body and all of it was read.
    pub fn ended(&self) -> bool {
        self.incoming.borrow().as_ref().is_some_and(Incoming::is_read)
    }

    /// Takes the trailer lines. Empty before the body has ended, and on a second call.
    pub fn take_trailers(&self) -> Vec<u8> {
        let mut incoming = self.incoming.borrow_mut();
        incoming.as_mut().map(|incoming| std::mem::take(&mut incoming.trailers)).unwrap_or_default()
    }

    /// Like [`Stream::read`](crate::runtime::io::Stream::read).
    pub async fn read(&self, buf: Buf) -> (io::Result<Read>, Buf) {
        read(|context, buf| self.poll_read(context, buf), buf).await
    }

    /// Like [`Stream::read_or_woken`](crate::runtime::io::Stream::read_or_woken).
    pub async fn read_or_woken(&self, buf: Buf, alarm: &Alarm) -> (io::Result<Read>, Buf) {
        read_or_woken(|context, buf| self.poll_read(context, buf), buf, alarm).await
    }

    fn poll_read(&self, context: &mut Context<'_>, buf: &mut Buf) -> Poll<io::Result<Read>> {
        match &mut *self.incoming.borrow_mut() {
            Some(incoming) => incoming.poll_read(context, buf),
            None => Poll::Ready(Err(gone())),
        }
    }

    /// Like [`Stream::readable`](crate::runtime::io::Stream::readable).
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|context| match &mut *self.incoming.borrow_mut() {
            Some(incoming) => incoming.poll_readable(context),
            None => Poll::Ready(Err(gone())),
        })
        .await
    }

    /// Ends our side.
    pub async fn shutdown_write(&self) {
        if self.sending.borrow().is_some() {
            self.send(b"", Some(b"")).await.ok();
        }
    }

    /// Resets the stream when it is closed.
    pub fn reset_on_close(&self) {
        if let Some(mut sending) = self.sending.borrow_mut().take() {
            sending.send_reset(Reason::CANCEL);
        }
    }
}

/// The error of a stream that could not be opened. Nothing was sent, so the request can be retried
/// on another connection.
fn unsent_by(error: &h2::Error) -> Gone {
    match error.reason() {
        Some(Reason::HTTP_1_1_REQUIRED) => {
            let detail = "the endpoint takes no WebSocket over HTTP/2";
            Gone::Refused(Refusal { status: 501, ..Refusal::upstream(detail) })
        }
        _ => Gone::Unprocessed,
    }
}

/// The error of a request that has no answer yet.
fn gone_by(error: &h2::Error) -> Gone {
    let unprocessed = match error.is_go_away() {
        // Streams after the last one in a GOAWAY (RFC 9113 6.8).
        true => error.is_remote(),
        false => error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM),
    };
    match unprocessed {
        true => Gone::Unprocessed,
        false if is_flood(error) => {
            Gone::Refused(Refusal::upstream("the endpoint exceeded an HTTP/2 limit"))
        }
        false if is_breach(error) => {
            Gone::Refused(Refusal::upstream("the endpoint violated the HTTP/2 protocol"))
        }
        false => Gone::Silent,
    }
}

/// Whether the peer exceeded one of our limits.
fn is_flood(error: &h2::Error) -> bool {
    error.get_io().is_some_and(|error| error.kind() == io::ErrorKind::QuotaExceeded)
}

/// Whether the peer violated the protocol, so that our side ended the stream.
fn is_breach(error: &h2::Error) -> bool {
    !error.is_remote() && !error.is_io()
}

/// The I/O error for a body that ends with `error`.
pub(super) fn unreadable(error: h2::Error) -> io::Error {
    let kind = match is_flood(&error) || is_breach(&error) {
        true => io::ErrorKind::InvalidData,
        false => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
