//! One stream of an HTTP/2 connection, as an exchange sees it: heads as [`Draft`] on their way out
//! and as [`Head`] on their way in, bodies as bytes. Flow control goes through: what the exchange
//! does not read the peer may not send, and a peer that does not read stops the exchange's writes.

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

/// A stream that a client has opened.
pub struct ClientStream {
    request: RefCell<Incoming>,
    /// The fields of the request, until they go on.
    received: Cell<Option<Received>>,
    /// The head of the response, until it is sent.
    head: RefCell<Option<Result<Response<()>, Refusal>>>,
    response: RefCell<Sending>,
    /// With what the stream is reset when it is not whole.
    reason: Cell<Reason>,
}

enum Sending {
    /// The head has not been sent.
    Head(SendResponse<Bytes>),
    /// The body is being sent.
    Body(SendStream<Bytes>),
    /// All has been sent, or the stream was reset.
    Over,
}

impl ClientStream {
    /// The stream whose request body comes in `frames`.
    pub fn new(frames: RecvStream, respond: SendResponse<Bytes>) -> Self {
        Self {
            request: RefCell::new(Incoming::new(frames)),
            received: Cell::default(),
            head: RefCell::default(),
            response: RefCell::new(Sending::Head(respond)),
            reason: Cell::new(Reason::INTERNAL_ERROR),
        }
    }

    /// Appends what has come of the body to `buf`, without waiting.
    pub fn read_ready(&self, buf: &mut Buf) {
        let context = &mut Context::from_waker(Waker::noop());
        // Errors are seen again by whoever reads in earnest.
        drop(self.poll_read(context, buf));
    }

    /// Whether the peer has ended the body and all of it was read.
    pub fn ended(&self) -> bool {
        self.request.borrow().is_read()
    }

    /// The trailers' lines, once the body has ended.
    pub fn take_trailers(&self) -> Vec<u8> {
        std::mem::take(&mut self.request.borrow_mut().trailers)
    }

    /// As [`Stream::read`](crate::runtime::io::Stream::read).
    pub async fn read(&self, buf: Buf) -> (io::Result<Read>, Buf) {
        read(|context, buf| self.poll_read(context, buf), buf).await
    }

    /// As [`Stream::read_or_woken`](crate::runtime::io::Stream::read_or_woken).
    pub async fn read_or_woken(&self, buf: Buf, alarm: &Alarm) -> (io::Result<Read>, Buf) {
        read_or_woken(|context, buf| self.poll_read(context, buf), buf, alarm).await
    }

    fn poll_read(&self, context: &mut Context<'_>, buf: &mut Buf) -> Poll<io::Result<Read>> {
        self.request.borrow_mut().poll_read(context, buf)
    }

