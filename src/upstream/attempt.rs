//! One try to get a request served by one endpoint.

use crate::runtime::io::Io;
use crate::time::Time;

use super::LocalEndpoint;

/// The end of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered with this status, and the response is complete.
    Answered(u16),
    /// There is no complete response, and the endpoint is to blame.
    Failed,
    /// Bytes passed until either side closed: the duration says nothing about the endpoint.
    Carried,
    /// Bytes passed until the endpoint broke the connection: it is to blame, and the duration says
    /// nothing about it.
    Broken,
}

/// One try to get a request served by one endpoint. Load, latency and failures are charged to it.
/// Dropping it without [`Attempt::finish`] says that nobody waits for the endpoint any more.
pub struct Attempt<I: Io> {
    endpoint: Option<LocalEndpoint<I>>,
    began: Time,
}

impl<I: Io> Attempt<I> {
    /// An attempt that counts nowhere: it is not known yet whether the connection will be used.
    pub(super) fn uncounted() -> Self {
        Self { endpoint: None, began: Time::default() }
    }

    /// An attempt at `endpoint` that begins at `now`. It counts as a request there.
    pub fn begin(endpoint: &LocalEndpoint<I>, now: Time) -> Self {
        endpoint.cells().requests.increment();
        endpoint.load.started();
        Self { endpoint: Some(LocalEndpoint::<I>::clone(endpoint)), began: now }
    }

    /// The attempt is over at `now`.
    pub fn finish(mut self, now: Time, outcome: Outcome) {
        let Some(endpoint) = self.endpoint.take() else { return };
        match outcome {
            Outcome::Answered(_) | Outcome::Failed => {
                endpoint.load.finished(now, now.since(self.began));
            }
            Outcome::Carried | Outcome::Broken => endpoint.load.abandoned(),
        }
        if matches!(outcome, Outcome::Failed | Outcome::Broken | Outcome::Answered(500..)) {
            endpoint.cells().failures.increment();
        }
    }
}

impl<I: Io> Drop for Attempt<I> {
    fn drop(&mut self) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.load.abandoned();
        }
    }
}
