//! Asks rate limit services about a request, for the global limits of its listener, its rule and
//! its service.

use std::fmt::Write as _;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use super::call::{CallError, UnaryCall};
use super::download::Failure;
use super::downstream::Downstream;
use super::exchange::Exchange;
use super::relay::{self, WaitError};
use crate::cluster::Service;
use crate::error::{Flag, Refusal};
use crate::grpc::rate_limit::{ANSWER_BYTES_MAX, Answer, Decision, SHOULD_RATE_LIMIT};
use crate::message::HeadView;
use crate::propagation::forwarded;
use crate::resilience::{Facts, GlobalLimit, Scope};
use crate::route::Rule;
use crate::runtime::io::Io;
use crate::snapshot::Listener;
use crate::time::Time;
use crate::upstream::{Local, LocalService};

/// The rate limit services of a request, by scope.
pub type Limiters<I> = [Option<Rc<LocalService<I>>>; Scope::COUNT];

/// The limits of a request, by scope.
type Limits<'a> = [Option<&'a Arc<GlobalLimit>>; Scope::COUNT];

/// The rate limit services to ask about a request. `None`: it meets no global limit. Probes do not
/// count in the limits of rules and services.
pub fn limiters<I: Io>(
    downstream: &Downstream<I>,
    local: &Local<I>,
    listener: &Listener,
    (rule, service): (&Rule, &Service),
    request: HeadView<'_>,
) -> Option<Box<Limiters<I>>> {
    let limits: Limits<'_> =
        [listener.global_limit.as_ref(), rule.global_limit.as_ref(), service.global_limit.as_ref()];
    if limits.iter().all(Option::is_none) {
        return None;
    }
    let is_probe = downstream.client(listener).is_probe(request).unwrap_or(false);
    let of = |limit: &GlobalLimit| {
        let counts = limit.scope == Scope::Listener || !is_probe;
        counts.then(|| local.service_at(limit.service as usize).map(Rc::clone))?
    };
    Some(Box::new(limits.map(|limit| limit.and_then(|limit| of(limit)))))
}

/// A question to a rate limit service: the limit, the service, and the message.
pub type Question<'a, I> = (&'a Arc<GlobalLimit>, &'a Rc<LocalService<I>>, Vec<u8>);

/// The questions about a request, by scope.
pub type Questions<'a, I> = [Option<Question<'a, I>>; Scope::COUNT];

/// Returns the questions about a request for the rate limit services in `limiters`: at most one for
/// each scope.
pub fn questions<'a, I: Io>(
    exchange: &Exchange<'a, I>,
    limiters: &'a Limiters<I>,
    request: HeadView<'_>,
) -> Questions<'a, I> {
    let plan = exchange.plan;
    let limits: Limits<'_> = [
        plan.terms.global_limit.as_ref(),
        plan.rule.global_limit.as_ref(),
        plan.service.config.global_limit.as_ref(),
    ];
    let about = About::new(exchange, request);
    let mut limiters = limiters.iter();
    limits.map(|limit| {
        let (limit, service) = (limit, limiters.next()?.as_ref()?);
        let (limit, mut message) = (limit?, Vec::new());
        limit.ask(&about, &mut message).then_some((limit, service, message))
    })
}

/// Asks rate limit services, one after the other.
///
/// # Errors
/// When the request is over a limit, or has no answer and its limit denies then. Also when the
/// client leaves or the deadline of the request passes.
pub async fn ask<I: Io>(
    exchange: &Exchange<'_, I>,
    questions: Questions<'_, I>,
) -> Result<(), Failure> {
    for (limit, service, message) in questions.into_iter().flatten() {
        ask_one(exchange, limit, service, &message).await?;
    }
    Ok(())
}

