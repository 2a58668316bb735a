//! Hedging: sends a slow request to a second endpoint as well. The first successful response is
//! used, and the other attempt is cancelled.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::breaker;
use super::download::{self, Failure, ResponseHead};
use super::exchange::Exchange;
use super::outgoing::Outgoing;
use super::relay;
use super::retry::{self, Tries};
use super::send::{self, Answered, Between};
use super::workspace::Drafts;
use crate::error::Flag;
use crate::http1::framing::ResponseFraming;
use crate::message::Method;
use crate::resilience::{Failed, HedgeAfter, Hedged};
use crate::runtime::alarm::Alarm;
use crate::runtime::buffer::Buf;
use crate::runtime::io::Io;
use crate::time::Time;
use crate::upstream::choose::{self, Choice};
use crate::upstream::{Attempt, LocalEndpoint, Outcome, Upstream};
use crate::wire::Wire;

type Connection<I> = Upstream<Wire<<I as Io>::Stream>>;

/// The first attempt of a hedged request.
pub struct First<'r, 'x, I: Io> {
    /// The connection to the endpoint.
    pub upstream: &'r Connection<I>,
    /// The request to send.
    pub outgoing: &'r Outgoing<'x, I>,
    /// The state of the attempt.
    pub between: &'r Between,
    /// The earlier attempts of the request.
    pub tries: &'r Tries,
    /// The endpoints that the request has used so far.
    pub choice: &'r Choice<I>,
}

/// The second attempt of a hedged request, after it has received a successful response head.
pub struct Second<I: Io> {
    upstream: Connection<I>,
    attempt: Attempt<I>,
    drafts: Drafts,
    between: Between,
    buf: Buf,
    framing: ResponseFraming,
}

impl<I: Io> Second<I> {
    /// The time at which the whole request was sent.
    pub fn sent(&self) -> Option<Time> {
        self.between.sent.get()
    }
}

/// The result of a hedged request.
pub enum Raced<I: Io> {
    /// The result of the first attempt is used.
    First(Result<ResponseHead, Failure>),
    /// The response of the second attempt is used. The outcome is that of the first attempt.
    Second(Box<Second<I>>, Outcome),
}

/// Whether the request of `first` may be hedged. The latencies of such requests also count for the
/// percentile.
pub fn is_wanted<I: Io>(exchange: &Exchange<'_, I>, first: &First<'_, '_, I>) -> bool {
    let Some(policy) = exchange.plan.retries() else { return false };
    policy.hedge.is_some()
        // A private connection belongs to the client. After an upgrade or CONNECT, the connection
        // becomes a tunnel.
        && !first.upstream.private.get()
        && !exchange.framing.upgrade
        && exchange.method != Method::Connect
        && retry::allows(exchange, policy, first.outgoing)
}

/// Reads the head of the response of `first`. If that takes too long, also sends the request to a
/// second endpoint.
pub async fn race<I: Io>(
    exchange: &Exchange<'_, I>,
    drafts: &mut Drafts,
    first: First<'_, '_, I>,
) -> Raced<I> {
    let First { upstream, outgoing, between, tries, .. } = first;
    let io = &exchange.downstream.worker.io;
    let began = io.now();
    let streamed = outgoing.is_streamed();
    let mut second: Option<Attempting<'_, I>> = None;
    let after = if tries.hedged.get() { None } else { after(exchange, began) };
    let head = {
        let head = download::response_head(exchange, drafts, upstream, between, streamed);
        let mut head = pin!(head);
        let alarm = io.alarms().alarm();
        alarm.set(after.map_or(Time::NEVER, |after| began + after));
        loop {
            match next(head.as_mut(), &mut second, between, &alarm).await {
                Next::Head(head) => break head,
                Next::Late => {
                    alarm.clear();
                    second = begin(exchange, &first);
                    if second.is_none() && !between.is_sent() {
                        // The request is not sent completely. Try again later.
                        alarm.set(after.map_or(Time::NEVER, |after| io.now() + after));
                    }
                }
                Next::Second(Some(won)) => {
                    // The first attempt counts as just as slow as the percentile. Without it, the
                    // percentile would fall; with the time so far, a hanging endpoint would raise
                    // it without end.
                    let waited = io.now().since(began);
                    observe(exchange, &first, after.map_or(waited, just_below));
                    return Raced::Second(won, Outcome::Outrun);
                }
                Next::Second(None) => second = None,
            }
        }
    };
    let failed = failure(exchange, drafts, &head, (upstream, outgoing, between));
    if failed.is_none() && head.is_ok() {
        observe(exchange, &first, io.now().since(began));
    }
    match (second, failed) {
        (Some(second), Some(outcome)) => match wait_for(exchange, second).await {
            Ok(Some(won)) => Raced::Second(won, outcome),
            Ok(None) => Raced::First(head),
            Err(failure) => Raced::First(Err(failure)),
        },
        _ => Raced::First(head),
    }
}

