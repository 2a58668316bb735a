//! One request from its head to the end of its response.
//!
//! framing -> plan (route, token, authorization) -> local answer, or: endpoint -> connection ->
//! request -> response head -> verdict -> response to the client. Each step is one call.
//!
//! The verdict decides: relay the response, repeat the request, or refuse it. An error before the
//! connection to the endpoint is a [`Refusal`]; a later error is a [`Failure`].

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use super::body::{BodyProgress, BodyTransform, CallBody};
use super::download::{self, Downloaded, Failure};
use super::downstream::Downstream;
use super::guard;
use super::plan::{self, Plan};
use super::private;
use super::record::ExchangeRecord;
use super::reply;
use super::request_head::put_head;
use super::tunnel::Tunnel;
use super::upload::{self, UploadEnd};
use super::workspace::Workspace;
use crate::cluster::Protocol;
use crate::error::{Flag, Refusal};
use crate::grpc::{self, Kind};
use crate::http1::framing::{self, RequestFraming};
use crate::message::{HeadView, Method};
use crate::propagation::RequestId;
use crate::resilience::{Circumstances, Heard, Verdict, verdict};
use crate::route::Action;
use crate::runtime::buffer::{Buf, filled};
use crate::runtime::io::{Io, Stream};
use crate::snapshot::Listener;
use crate::time::Time;
use crate::upstream::choose::{self, Choice, Target};
use crate::upstream::{Attempt, Local, LocalRule, Outcome, Upstream};
use crate::wire::Wire;

/// The next step for the client's connection after an exchange.
pub enum After<I: Io> {
    /// The connection serves the next request. The buffer may hold its beginning.
    Next(Buf),
    /// The connection closes after the client has had time to read the answer.
    Linger,
    /// The connection closes now.
    Close,
    /// The connection is a tunnel now. The tunnel does not hold the snapshot.
    Tunnel(Box<Tunnel<I>>),
}

/// One exchange: the client, the plan for its request, and the record of it.
pub struct Exchange<'a, I: Io> {
    /// The client.
    pub downstream: &'a Downstream<I>,
    /// The values that the snapshot gives for the request.
    pub plan: &'a Plan<I>,
    /// The record.
    pub record: &'a ExchangeRecord<I>,
    /// The framing of the request.
    pub framing: RequestFraming,
    /// The request's method.
    pub method: Method,
    /// The kind of gRPC call. `None` means that the request is no gRPC call.
    pub kind: Option<Kind>,
}

impl<'a, I: Io> Exchange<'a, I> {
    /// The arguments for choosing an endpoint and a connection.
    fn target(&self) -> Target<'a, I> {
        Target {
            core: self.downstream.worker.core(),
            service: &self.plan.service,
            client: self.downstream.peer.address,
            trusted_hops: self.plan.terms.trusted_hops,
            limits: &self.plan.terms.limits,
            deadline: self.plan.deadline,
            bytes: false,
        }
    }
}

/// Serves the request whose head is in `workspace.request`, with offsets into `buf`.
pub async fn exchange<I: Io>(
    downstream: &Downstream<I>,
    workspace: &mut Workspace,
    mut buf: Buf,
) -> After<I> {
    let record;
    let planned = {
        // This block drops its reference to the snapshot at its end.
        let local = downstream.worker.local();
        let Some((listener, terms)) = downstream.listener(&local) else { return After::Close };
        record = ExchangeRecord::open(downstream, terms);
        plan_of(downstream, &local, listener, &record, workspace, &mut buf)
    };
    let request = workspace.request.view(buf.block());
    match planned {
        Planned::Unframed(refusal) => {
            Box::pin(reply::refuse(&record, downstream, request, refusal)).await
        }
        Planned::Refused(framing, refusal) => {
            let refuse =
                reply::refuse_framed(&record, downstream, workspace, framing, buf, refusal);
            Box::pin(refuse).await
        }
        Planned::Answer(framing, rule) => {
            let answer = reply::answer(&record, downstream, workspace, framing, buf, &rule);
            Box::pin(answer).await
        }
        Planned::Forward(framing, plan, kind) => {
            let method = workspace.request.method;
            let exchange =
                Exchange { downstream, plan: &plan, record: &record, framing, method, kind };
            match forward(&exchange, workspace, buf).await {
                Forwarded::Over(after) => after,
                Forwarded::Switched(switched) => {
                    After::Tunnel(Box::new(Tunnel::switched(*switched, plan, record)))
                }
            }
        }
    }
}

