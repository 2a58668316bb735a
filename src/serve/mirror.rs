//! Mirrors requests: another service gets a copy of a request. The response to the copy is
//! discarded.
//!
//! The copy has a task of its own, so the original request neither waits for it nor fails with it.
//! The copy is sent when the whole request was received. So a partial body is never sent, and the
//! memory of a copy is limited even if the mirror is slow.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;

use super::body::{BodyProgress, BodyTransform, CallBody};
use super::downstream::Peer;
use super::exchange::Exchange;
use super::pace::Pace;
use super::plan;
use super::private;
use super::request_head::{HeadChanges, put_head};
use super::worker::Worker;
use crate::error::Refusal;
use crate::grpc::{Code, Kind};
use crate::http1::framing::{self, Body, RequestFraming, ResponseFraming};
use crate::http1::parse::{self, Progress};
use crate::http2::Gone;
use crate::jwt::Accepted;
use crate::message::{Head, HeadView, Method};
use crate::propagation::RequestId;
use crate::resilience::Mirrored;
use crate::route::Mirror;
use crate::runtime::buffer::{Buf, filled};
use crate::runtime::contained::Contained;
use crate::runtime::io::{Io, Read, Stream};
use crate::time::Time;
use crate::upstream::choose::{self, Choice, Target};
use crate::upstream::{LocalRule, LocalService, Outcome, Terms, Upstream};
use crate::wire::Wire;

/// A mirrored request: the copy of a request, and the values of its exchange that are needed to
/// send it. Dropping it counts its result.
pub struct MirroredRequest<I: Io> {
    worker: Rc<Worker<I>>,
    service: Rc<LocalService<I>>,
    mirror: Mirror,
    terms: Rc<Terms>,
    rule: LocalRule,
    peer: Rc<Peer>,
    token: Option<Rc<Accepted>>,
    request_id: Option<RequestId>,
    kind: Option<Kind>,
    framing: RequestFraming,
    head: Head,
    /// The bytes of the head. Their offsets are the same as in the client's buffer.
    block: Vec<u8>,
    /// The bytes of the body that were received so far, in the framing of the client.
    body: Cell<Vec<u8>>,
    /// The trailer lines, if the body ended with an HTTP/2 stream.
    trailers: Option<Vec<u8>>,
    /// Whether the original request came before the handshake of its connection was complete.
    is_early: bool,
    result: Cell<Mirrored>,
}

impl<I: Io> MirroredRequest<I> {
    /// Begins a copy of the request of `exchange`. `first` is the beginning of its body. Returns
    /// `None` if the request is not mirrored: it opens a tunnel, it is too large, or the worker has
    /// too many mirrored requests in progress.
    pub fn begin(
        exchange: &Exchange<'_, I>,
        request: HeadView<'_>,
        first: &[u8],
        request_id: Option<RequestId>,
    ) -> Option<Box<Self>> {
        let (plan, worker) = (exchange.plan, &exchange.downstream.worker);
        let service = plan.mirror.as_ref()?;
        let mirror = *plan.rule.mirror.as_deref()?;
        if exchange.method == Method::Connect || exchange.framing.upgrade {
            return None;
        }
        let count = |result| count(service, worker.index, result);
        let length = match exchange.framing.body {
            Body::Length(length) | Body::Stream { length: Some(length) } => length,
            _ => first.len() as u64,
        };
        if length > mirror.policy.mirror_bytes as u64 {
            count(Mirrored::TooLarge);
            return None;
        }
        let cells = worker.cells();
        if cells.mirrored.value() >= u64::from(plan.terms.limits.mirrored_requests) {
            count(Mirrored::Overflow);
            return None;
        }
        cells.mirrored.increment();
        Some(Box::new(Self {
            worker: Rc::clone(worker),
            service: Rc::clone(service),
            mirror,
            terms: Rc::clone(&plan.terms),
            rule: Rc::clone(&plan.rule),
            peer: Rc::clone(&exchange.downstream.peer),
            token: plan.token.clone(),
            request_id,
            kind: plan::kind_for(exchange.record, service),
            // `expect: 100-continue` concerns only the original request.
            framing: RequestFraming { expect_continue: false, ..exchange.framing },
            head: request.head.clone(),
            block: request.block[..request.head.start + request.head.len].to_vec(),
            body: Cell::new(first.to_vec()),
            trailers: None,
            is_early: exchange.downstream.stream.is_early(),
            result: Cell::new(Mirrored::Incomplete),
        }))
    }