/// The time after which a request is hedged. `None` while too few latencies are known.
fn after<I: Io>(exchange: &Exchange<'_, I>, now: Time) -> Option<Duration> {
    match exchange.plan.retries()?.hedge? {
        HedgeAfter::Time(time) => Some(time),
        HedgeAfter::Percentile(tenths) => {
            let plan = exchange.plan;
            plan.service.latencies(plan.subset).borrow_mut().percentile(now, tenths)
        }
    }
}

/// The longest latency that a percentile of `after` covers.
fn just_below(after: Duration) -> Duration {
    after.saturating_sub(Duration::from_micros(1))
}

/// Adds the latency of the first attempt to the percentile.
fn observe<I: Io>(exchange: &Exchange<'_, I>, first: &First<'_, '_, I>, latency: Duration) {
    let hedge = exchange.plan.retries().and_then(|policy| policy.hedge);
    if let (Some(HedgeAfter::Percentile(_)), false) = (hedge, first.outgoing.is_streamed()) {
        let (now, plan) = (exchange.downstream.worker.io.now(), exchange.plan);
        plan.service.latencies(plan.subset).borrow_mut().add(now, latency);
    }
}

/// Waits for the second attempt after the first one has failed.
///
/// # Errors
/// If the client disconnects.
async fn wait_for<I: Io>(
    exchange: &Exchange<'_, I>,
    second: Attempting<'_, I>,
) -> Result<Option<Box<Second<I>>>, Failure> {
    let io = &exchange.downstream.worker.io;
    let alarm = io.alarms().alarm();
    let second = pin!(second);
    let waited = relay::await_endpoint(exchange, &alarm, io.now(), Time::NEVER, second).await;
    let detail = "the client left while its request waited for a second endpoint";
    waited.map_err(|_| relay::client_left(exchange, detail))
}

/// The outcome of a failed attempt. Returns `None` after a successful response, or if the whole
/// request has ended because the client has disconnected or the deadline has passed.
fn failure<I: Io>(
    exchange: &Exchange<'_, I>,
    drafts: &Drafts,
    head: &Result<ResponseHead, Failure>,
    (upstream, outgoing, between): (&Connection<I>, &Outgoing<'_, I>, &Between),
) -> Option<Outcome> {
    let ended = retry::ended(exchange, drafts, head, between);
    let is_good = |ended| match ended {
        Failed::Response(it) => it.status < 500 && !retry::covers(exchange, outgoing, ended),
        _ => false,
    };
    match (ended, head) {
        (Some(ended), _) if is_good(ended) => None,
        (Some(failed), _) => Some(send::outcome(exchange, failed, upstream.reused && head.is_ok())),
        (None, Err(Failure::Refused(refusal)))
            if !matches!(refusal.flag, Flag::UpstreamTimeout | Flag::StreamIdle) =>
        {
            Some(Outcome::Failed)
        }
        (None, _) => None,
    }
}

/// The next event of a hedged request.
enum Next<I: Io> {
    /// The first attempt has ended.
    Head(Result<ResponseHead, Failure>),
    /// The first attempt takes too long.
    Late,
    /// The second attempt has ended. `None` means that it has failed.
    Second(Option<Box<Second<I>>>),
}

async fn next<I: Io>(
    mut head: Pin<&mut impl Future<Output = Result<ResponseHead, Failure>>>,
    second: &mut Option<Attempting<'_, I>>,
    between: &Between,
    alarm: &Alarm,
) -> Next<I> {
    poll_fn(|context| {
        if let Poll::Ready(head) = head.as_mut().poll(context) {
            return Poll::Ready(Next::Head(head));
        }
        // An interim response shows that the first endpoint processes the request. Cancel the
        // second attempt, because only one may write to the client.
        if between.informed.get() {
            *second = None;
            return Poll::Pending;
        }
        if let Some(second) = second {
            return second.as_mut().poll(context).map(Next::Second);
        }
        alarm.poll_woken(context).map(|_| Next::Late)
    })
    .await
}

/// A second attempt in progress. Its output is `None` if it fails.
type Attempting<'r, I> = Pin<Box<dyn Future<Output = Option<Box<Second<I>>>> + 'r>>;

/// Begins the second attempt. Returns `None` if the request cannot be sent again now.
fn begin<'r, I: Io>(
    exchange: &'r Exchange<'_, I>,
    first: &First<'r, '_, I>,
) -> Option<Attempting<'r, I>> {
    let First { upstream, outgoing, between, tries, choice } = *first;
    if !between.is_sent() || !between.replayable.get() {
        return None;
    }
    let choice = choice.beside(&upstream.endpoint);
    let endpoint = choose::another(&exchange.target(), &choice)?;
    let flight = breaker::hedge(&exchange.plan.service.config, &exchange.downstream.worker)?;
    if !retry::take(exchange, tries) {
        return None;
    }
    tries.hedged.set(true);
    exchange.record.hedged();
    let number = tries.number();
    Some(Box::pin(async move {
        let second = attempt(exchange, outgoing, (choice, endpoint), number).await;
        drop(flight);
        second
    }))
}