/// The decision about a request.
enum Planned<I: Io> {
    /// Refuse the request and close the connection, because its framing is not known.
    Unframed(Refusal),
    /// Refuse the request.
    Refused(RequestFraming, Refusal),
    /// Answer by this rule.
    Answer(RequestFraming, LocalRule),
    /// Forward the request to a service.
    Forward(RequestFraming, Plan<I>, Option<Kind>),
}

/// Makes the plan for a request.
fn plan_of<I: Io>(
    downstream: &Downstream<I>,
    local: &Local<I>,
    listener: &Listener,
    record: &ExchangeRecord<I>,
    workspace: &mut Workspace,
    buf: &mut Buf,
) -> Planned<I> {
    let original = plan::original_service(downstream, local, listener);
    let spelled = match local.snapshot.is_guarded() {
        true => guard::normalise_path(listener.escaped_slashes, workspace, buf),
        false => Ok(()),
    };
    let request = workspace.request.view(buf.block());
    record.set_request(request);
    let framing = match spelled.and_then(|()| framing::request(request)) {
        Ok(framing) => framing,
        Err(refusal) => return Planned::Unframed(refusal),
    };
    let rule = match plan::rule(downstream, listener, request) {
        Ok(rule) => local.rule(rule),
        Err(refusal) => return Planned::Refused(framing, refusal),
    };
    record.set_rule(rule);
    let destination = match &rule.action {
        Action::Forward(split) => Some(split.next(downstream.worker.index)),
        Action::Redirect(_) | Action::Respond(_) => None,
    };
    let service = destination.and_then(|to| local.service(to, original.as_ref()));
    let token = match guard::admit(downstream, local, listener, record, rule, service, request) {
        Ok(token) => token,
        Err(refusal) => return Planned::Refused(framing, refusal),
    };
    let (Some(destination), Some(service)) = (destination, service) else {
        return Planned::Answer(framing, Rc::clone(rule));
    };
    record.set_service(service);
    let is_grpc = |kind: &Kind| !kind.is_web() || service.config.protocol == Protocol::Grpc;
    let kind = record.kind().filter(is_grpc);
    let asked = kind.and_then(|_| request.value(b"grpc-timeout")).and_then(grpc::parse_timeout);
    let timeouts = [rule.timeout.or(service.config.timeout), asked];
    let timeout = timeouts.into_iter().flatten().min();
    let plan = Plan {
        terms: Rc::clone(record.terms()),
        rule: Rc::clone(rule),
        service: Rc::clone(service),
        subset: destination.subset as usize,
        token,
        deadline: timeout.map_or(Time::NEVER, |timeout| record.began + timeout),
    };
    Planned::Forward(framing, plan, kind)
}

/// A request to an endpoint. It can be sent again if only the part of its body was read that came
/// with its head.
struct Outgoing<'b> {
    /// The client's buffer.
    buf: &'b Buf,
    /// The range of the buffer that holds the beginning of the body.
    first: Range<usize>,
    /// The trailer lines, if the body is complete and ends with its stream.
    ended: Option<Vec<u8>>,
    /// Whether the whole body was read.
    whole: bool,
    /// Whether the rest of the body is read from the client.
    streamed: bool,
    /// Bytes read after the body: the beginning of the client's next request.
    beyond: Option<Buf>,
    /// The request id that the proxy made, if the request had none.
    request_id: Option<RequestId>,
}

impl<'b> Outgoing<'b> {
    /// The request whose body begins in `buf` after its head.
    fn new<I: Io>(
        exchange: &Exchange<'_, I>,
        request: HeadView<'_>,
        buf: &'b Buf,
    ) -> Result<Self, Refusal> {
        let Exchange { downstream, plan, record, .. } = *exchange;
        let wants_id = plan.terms.request_id && request.value(b"x-request-id").is_none();
        let request_id =
            wants_id.then(|| RequestId::new(&mut downstream.worker.random.borrow_mut()));
        let start = request.head.start + request.head.len - buf.window().start;
        let mut body = BodyProgress::new(exchange.framing.body);
        let taken = body.take(&buf.data()[start..], &plan.terms.limits.message)?;
        record.received(taken as u64);
        let ended = downstream.stream.ended().then(|| downstream.stream.take_trailers());
        let whole = body.is_done() || ended.is_some();
        let first = start..start + taken;
        Ok(Self { buf, first, ended, whole, streamed: false, beyond: None, request_id })
    }

