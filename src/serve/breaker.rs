//! Takes slots of a service's circuit breaker for requests and retries.

use crate::cluster::Service;
use crate::error::{Flag, Refusal};
use crate::resilience::{Limit, Slot};

/// Takes the slot of a request to `service`. Returns `None` if the service has no limits.
///
/// # Errors
/// If too many requests are in progress. The overflow is counted for `worker`.
pub fn request(service: &Service, worker: usize) -> Result<Option<Slot>, Refusal> {
    match &service.breaker {
        None => Ok(None),
        Some(_) => take(service, worker, Limit::Requests).map(Some).ok_or(TOO_MANY_REQUESTS),
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
