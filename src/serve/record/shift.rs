//! The part of the record of an exchange that judges the version which a shift has chosen.

use std::time::Duration;

use super::ExchangeRecord;
use crate::error::Flag;
use crate::grpc::Code;
use crate::resilience::{ShiftEnding, ShiftSide};
use crate::runtime::io::Io;
use crate::time::Time;

impl<I: Io> ExchangeRecord<I> {
    /// Sets the version that the shift of the rule has chosen.
    pub fn set_side(&self, side: Option<ShiftSide>) {
        self.side.set(side);
    }

    /// Sets the deadline that the client itself has chosen, and that is too short to blame an
    /// endpoint.
    pub fn set_hurry(&self, deadline: Time) {
        self.hurry.set(deadline);
    }

    /// Whether the short deadline of the client has passed at `now`. Then a timeout says nothing
    /// about the endpoint.
    pub fn is_hurried(&self, now: Time) -> bool {
        now >= self.hurry.get()
    }

    /// Whether `code`, with which a call ends now, only says that the short deadline of the client
    /// has passed. The endpoint knows this deadline, and may answer a little before it. An endpoint
    /// that answers so in the first half of the time has its own reasons.
    pub fn is_excused(&self, code: Code) -> bool {
        let (began, deadline) = (self.began, self.hurry.get());
        let is_late = || self.worker.io.now().since(began) >= deadline.since(began) / 2;
        code == Code::DEADLINE_EXCEEDED && deadline != Time::NEVER && is_late()
    }

    /// Sets the time at which an endpoint has the whole request. Later attempts do not change it.
    pub fn handed_over(&self, now: Time) {
        if self.side.get().is_some() && self.handed_over.get().is_none() {
            self.handed_over.set(Some(now));
        }
    }

    /// The end of the exchange, for the shift that has chosen its version. `None` says nothing
    /// about the version: the client or the proxy itself ended the exchange.
    pub(super) fn shift_ending(&self, end: Time, limit: Option<Duration>) -> Option<ShiftEnding> {
        let responded = self.answered.get().unwrap_or(end);
        let took = self.handed_over.get().map(|sent| responded.since(sent));
        if let Some(flag) = self.flag.get() {
            let timed_out = flag == Flag::UpstreamTimeout;
            let hurried = timed_out && self.is_hurried(end);
            // The proxy itself has used the time, before or after it has chosen an endpoint.
            let own_wait = timed_out && (self.attempts.get() == 0 || self.slowed.get());
            let of_version =
                flag.blames_endpoint() && !hurried && !own_wait || flag == Flag::NoHealthyUpstream;
            // A client that waits for longer than the limit, and leaves, says something. So does an
            // exchange that was silent for that long.
            let waited = || took.zip(limit).is_some_and(|(took, limit)| took > limit);
            let left = flag == Flag::DownstreamConnectionTermination;
            let idle = flag == Flag::StreamIdle;
            let gave_up = (left || hurried || idle) && waited();
            return (of_version || gave_up).then_some(ShiftEnding { failed: of_version, took });
        }
        if self.code().is_some_and(|code| self.is_excused(code)) {
            let waited = took.zip(limit).is_some_and(|(took, limit)| took > limit);
            return waited.then_some(ShiftEnding { failed: false, took });
        }
        let failed = self.status.get() >= 500 || self.code().is_some_and(Code::is_server_error);
        Some(ShiftEnding { failed, took })
    }
}