    /// As [`Stream::readable`](crate::runtime::io::Stream::readable).
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|context| self.request.borrow_mut().poll_readable(context)).await
    }

    /// Keeps of the request what can go on as it came. A WebSocket is asked for otherwise.
    pub fn set_received(&self, request: Parts) {
        if request.extensions.get::<Protocol>().is_none() {
            let target = request.uri.into_parts().path_and_query;
            self.received.set(Some(Received { fields: request.headers, target }));
        }
    }

    /// The fields of the request; once.
    pub fn take_received(&self) -> Option<Received> {
        self.received.take()
    }

    /// The head of the response that [`ClientStream::respond`] sends.
    pub fn put_head(&self, head: Draft) {
        *self.head.borrow_mut() = Some(head.into_response());
    }

    /// Sends a response: the head that was put, a first portion of its body, and the end when `end`
    /// has the lines of its trailers; all that can be sent without waiting. A head of 1xx stands
    /// alone.
    ///
    /// # Errors
    /// When the stream is gone, or HTTP/2 cannot say it.
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

    /// Sends what the peer's windows allow at once of a portion of the body, and the end when `end`
    /// has the lines of its trailers.
    ///
    /// # Errors
    /// When the stream is gone.
    pub fn send_ready(&self, data: &[u8], end: Option<&[u8]>) -> io::Result<Sent> {
        let sent = send_ready(body_of(&self.response), data, end)?;
        self.over_if(sent, end);
        Ok(sent)
    }

    /// Sends the rest of a portion as the peer's windows allow.
    ///
    /// # Errors
    /// When the stream is gone.
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

    /// As [`Stream::quiet`](crate::runtime::io::Stream::quiet).
    pub fn quiet(&self) -> Quiet {
        let context = &mut Context::from_waker(Waker::noop());
        match self.poll_gone(context) {
            Poll::Ready(()) => Quiet::Closed,
            Poll::Pending if self.request.borrow().left.is_empty() => Quiet::Quiet,
            Poll::Pending => Quiet::Data,
        }
    }

    /// Completes when the client has given the stream up.
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

    /// What is not whole in the end is reset as cancelled: to a client of gRPC whose time is over
    /// that is no fault of the server's.
    pub fn cancel_on_close(&self) {
        self.reason.set(Reason::CANCEL);
    }

    /// The exchange is over: what is not whole is reset. A client that was answered before it had
    /// sent its whole request may stop (RFC 9113 8.1).
    pub fn finish(&self) {
        match std::mem::replace(&mut *self.response.borrow_mut(), Sending::Over) {
            Sending::Body(mut body) => body.send_reset(self.reason.get()),
            Sending::Head(mut respond) => respond.send_reset(self.reason.get()),
            Sending::Over => {}
        }
    }
}

/// The body that is being sent, if one is.
fn body_of(sending: &RefCell<Sending>) -> Option<RefMut<'_, SendStream<Bytes>>> {
    RefMut::filter_map(sending.borrow_mut(), |sending| match sending {
        Sending::Body(body) => Some(body),
        Sending::Head(_) | Sending::Over => None,
    })
    .ok()
}

/// A stream that we have opened to an endpoint.
pub struct EndpointStream {
    slot: Slot,
    sending: RefCell<Option<SendStream<Bytes>>>,
    response: RefCell<Option<ResponseFuture>>,
    /// The fields of the response, until they go on.
    received: Cell<Option<Received>>,
    incoming: RefCell<Option<Incoming>>,
    /// The head of the request, until it is sent: one for an upgrade waits for what the endpoint
    /// allows.
    head: RefCell<Option<Result<Outbound, Refusal>>>,
    /// The key with which an upgrade was asked for.
    asked_with: RefCell<Option<HeaderValue>>,
    /// Why the request never left.
    unsent: Cell<Option<Gone>>,
}

/// Where the head of a response goes.
struct Destination<'a> {
    limits: &'a Limits,
    scratch: &'a mut Vec<u8>,
    buf: &'a mut Buf,
    head: &'a mut Head,
}

/// Why a response does not come.
#[derive(Clone, Copy, Debug)]
pub enum Gone {
    /// The endpoint says that it has not looked at the request (RFC 9113 8.7).
    Unprocessed,
    /// The stream or its connection ended first.
    Silent,
    /// The endpoint, or what it said, is no HTTP.
    Refused(Refusal),
}

impl EndpointStream {
    /// A stream in a place that a connection has for it.
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

    /// How the endpoint has proven itself; `None` in the clear.
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

    /// Sends a request: the head that was put, a first portion of its body, and the end when `end`
    /// has the lines of its trailers; all that can be sent without waiting.
    ///
    /// # Errors
    /// When the connection is gone.
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

    /// As [`ClientStream::send_ready`].
    ///
    /// # Errors
    /// When the stream is gone.
    pub fn send_ready(&self, data: &[u8], end: Option<&[u8]>) -> io::Result<Sent> {
        let sent = send_ready(self.body(), data, end)?;
        self.over_if(sent, end);
        Ok(sent)
    }

