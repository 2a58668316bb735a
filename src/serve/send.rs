//! Sends a request to endpoints, and relays the response: the attempts of an exchange.
//!
//! Each attempt gets a connection, sends the request, and reads the head of the response. Then the
//! verdict is to relay the response, to send the request again, or to refuse it.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::body::{BodyTransform, CallBody};
use super::breaker;
use super::download::{self, Downloaded, Failure, ResponseHead};
use super::exchange::Exchange;
use super::fault;
use super::hedge::{self, First, Raced, Second};
use super::outgoing::Outgoing;
use super::record::ExchangeRecord;
use super::relay;
use super::retry::{self, Again, Tries};
use super::upload::{self, UploadEnd};
use super::workspace::Drafts;
use crate::error::{Flag, Refusal};
use crate::grpc::Code;
use crate::resilience::{Circumstances, Failed, REPEATS_MAX, Response, Verdict, verdict};
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Io, Stream};
use crate::time::Time;
use crate::upstream::choose::{self, Begun, Choice};
use crate::upstream::{Attempt, Outcome, Upstream, is_misdirected, served};
use crate::wire::Wire;

/// Sends the request to an endpoint, and relays the response. Sends the request again if the
/// verdict or the retry policy says so.
pub async fn send<I: Io>(
    exchange: &Exchange<'_, I>,
    mut choice: Choice<I>,
    drafts: &mut Drafts,
    outgoing: &Outgoing<'_, I>,
) -> Result<Answered<I>, Failure> {
    if let Some(limiters) = &exchange.plan.limiters {
        Box::pin(outgoing.ask_limiters(exchange, limiters)).await?;
    }
    relay::throttle_first(exchange, outgoing.first_bytes()).await?;
    if let Some(fault) = &exchange.plan.fault {
        Box::pin(fault::inject(exchange, fault)).await?;
    }
    breaker::depart(exchange)?;
    if exchange.plan.mirror.is_some() {
        outgoing.mirror(exchange);
    }
    let core = exchange.downstream.worker.core();
    let mut tries = Tries::default();
    loop {
        exchange.record.attempted(exchange.downstream.worker.io.recent());
        let taken =
            match exchange.downstream.private.take(&exchange.plan.service, exchange.plan.subset) {
                Some(upstream) => Ok(choice.again(core, upstream)),
                None => connection(exchange, &mut choice).await?,
            };
        let tried = choice.tried.take();
        if let Some(endpoint) = &tried {
            exchange.record.set_endpoint(Rc::clone(endpoint));
        }
        let again = match taken {
            Ok((upstream, attempt)) => {
                match carry(exchange, drafts, outgoing, &upstream, (&tries, &choice)).await {
                    Ok(Carried::Again(again, outcome)) => {
                        let now = core.io.now();
                        exchange.record.tried(now, Some(outcome));
                        attempt.finish(now, outcome);
                        again
                    }
                    Ok(Carried::Overtaken(second, outcome)) => {
                        drop(upstream);
                        let now = core.io.now();
                        exchange.record.tried(now, Some(outcome));
                        attempt.finish(now, outcome);
                        return Box::pin(hedge::relay(exchange, outgoing, *second)).await;
                    }
                    Ok(Carried::Downloaded(downloaded)) => {
                        return answered(exchange, upstream, attempt, Ok(downloaded));
                    }
                    Err(failure) => return answered(exchange, upstream, attempt, Err(failure)),
                }
            }
            Err(refusal) => {
                let wait = retry::after_refusal(exchange, &tries, outgoing, &refusal);
                let wait = wait.ok_or(Failure::Refused(refusal))?;
                exchange.record.tried(core.io.now(), None);
                Again::Retry(wait)
            }
        };
        match again {
            Again::Repeat => {
                tries.repeats += 1;
                choice.fresh = true;
                exchange.plan.service.config.stats.worker(core.index).repeated.increment();
            }
            Again::Retry(wait) => {
                tries.retries += 1;
                choice.failed.extend(tried);
                Box::pin(pause(exchange, wait)).await?;
            }
        }
    }
}

/// Waits before a retry. Meanwhile the request is at no endpoint, so it needs no slot in the
/// adaptive concurrency limit.
async fn pause<I: Io>(exchange: &Exchange<'_, I>, wait: Duration) -> Result<(), Failure> {
    if wait.is_zero() {
        return Ok(());
    }
    drop(exchange.plan.places.flight.take());
    let end = exchange.downstream.worker.io.now() + wait;
    let left = "the client left while its request waited for a retry";
    // The wait ends before the deadline: otherwise there would be no retry.
    let _in_time = relay::wait_until(exchange, end, left).await?;
    breaker::depart(exchange)
}

