//! One stream of an HTTP/2 connection, as an exchange sees it: heads as text on their way out and
//! as [`Head`] on their way in, bodies as bytes. Flow control goes through: what the exchange does
//! not read the peer may not send, and a peer that does not read stops the exchange's writes.

use std::cell::{Cell, RefCell};
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes};
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, StatusCode};

use super::held::Held;
use super::receive::{response_head, trailer_lines};
use super::send;
use super::shared::Slot;
use crate::error::Refusal;
use crate::message::Head;
use crate::runtime::alarm::Alarm;
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Quiet, Read};
use crate::tls::Issued;

/// Room that a read leaves at the end of a buffer: chunks get their ends there.
const SLACK_BYTES: usize = 64;

/// A stream that a client has opened.
pub struct ClientStream {
    request: RefCell<Incoming>,
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

    /// As [`Stream::read_or_rang`](crate::runtime::io::Stream::read_or_rang).
    pub async fn read_or_rang(&self, buf: Buf, alarm: &Alarm) -> (io::Result<Read>, Buf) {
        read_or_rang(|context, buf| self.poll_read(context, buf), buf, alarm).await
    }

    fn poll_read(&self, context: &mut Context<'_>, buf: &mut Buf) -> Poll<io::Result<Read>> {
        self.request.borrow_mut().poll_read(context, buf)
    }

