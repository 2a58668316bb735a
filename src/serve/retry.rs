//! Sends a failed request again, as the retry policy says.

use std::cell::{OnceCell, RefCell};
use std::future::pending;
use std::time::Duration;

use super::breaker;
use super::download::{self, Failure, ResponseHead};
use super::exchange::Exchange;
use super::outgoing::Outgoing;
use super::send::Between;
use super::workspace::Drafts;
use crate::error::{Flag, Refusal};
use crate::grpc::{self, Code};
use crate::message::HeadView;
use crate::resilience::{Asked, Failed, Repeatable, Response, Slot};
use crate::runtime::buffer::Buf;
use crate::runtime::io::Io;

/// The attempts of a request so far.
#[derive(Default)]
pub struct Tries {
    /// How often the request was sent again because a connection had died.
    pub repeats: usize,
    /// How often the request was sent again by the policy.
    pub retries: u32,
    /// The slot of the service's circuit breaker, from the first retry on.
    slot: OnceCell<Option<Slot>>,
}

impl Tries {
    /// The number of the next attempt, from 1.
    pub fn number(&self) -> u32 {
        self.retries + self.repeats as u32 + 1
    }
}

/// How the request is sent again.
pub enum Again {
    /// At once, on a new connection.
    Repeat,
    /// After this wait, by the policy.
    Retry(Duration),
}