/// Gets a connection to an endpoint for the request.
///
/// # Errors
/// If the client disconnects while its request waits for a connection.
async fn connection<I: Io>(
    exchange: &Exchange<'_, I>,
    choice: &mut Choice<I>,
) -> Result<Result<Begun<I>, Refusal>, Failure> {
    let target = exchange.target();
    let mut connecting = pin!(choose::connection(&target, choice));
    let first = poll_fn(|context| Poll::Ready(connecting.as_mut().poll(context))).await;
    if let Poll::Ready(taken) = first {
        return Ok(taken);
    }
    let began = exchange.downstream.worker.io.now();
    let alarm = exchange.downstream.worker.io.alarms().alarm();
    let wait = relay::await_endpoint(exchange, &alarm, began, Time::NEVER, connecting);
    let detail = "the client left while its request waited for a connection";
    Box::pin(wait).await.map_err(|_| relay::client_left(exchange, detail))
}

/// Ends the last attempt of a request, and returns its connection to the pool if possible.
///
/// # Errors
/// If there is no complete response.
pub fn answered<I: Io>(
    exchange: &Exchange<'_, I>,
    upstream: Upstream<Wire<I::Stream>>,
    attempt: Attempt<I>,
    downloaded: Result<Downloaded, Failure>,
) -> Result<Answered<I>, Failure> {
    let now = exchange.downstream.worker.io.now();
    match downloaded {
        Ok(Downloaded::Done { keep, reusable }) => {
            exchange.record.ended(now);
            // A stream may last until its deadline. This is not a failure of an endpoint that has
            // begun its response, as in Envoy.
            let is_in_time = now < exchange.plan.deadline;
            let code = exchange.record.code().filter(|_| is_in_time);
            attempt.finish(now, answer_of(exchange, exchange.record.status(), code));
            let service = &exchange.plan.service;
            match reusable {
                // A private connection is never an HTTP/2 connection: its streams share one
                // connection, and NTLM and Negotiate do not work over HTTP/2.
                true if upstream.private.get() && !upstream.is_stream() => {
                    exchange.downstream.private.keep(service, exchange.plan.subset, upstream);
                }
                true if service.config.send_proxy_protocol.is_none() => upstream.release(now),
                _ => {}
            }
            Ok(Answered::Done { keep })
        }
        Ok(Downloaded::Switched { early }) => Ok(Answered::Switched { upstream, attempt, early }),
        Err(failure) => {
            let flag = match &failure {
                Failure::Refused(refusal) => Some(refusal.flag),
                Failure::Late | Failure::Broken => exchange.record.flag(),
            };
            let is_late = matches!(failure, Failure::Late) && now >= exchange.plan.deadline;
            let is_ours = flag == Some(Flag::UpstreamTimeout)
                && (relay::is_late_by_itself(exchange)
                    || exchange.record.is_hurried(now)
                    || is_late && exchange.kind.is_some());
            // It is not a failure of the endpoint if the client has disconnected, if the client has
            // given too little time, if the proxy itself has slowed down the exchange, or if the
            // deadline of a gRPC call has ended its stream.
            if flag.is_some_and(Flag::blames_endpoint) && !is_ours {
                attempt.finish(now, Outcome::Failed);
            }
            Err(failure)
        }
    }
}

/// The result of an attempt that does not end the exchange with an error.
enum Carried<I: Io> {
    /// The response was relayed.
    Downloaded(Downloaded),
    /// A hedged attempt at a second endpoint was faster. The outcome is that of the first attempt.
    Overtaken(Box<Second<I>>, Outcome),
    /// The request must be sent again. The outcome is that of this attempt.
    Again(Again, Outcome),
}