    /// As [`ClientStream::send`].
    ///
    /// # Errors
    /// When the stream is gone.
    pub async fn send(&self, data: &[u8], mut end: Option<&[u8]>) -> io::Result<()> {
        if self.head.borrow().is_some() {
            // Whether extended CONNECT may be used is in its first SETTINGS (RFC 8441 3).
            self.slot.greeted().await;
            let waiting = self.head.borrow_mut().take();
            let Some(Ok(outbound)) = waiting else { return Err(gone()) };
            self.open(outbound, false)?;
            end = None; // what ends is the tunnel
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

    /// Waits for the head of the next response, interim ones included; writes it behind what is in
    /// `buf`, together with as much of the body as has come. `scratch` is memory to work with.
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
        // What is wrong with the body is seen by whoever reads it.
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
            // Once more: its offsets count from the beginning of the block in which it stands.
            buf.grow(buf.len() + scratch.len());
        }
    }

    /// The fields of the response, where they can go on as they came; once.
    pub fn take_received(&self) -> Option<Received> {
        self.received.take()
    }

    /// Whether the endpoint has ended the body and all of it was read.
    pub fn ended(&self) -> bool {
        self.incoming.borrow().as_ref().is_some_and(Incoming::is_read)
    }

    /// The trailers' lines, once the body has ended.
    pub fn take_trailers(&self) -> Vec<u8> {
        let mut incoming = self.incoming.borrow_mut();
        incoming.as_mut().map(|incoming| std::mem::take(&mut incoming.trailers)).unwrap_or_default()
    }

    /// As [`Stream::read`](crate::runtime::io::Stream::read).
    pub async fn read(&self, buf: Buf) -> (io::Result<Read>, Buf) {
        read(|context, buf| self.poll_read(context, buf), buf).await
    }

    /// As [`Stream::read_or_woken`](crate::runtime::io::Stream::read_or_woken).
    pub async fn read_or_woken(&self, buf: Buf, alarm: &Alarm) -> (io::Result<Read>, Buf) {
        read_or_woken(|context, buf| self.poll_read(context, buf), buf, alarm).await
    }

    fn poll_read(&self, context: &mut Context<'_>, buf: &mut Buf) -> Poll<io::Result<Read>> {
        match &mut *self.incoming.borrow_mut() {
            Some(incoming) => incoming.poll_read(context, buf),
            None => Poll::Ready(Err(gone())),
        }
    }

    /// As [`Stream::readable`](crate::runtime::io::Stream::readable).
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

    /// Gives the stream up.
    pub fn reset_on_close(&self) {
        if let Some(mut sending) = self.sending.borrow_mut().take() {
            sending.send_reset(Reason::CANCEL);
        }
    }
}

/// Why a stream could not be opened: nothing was sent, so it may be tried elsewhere.
fn unsent_by(error: &h2::Error) -> Gone {
    match error.reason() {
        Some(Reason::HTTP_1_1_REQUIRED) => {
            let detail = "the endpoint takes no WebSocket over HTTP/2";
            Gone::Refused(Refusal { status: 501, ..Refusal::upstream(detail) })
        }
        _ => Gone::Unprocessed,
    }
}

/// What an error says about a request that has no answer yet.
fn gone_by(error: &h2::Error) -> Gone {
    let unprocessed = match error.is_go_away() {
        // Streams beyond the last one that a GOAWAY names (RFC 9113 6.8).
        true => error.is_remote(),
        false => error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM),
    };
    match unprocessed {
        true => Gone::Unprocessed,
        false if is_flood(error) => {
            Gone::Refused(Refusal::upstream("the endpoint went beyond a limit of HTTP/2"))
        }
        false if is_breach(error) => {
            Gone::Refused(Refusal::upstream("the endpoint broke the rules of HTTP/2"))
        }
        false => Gone::Silent,
    }
}

/// Whether the peer went beyond a limit of ours.
fn is_flood(error: &h2::Error) -> bool {
    error.get_io().is_some_and(|error| error.kind() == io::ErrorKind::QuotaExceeded)
}

/// Whether the peer broke the rules: then it is our side that has ended the stream.
fn is_breach(error: &h2::Error) -> bool {
    !error.is_remote() && !error.is_io()
}

/// What reading a body comes to that ends with `error`.
pub(super) fn unreadable(error: h2::Error) -> io::Error {
    let kind = match is_flood(&error) || is_breach(&error) {
        true => io::ErrorKind::InvalidData,
        false => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
