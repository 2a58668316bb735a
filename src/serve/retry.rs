//! Retries of failed requests, according to the retry policy.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::time::Duration;

use super::breaker;
use super::download::{self, Failure, ResponseHead};
use super::exchange::Exchange;
use super::outgoing::Outgoing;
use super::send::Between;
use super::worker::Worker;
use super::workspace::Drafts;
use crate::cluster::Service;
use crate::error::{Flag, Refusal};
use crate::grpc::{self, Code};
use crate::message::HeadView;
use crate::resilience::{Asked, Failed, Repeatable, Response, RetryBudget, RetryPolicy, Slot};
use crate::runtime::buffer::Buf;
use crate::runtime::io::Io;

/// The attempts of a request so far, beyond the first one.
#[derive(Default)]
pub struct Tries {
    /// How often the request was repeated because its connection was dead.
    pub repeats: usize,
    /// How often the request was retried by the retry policy.
    pub retries: u32,
    /// Whether the request was sent to a second endpoint because the first one was slow.
    pub hedged: Cell<bool>,
    /// The slot of the service's circuit breaker, taken for the first retry. It is held until
    /// the response begins.
    slot: RefCell<Option<Option<Slot>>>,
}

impl Tries {
    /// The number of the next attempt, from 1.
    pub fn number(&self) -> u32 {
        self.retries + self.repeats as u32 + u32::from(self.hedged.get()) + 1
    }

    /// Releases the slot of the circuit breaker, because the response has begun.
    pub fn release(&self) {
        self.slot.take();
    }
}

/// How a request is sent again.
pub enum Again {
    /// At once, on a new connection, without the retry policy.
    Repeat,
    /// After this wait, by the retry policy.
    Retry(Duration),
}

/// Converts the result of reading the head of a response to the form for the verdict and for the
/// retry policy. Returns `None` if the client must get the failure in `head`.
pub fn ended<I: Io>(
    exchange: &Exchange<'_, I>,
    drafts: &Drafts,
    head: &Result<ResponseHead, Failure>,
    between: &Between,
) -> Option<Failed> {
    let reset = Failed::Reset { sent: between.is_sent() };
    Some(match head {
        Ok(ResponseHead::Complete { buf, trailers, .. }) => {
            let response = drafts.response.view(buf.block());
            // Without a retry policy, only the status is needed.
            Failed::Response(match exchange.plan.retries() {
                Some(policy) => facts(exchange, policy, response, trailers),
                None => Response { status: response.head.status, ..Response::default() },
            })
        }
        Ok(ResponseHead::Unprocessed) => Failed::Unprocessed,
        Ok(ResponseHead::Silence) => reset,
        Err(Failure::Refused(download::TRY_TIMED_OUT)) => Failed::Timeout,
        Err(Failure::Refused(refusal)) if refusal.flag == Flag::UpstreamConnectionTermination => {
            reset
        }
        Err(_) => return None,
    })
}