/// Sends the request. Relays the response, unless the request must be sent again.
async fn carry<I: Io>(
    exchange: &Exchange<'_, I>,
    drafts: &mut Drafts,
    outgoing: &Outgoing<'_, I>,
    upstream: &Upstream<Wire<I::Stream>>,
    (tries, choice): (&Tries, &Choice<I>),
) -> Result<Carried<I>, Failure> {
    let Exchange { downstream, plan, record, .. } = exchange;
    let between = Between::begin(exchange, tries.number());
    let mut body = body_for(exchange, upstream);
    let _using = downstream.using(&plan.service, upstream, record);
    if !begin(exchange, drafts, outgoing, upstream, &between, &mut body).await? {
        let now = downstream.worker.io.now();
        let refusal = match (now >= between.try_deadline.get(), now >= plan.deadline) {
            (true, _) => download::TRY_TIMED_OUT,
            (_, true) => download::TIMED_OUT,
            (false, false) => upload::ENDPOINT_STALLED,
        };
        let head = Err(Failure::Refused(refusal));
        let wait = retry::ended(exchange, drafts, &head, &between).and_then(|failed| {
            retry::after_head(exchange, drafts, &head, failed, (tries, outgoing, &between))
        });
        return match wait {
            Some(wait) => Ok(Carried::Again(Again::Retry(wait), Outcome::Failed)),
            None => Err(Failure::Refused(refusal)),
        };
    }
    // If sending has failed, send no more. The endpoint may have sent a response before it closed.
    let all_sent = between.replayable.get();
    if all_sent {
        between.set_sent(record, downstream.worker.io.recent());
    } else {
        outgoing.stream_rest();
    }
    let between = &between;
    let first = First { upstream, outgoing, between, tries, choice };
    let mut down = pin!(respond(exchange, drafts, first));
    let carried = match all_sent {
        true => down.await?,
        false => {
            let request = (outgoing, &mut body);
            Box::pin(both_ways(exchange, request, upstream, between, down.as_mut())).await?
        }
    };
    Ok(match carried {
        Carried::Downloaded(Downloaded::Done { keep, reusable }) => {
            let reusable = reusable && between.uploaded.get() && !between.broken.get();
            Carried::Downloaded(Downloaded::Done { keep, reusable })
        }
        other => other,
    })
}

/// The transform of the request's body for the HTTP version of `upstream`.
pub fn body_for<I: Io>(
    exchange: &Exchange<'_, I>,
    upstream: &Upstream<Wire<I::Stream>>,
) -> BodyTransform {
    BodyTransform::new(exchange.framing.body, upstream.stream.version())
        .of_call(exchange.kind.map(CallBody::request))
        .copied_to(exchange.record.body_copy(0))
}

/// Sends the head of the request and the buffered part of its body. Returns false if a time limit
/// has passed.
pub async fn begin<I: Io>(
    exchange: &Exchange<'_, I>,
    drafts: &mut Drafts,
    outgoing: &Outgoing<'_, I>,
    upstream: &Upstream<Wire<I::Stream>>,
    between: &Between,
    body: &mut BodyTransform,
) -> Result<bool, Failure> {
    let Exchange { downstream, plan, record, .. } = exchange;
    let Some(portion) = outgoing.begin(exchange, drafts, upstream, between.number) else {
        return Err(Failure::Broken); // without its buffer, the request cannot be sent
    };
    record.carried();
    let taken = body.take(portion, outgoing.trailers(), &plan.terms.limits.message);
    let (portion, taken) = taken.map_err(Failure::Refused)?;
    record.set_request_messages(body.messages());
    let idle_deadline = downstream.worker.io.recent() + plan.silence.stalled;
    let deadline = plan.deadline.min(idle_deadline).min(between.try_deadline.get());
    upstream.alarm.set(deadline);
    let end = taken.last.then(|| body.trailers());
    let write = pin!(upstream.stream.write_message(&drafts.scratch, portion, end));
    let sent = upstream.alarm.guard(write).await.map(|(sent, _)| sent);
    between.replayable.set(body.is_done() || matches!(sent, Ok(Err(_))));
    let Ok(sent) = sent else { return Ok(false) };
    between.uploaded.set(body.is_done());
    between.broken.set(sent.is_err());
    Ok(true)
}

