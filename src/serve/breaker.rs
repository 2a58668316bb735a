//! Takes slots of a service for requests and retries: those of its circuit breaker, and those of
//! its adaptive concurrency limit.

use std::cell::Cell;
use std::sync::Arc;

use super::download::{Failure, ResponseHead};
use super::exchange::Exchange;
use super::worker::Worker;
use super::workspace::Drafts;
use crate::cluster::Service;
use crate::error::{Flag, Refusal};
use crate::grpc::Code;
use crate::resilience::{Concurrency, Flight, Limit, Slot};
use crate::runtime::io::Io;
use crate::time::Time;

/// The slots of a request in the limits of its service.
#[derive(Default)]
pub struct Places {
    /// The slot in the circuit breaker. `None` if the service has none.
    pub slot: Option<Slot>,
    /// The slot in the adaptive concurrency limit. `None` if the service has none.
    pub flight: Cell<Option<Flight>>,
}

/// Takes the slot of a request in the circuit breaker of `service`, if there is one.
///
/// # Errors
/// If too many requests are in progress. The overflow is counted for `worker`.
pub fn request(service: &Service, worker: usize) -> Result<Option<Slot>, Refusal> {
    match &service.breaker {
        None => Ok(None),
        Some(_) => take(service, worker, Limit::Requests).map(Some).ok_or(TOO_MANY_REQUESTS),
    }
}

/// Takes a slot in the adaptive concurrency limit of `service`, if there is one.
///
/// # Errors
/// If too many requests are in flight. The overflow is counted for `worker`.
pub fn fly<I: Io>(service: &Service, worker: &Worker<I>) -> Result<Option<Flight>, Refusal> {
    let Some(limit) = &service.concurrency else { return Ok(None) };
    let flight = place(worker, limit);
    if flight.is_none() {
        service.stats.worker(worker.index).concurrency_overflows.increment();
    }
    flight.map(Some).ok_or(TOO_MANY_IN_FLIGHT)
}

/// Takes the slot of the second attempt of a hedged request, like [`fly`]. Returns `None` if too
/// many requests are in flight: nothing is refused then.
pub fn hedge<I: Io>(service: &Service, worker: &Worker<I>) -> Option<Option<Flight>> {
    match &service.concurrency {
        None => Some(None),
        Some(limit) => place(worker, limit).map(Some),
    }
}

fn place<I: Io>(worker: &Worker<I>, limit: &Arc<Concurrency>) -> Option<Flight> {
    limit.take(worker.io.recent(), || worker.random.borrow_mut().f64())
}

/// Takes the slot of a request in the adaptive concurrency limit. The request has waited for
/// everything else, and goes to an endpoint now.
///
/// # Errors
/// If too many requests are in flight.
pub fn depart<I: Io>(exchange: &Exchange<'_, I>) -> Result<(), Failure> {
    let Exchange { plan, downstream, .. } = exchange;
    let flight = fly(&plan.service.config, &downstream.worker).map_err(Failure::Refused)?;
    plan.places.flight.set(flight);
    Ok(())
}

/// Records the latency of the endpoint for the adaptive concurrency limit. `head` is the head of
/// the response to a request that was sent at `sent`, and `drafts` has its fields. The latency of
/// an error is not that of the service, so it is not recorded.
pub fn answered<I: Io>(
    exchange: &Exchange<'_, I>,
    sent: Option<Time>,
    head: &Result<ResponseHead, Failure>,
    drafts: &Drafts,
) {
    let says = match head {
        Ok(ResponseHead::Complete { buf, .. }) => {
            let response = drafts.response.view(buf.block());
            let code = exchange.kind.and_then(|_| response.value(b"grpc-status"));
            let is_excused = |value| exchange.record.is_excused(Code::from_value(value));
            response.head.status < 500 && !code.is_some_and(is_excused)
        }
        Err(Failure::Refused(refusal)) => {
            let now = exchange.downstream.worker.io.now();
            refusal.flag == Flag::UpstreamTimeout && !exchange.record.is_hurried(now)
        }
        Ok(_) | Err(_) => false,
    };
    if says {
        took(exchange, sent);
    }
}

/// Reports a latency to the adaptive concurrency limit: the time since `sent`. The endpoint took
/// this long, or would have taken longer.
pub fn took<I: Io>(exchange: &Exchange<'_, I>, sent: Option<Time>) {
    let flight = &exchange.plan.places.flight;
    if let Some(sent) = sent
        && let Some(taken) = flight.take()
    {
        let worker = &exchange.downstream.worker;
        taken.answered(worker.index, sent, worker.io.now());
        flight.set(Some(taken));
    }
}

/// Takes the slot of a retry. If the service has no circuit breaker, there is nothing to take.
/// Returns `None` when too many retries are in progress.
pub fn retry(service: &Service, worker: usize) -> Option<Option<Slot>> {
    match &service.breaker {
        None => Some(None),
        Some(_) => take(service, worker, Limit::Retries).map(Some),
    }
}

fn take(service: &Service, worker: usize, limit: Limit) -> Option<Slot> {
    let slot = service.breaker.as_ref()?.take(limit);
    if slot.is_none() {
        service.stats.worker(worker).overflows[limit.index()].increment();
    }
    slot
}

const TOO_MANY_REQUESTS: Refusal = Refusal {
    status: 503,
    flag: Flag::UpstreamOverflow,
    detail: "too many requests to the service are in progress",
};

const TOO_MANY_IN_FLIGHT: Refusal = Refusal {
    detail: "more requests to the service would make it slower than without load",
    ..TOO_MANY_REQUESTS
};
