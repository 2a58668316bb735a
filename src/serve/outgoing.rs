//! The request of an exchange while it is sent to an endpoint.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use super::body::BodyProgress;
use super::download::Failure;
use super::exchange::Exchange;
use super::global_limit::{self, Limiters};
use super::mirror::MirroredRequest;
use super::private;
use super::record::ExchangeRecord;
use super::request_head::{HeadChanges, put_head};
use super::retry::Replay;
use super::workspace::Drafts;
use crate::error::Refusal;
use crate::message::{Head, HeadView};
use crate::propagation::RequestId;
use crate::runtime::buffer::{Buf, filled};
use crate::runtime::io::Io;
use crate::upstream::Upstream;
use crate::wire::Wire;

/// A request to an endpoint. It can be sent again while its head and its whole body are buffered.
pub struct Outgoing<'x, I: Io> {
    record: &'x ExchangeRecord<I>,
    /// The head of the request, with offsets into `buf`.
    head: RefCell<&'x mut Head>,
    /// The client's buffer with the head. `None` after [`Outgoing::release`].
    buf: RefCell<Option<Buf>>,
    /// The range of the buffer that contains the beginning of the body.
    first: Range<usize>,
    /// The trailer lines, if the client's HTTP/2 stream ended with the head or with `first`.
    ended: Option<Vec<u8>>,
    /// The bytes of the body that were read after `first`.
    replay: Replay,
    /// The copy for the mirror, until it is complete. `None` if the request is not mirrored.
    mirrored: RefCell<Option<Box<MirroredRequest<I>>>>,
    /// Whether the whole body was read.
    whole: Cell<bool>,
    /// Whether the rest of the body, after `first`, is read from the client while it is sent.
    streamed: Cell<bool>,
    /// Bytes that were read after the end of the body: the beginning of the client's next request.
    beyond: RefCell<Option<Buf>>,
    /// The `x-request-id` that the proxy has generated, if the request had none.
    request_id: Option<RequestId>,
}

impl<'x, I: Io> Outgoing<'x, I> {
    /// Creates the request. Its head is `head`, and its body begins in `buf` after the head.
    ///
    /// # Errors
    /// If the chunks of the body are malformed or exceed the limits. In this case the record has
    /// already copied the request.
    pub fn new(exchange: &Exchange<'x, I>, head: &'x mut Head, buf: Buf) -> Result<Self, Refusal> {
        let request = head.view(buf.block());
        let Exchange { downstream, plan, record, .. } = exchange;
        let wants_id = plan.terms.request_id && request.value(b"x-request-id").is_none();
        let request_id =
            wants_id.then(|| RequestId::new(&mut downstream.worker.random.borrow_mut()));
        let start = request.head.start + request.head.len - buf.window().start;
        let mut body = BodyProgress::new(exchange.framing.body);
        let taken = body.take(&buf.data()[start..], &plan.terms.limits.message);
        let taken = taken.inspect_err(|_| record.keep_request(request))?;
        record.received(taken as u64);
        record.set_request_id(request_id);
        let ended = downstream.stream.ended().then(|| downstream.stream.take_trailers());
        let whole = body.is_done() || ended.is_some();
        let replay_max = plan.retries().map(|policy| policy.replay_bytes.saturating_sub(taken));
        Ok(Self {
            record,
            head: RefCell::new(head),
            buf: RefCell::new(Some(buf)),
            first: start..start + taken,
            ended,
            replay: Replay::new(replay_max),
            mirrored: RefCell::default(),
            whole: Cell::new(whole),
            streamed: Cell::default(),
            beyond: RefCell::default(),
            request_id,
        })
    }

    /// The number of bytes of the body that were received together with the head.
    pub fn first_bytes(&self) -> u64 {
        self.first.len() as u64
    }

    /// Asks the rate limit services about the request.
    ///
    /// # Errors
    /// See [`global_limit::ask`].
    pub async fn ask_limiters(
        &self,
        exchange: &Exchange<'_, I>,
        limiters: &Limiters<I>,
    ) -> Result<(), Failure> {
        let questions =
            self.with_request(|request| global_limit::questions(exchange, limiters, request));
        global_limit::ask(exchange, questions.unwrap_or_default()).await
    }

    /// Copies the request for the mirror. Sends the copy if the whole body is buffered.
    pub fn mirror(&self, exchange: &Exchange<'_, I>) {
        let (head, buf) = (self.head.borrow(), self.buf.borrow());
        let Some(buf) = buf.as_ref() else { return };
        let (request, first) = (head.view(buf.block()), &buf.data()[self.first.clone()]);
        let mirrored = MirroredRequest::begin(exchange, request, first, self.request_id);
        if mirrored.is_some() {
            self.record.mirrored();
        }
        match mirrored {
            Some(mirrored) if self.whole.get() => mirrored.send(self.ended.clone()),
            mirrored => *self.mirrored.borrow_mut() = mirrored,
        }
    }