/// Reads the head of the response. Relays the response, unless the verdict or the retry policy says
/// that the request is sent again.
async fn respond<I: Io>(
    exchange: &Exchange<'_, I>,
    drafts: &mut Drafts,
    first: First<'_, '_, I>,
) -> Result<Carried<I>, Failure> {
    let First { upstream, outgoing, between, tries, .. } = first;
    let head = match hedge::is_wanted(exchange, &first) {
        true => match Box::pin(hedge::race(exchange, drafts, first)).await {
            Raced::First(head) => head,
            Raced::Second(second, outcome) => {
                // The latency of a failed attempt is not that of the service.
                let of_first = outcome == Outcome::Outrun;
                let sent = if of_first { between.sent.get() } else { second.sent() };
                breaker::took(exchange, sent);
                tries.release();
                return Ok(Carried::Overtaken(second, outcome));
            }
        },
        false => {
            let streamed = outgoing.is_streamed();
            download::response_head(exchange, drafts, upstream, between, streamed).await
        }
    };
    breaker::answered(exchange, between.sent.get(), &head, drafts);
    if let Ok(ResponseHead::Complete { .. }) = &head
        && goes_elsewhere(exchange, drafts.response.status, upstream, (between, tries))
    {
        drafts.response.clear();
        return Ok(Carried::Again(Again::Repeat, Outcome::Answered(421, None)));
    }
    let (reused, replayable) = (upstream.reused, between.replayable.get());
    let idempotent = exchange.method.is_idempotent();
    let circumstances = Circumstances { reused, idempotent, replayable, repeats: tries.repeats };
    let failed = retry::ended(exchange, drafts, &head, between);
    let of_head = failed.filter(|_| head.is_ok());
    let verdict = of_head.map(|failed| verdict(failed, circumstances));
    if let Some(failed) = failed {
        let outcome = outcome(exchange, failed, reused && head.is_ok());
        if verdict == Some(Verdict::Repeat) {
            return Ok(Carried::Again(Again::Repeat, outcome));
        }
        let tried = (tries, outgoing, between);
        if let Some(wait) = retry::after_head(exchange, drafts, &head, failed, tried) {
            drafts.response.clear();
            return Ok(Carried::Again(Again::Retry(wait), outcome));
        }
    }
    match (verdict, head?) {
        (_, ResponseHead::Complete { buf, framing, .. }) => {
            // The response has begun. So release the slot in the adaptive concurrency limit, and
            // that of a retry.
            drop(exchange.plan.places.flight.take());
            tries.release();
            let relay =
                download::relay(exchange, drafts, outgoing, upstream, between, buf, framing);
            Ok(Carried::Downloaded(relay.await?))
        }
        (Some(Verdict::Refuse(refusal)), _) => Err(Failure::Refused(refusal)),
        (_, ResponseHead::Unprocessed | ResponseHead::Silence) => {
            Ok(Carried::Again(Again::Repeat, Outcome::Failed))
        }
    }
}

/// Whether a request with this response is sent again over TCP, because the endpoint does not serve
/// its host over the HTTP/3 that it offers. Such a request was not processed (RFC 9110 15.5.20).
fn goes_elsewhere<I: Io>(
    exchange: &Exchange<'_, I>,
    status: u16,
    upstream: &Upstream<Wire<I::Stream>>,
    (between, tries): (&Between, &Tries),
) -> bool {
    if let Some(endpoint) = exchange.misdirected.get() {
        if Rc::ptr_eq(endpoint, &upstream.endpoint) {
            served(&exchange.target(), endpoint, status);
        }
        return false;
    }
    let again = is_misdirected(&exchange.target(), upstream, status)
        && between.replayable.get()
        && tries.repeats < REPEATS_MAX;
    again && exchange.misdirected.set(Rc::clone(&upstream.endpoint)).is_ok()
}

/// The outcome of an attempt with a complete response.
fn answer_of<I: Io>(exchange: &Exchange<'_, I>, status: u16, code: Option<Code>) -> Outcome {
    match code.is_some_and(|code| exchange.record.is_excused(code)) {
        true => Outcome::Expired(status),
        false => Outcome::Answered(status, code),
    }
}

/// The outcome of the failed attempt. `stale`: the connection was reused, and ended before the
/// first byte of a response.
pub fn outcome<I: Io>(exchange: &Exchange<'_, I>, failed: Failed, stale: bool) -> Outcome {
    match failed {
        Failed::Response(Response { status, code, .. }) => {
            answer_of(exchange, status, exchange.kind.and(code))
        }
        // The endpoint may close an idle connection at any time, so this is not a failure of the
        // endpoint and not a latency.
        Failed::Unprocessed | Failed::Reset { .. } if stale => Outcome::Stale,
        _ => Outcome::Failed,
    }
}

/// The time limit for the rest of a request after the client has received the whole response. A
/// shorter timeout of the request applies, too.
const UPLOAD_TAIL_MAX: Duration = Duration::from_secs(300);

