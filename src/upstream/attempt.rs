//! One attempt to serve a request at one endpoint.

use crate::grpc::Code;
use crate::health::Heard;
use crate::runtime::io::Io;
use crate::time::Time;

use super::LocalEndpoint;

/// The result of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered with this status, and with this code to a gRPC call. The response is
    /// complete.
    Answered(u16, Option<Code>),
    /// There is no complete response, because of the endpoint.
    Failed,
    /// Another endpoint accepted a connection first, though it was asked later.
    Overtaken,
    /// An L4 connection or tunnel closed in order. Its duration says nothing about the endpoint.
    Carried,
    /// The endpoint broke an L4 connection or tunnel. The duration says nothing about the endpoint.
    Broken,
    /// The endpoint closed a reused connection without a response, as it may at any time.
    Stale,
}

impl Outcome {
    /// The outcome for outlier detection. `None` says nothing about the endpoint.
    fn heard(self) -> Option<Heard> {
        match self {
            Self::Answered(200, Some(code)) if code.is_server_error() => Some(match code {
                Code::UNAVAILABLE | Code::DEADLINE_EXCEEDED => Heard::GatewayError,
                _ => Heard::ServerError,
            }),
            Self::Answered(status, _) => Some(Heard::status(status)),
            Self::Carried => Some(Heard::Success),
            Self::Failed | Self::Broken => Some(Heard::LocalFailure),
            Self::Overtaken | Self::Stale => None,
        }
    }
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

    /// Begins the attempt again at the time `now`: before that, the proxy itself has waited.
    pub(super) fn begin_again(&mut self, now: Time) {
        self.began = now;
    }

    /// Like [`Attempt::finish`]. An attempt that counts nothing still tells outlier detection how
    /// it ended at `endpoint`.
    pub(super) fn finish_at(self, endpoint: &LocalEndpoint<I>, now: Time, outcome: Outcome) {
        match self.endpoint {
            Some(_) => self.finish(now, outcome),
            None => blame::<I>(endpoint, now, outcome),
        }
    }

    /// Ends the attempt at the time `now`. Counts its latency and failure.
    pub fn finish(mut self, now: Time, outcome: Outcome) {
        use Outcome::{Answered, Broken, Carried, Failed, Overtaken, Stale};
        let Some(endpoint) = self.endpoint.take() else { return };
        match outcome {
            Answered(status, _) => {
                let (duration, cells) = (now.since(self.began), endpoint.cells());
                endpoint.load.finished(now, duration);
                let class = usize::from(status / 100).clamp(1, cells.status_class.len()) - 1;
                cells.status_class[class].increment();
                cells.duration_us.add(duration.as_micros() as u64);
            }
            Failed | Overtaken => {
                endpoint.load.failed(now, now.since(self.began));
            }
            Carried | Broken | Stale => endpoint.load.abandoned(),
        }
        if matches!(outcome, Failed | Broken | Stale | Answered(500.., _)) {
            endpoint.cells().failures.increment();
        }
        blame::<I>(&endpoint, now, outcome);
    }
}

/// Tells the outlier detection of the service, if there is one, how an attempt at `endpoint` ended.
pub(super) fn blame<I: Io>(endpoint: &LocalEndpoint<I>, now: Time, outcome: Outcome) {
    if let Some(outlier) = &endpoint.config.borrow().outlier
        && let Some(heard) = outcome.heard()
    {
        outlier.hear(endpoint.worker(), now, heard);
    }
}

impl<I: Io> Drop for Attempt<I> {
    fn drop(&mut self) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.load.abandoned();
        }
    }
}