    /// Copies `read`, the next bytes from the client. They may end with a part of the client's next
    /// request. Returns false if the copy is too large; the caller must drop it then.
    pub fn keep(&mut self, read: &[u8]) -> bool {
        let body = self.body.get_mut();
        let left = match self.framing.body {
            Body::Length(length) => length.saturating_sub(body.len() as u64),
            // The length is not known. The end of the chunks is found when the copy is sent.
            _ => u64::MAX,
        };
        let read = &read[..usize::try_from(left).map_or(read.len(), |left| left.min(read.len()))];
        let fits = body.len() + read.len() <= self.mirror.policy.mirror_bytes;
        if fits {
            body.extend_from_slice(read);
        } else {
            self.result.set(Mirrored::TooLarge);
        }
        fits
    }

    /// Sends the copy. `trailers` has the trailer lines if the body ended with an HTTP/2 stream.
    pub fn send(mut self: Box<Self>, trailers: Option<Vec<u8>>) {
        self.trailers = trailers;
        let core = Rc::clone(self.worker.core());
        let io = core.io.clone();
        io.spawn(Contained::new(core, || async move { self.run().await }));
    }

    async fn run(&self) {
        let io = &self.worker.io;
        let deadline = io.now() + self.mirror.policy.timeout;
        self.result.set(match self.exchange(deadline).await {
            Ok(()) => Mirrored::Answered,
            Err(_) if io.now() >= deadline => Mirrored::TimedOut,
            Err(_) => Mirrored::Failed,
        });
    }

    /// Sends the copy, and reads the response.
    async fn exchange(&self, deadline: Time) -> Result<(), Lost> {
        let core = self.worker.core();
        let alarm = core.io.alarms().alarm();
        alarm.set(deadline);
        let target = Target {
            core,
            service: &self.service,
            client: self.peer.address,
            trusted_hops: self.terms.trusted_hops,
            limits: &self.terms.limits,
            deadline,
            bytes: false,
            old_way: false,
        };
        let request = self.head.view(&self.block);
        let mut choice = Choice::new(&target, self.mirror.to.subset as usize, Some(request));
        let connecting = pin!(choose::connection(&target, &mut choice));
        let (upstream, attempt) = alarm.guard(connecting).await.map_err(|_| Lost)??;
        upstream.alarm.set(Time::NEVER);
        let carried = alarm.guard(pin!(self.carry(request, &upstream, deadline))).await;
        let now = core.io.now();
        match carried {
            Ok(Ok(Carried { status, code, reusable })) => {
                attempt.finish(now, Outcome::Answered(status, code));
                if reusable && self.service.config.send_proxy_protocol.is_none() {
                    upstream.release(now);
                }
                Ok(())
            }
            _ => {
                attempt.finish(now, Outcome::Failed);
                Err(Lost)
            }
        }
    }

    async fn carry(
        &self,
        request: HeadView<'_>,
        upstream: &Upstream<Wire<I::Stream>>,
        deadline: Time,
    ) -> Result<Carried, Lost> {
        let limits = &self.terms.limits.message;
        let mut scratch = Vec::new();
        put_head(&self.changes(deadline), upstream, &mut scratch, request);
        let mut body = BodyTransform::new(self.framing.body, upstream.stream.version())
            .of_call(self.kind.map(CallBody::request));
        let portion = self.whole_body();
        let (portion, taken) = body.take(portion, self.trailers.clone(), limits)?;
        let end = taken.last.then(|| body.trailers());
        let (sent, portion) = upstream.stream.write_message(&scratch, portion, end).await;
        drop(portion);
        // An endpoint may respond before it has read the whole request.
        let mut response = Head::default();
        let (buf, framing) = self.response_head(upstream, &mut response).await?;
        let view = response.view(buf.block());
        // After NTLM or Negotiate, the connection has the identity of one client. Do not use it
        // again.
        let private = private::is_asked_for(request) || private::is_demanded(view);
        let code = view.value(b"grpc-status").map(Code::from_value);
        let head_end = response.start + response.len;
        let clean = self.drop_body(upstream, framing.body, head_end, buf).await?;
        let code = code.or_else(|| Code::from_trailers(&upstream.stream.take_trailers()));
        let code = code.filter(|_| self.kind.is_some());
        let reusable = clean && framing.keep_alive && sent.is_ok() && taken.last && !private;
        let reusable = reusable && !framing.switches;
        Ok(Carried { status: response.status, code, reusable })
    }

    /// Moves the body into a buffer. So there is only one copy of it.
    fn whole_body(&self) -> Buf {
        let body = self.body.take();
        filled(self.worker.io.buffers().take_sized(body.len()), &body)
    }

