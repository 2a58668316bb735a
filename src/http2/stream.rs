//! One stream of an HTTP/2 connection, in the dialect of HTTP/1.1: an exchange reads the body of
//! its request from it and writes the text of its response to it, as if it had the connection to
//! itself. Flow control goes through: what the exchange does not read the client may not send, and
//! a client that does not read stops the exchange's writes.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};

use super::{Event, RequestBody, ResponseReader};
use crate::runtime::alarm::Alarm;
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Quiet, Read};
use crate::snapshot::Limits;

/// See the module.
pub struct ClientStream {
    request: RefCell<Request>,
    response: RefCell<Sending>,
    reader: RefCell<ResponseReader>,
    limits: Limits,
    aborted: Cell<bool>,
}

struct Request {
    frames: RecvStream,
    form: RequestBody,
    /// Text that the exchange has not read yet.
    text: BytesMut,
    done: bool,
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
    /// The stream whose request body comes in `frames`, and is read in this `form`.
    pub fn new(
        frames: RecvStream,
        form: RequestBody,
        respond: SendResponse<Bytes>,
        reader: ResponseReader,
        limits: Limits,
    ) -> Self {
        let done = form == RequestBody::None;
        let request = Request { frames, form, text: BytesMut::new(), done };
        Self {
            request: RefCell::new(request),
            response: RefCell::new(Sending::Head(respond)),
            reader: RefCell::new(reader),
            limits,
            aborted: Cell::new(false),
        }
    }

    /// As [`Stream::read`](crate::runtime::io::Stream::read).
    pub async fn read(&self, mut buf: Buf) -> (io::Result<Read>, Buf) {
        let read = poll_fn(|context| self.request.borrow_mut().poll_read(context, &mut buf)).await;
        (read, buf)
    }

    /// As [`Stream::read_or_rang`](crate::runtime::io::Stream::read_or_rang).
    pub async fn read_or_rang(&self, mut buf: Buf, alarm: &Alarm) -> (io::Result<Read>, Buf) {
        let read =
            poll_fn(|context| match self.request.borrow_mut().poll_read(context, &mut buf) {
                Poll::Ready(read) => Poll::Ready(read),
                Poll::Pending => alarm.poll_rang(context).map(|_| Ok(Read::Rang)),
            });
        let read = read.await;
        (read, buf)
    }

