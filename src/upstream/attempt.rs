//! One attempt to serve a request at one endpoint.

use crate::runtime::io::Io;
use crate::time::Time;

use super::LocalEndpoint;

/// The result of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered with this status, and the response is complete.
    Answered(u16),
    /// There is no complete response, because of the endpoint.
    Failed,
    /// An L4 connection or tunnel closed in order. Its duration says nothing about the endpoint.
    Carried,
    /// The endpoint broke an L4 connection or tunnel. The duration says nothing about the
    /// endpoint.
    Broken,
}

/// One attempt to serve a request at one endpoint. It counts the load, latency and failures of the
/// endpoint. Dropping an attempt without [`Attempt::finish`] only ends the load: the client has
/// disconnected.
pub struct Attempt<I: Io> {
    endpoint: Option<LocalEndpoint<I>>,
    began: Time,
}

impl<I: Io> Attempt<I> {
    /// An attempt without an endpoint. It counts nothing, because the connection may stay unused.
    pub(super) fn uncounted() -> Self {
        Self { endpoint: None, began: Time::default() }
    }

    /// Begins an attempt at `endpoint` at the time `now`. Counts a request of the endpoint.
    pub fn begin(endpoint: &LocalEndpoint<I>, now: Time) -> Self {
        endpoint.cells().requests.increment();
        endpoint.load.started();
        Self { endpoint: Some(LocalEndpoint::<I>::clone(endpoint)), began: now }
    }

    /// Ends the attempt at the time `now`. Counts its latency and failure.
    pub fn finish(mut self, now: Time, outcome: Outcome) {
        let Some(endpoint) = self.endpoint.take() else { return };
        match outcome {
            Outcome::Answered(_) => endpoint.load.finished(now, now.since(self.began)),
            Outcome::Failed => endpoint.load.failed(now, now.since(self.began)),
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
