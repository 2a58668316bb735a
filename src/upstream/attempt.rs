//! One attempt to serve a request at one endpoint.

use crate::grpc::Code;
use crate::health::Heard;
use crate::runtime::io::Io;
use crate::time::Time;

use super::LocalEndpoint;

/// The result of an attempt, for the counters of the endpoint and for outlier detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint has sent a complete response with this status, and with this gRPC status to a
    /// gRPC call.
    Answered(u16, Option<Code>),
    /// The endpoint has sent a complete response with this status, to a call whose client has given
    /// it too little time. It says so.
    Expired(u16),
    /// There was no complete response, and the endpoint is the cause.
    Failed,
    /// Another endpoint accepted a connection first, although it was tried later.
    Overtaken,
    /// Another endpoint answered a hedged request first, although it was tried later.
    Outrun,
    /// An L4 connection or tunnel was closed normally. Its duration is not a latency of the
    /// endpoint.
    Carried,
    /// The endpoint has broken an L4 connection or tunnel. Its duration is not a latency of the
    /// endpoint.
    Broken,
    /// The endpoint has closed a reused connection without a response, which is allowed at any
    /// time.
    Stale,
}

impl Outcome {
    /// The event for outlier detection. `None` if the outcome is not caused by the endpoint.
    fn heard(self) -> Option<Heard> {
        match self {
            Self::Answered(200, Some(code)) if code.is_server_error() => Some(match code {
                Code::UNAVAILABLE | Code::DEADLINE_EXCEEDED => Heard::GatewayError,
                _ => Heard::ServerError,
            }),
            Self::Answered(status, _) => Some(Heard::status(status)),
            Self::Carried => Some(Heard::Success),
            Self::Failed | Self::Broken => Some(Heard::LocalFailure),
            Self::Expired(_) | Self::Overtaken | Self::Outrun | Self::Stale => None,
        }
    }
}

/// The number of hedged requests in a row that other endpoints answer first. From then on, each
/// further one is a failure for outlier detection: an endpoint that hangs answers none, and hedging
/// leaves it before a timeout does.
const OUTRUN_MAX: u32 = 10;

/// One attempt to serve a request at one endpoint. It counts the load, the latency and the failures
/// of the endpoint. If the client disconnects, the attempt is dropped without [`Attempt::finish`].
/// This ends the load, and counts neither a latency nor a failure.
pub struct Attempt<I: Io> {
    endpoint: Option<LocalEndpoint<I>>,
    began: Time,
}

impl<I: Io> Attempt<I> {
    /// Creates an attempt that counts nothing, for a connection that may remain unused.
    pub(super) fn uncounted() -> Self {
        Self { endpoint: None, began: Time::default() }
    }

    /// Begins an attempt at `endpoint` at the time `now`. Counts a request to the endpoint.
    pub fn begin(endpoint: &LocalEndpoint<I>, now: Time) -> Self {
        endpoint.cells().requests.increment();
        if let Some(zone) = &endpoint.config.borrow().zone_stats {
            zone.worker(endpoint.worker()).requests.increment();
        }
        endpoint.load.started();
        Self { endpoint: Some(LocalEndpoint::<I>::clone(endpoint)), began: now }
    }

    /// The time at which the attempt began.
    pub fn began(&self) -> Time {
        self.began
    }

    /// Sets the beginning of the attempt to `now`, because the proxy itself caused the wait before.
    pub(super) fn begin_again(&mut self, now: Time) {
        self.began = now;
    }

    /// Like [`Attempt::finish`]. For an attempt that counts nothing, it still reports the outcome
    /// at `endpoint` to outlier detection.
    pub(super) fn finish_at(self, endpoint: &LocalEndpoint<I>, now: Time, outcome: Outcome) {
        match self.endpoint {
            Some(_) => self.finish(now, outcome),
            None => blame::<I>(endpoint, now, outcome),
        }
    }

    /// Ends the attempt at the time `now`. Counts its latency, and its failure if it has failed.
    pub fn finish(mut self, now: Time, outcome: Outcome) {
        use Outcome::{Answered, Broken, Carried, Expired, Failed, Outrun, Overtaken, Stale};
        let Some(endpoint) = self.endpoint.take() else { return };
        match outcome {
            Answered(status, _) | Expired(status) => {
                let (duration, cells) = (now.since(self.began), endpoint.cells());
                endpoint.load.finished(now, duration);
                let class = usize::from(status / 100).clamp(1, cells.status_class.len()) - 1;
                cells.status_class[class].increment();
                cells.duration_us.add(duration.as_micros() as u64);
            }
            Failed | Overtaken => {
                endpoint.load.failed(now, now.since(self.began));
            }
            Outrun => {
                if endpoint.load.outrun(now, now.since(self.began)) > OUTRUN_MAX {
                    blame::<I>(&endpoint, now, Failed);
                }
            }
            Carried | Broken | Stale => endpoint.load.abandoned(),
        }
        if matches!(outcome, Failed | Broken | Stale | Answered(500.., _)) {
            endpoint.cells().failures.increment();
        }
        blame::<I>(&endpoint, now, outcome);
    }
}

/// Reports the outcome of an attempt at `endpoint` to outlier detection, if the service has it.
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