    /// Whether the whole request was read, and the bytes after it are available. Only then can the
    /// connection serve another request.
    fn is_read(&self) -> bool {
        self.whole && (!self.streamed || self.beyond.is_some())
    }
}

/// The result of forwarding.
enum Forwarded<I: Io> {
    /// The exchange is over.
    Over(After<I>),
    /// The connection is a tunnel now.
    Switched(Box<Switched<I>>),
}

/// A connection that has become a tunnel.
pub struct Switched<I: Io> {
    /// The connection to the endpoint.
    pub upstream: Upstream<Wire<I::Stream>>,
    /// The attempt at the endpoint.
    pub attempt: Attempt<I>,
    /// Bytes that the client sent after its request.
    pub early_request: Option<Buf>,
    /// Bytes that the endpoint sent after the head of its response.
    pub early_response: Option<Buf>,
}

async fn forward<I: Io>(
    exchange: &Exchange<'_, I>,
    workspace: &mut Workspace,
    buf: Buf,
) -> Forwarded<I> {
    let Exchange { downstream, record, .. } = *exchange;
    let request = workspace.request.view(buf.block());
    let choice = Choice::new(&exchange.target(), exchange.plan.subset, Some(request));
    let mut outgoing = match Outgoing::new(exchange, request, &buf) {
        Ok(outgoing) => outgoing,
        Err(refusal) => {
            let refuse = reply::refuse(record, downstream, request, refusal);
            return Forwarded::Over(Box::pin(refuse).await);
        }
    };
    record.set_request_id(outgoing.request_id);
    let result = send(exchange, choice, workspace, &mut outgoing).await;
    let request = workspace.request.view(buf.block());
    let keep = match result {
        Ok(Answered::Done { keep }) => keep,
        Ok(Answered::Switched { upstream, attempt, early }) => {
            let sent_early = &buf.data()[outgoing.first.end..];
            let buffers = downstream.worker.io.buffers();
            let early_request = (!sent_early.is_empty())
                .then(|| filled(buffers.take_sized(sent_early.len()), sent_early));
            let early_response = (!early.is_empty()).then_some(early);
            let switched = Switched { upstream, attempt, early_request, early_response };
            return Forwarded::Switched(Box::new(switched));
        }
        Err(Failure::Refused(refusal)) => {
            let keep = exchange.framing.keep_alive && outgoing.is_read();
            let send = reply::send_refusal(record, downstream, request, refusal, keep);
            Box::pin(send).await
        }
        Err(Failure::Late | Failure::Broken) => {
            // A body that ends with the connection must not look complete, so the client gets a
            // reset.
            downstream.stream.reset_on_close();
            if let (Some(_), Wire::Client(stream)) = (exchange.kind, &downstream.stream) {
                stream.cancel_on_close();
            }
            return Forwarded::Over(After::Close);
        }
    };
    let (whole, consumed, beyond) = (outgoing.is_read(), outgoing.first.end, outgoing.beyond);
    let beyond = beyond.unwrap_or_else(|| {
        let mut buf = buf;
        buf.consume(consumed);
        buf
    });
    // A client that did not ask to close may already send its next request. Closing then would
    // cause a reset, and the client could lose the answer (RFC 9112 9.6).
    let expected = whole && beyond.is_empty() && !exchange.framing.keep_alive;
    Forwarded::Over(match keep {
        true => After::Next(beyond),
        false if expected => After::Close,
        false => After::Linger,
    })
}