/// Decides whether the retry policy retries a request after an attempt with the result `failed`,
/// which ended with `head`. Returns the wait before the next attempt.
pub fn after_head<I: Io>(
    exchange: &Exchange<'_, I>,
    drafts: &Drafts,
    head: &Result<ResponseHead, Failure>,
    failed: Failed,
    (tries, outgoing, between): (&Tries, &Outgoing<'_, I>, &Between),
) -> Option<Duration> {
    let asked = || match head {
        Ok(ResponseHead::Complete { buf, trailers, .. }) => {
            asked(drafts.response.view(buf.block()), trailers)
        }
        _ => None,
    };
    between.replayable.get().then(|| decide(exchange, tries, outgoing, failed, asked))?
}

/// Decides whether the retry policy retries a request if no connection was available. `refusal` is
/// the reason. Returns the wait before the next attempt.
pub fn after_refusal<I: Io>(
    exchange: &Exchange<'_, I>,
    tries: &Tries,
    outgoing: &Outgoing<'_, I>,
    refusal: &Refusal,
) -> Option<Duration> {
    let failed = (refusal.flag == Flag::UpstreamConnectFailure).then_some(Failed::Connect)?;
    decide(exchange, tries, outgoing, failed, || None)
}

fn decide<I: Io>(
    exchange: &Exchange<'_, I>,
    tries: &Tries,
    outgoing: &Outgoing<'_, I>,
    failed: Failed,
    asked: impl FnOnce() -> Option<Asked>,
) -> Option<Duration> {
    let policy = exchange.plan.retries()?;
    if !covers(exchange, outgoing, failed) {
        return None;
    }
    let worker = &exchange.downstream.worker;
    let cells = exchange.plan.service.config.stats.worker(worker.index);
    if tries.retries >= policy.attempts {
        if tries.retries > 0 {
            cells.retries_exhausted.increment();
        }
        return None;
    }
    let jitter = worker.random.borrow_mut().f64();
    let wait = policy.wait(tries.retries, asked(), jitter)?;
    let now = worker.io.now();
    if now + wait >= exchange.plan.deadline {
        return None;
    }
    if !take(exchange, tries) {
        return None;
    }
    cells.retries.increment();
    Some(wait)
}

/// Takes one attempt from the retry budget and from the retry limit of the circuit breaker. Returns
/// false if one of them is exhausted.
pub fn take<I: Io>(exchange: &Exchange<'_, I>, tries: &Tries) -> bool {
    let Some(policy) = exchange.plan.retries() else { return false };
    let (service, worker) = (&exchange.plan.service.config, &exchange.downstream.worker);
    let Some(budget) = &service.retry_budget else { return false };
    let slot = match &*tries.slot.borrow() {
        Some(_) => None,
        None => match breaker::retry(service, worker.index) {
            Some(slot) => Some(slot),
            None => return false,
        },
    };
    if !within_budget(budget, service, worker, policy) {
        return false;
    }
    if let Some(slot) = slot {
        tries.slot.replace(Some(slot));
    }
    true
}

/// Takes one attempt from `budget`, the retry budget of `service`. Returns false, and counts it, if
/// the budget is exhausted.
pub fn within_budget<I: Io>(
    budget: &RetryBudget,
    service: &Service,
    worker: &Worker<I>,
    policy: &RetryPolicy,
) -> bool {
    let allowed = budget.try_retry(worker.io.now(), policy.budget_percent, policy.budget_min);
    if !allowed {
        service.stats.worker(worker.index).retries_over_budget.increment();
    }
    allowed
}

/// Whether the retry policy covers the result `failed` of an attempt.
pub fn covers<I: Io>(
    exchange: &Exchange<'_, I>,
    outgoing: &Outgoing<'_, I>,
    failed: Failed,
) -> bool {
    // Most responses meet no condition, so this comes first.
    let policy = exchange.plan.retries().filter(|policy| policy.is_met(failed));
    policy.is_some_and(|policy| {
        outgoing.has_method(|method| policy.covers(failed, repeatable(exchange, method)))
    })
}

/// Whether `policy` allows sending this request twice.
pub fn allows<I: Io>(
    exchange: &Exchange<'_, I>,
    policy: &RetryPolicy,
    outgoing: &Outgoing<'_, I>,
) -> bool {
    outgoing.has_method(|method| policy.allows(repeatable(exchange, method)))
}

fn repeatable<'m, I: Io>(exchange: &Exchange<'_, I>, method: &'m [u8]) -> Repeatable<'m> {
    let (idempotent, grpc) = (exchange.method.is_idempotent(), exchange.kind.is_some());
    Repeatable { method, idempotent, grpc }
}

/// The response fields with which a proxy reports that a limit of its circuit breaker is reached.
/// Such a response is not retried, because retries would increase the load.
const OVERLOADED_FIELDS: [&[u8]; 2] = [b"x-ringway-overloaded", b"x-envoy-overloaded"];

/// The field with the wait that a gRPC service requests (gRFC A6).
const PUSHBACK: &[u8] = b"grpc-retry-pushback-ms";

fn facts<I: Io>(
    exchange: &Exchange<'_, I>,
    policy: &RetryPolicy,
    response: HeadView<'_>,
    trailers: &[u8],
) -> Response {
    let reads_code = exchange.kind.is_some() || policy.reads_codes();
    let is_ratelimited = || response.value(b"x-envoy-ratelimited").is_some();
    Response {
        status: response.head.status,
        code: reads_code.then(|| code(response, trailers)).flatten(),
        ratelimited: policy.reads_ratelimited() && is_ratelimited(),
    }
}

/// The gRPC status of a response that has no body: in its head, or in the `trailers` that were
/// received with the head. If the response has a body, the status is in its trailers, and a field
/// in its head is ignored.
fn code(response: HeadView<'_>, trailers: &[u8]) -> Option<Code> {
    let in_head = response.value(b"grpc-status").filter(|_| response.head.ends);
    in_head.map(Code::from_value).or_else(|| Code::from_trailers(trailers))
}

fn asked(response: HeadView<'_>, trailers: &[u8]) -> Option<Asked> {
    let is_overloaded = |name: &&[u8]| response.value(name).is_some();
    if OVERLOADED_FIELDS.iter().any(is_overloaded) {
        return Some(Asked::Never);
    }
    let pushback = response.value(PUSHBACK).or_else(|| grpc::trailer(trailers, PUSHBACK));
    let pushback = pushback.map(Asked::from_pushback);
    pushback.or_else(|| response.value(b"retry-after").and_then(Asked::from_retry_after))
}

/// Waits for `wait`.
pub async fn pause<I: Io>(exchange: &Exchange<'_, I>, wait: Duration) {
    let io = &exchange.downstream.worker.io;
    let alarm = io.alarms().alarm();
    alarm.set(io.now() + wait);
    // `guard` returns when the timer expires.
    let _rang = alarm.guard(std::pin::pin!(pending::<()>())).await;
}

/// The bytes of a request body that were read after the head. They are buffered until the response
/// begins.
pub struct Replay {
    /// The bytes in the framing of the client. `None` if they are not buffered: there is no retry
    /// policy, or there are more than `max` bytes.
    bytes: RefCell<Option<Vec<u8>>>,
    max: usize,
    /// The trailer lines, if the body ended with an HTTP/2 stream.
    trailers: RefCell<Option<Vec<u8>>>,
}

impl Replay {
    /// Creates a buffer for at most `max` bytes. With `None`, nothing is buffered.
    pub fn new(max: Option<usize>) -> Self {
        Self {
            bytes: RefCell::new(max.map(|_| Vec::new())),
            max: max.unwrap_or_default(),
            trailers: RefCell::default(),
        }
    }

    /// Buffers `read`, the next bytes from the client. They may end with a part of the client's
    /// next request.
    pub fn keep(&self, read: &[u8]) {
        let mut bytes = self.bytes.borrow_mut();
        let fits = |kept: &Vec<u8>| kept.len() + read.len() <= self.max;
        *bytes = bytes.take().filter(fits);
        if let Some(kept) = &mut *bytes {
            kept.extend_from_slice(read);
        }
    }

    /// Drops the buffered bytes, and buffers no more.
    pub fn stop(&self) {
        self.bytes.take();
    }

    /// Ends the body: the last `excess` buffered bytes do not belong to it.
    pub fn end(&self, excess: usize, trailers: Option<&[u8]>) {
        if let Some(kept) = &mut *self.bytes.borrow_mut() {
            kept.truncate(kept.len() - excess);
        }
        *self.trailers.borrow_mut() = trailers.map(<[u8]>::to_vec);
    }

    /// Whether all bytes that were read are buffered.
    pub fn is_whole(&self) -> bool {
        self.bytes.borrow().is_some()
    }

    /// Appends the buffered bytes to `body`.
    pub fn append_to(&self, body: &mut Buf) {
        body.append(self.bytes.borrow().as_deref().unwrap_or_default());
    }

    /// The number of buffered bytes.
    pub fn len(&self) -> usize {
        self.bytes.borrow().as_ref().map_or(0, Vec::len)
    }

    /// The trailer lines, if the body ended with an HTTP/2 stream.
    pub fn trailers(&self) -> Option<Vec<u8>> {
        self.trailers.borrow().clone()
    }
}