    fn changes(&self, deadline: Time) -> HeadChanges<'_> {
        HeadChanges {
            peer: &self.peer,
            terms: &self.terms,
            rule: &self.rule,
            framing: &self.framing,
            kind: self.kind,
            left: self.kind.map(|_| deadline.since(self.worker.io.now())),
            left_of_asked: Some(deadline.since(self.worker.io.now())),
            token_field: self.token.as_ref().and_then(|token| token.provider.field_to_drop()),
            request_id: self.request_id.as_ref(),
            attempt: None,
            trace: Vec::new(),
            is_early: self.is_early,
            mirror: Some(&self.mirror),
        }
    }

    /// Reads the head of the final response.
    async fn response_head(
        &self,
        upstream: &Upstream<Wire<I::Stream>>,
        head: &mut Head,
    ) -> Result<(Buf, ResponseFraming), Lost> {
        let mut buf = self.worker.io.buffers().take();
        loop {
            buf = match &upstream.stream {
                stream if stream.is_endpoint_stream() => {
                    self.stream_head(stream, head, buf).await?
                }
                _ => self.text_head(upstream, head, buf).await?,
            };
            let view = head.view(buf.block());
            let framing = framing::response(view, self.head.method, false)?;
            if head.status >= 200 || framing.switches {
                return Ok((buf, framing));
            }
            buf.consume(head.start + head.len - buf.window().start);
            head.clear();
        }
    }

    async fn stream_head(
        &self,
        stream: &Wire<I::Stream>,
        head: &mut Head,
        buf: Buf,
    ) -> Result<Buf, Lost> {
        let buffers = buf.give_back();
        Ok(stream.response(head, || buffers.take()).await?)
    }

    /// Reads the head of an HTTP/1.1 response. Holds no buffer while the endpoint sends nothing.
    async fn text_head(
        &self,
        upstream: &Upstream<Wire<I::Stream>>,
        head: &mut Head,
        mut buf: Buf,
    ) -> Result<Buf, Lost> {
        let (io, limits) = (&self.worker.io, &self.terms.limits.message);
        let pace = Pace::default();
        loop {
            if !buf.is_empty() {
                let parsed = parse::response(buf.block(), buf.window(), limits, head)?;
                if let Progress::Complete = parsed {
                    return Ok(buf);
                }
                buf.make_room(1);
                if buf.room() == 0 {
                    let wanted = (buf.len() * 2).min(limits.header_bytes + 1);
                    buf = buf.grown(wanted);
                }
            }
            let (read, back) = match buf.is_empty() {
                true => pace.read(io, &upstream.stream, buf).await,
                false => upstream.stream.read(buf).await,
            };
            buf = back;
            let Ok(Read::Data(_)) = read else { return Err(Lost) };
        }
    }

    /// Reads the body to its end and drops it. Returns whether the connection may carry another
    /// request.
    async fn drop_body(
        &self,
        upstream: &Upstream<Wire<I::Stream>>,
        body: Body,
        head_end: usize,
        mut buf: Buf,
    ) -> Result<bool, Lost> {
        let (io, limits) = (&self.worker.io, &self.terms.limits.message);
        let (pace, mut progress) = (Pace::default(), BodyProgress::new(body));
        buf.consume(head_end - buf.window().start);
        loop {
            let taken = progress.take(buf.data(), limits)?;
            if progress.is_done() || upstream.stream.ended() {
                return Ok(taken == buf.len());
            }
            buf.clear();
            let (read, back) = pace.read(io, &upstream.stream, buf).await;
            buf = back;
            match read {
                Ok(Read::Data(_)) => {}
                Ok(_) if upstream.stream.ended() => {}
                Ok(_) if matches!(progress, BodyProgress::UntilClose) => return Ok(false),
                _ => return Err(Lost),
            }
        }
    }
}

impl<I: Io> Drop for MirroredRequest<I> {
    fn drop(&mut self) {
        self.worker.cells().mirrored.decrement();
        count(&self.service, self.worker.index, self.result.get());
    }
}

fn count<I: Io>(service: &LocalService<I>, worker: usize, result: Mirrored) {
    service.config.stats.worker(worker).mirrored[result.index()].increment();
}

/// A complete response.
struct Carried {
    status: u16,
    /// The status of a gRPC call.
    code: Option<Code>,
    /// Whether the connection may carry another exchange.
    reusable: bool,
}

/// There is no complete response. Only a counter records it, so the reason is not kept.
struct Lost;

impl From<Refusal> for Lost {
    fn from(_: Refusal) -> Self {
        Self
    }
}

impl From<Gone> for Lost {
    fn from(_: Gone) -> Self {
        Self
    }
}