    /// As [`Stream::readable`](crate::runtime::io::Stream::readable).
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|context| self.request.borrow_mut().poll_readable(context)).await
    }

    /// Sends a response: its head, a first portion of its body, and the end when `end` has the
    /// lines of its trailers. A head of 1xx stands alone.
    ///
    /// # Errors
    /// When the stream is gone, or HTTP/2 cannot say it.
    pub async fn respond(&self, head: &[u8], data: &[u8], end: Option<&[u8]>) -> io::Result<()> {
        let response = send::response(head).map_err(io::Error::other)?;
        let ends = data.is_empty() && end.is_some_and(<[u8]>::is_empty);
        {
            let mut sending = self.response.borrow_mut();
            let Sending::Head(respond) = &mut *sending else { return Err(gone()) };
            if response.status().is_informational() {
                return respond.send_informational(response).map_err(io::Error::other);
            }
            let body = respond.send_response(response, ends).map_err(io::Error::other)?;
            *sending = if ends { Sending::Over } else { Sending::Body(body) };
        }
        if ends { Ok(()) } else { self.send(data, end).await }
    }

    /// Sends a portion of the body, and the end when `end` has the lines of its trailers.
    ///
    /// # Errors
    /// When the stream is gone.
    pub async fn send(&self, data: &[u8], end: Option<&[u8]>) -> io::Result<()> {
        send_data(|| body_of(&self.response), data, end).await?;
        if end.is_some() {
            *self.response.borrow_mut() = Sending::Over;
        }
        Ok(())
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
fn body_of(sending: &RefCell<Sending>) -> Option<std::cell::RefMut<'_, SendStream<Bytes>>> {
    std::cell::RefMut::filter_map(sending.borrow_mut(), |sending| match sending {
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
    incoming: RefCell<Option<Incoming>>,
    /// The key with which an upgrade was asked for.
    asked_with: RefCell<Option<Bytes>>,
    /// Why the request never left.
    unsent: Cell<Option<Gone>>,
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
            incoming: RefCell::default(),
            asked_with: RefCell::default(),
            unsent: Cell::default(),
        }
    }

    /// How the endpoint has proven itself; `None` in the clear.
    pub fn issued(&self) -> Option<Rc<[Issued]>> {
        self.slot.issued().cloned()
    }

    /// Sends a request: its head, a first portion of its body, and the end when `end` has the lines
    /// of its trailers.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn request(&self, head: &[u8], data: &[u8], end: Option<&[u8]>) -> io::Result<()> {
        let outbound = match send::request(head, self.slot.is_secure()) {
            Ok(outbound) => outbound,
            Err(refusal) => return Err(self.not_sent(Gone::Refused(refusal))),
        };
        let tunnel = outbound.request.method() == http::Method::CONNECT;
        if tunnel && !(data.is_empty() && end.is_some()) {
            return Err(self.not_sent(Gone::Refused(send::UNSPEAKABLE_UPGRADE)));
        }
        let end = end.filter(|_| !tunnel);
        let ends = data.is_empty() && end.is_some_and(<[u8]>::is_empty);
        let (response, sending) = match self.slot.send_request(outbound.request, ends) {
            Ok(opened) => opened,
            Err(error) => return Err(self.not_sent(unsent_by(&error))),
        };
        *self.asked_with.borrow_mut() = outbound.asked_with;
        *self.response.borrow_mut() = Some(response);
        *self.sending.borrow_mut() = (!ends).then_some(sending);
        if ends { Ok(()) } else { self.send(data, end).await }
    }

    fn not_sent(&self, because: Gone) -> io::Error {
        self.unsent.set(Some(because));
        gone()
    }

    /// As [`ClientStream::send`].
    ///
    /// # Errors
    /// When the stream is gone.
    pub async fn send(&self, data: &[u8], end: Option<&[u8]>) -> io::Result<()> {
        let body = || std::cell::RefMut::filter_map(self.sending.borrow_mut(), Option::as_mut).ok();
        send_data(body, data, end).await?;
        if end.is_some() {
            *self.sending.borrow_mut() = None;
        }
        Ok(())
    }

    /// Waits for the head of the next response, interim ones included; writes it behind what is in
    /// `buf`, together with as much of the body as has come. `scratch` is memory to work with.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn response(
        &self,
        scratch: &mut Vec<u8>,
        mut buf: Buf,
        head: &mut Head,
    ) -> (Result<(), Gone>, Buf) {
        let result = poll_fn(|context| self.poll_response(context, scratch, &mut buf, head)).await;
        (result, buf)
    }

    fn poll_response(
        &self,
        context: &mut Context<'_>,
        scratch: &mut Vec<u8>,
        buf: &mut Buf,
        head: &mut Head,
    ) -> Poll<Result<(), Gone>> {
        let mut response = self.response.borrow_mut();
        let Some(waiting) = response.as_mut() else {
            return Poll::Ready(Err(self.unsent.get().unwrap_or(Gone::Silent)));
        };
        match waiting.poll_informational(context) {
            Poll::Ready(Some(Ok(interim))) => {
                let parts = (interim.status(), interim.headers());
                return Poll::Ready(self.put_head(parts, false, scratch, buf, head));
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
        let made = self.put_head(fields, incoming.ended, scratch, buf, head);
        // What is wrong with the body is seen by whoever reads it.
        drop(incoming.poll_read(context, buf));
        *self.incoming.borrow_mut() = Some(incoming);
        Poll::Ready(made)
    }

    fn put_head(
        &self,
        parts: (StatusCode, &HeaderMap),
        ends: bool,
        scratch: &mut Vec<u8>,
        buf: &mut Buf,
        head: &mut Head,
    ) -> Result<(), Gone> {
        scratch.clear();
        let asked_with = self.asked_with.borrow();
        let base = buf.window().end;
        response_head(scratch, base, parts, ends, asked_with.as_deref(), head)
            .map_err(Gone::Refused)?;
        if buf.append(scratch) < scratch.len() {
            return Err(Gone::Refused(Refusal::upstream("the head of the response is too large")));
        }
        Ok(())
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

    /// As [`Stream::read_or_rang`](crate::runtime::io::Stream::read_or_rang).
    pub async fn read_or_rang(&self, buf: Buf, alarm: &Alarm) -> (io::Result<Read>, Buf) {
        read_or_rang(|context, buf| self.poll_read(context, buf), buf, alarm).await
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
    let flooded = error.get_io().is_some_and(|e| e.kind() == io::ErrorKind::QuotaExceeded);
    match unprocessed {
        true => Gone::Unprocessed,
        false if flooded => {
            Gone::Refused(Refusal::upstream("the endpoint went beyond a limit of HTTP/2"))
        }
        false if !error.is_remote() && !error.is_io() => {
            Gone::Refused(Refusal::upstream("the endpoint broke the rules of HTTP/2"))
        }
        false => Gone::Silent,
    }
}

/// The receiving half of a stream.
struct Incoming {
    frames: RecvStream,
    /// Data for which a buffer had no room.
    left: Bytes,
    ended: bool,
    trailers: Vec<u8>,
}

impl Incoming {
    fn new(frames: RecvStream) -> Self {
        let ended = frames.is_end_stream();
        Self { frames, left: Bytes::new(), ended, trailers: Vec::new() }
    }

    /// Whether the peer has ended the body and nothing of it is left to read.
    fn is_read(&self) -> bool {
        self.ended && self.left.is_empty()
    }

    /// Appends all that has come, as far as there is room.
    fn poll_read(&mut self, context: &mut Context<'_>, buf: &mut Buf) -> Poll<io::Result<Read>> {
        let before = buf.len();
        loop {
            if !self.left.is_empty() {
                let room = buf.room().saturating_sub(SLACK_BYTES).min(self.left.len());
                let n = buf.append(&self.left[..room]);
                self.left.advance(n);
                if !self.left.is_empty() {
                    return Poll::Ready(Ok(Read::Data(buf.len() - before)));
                }
            }
            match self.poll_left(context) {
                Poll::Ready(Ok(true)) => {}
                // The error stays with the stream: what came before it is given first.
                Poll::Ready(Err(error)) if buf.len() == before => return Poll::Ready(Err(error)),
                Poll::Pending if buf.len() == before => return Poll::Pending,
                Poll::Ready(Ok(false)) if buf.len() == before => return Poll::Ready(Ok(Read::End)),
                _ => return Poll::Ready(Ok(Read::Data(buf.len() - before))),
            }
        }
    }

    /// Waits for something to read, the end included.
    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.left.is_empty() {
            true => self.poll_left(context).map_ok(drop),
            false => Poll::Ready(Ok(())),
        }
    }

    /// Waits for more data; false at the end.
    fn poll_left(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while !self.ended {
            match ready!(self.frames.poll_data(context)) {
                Some(Ok(data)) => {
                    // Taken over at once, and bounded by one frame: now the peer may send more.
                    self.frames.flow_control().release_capacity(data.len()).ok();
                    self.left = data;
                    self.ended = self.frames.is_end_stream();
                    if !self.left.is_empty() {
                        return Poll::Ready(Ok(true));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => {
                    let trailers = ready!(self.frames.poll_trailers(context));
                    if let Some(fields) = trailers.map_err(io::Error::other)? {
                        self.trailers = trailer_lines(&fields).map_err(io::Error::other)?;
                    }
                    self.ended = true;
                }
            }
        }
        Poll::Ready(Ok(false))
    }
}

async fn read(
    poll: impl Fn(&mut Context<'_>, &mut Buf) -> Poll<io::Result<Read>>,
    mut buf: Buf,
) -> (io::Result<Read>, Buf) {
    let read = poll_fn(|context| poll(context, &mut buf)).await;
    (read, buf)
}

async fn read_or_rang(
    poll: impl Fn(&mut Context<'_>, &mut Buf) -> Poll<io::Result<Read>>,
    mut buf: Buf,
    alarm: &Alarm,
) -> (io::Result<Read>, Buf) {
    let read = poll_fn(|context| match poll(context, &mut buf) {
        Poll::Ready(read) => Poll::Ready(read),
        Poll::Pending => alarm.poll_rang(context).map(|_| Ok(Read::Rang)),
    });
    let read = read.await;
    (read, buf)
}

/// Sends `data` as the peer's windows allow, and the end when `end` has the lines of its trailers.
async fn send_data<'a>(
    body: impl Fn() -> Option<std::cell::RefMut<'a, SendStream<Bytes>>>,
    mut data: &[u8],
    end: Option<&[u8]>,
) -> io::Result<()> {
    let trailers = end.filter(|lines| !lines.is_empty());
    let ends = end.is_some() && trailers.is_none();
    while !data.is_empty() {
        let capacity = poll_fn(|context| {
            let Some(mut body) = body() else { return Poll::Ready(Err(gone())) };
            poll_capacity(&mut body, context, data.len())
        });
        let (portion, rest) = data.split_at(capacity.await?.min(data.len()));
        data = rest;
        let last = ends && data.is_empty();
        let mut body = body().ok_or_else(gone)?;
        body.send_data(Bytes::from_owner(Held::copy_of(portion)), last)
            .map_err(io::Error::other)?;
        if last {
            return Ok(());
        }
    }
    let mut body = body().ok_or_else(gone)?;
    match trailers {
        Some(lines) => {
            let fields = send::trailers(lines).map_err(io::Error::other)?;
            body.send_trailers(fields).map_err(io::Error::other)
        }
        None if ends => body.send_data(Bytes::new(), true).map_err(io::Error::other),
        None => Ok(()),
    }
}

/// How much may be sent now, at least one byte.
fn poll_capacity(
    body: &mut SendStream<Bytes>,
    context: &mut Context<'_>,
    wanted: usize,
) -> Poll<io::Result<usize>> {
    body.reserve_capacity(wanted);
    loop {
        match body.capacity() {
            0 => {}
            capacity => return Poll::Ready(Ok(capacity)),
        }
        match ready!(body.poll_capacity(context)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            None => return Poll::Ready(Err(gone())),
        }
    }
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}