async fn ask_one<I: Io>(
    exchange: &Exchange<'_, I>,
    limit: &Arc<GlobalLimit>,
    service: &Rc<LocalService<I>>,
    message: &[u8],
) -> Result<(), Failure> {
    let worker = &exchange.downstream.worker;
    let began = worker.io.now();
    let patience = began + limit.timeout;
    let deadline = patience.min(exchange.plan.deadline);
    let call = UnaryCall {
        worker,
        service,
        limits: &exchange.plan.terms.limits,
        path: SHOULD_RATE_LIMIT,
        message,
        answer_bytes_max: ANSWER_BYTES_MAX,
        deadline,
        blamed_from: patience,
    };
    let alarm = worker.io.alarms().alarm();
    let answered = relay::await_endpoint(exchange, &alarm, began, deadline, pin!(call.run())).await;
    let answer = match answered {
        Ok(Ok(bytes)) => Answer::parse(&bytes).map_err(|_| Unanswered::Malformed),
        Ok(Err(error)) => Err(Unanswered::Failed(error)),
        Err(WaitError::Late) => Err(Unanswered::Late),
        Err(WaitError::ClientLeft) => return Err(relay::client_left(exchange, LEFT)),
    };
    let (now, cells) = (worker.io.now(), limit.stats.worker(worker.index));
    cells.duration.observe_us(now.since(began).as_micros() as u64);
    match answer {
        Ok(Answer { decision: Some(Decision::Pass), .. }) => cells.ok.increment(),
        Ok(Answer { decision: Some(Decision::OverLimit), .. }) => cells.over_limit.increment(),
        Ok(Answer { decision: None, .. }) => {
            return without_answer(exchange, limit, &Unanswered::Malformed, now);
        }
        Err(reason) => return without_answer(exchange, limit, &reason, now),
    }
    if let Ok(answer) = answer {
        let is_over = answer.decision == Some(Decision::OverLimit);
        exchange.record.set_answer(Arc::clone(limit), answer);
        if is_over {
            exchange.record.set_global_limit(limit);
            return Err(Failure::Refused(limit.over_limit()));
        }
    }
    Ok(())
}

const LEFT: &str = "the client left while the rate limit service was asked";

/// The deadline of the request has passed before the rate limit service answered.
const ASKED_TOO_LONG: Refusal = Refusal {
    status: 504,
    flag: Flag::UpstreamTimeout,
    detail: "the timeout of the request passed while the rate limit service was asked",
};

/// The reason why there is no decision.
enum Unanswered {
    Late,
    Malformed,
    Failed(CallError),
}

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Late => f.write_str("no answer within the timeout"),
            Self::Malformed => f.write_str("the answer has no decision"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

fn without_answer<I: Io>(
    exchange: &Exchange<'_, I>,
    limit: &GlobalLimit,
    reason: &Unanswered,
    now: Time,
) -> Result<(), Failure> {
    let worker = &exchange.downstream.worker;
    let cells = limit.stats.worker(worker.index);
    cells.errors.increment();
    let (service, place) = (&*limit.service_name, &*limit.place);
    worker.log_limited(|suppressed| {
        tracing::warn!(service, place, %reason, suppressed, "no answer of the rate limit service");
    });
    if now >= exchange.plan.deadline {
        return Err(Failure::Refused(ASKED_TOO_LONG));
    }
    match limit.failed() {
        Some(refusal) => {
            exchange.record.set_global_limit(limit);
            Err(Failure::Refused(refusal))
        }
        None => {
            cells.failure_mode_allowed.increment();
            Ok(())
        }
    }
}

/// The facts about a request.
struct About<'a> {
    request: HeadView<'a>,
    source: String,
    identity: Option<&'a str>,
    rule: &'a str,
    service: &'a str,
}

impl<'a> About<'a> {
    fn new<I: Io>(exchange: &'a Exchange<'_, I>, request: HeadView<'a>) -> Self {
        let (plan, peer) = (exchange.plan, &exchange.downstream.peer);
        let mut source = String::new();
        if let Some(ip) = forwarded::client(Some(request), plan.terms.trusted_hops, peer.address) {
            // Writing to a String cannot fail.
            write!(source, "{ip}").ok();
        }
        Self {
            request,
            source,
            identity: peer.identity(),
            rule: &plan.rule.name,
            service: &plan.service.config.name,
        }
    }
}

impl Facts for About<'_> {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.request.value(name.as_bytes())
    }

    fn source(&self) -> Option<&str> {
        Some(&*self.source).filter(|source| !source.is_empty())
    }

    fn identity(&self) -> Option<&str> {
        self.identity
    }

    fn method(&self) -> &[u8] {
        self.request.method_name()
    }

    fn path(&self) -> &[u8] {
        self.request.path()
    }

    fn rule(&self) -> &str {
        self.rule
    }

    fn service(&self) -> &str {
        self.service
    }
}