    /// Begins attempt `number` to send the request. Writes its head to `drafts`, and returns the
    /// buffered part of its body, in the client's framing. Returns `None` after
    /// [`Outgoing::release`].
    pub fn begin(
        &self,
        exchange: &Exchange<'_, I>,
        drafts: &mut Drafts,
        upstream: &Upstream<Wire<I::Stream>>,
        number: u32,
    ) -> Option<Buf> {
        let (head, buf) = (self.head.borrow(), self.buf.borrow());
        let buf = buf.as_ref()?;
        let request = head.view(buf.block());
        let changes = HeadChanges::of(exchange, self.request_id.as_ref(), number);
        put_head(&changes, upstream, &mut drafts.scratch, request);
        if private::is_asked_for(request) {
            upstream.private.set(true);
        }
        let first = &buf.data()[self.first.clone()];
        let buffers = exchange.downstream.worker.io.buffers();
        let mut portion = filled(buffers.take_sized(first.len() + self.replay.len()), first);
        self.replay.append_to(&mut portion);
        Some(portion)
    }

    /// The trailer lines, if the buffered bytes end with the client's HTTP/2 stream.
    pub fn trailers(&self) -> Option<Vec<u8>> {
        self.ended.clone().or_else(|| self.replay.trailers())
    }

    /// Whether the request is buffered, and `matches` returns true for its method.
    pub fn has_method(&self, matches: impl FnOnce(&[u8]) -> bool) -> bool {
        self.with_request(|request| matches(request.method_name())).unwrap_or(false)
    }

    /// Records that the rest of the body is read from the client while it is sent. Without a retry
    /// policy, the request can then not be sent again.
    pub fn stream_rest(&self) {
        self.streamed.set(true);
        self.release_unless_replayable();
    }

    /// Whether the rest of the body is read from the client while it is sent.
    pub fn is_streamed(&self) -> bool {
        self.streamed.get()
    }

    /// Buffers `read`, the next bytes from the client, if the request may be retried or is
    /// mirrored. They may end with a part of the client's next request.
    pub fn keep(&self, read: &[u8]) {
        let mut mirrored = self.mirrored.borrow_mut();
        if mirrored.as_mut().is_some_and(|mirrored| !mirrored.keep(read)) {
            *mirrored = None;
        }
        if self.replay.is_whole() {
            self.replay.keep(read);
            self.release_unless_replayable();
        }
    }

    /// Ends the body: the last `excess` buffered bytes do not belong to it. Sends the copy for the
    /// mirror.
    pub fn end_body(&self, excess: usize, trailers: Option<&[u8]>) {
        self.replay.end(excess, trailers);
        if let Some(mirrored) = self.mirrored.take() {
            mirrored.send(trailers.map(<[u8]>::to_vec));
        }
    }

    /// Whether all bytes of the body that were read are buffered.
    pub fn is_replayable(&self) -> bool {
        self.replay.is_whole()
    }

    fn release_unless_replayable(&self) {
        if !self.replay.is_whole() {
            self.release();
        }
    }

    /// Records that the whole body was read. `beyond` has the bytes after it.
    pub fn end(&self, beyond: Buf) {
        self.whole.set(true);
        *self.beyond.borrow_mut() = Some(beyond);
    }

    /// Returns the client's buffer to the pool, unless it contains the beginning of the next
    /// request. The record copies the request before. After that, the request cannot be sent again.
    /// Used when the rest of the exchange may take long.
    pub fn release(&self) {
        self.replay.stop();
        let released = self.buf.borrow_mut().take_if(|buf| buf.len() == self.first.end);
        if let Some(buf) = released {
            self.record.keep_request(self.head.borrow().view(buf.block()));
        }
    }

    /// Calls [`Outgoing::release`], and also frees the memory of the head.
    pub fn free(&self) {
        self.release();
        if self.buf.borrow().is_none() {
            **self.head.borrow_mut() = Head::default();
        }
    }

    /// Lets the record copy the request, because it may still fail.
    pub fn keep_request(&self) {
        self.with_request(|request| self.record.keep_request(request));
    }

    /// Takes the bytes after the body, at the end of the exchange with the endpoint.
    pub fn take_beyond(&self) -> Option<Buf> {
        self.with_request(|request| self.record.keep_logged(request));
        let after = |mut buf: Buf| {
            buf.consume(self.first.end);
            buf
        };
        let first = self.buf.take();
        self.beyond.take().or_else(|| first.map(after))
    }

    /// Whether the whole request was read, and the bytes after it are known. Otherwise the
    /// connection cannot serve another request.
    pub fn is_read(&self) -> bool {
        self.whole.get() && (!self.streamed.get() || self.beyond.borrow().is_some())
    }

    fn with_request<T>(&self, then: impl FnOnce(HeadView<'_>) -> T) -> Option<T> {
        let (head, buf) = (self.head.borrow(), self.buf.borrow());
        Some(then(head.view(buf.as_ref()?.block())))
    }
}

impl<I: Io> Drop for Outgoing<'_, I> {
    /// Copies the request for the access log only if it gets a line. If only failures are logged, a
    /// successful request is not copied.
    fn drop(&mut self) {
        self.with_request(|request| self.record.keep_logged(request));
    }
}