/// Sends the request to an endpoint and relays the response. Repeats this if the verdict says so.
async fn send<I: Io>(
    exchange: &Exchange<'_, I>,
    mut choice: Choice<I>,
    workspace: &mut Workspace,
    outgoing: &mut Outgoing<'_>,
) -> Result<Answered<I>, Failure> {
    let core = exchange.downstream.worker.core();
    let mut repeats = 0;
    loop {
        let taken =
            match exchange.downstream.private.take(&exchange.plan.service, exchange.plan.subset) {
                Some(upstream) => Ok(choice.again(core, upstream)),
                None => choose::connection(&exchange.target(), &mut choice).await,
            };
        if let Some(endpoint) = choice.tried.take() {
            exchange.record.set_endpoint(endpoint);
        }
        let (upstream, attempt) = taken.map_err(Failure::Refused)?;
        let carried = carry(exchange, workspace, outgoing, &upstream, repeats).await;
        if let Some(answered) = conclude(exchange, upstream, attempt, carried)? {
            return Ok(answered);
        }
        repeats += 1;
        choice.fresh = true;
        exchange.plan.service.config.stats.worker(core.index).repeated.increment();
    }
}

/// Ends an attempt, and returns its connection to the pool if possible. Converts the result of
/// [`carry`].
fn conclude<I: Io>(
    exchange: &Exchange<'_, I>,
    upstream: Upstream<Wire<I::Stream>>,
    attempt: Attempt<I>,
    carried: Result<Option<Downloaded>, Failure>,
) -> Result<Option<Answered<I>>, Failure> {
    let now = exchange.downstream.worker.io.now();
    match carried {
        Ok(Some(Downloaded::Done { keep, reusable })) => {
            exchange.record.ended(now);
            attempt.finish(now, Outcome::Answered(exchange.record.status()));
            let service = &exchange.plan.service;
            match reusable {
                // A stream has no connection of its own; HTTP/2 does not know these schemes.
                true if upstream.private.get() && !upstream.is_stream() => {
                    exchange.downstream.private.keep(service, exchange.plan.subset, upstream);
                }
                true if service.config.send_proxy_protocol.is_none() => upstream.release(now),
                _ => {}
            }
            Ok(Some(Answered::Done { keep }))
        }
        Ok(Some(Downloaded::Switched { early })) => {
            Ok(Some(Answered::Switched { upstream, attempt, early }))
        }
        Ok(None) => {
            // That a kept connection ended says nothing about the latency of the endpoint.
            let outcome = if upstream.reused { Outcome::Broken } else { Outcome::Failed };
            attempt.finish(now, outcome);
            Ok(None)
        }
        Err(failure) => {
            let flag = match &failure {
                Failure::Refused(refusal) => Some(refusal.flag),
                Failure::Late | Failure::Broken => exchange.record.flag(),
            };
            // Do not count a failure of the endpoint if the client disconnected.
            if flag.is_some_and(Flag::blames_endpoint) {
                attempt.finish(now, Outcome::Failed);
            }
            Err(failure)
        }
    }
}

/// Sends the request, and relays the response if the verdict passes it. Returns `None` when the
/// request must be sent again.
async fn carry<I: Io>(
    exchange: &Exchange<'_, I>,
    workspace: &mut Workspace,
    outgoing: &mut Outgoing<'_>,
    upstream: &Upstream<Wire<I::Stream>>,
    repeats: usize,
) -> Result<Option<Downloaded>, Failure> {
    let Exchange { downstream, plan, record, .. } = *exchange;
    let request = workspace.request.view(outgoing.buf.block());
    let (scratch, request_id) = (&mut workspace.scratch, outgoing.request_id.as_ref());
    put_head(exchange, upstream, scratch, request, request_id);
    let first = &outgoing.buf.data()[outgoing.first.clone()];
    let portion = filled(downstream.worker.io.buffers().take_sized(first.len()), first);
    let mut body = BodyTransform::new(exchange.framing.body, upstream.stream.version())
        .of_call(exchange.kind.map(CallBody::request));
    let taken = body.take(portion, outgoing.ended.clone(), &plan.terms.limits.message);
    let (portion, taken) = taken.map_err(Failure::Refused)?;
    record.set_request_messages(body.messages());
    let _using = downstream.using(&plan.service, upstream);
    let idle_deadline = record.began + plan.terms.timeouts.body_idle;
    upstream.alarm.set(plan.deadline.min(idle_deadline));
    let end = taken.last.then(|| body.trailers());
    let sent = {
        let write = pin!(upstream.stream.write_message(&workspace.scratch, portion, end));
        upstream.alarm.guard(write).await
    };
    let Ok((sent, _)) = sent else { return Err(Failure::Refused(download::TIMED_OUT)) };
    let between = Between::default();
    if private::is_asked_for(request) {
        upstream.private.set(true);
    }
    between.uploaded.set(body.is_done());
    // If sending failed, the endpoint may have sent a response before it closed.
    let all_sent = body.is_done() || sent.is_err();
    outgoing.streamed |= !all_sent;
    let circumstances = Circumstances {
        reused: upstream.reused,
        idempotent: exchange.method.is_idempotent(),
        replayable: !outgoing.streamed,
        repeats,
    };
    match all_sent {
        true => respond(exchange, workspace, upstream, &between, circumstances).await,
        false => {
            let down = respond(exchange, workspace, upstream, &between, circumstances);
            Box::pin(both_ways(exchange, (outgoing, &mut body), upstream, &between, down)).await
        }
    }
}

