//! The state of outlier detection for one endpoint.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{EjectionReason, OutlierGroup, Sample};
use crate::cells::{Count, PerWorker};
use crate::health::Warmup;
use crate::time::Time;

/// The result of an attempt to send a request to an endpoint, for outlier detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A response that is not a failure of the endpoint.
    Success,
    /// A 5xx status other than those of [`Heard::GatewayError`].
    ServerError,
    /// The status 502, 503 or 504.
    GatewayError,
    /// There was no complete response: no connection, a reset, or a timeout.
    LocalFailure,
}

impl Heard {
    /// Returns the result for a response with this status.
    pub fn status(status: u16) -> Self {
        match status {
            502..=504 => Self::GatewayError,
            500.. => Self::ServerError,
            _ => Self::Success,
        }
    }
}

/// The state of outlier detection for one endpoint. All workers share it. It is kept over reloads
/// while the endpoint stays in the service.
#[derive(Debug)]
pub struct OutlierState {
    /// The address of the endpoint, for log lines.
    pub address: Box<str>,
    group: Arc<OutlierGroup>,
    ejected: AtomicBool,
    /// The numbers of consecutive failures, by [`EjectionReason::index`].
    in_a_row: [AtomicU32; EjectionReason::IN_A_ROW.len()],
    /// The number of attempts, if rates are measured.
    tallies: PerWorker<Tally>,
    /// The slow start of the endpoint, which begins again when an ejection ends.
    pub warmup: Arc<Warmup>,
    account: Mutex<OutlierAccount>,
}

/// The attempts of one worker to send requests to an endpoint.
#[derive(Debug, Default)]
struct Tally {
    successes: Count,
    failures: Count,
}

/// The ejections of one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutlierAccount {
    /// The number of ejections since the endpoint was added.
    pub ejections: u64,
    /// The reason of the last ejection.
    pub reason: Option<EjectionReason>,
    /// The length of the last ejection.
    pub lasts: Duration,
    /// When the last ejection began, in Unix seconds.
    pub since_unix_s: Option<u64>,
    /// The number of ejections that make the next one longer: see
    /// [`super::OutlierPolicy::remaining`].
    pub(super) times: u32,
    /// The end of the last ejection, in the future or in the past.
    pub(super) until: Time,
    /// The attempts before the current interval began.
    pub(super) before: Sample,
}

impl OutlierState {
    /// Creates the state of a new endpoint of the service of `group`. `warmup` begins again when an
    /// ejection ends.
    pub fn new(
        address: String,
        group: Arc<OutlierGroup>,
        warmup: Arc<Warmup>,
        workers: usize,
    ) -> Self {
        Self {
            address: address.into(),
            group,
            ejected: AtomicBool::new(false),
            in_a_row: Default::default(),
            tallies: PerWorker::new(workers),
            warmup,
            account: Mutex::default(),
        }
    }

    /// Whether the endpoint belongs to `group`.
    pub fn is_of(&self, group: &Arc<OutlierGroup>) -> bool {
        Arc::ptr_eq(&self.group, group)
    }

    /// Whether the endpoint is ejected now.
    #[inline]
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Acquire)
    }

    /// Counts the result of an attempt of `worker` that ended at `now`. Ejects the endpoint if a
    /// limit of consecutive failures is reached, and the limit on ejected endpoints allows it.
    pub fn hear(&self, worker: usize, now: Time, heard: Heard) {
        use EjectionReason::{Consecutive5xx, GatewayErrors, LocalFailures};
        if self.group.is_rated() {
            self.tally(worker, now, heard);
        }
        let failed_as: &[EjectionReason] = match heard {
            Heard::Success => &[],
            Heard::ServerError => &[Consecutive5xx],
            Heard::GatewayError => &[GatewayErrors, Consecutive5xx],
            // Failures that have a limit of their own do not count as 5xx or gateway errors.
            Heard::LocalFailure if self.group.limit(LocalFailures) > 0 => {
                return self.fail(now, &[LocalFailures]);
            }
            Heard::LocalFailure => &[GatewayErrors, Consecutive5xx],
        };
        for reason in EjectionReason::IN_A_ROW {
            let count = &self.in_a_row[reason.index()];
            // Most responses are a success that follows a success. Then the counter is only read.
            if !failed_as.contains(&reason) && count.load(Ordering::Relaxed) != 0 {
                count.store(0, Ordering::Relaxed);
            }
        }
        if !failed_as.is_empty() {
            self.fail(now, failed_as);
        }
    }

    fn tally(&self, worker: usize, now: Time, heard: Heard) {
        let tally = self.tallies.worker(worker);
        if heard == Heard::Success {
            return tally.successes.increment();
        }
        if self.group.waits_for_failure() {
            self.group.begin_interval(now);
        }
        tally.failures.increment();
    }

    /// The number of all attempts so far.
    pub(super) fn sample(&self) -> Sample {
        let successes = self.tallies.sum(|tally| &tally.successes);
        Sample { successes, failures: self.tallies.sum(|tally| &tally.failures) }
    }

    #[cold]
    fn fail(&self, now: Time, reasons: &[EjectionReason]) {
        // An ejected endpoint may fail requests that were in progress, or that it gets because too
        // few others are healthy. These failures do not make its ejection longer.
        if self.is_ejected() {
            return;
        }
        for &reason in reasons {
            let count = &self.in_a_row[reason.index()];
            let failures = count.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            let limit = self.group.limit(reason);
            if limit > 0 && failures >= limit {
                count.store(0, Ordering::Relaxed);
                self.group.eject(self, reason, now);
            }
        }
    }

    /// Sets whether the endpoint is ejected. Only the group calls this, under its lock.
    pub(super) fn set_ejected(&self, ejected: bool) {
        if !ejected {
            self.in_a_row.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        }
        self.ejected.store(ejected, Ordering::Release);
    }

    /// The ejections of the endpoint.
    pub fn account(&self) -> OutlierAccount {
        *self.locked()
    }

    /// Records that the last ejection began at `now_unix_s`. Workers have no wall clock, so the
    /// control thread calls this when it logs the ejection.
    pub fn date(&self, now_unix_s: u64) {
        self.locked().since_unix_s = Some(now_unix_s);
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, OutlierAccount> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