async fn attempt<I: Io>(
    exchange: &Exchange<'_, I>,
    outgoing: &Outgoing<'_, I>,
    (mut choice, endpoint): (Choice<I>, LocalEndpoint<I>),
    number: u32,
) -> Option<Box<Second<I>>> {
    let counted = Counted { exchange, result: Cell::new(Hedged::Lost) };
    let io = &exchange.downstream.worker.io;
    let target = exchange.target();
    let opened = choose::connection_to(&target, &mut choice, endpoint).await;
    let Ok((upstream, attempt)) = opened else {
        counted.result.set(Hedged::Failed);
        return None;
    };
    let between = Between { is_hedge: true, ..Between::begin(exchange, number) };
    let mut drafts = Drafts::default();
    let mut body = send::body_for(exchange, &upstream);
    let sent = send::begin(exchange, &mut drafts, outgoing, &upstream, &between, &mut body).await;
    let head = match sent {
        Ok(true) => {
            between.sent.set(Some(io.recent()));
            download::response_head(exchange, &mut drafts, &upstream, &between, false).await
        }
        // A time limit has passed before the whole request was sent.
        Ok(false) => Err(Failure::Refused(download::TRY_TIMED_OUT)),
        Err(failure) => Err(failure),
    };
    let failed = failure(exchange, &drafts, &head, (&upstream, outgoing, &between));
    match (failed, head) {
        (None, Ok(ResponseHead::Complete { buf, framing, .. })) => {
            counted.result.set(Hedged::Won);
            Some(Box::new(Second { upstream, attempt, drafts, between, buf, framing }))
        }
        (Some(outcome), _) => {
            counted.result.set(Hedged::Failed);
            attempt.finish(io.now(), outcome);
            None
        }
        (None, _) => None,
    }
}

/// Counts the result of a hedged request when its second attempt ends.
struct Counted<'r, 'x, I: Io> {
    exchange: &'r Exchange<'x, I>,
    result: Cell<Hedged>,
}

impl<I: Io> Drop for Counted<'_, '_, I> {
    fn drop(&mut self) {
        let (plan, worker) = (self.exchange.plan, self.exchange.downstream.worker.index);
        let cells = plan.service.config.stats.worker(worker);
        cells.hedged[self.result.get().index()].increment();
    }
}

/// Relays the response of the second attempt.
pub async fn relay<I: Io>(
    exchange: &Exchange<'_, I>,
    outgoing: &Outgoing<'_, I>,
    second: Second<I>,
) -> Result<Answered<I>, Failure> {
    let Second { upstream, attempt, mut drafts, between, buf, framing } = second;
    let Exchange { downstream, plan, record, .. } = exchange;
    // The response has begun, so the request no longer waits at an endpoint. Release its slot in
    // the adaptive concurrency limit.
    drop(plan.places.flight.take());
    record.overtaken(attempt.began());
    record.set_endpoint(Rc::clone(&upstream.endpoint));
    let relayed = {
        let _using = downstream.using(&plan.service, &upstream, record);
        let relay =
            download::relay(exchange, &mut drafts, outgoing, &upstream, &between, buf, framing);
        relay.await
    };
    send::answered(exchange, upstream, attempt, relayed)
}
