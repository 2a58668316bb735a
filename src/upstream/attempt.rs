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
    /// Another endpoint accepted a connection first, though it was asked later.
    Overtaken,
    /// An L4 connection or tunnel closed in order. Its duration says nothing about the endpoint.
    Carried,
    /// The endpoint broke an L4 connection or tunnel, or closed a reused connection without a
    /// response. The duration says nothing about the endpoint.
    Broken,
}

/// One attempt to serve a request at one endpoint. It counts the load, latency and failures of the
/// endpoint. If the client disconnects, the attempt is dropped without [`Attempt::finish`]; this
/// ends the load and counts neither latency nor failure.
pub struct Attempt<I: Io> {
    endpoint: Option<LocalEndpoint<I>>,
    began: Time,
}

impl<I: Io> Attempt<I> {
    /// An attempt that counts nothing, for a connection that may stay unused.
    pub(super) fn uncounted() -> Self {
        Self { endpoint: None, began: Time::default() }
    }

    /// Begins an attempt at `endpoint` at the time `now`. Counts a request to the endpoint.
    pub fn begin(endpoint: &LocalEndpoint<I>, now: Time) -> Self {
        endpoint.cells().requests.increment();
        endpoint.load.started();
        Self { endpoint: Some(LocalEndpoint::<I>::clone(endpoint)), began: now }
    }

    /// When the attempt began.
    pub fn began(&self) -> Time {
        self.began
    }

    /// Ends the attempt at the time `now`. Counts its latency and failure.
    pub fn finish(mut self, now: Time, outcome: Outcome) {
        let Some(endpoint) = self.endpoint.take() else { return };
        match outcome {
            Outcome::Answered(status) => {
                let (duration, cells) = (now.since(self.began), endpoint.cells());
                endpoint.load.finished(now, duration);
                let class = usize::from(status / 100).clamp(1, cells.status_class.len()) - 1;
                cells.status_class[class].increment();
                cells.duration_us.add(duration.as_micros() as u64);
            }
            Outcome::Failed | Outcome::Overtaken => {
                endpoint.load.failed(now, now.since(self.began));
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