/// Reads the head of the response, gets the verdict, and relays the response if it passes. Returns
/// `None` when the request must be sent again.
async fn respond<I: Io>(
    exchange: &Exchange<'_, I>,
    workspace: &mut Workspace,
    upstream: &Upstream<Wire<I::Stream>>,
    between: &Between,
    circumstances: Circumstances,
) -> Result<Option<Downloaded>, Failure> {
    let head = download::response_head(exchange, workspace, upstream).await?;
    let heard = match &head {
        download::ResponseHead::Complete { .. } => Heard::Head(workspace.response.status),
        download::ResponseHead::Unprocessed => Heard::Unprocessed,
        download::ResponseHead::Silence => Heard::Silence,
    };
    match (verdict(heard, circumstances), head) {
        (Verdict::PassOn, download::ResponseHead::Complete { buf, framing }) => {
            let relay = download::relay(exchange, workspace, upstream, between, buf, framing);
            Ok(Some(match relay.await? {
                Downloaded::Done { keep, reusable } => {
                    Downloaded::Done { keep, reusable: reusable && between.uploaded.get() }
                }
                switched @ Downloaded::Switched { .. } => switched,
            }))
        }
        (Verdict::Refuse(refusal), _) => Err(Failure::Refused(refusal)),
        (Verdict::Repeat | Verdict::PassOn, _) => Ok(None),
    }
}

/// Sends the rest of the request body. The response may arrive at the same time.
async fn both_ways<I: Io>(
    exchange: &Exchange<'_, I>,
    (outgoing, body): (&mut Outgoing<'_>, &mut BodyTransform),
    upstream: &Upstream<Wire<I::Stream>>,
    between: &Between,
    down: impl Future<Output = Result<Option<Downloaded>, Failure>>,
) -> Result<Option<Downloaded>, Failure> {
    let mut up = pin!(upload::run(exchange, body, upstream, between));
    let mut down = pin!(down);
    let mut upload_over = false;
    poll_fn(|context| {
        if !upload_over && let Poll::Ready(end) = up.as_mut().poll(context) {
            upload_over = true;
            match end {
                UploadEnd::Done(rest) => {
                    outgoing.whole = true;
                    outgoing.beyond = Some(rest);
                }
                UploadEnd::EndpointClosed => {}
                UploadEnd::Failed(failure) => return Poll::Ready(Err(failure)),
            }
        }
        down.as_mut().poll(context)
    })
    .await
}

/// State that the two directions of an exchange share.
#[derive(Default)]
pub struct Between {
    /// The whole request was sent.
    pub uploaded: Cell<bool>,
    /// The beginning of the response was sent to the client.
    pub answered: Cell<bool>,
}

/// The result of an exchange with an endpoint.
enum Answered<I: Io> {
    /// The client has the complete response.
    Done {
        /// Whether the client's connection may serve another request.
        keep: bool,
    },
    /// The connection is a tunnel now.
    Switched {
        /// The connection to the endpoint.
        upstream: Upstream<Wire<I::Stream>>,
        /// The attempt at the endpoint.
        attempt: Attempt<I>,
        /// Bytes that the endpoint sent after the head of its response.
        early: Buf,
    },
}