/// The end of an attempt that ended with `head`, for the verdict and for the policy. Returns `None`
/// if the client must get the failure in `head`.
pub fn ended<I: Io>(
    exchange: &Exchange<'_, I>,
    drafts: &Drafts,
    head: &Result<ResponseHead, Failure>,
    between: &Between,
) -> Option<Failed> {
    let reset = Failed::Reset { sent: between.uploaded.get() && !between.broken.get() };
    Some(match head {
        Ok(ResponseHead::Complete { buf, trailers, .. }) => {
            let response = drafts.response.view(buf.block());
            // Without a policy, the status alone is enough.
            Failed::Response(match exchange.plan.retries() {
                Some(_) => facts(response, trailers),
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

/// Decides whether the policy sends a request again after an attempt that has `failed` and ended
/// with `head`. Returns the wait before the next attempt.
pub fn after_head<I: Io>(
    exchange: &Exchange<'_, I>,
    drafts: &Drafts,
    head: &Result<ResponseHead, Failure>,
    failed: Failed,
    (tries, outgoing, between): (&Tries, &Outgoing<'_, I>, &Between),
) -> Option<Duration> {
    exchange.plan.retries()?;
    let asked = match head {
        Ok(ResponseHead::Complete { buf, trailers, .. }) => {
            asked(drafts.response.view(buf.block()), trailers)
        }
        _ => None,
    };
    between.replayable.get().then(|| decide(exchange, tries, outgoing, failed, asked))?
}

/// Decides whether the policy sends a request again after no connection was available because of
/// `refusal`. Returns the wait before the next attempt.
pub fn after_refusal<I: Io>(
    exchange: &Exchange<'_, I>,
    tries: &Tries,
    outgoing: &Outgoing<'_, I>,
    refusal: &Refusal,
) -> Option<Duration> {
    let failed = (refusal.flag == Flag::UpstreamConnectFailure).then_some(Failed::Connect)?;
    decide(exchange, tries, outgoing, failed, None)
}

fn decide<I: Io>(
    exchange: &Exchange<'_, I>,
    tries: &Tries,
    outgoing: &Outgoing<'_, I>,
    failed: Failed,
    asked: Option<Asked>,
) -> Option<Duration> {
    let policy = exchange.plan.retries()?;
    let budget = exchange.plan.service.config.retry_budget.as_ref()?;
    let idempotent = exchange.method.is_idempotent();
    let grpc = exchange.kind.is_some();
    let covers = |method: &[u8]| policy.covers(failed, Repeatable { method, idempotent, grpc });
    if !outgoing.has_method(covers) {
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
    let wait = policy.wait(tries.retries, asked, jitter)?;
    let now = worker.io.now();
    if now + wait >= exchange.plan.deadline {
        return None;
    }
    let slot = match tries.slot.get() {
        Some(_) => None,
        None => Some(breaker::retry(&exchange.plan.service.config, worker.index)?),
    };
    if !budget.try_retry(now, policy.budget_percent, policy.budget_min) {
        cells.retries_over_budget.increment();
        return None;
    }
    if let Some(slot) = slot {
        tries.slot.get_or_init(|| slot);
    }
    cells.retries.increment();
    Some(wait)
}

/// The fields by which a proxy says that a limit of its circuit breaker is reached. A retry would
/// add to the load.
const OVERLOADED_FIELDS: [&[u8]; 2] = [b"x-ringway-overloaded", b"x-envoy-overloaded"];

/// The wait that a gRPC service asks for (gRFC A6).
const PUSHBACK: &[u8] = b"grpc-retry-pushback-ms";

fn facts(response: HeadView<'_>, trailers: &[u8]) -> Response {
    Response {
        status: response.head.status,
        code: code(response, trailers),
        ratelimited: response.value(b"x-envoy-ratelimited").is_some(),
    }
}

/// The code of a gRPC call whose response consists of it alone: in the head, or in the `trailers`
/// that came with it. A code beside a body may be anything; such a call ends with its trailers.
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

/// Waits because of a limit on bytes.
pub async fn pause<I: Io>(exchange: &Exchange<'_, I>, wait: Duration) {
    let io = &exchange.downstream.worker.io;
    let alarm = io.alarms().alarm();
    alarm.set(io.now() + wait);
    // The alarm ends the wait.
    let _rang = alarm.guard(std::pin::pin!(pending::<()>())).await;
}

/// The bytes of a request body that were read after the head, kept until the response begins.
pub struct Replay {
    /// The bytes as the client sent them, in its framing. `None` means that they are not kept:
    /// there is no policy, or they are more than `max`.
    bytes: RefCell<Option<Vec<u8>>>,
    max: usize,
    /// The trailer lines at the end of a stream of HTTP/2.
    trailers: RefCell<Option<Vec<u8>>>,
}

impl Replay {
    /// Keeps at most `max` bytes. `None` keeps nothing.
    pub fn new(max: Option<usize>) -> Self {
        Self {
            bytes: RefCell::new(max.map(|_| Vec::new())),
            max: max.unwrap_or_default(),
            trailers: RefCell::default(),
        }
    }

    /// Keeps `read`, the next bytes of the client. The last of them may belong to its next request.
    pub fn keep(&self, read: &[u8]) {
        let mut bytes = self.bytes.borrow_mut();
        let fits = |kept: &Vec<u8>| kept.len() + read.len() <= self.max;
        *bytes = bytes.take().filter(fits);
        if let Some(kept) = &mut *bytes {
            kept.extend_from_slice(read);
        }
    }

    /// Keeps nothing any more.
    pub fn stop(&self) {
        self.bytes.take();
    }

    /// Ends the body: the last `excess` bytes are not a part of it.
    pub fn end(&self, excess: usize, trailers: Option<&[u8]>) {
        if let Some(kept) = &mut *self.bytes.borrow_mut() {
            kept.truncate(kept.len() - excess);
        }
        *self.trailers.borrow_mut() = trailers.map(<[u8]>::to_vec);
    }

    /// Whether all bytes that were read are at hand.
    pub fn is_whole(&self) -> bool {
        self.bytes.borrow().is_some()
    }

    /// Appends the kept bytes to `body`.
    pub fn append_to(&self, body: &mut Buf) {
        body.append(self.bytes.borrow().as_deref().unwrap_or_default());
    }

    /// The number of kept bytes.
    pub fn len(&self) -> usize {
        self.bytes.borrow().as_ref().map_or(0, Vec::len)
    }

    /// The trailer lines, if the body ended with a stream of HTTP/2.
    pub fn trailers(&self) -> Option<Vec<u8>> {
        self.trailers.borrow().clone()
    }
}