/// Sends the rest of the request body while `down` relays the response. The response may end first:
/// an endpoint may respond at once, and read the request after that.
async fn both_ways<I: Io>(
    exchange: &Exchange<'_, I>,
    (outgoing, body): (&Outgoing<'_, I>, &mut BodyTransform),
    upstream: &Upstream<Wire<I::Stream>>,
    between: &Between,
    mut down: Pin<&mut impl Future<Output = Result<Carried<I>, Failure>>>,
) -> Result<Carried<I>, Failure> {
    let mut up = pin!(upload::run(exchange, body, upstream, between, outgoing));
    let mut upload_over = false;
    let mut rest = None;
    let carried = poll_fn(|context| {
        if !upload_over && let Poll::Ready(end) = up.as_mut().poll(context) {
            upload_over = true;
            match end {
                UploadEnd::Done(buf) => rest = Some(buf),
                UploadEnd::EndpointClosed => {}
                UploadEnd::Failed(failure) => return Poll::Ready(Err(failure)),
            }
        }
        down.as_mut().poll(context)
    })
    .await?;
    if let (false, Carried::Downloaded(Downloaded::Done { .. })) = (upload_over, &carried) {
        between.downloaded.set(true);
        let mut tail = pin!(async {
            // The head of the HTTP/1.1 response has `connection: close`, so close the sending side
            // now.
            exchange.downstream.stream.shutdown_write().await;
            up.await
        });
        let io = &exchange.downstream.worker.io;
        let end = exchange.plan.deadline.min(io.now() + UPLOAD_TAIL_MAX);
        let tail = loop {
            let received = exchange.record.received_bytes();
            upstream.alarm.set(end.min(io.now() + exchange.plan.silence.request_body));
            match upstream.alarm.guard(tail.as_mut()).await {
                Err(_) if io.now() < end && relay::is_still_fed(exchange, received) => {}
                done => break done,
            }
        };
        if let Ok(UploadEnd::Done(buf)) = tail {
            rest = Some(buf);
        }
    }
    if let Some(buf) = rest {
        outgoing.end(buf);
    }
    Ok(carried)
}

/// The state of an attempt, which the two directions of its exchange share.
pub struct Between {
    /// The number of the attempt, from 1.
    pub number: u32,
    /// Whether this is the second attempt of a hedged request. It must not write to the client
    /// before its response is chosen.
    pub is_hedge: bool,
    /// The time at which the attempt must have the head of the response.
    pub try_deadline: Cell<Time>,
    /// Whether the client has received an interim response.
    pub informed: Cell<bool>,
    /// Whether the whole request was sent.
    pub uploaded: Cell<bool>,
    /// The time at which the whole request was sent.
    pub sent: Cell<Option<Time>>,
    /// Whether sending the request has failed.
    pub broken: Cell<bool>,
    /// Whether the whole request is buffered, so that it can be sent again.
    pub replayable: Cell<bool>,
    /// Whether the beginning of the response was sent to the client.
    pub answered: Cell<bool>,
    /// Whether the whole response was sent to the client.
    pub downloaded: Cell<bool>,
}

impl Between {
    /// Creates the state of the attempt `number`, which begins now.
    pub fn begin<I: Io>(exchange: &Exchange<'_, I>, number: u32) -> Self {
        let limit = exchange.plan.retries().and_then(|policy| policy.per_try_timeout);
        let deadline =
            limit.map_or(Time::NEVER, |limit| exchange.downstream.worker.io.now() + limit);
        Self {
            number,
            is_hedge: false,
            try_deadline: Cell::new(deadline),
            informed: Cell::default(),
            uploaded: Cell::default(),
            sent: Cell::default(),
            broken: Cell::default(),
            replayable: Cell::default(),
            answered: Cell::default(),
            downloaded: Cell::default(),
        }
    }

    /// Sets the time at which the whole request was sent.
    pub fn set_sent<I: Io>(&self, record: &ExchangeRecord<I>, now: Time) {
        self.sent.set(Some(now));
        record.handed_over(now);
    }

    /// Whether the whole request was sent.
    pub fn is_sent(&self) -> bool {
        self.uploaded.get() && !self.broken.get()
    }
}

/// The result of an exchange with an endpoint.
pub enum Answered<I: Io> {
    /// The client has received the complete response.
    Done {
        /// Whether the client's connection may serve another request.
        keep: bool,
    },
    /// The connection has become a tunnel.
    Switched {
        /// The connection to the endpoint.
        upstream: Upstream<Wire<I::Stream>>,
        /// The attempt, for the counters of the endpoint.
        attempt: Attempt<I>,
        /// Bytes that the endpoint sent after the head of its response.
        early: Buf,
    },
}