    /// As [`Stream::readable`](crate::runtime::io::Stream::readable).
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|context| self.request.borrow_mut().poll_text(context).map_ok(drop)).await
    }

    /// As [`Stream::write_all`](crate::runtime::io::Stream::write_all).
    pub async fn write_all(&self, buf: Buf) -> (io::Result<()>, Buf) {
        let result = self.send(buf.data()).await;
        (result, buf)
    }

    async fn send(&self, text: &[u8]) -> io::Result<()> {
        let events = self.reader.borrow_mut().read(text, &self.limits).map_err(io::Error::other)?;
        for event in events {
            match event {
                Event::Interim(response) => match &mut *self.response.borrow_mut() {
                    Sending::Head(respond) => {
                        respond.send_informational(response).map_err(io::Error::other)?;
                    }
                    Sending::Body(_) | Sending::Over => return Err(gone()),
                },
                Event::Head(response, ends) => {
                    let mut sending = self.response.borrow_mut();
                    let Sending::Head(respond) = &mut *sending else { return Err(gone()) };
                    let body = respond.send_response(response, ends).map_err(io::Error::other)?;
                    *sending = if ends { Sending::Over } else { Sending::Body(body) };
                }
                Event::Data(bytes, ends) => self.send_data(bytes, ends).await?,
                Event::Trailers(trailers) => {
                    let mut sending = self.response.borrow_mut();
                    let Sending::Body(body) = &mut *sending else { return Err(gone()) };
                    body.send_trailers(trailers).map_err(io::Error::other)?;
                    *sending = Sending::Over;
                }
            }
        }
        Ok(())
    }

    /// Sends a portion of the body as the client's window allows.
    async fn send_data(&self, mut bytes: Bytes, ends: bool) -> io::Result<()> {
        loop {
            let wanted = bytes.len();
            let capacity = match wanted {
                0 => 0,
                _ => poll_fn(|context| self.poll_capacity(context, wanted)).await?,
            };
            let portion = bytes.split_to(capacity.min(wanted));
            let last = ends && bytes.is_empty();
            let mut sending = self.response.borrow_mut();
            let Sending::Body(body) = &mut *sending else { return Err(gone()) };
            body.send_data(portion, last).map_err(io::Error::other)?;
            if last {
                *sending = Sending::Over;
            }
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// How much may be sent now, at least one byte.
    fn poll_capacity(&self, context: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        let mut sending = self.response.borrow_mut();
        let Sending::Body(body) = &mut *sending else { return Poll::Ready(Err(gone())) };
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

    /// As [`Stream::quiet`](crate::runtime::io::Stream::quiet).
    pub fn quiet(&self) -> Quiet {
        let context = &mut Context::from_waker(Waker::noop());
        let reset = match &mut *self.response.borrow_mut() {
            Sending::Head(respond) => respond.poll_reset(context).is_ready(),
            Sending::Body(body) => body.poll_reset(context).is_ready(),
            Sending::Over => false,
        };
        match (reset, self.request.borrow().text.is_empty()) {
            (true, _) => Quiet::Closed,
            (false, false) => Quiet::Data,
            (false, true) => Quiet::Quiet,
        }
    }

    /// What was begun cannot be ended in order.
    pub fn reset_on_close(&self) {
        self.aborted.set(true);
    }

    /// The exchange is over: ends a body whose end is that of the stream, and resets what is not
    /// whole.
    pub fn finish(&self) {
        let whole = self.reader.borrow().may_end() && !self.aborted.get();
        match std::mem::replace(&mut *self.response.borrow_mut(), Sending::Over) {
            Sending::Body(mut body) if whole => drop(body.send_data(Bytes::new(), true)),
            Sending::Body(mut body) => body.send_reset(Reason::INTERNAL_ERROR),
            Sending::Head(mut respond) => respond.send_reset(Reason::INTERNAL_ERROR),
            Sending::Over => {}
        }
    }
}

impl Request {
    fn poll_read(&mut self, context: &mut Context<'_>, buf: &mut Buf) -> Poll<io::Result<Read>> {
        if !ready!(self.poll_text(context))? {
            return Poll::Ready(Ok(Read::End));
        }
        let n = buf.append(&self.text);
        self.text.advance(n);
        Poll::Ready(Ok(Read::Data(n)))
    }

    /// Waits for text; false at the end.
    fn poll_text(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.text.is_empty() && !self.done {
            match ready!(self.frames.poll_data(context)) {
                Some(Ok(data)) => {
                    // Read at once into text that is bounded by one frame: this is the moment at
                    // which the client may send more.
                    self.frames.flow_control().release_capacity(data.len()).ok();
                    self.put(&data);
                }
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => {
                    let trailers = ready!(self.frames.poll_trailers(context));
                    self.end(trailers.map_err(io::Error::other)?);
                }
            }
        }
        Poll::Ready(Ok(!self.text.is_empty()))
    }

    fn put(&mut self, data: &[u8]) {
        match self.form {
            // An empty chunk would be the last one.
            RequestBody::Chunked if !data.is_empty() => {
                self.text.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                self.text.extend_from_slice(data);
                self.text.extend_from_slice(b"\r\n");
            }
            RequestBody::Chunked | RequestBody::None => {}
            RequestBody::Plain => self.text.extend_from_slice(data),
        }
    }

    /// The end of the body. A length in the head leaves no place for trailers (RFC 9110 6.5.1 lets
    /// them be dropped then).
    fn end(&mut self, trailers: Option<http::HeaderMap>) {
        self.done = true;
        if self.form != RequestBody::Chunked {
            return;
        }
        self.text.extend_from_slice(b"0\r\n");
        for (name, value) in trailers.iter().flatten() {
            self.text.extend_from_slice(name.as_str().as_bytes());
            self.text.extend_from_slice(b": ");
            self.text.extend_from_slice(value.as_bytes());
            self.text.extend_from_slice(b"\r\n");
        }
        self.text.extend_from_slice(b"\r\n");
    }
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}
