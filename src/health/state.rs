//! The health state of an endpoint. The control thread writes it; workers read it.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Judge, Reason, State, Thresholds};
use crate::cells::Count;

/// Counts the state changes of a service's endpoints. With one load, a worker finds out whether
/// there was a change.
#[derive(Debug, Default)]
pub struct Changes(AtomicU64);

impl Changes {
    /// The number of changes so far.
    #[inline]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Counts a change. The caller stores the new state first, so a worker that reads the new count
    /// also reads the new state.
    pub(super) fn note(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// The health of one endpoint. It is kept over reloads while the endpoint stays in the service.
#[derive(Debug)]
pub struct HealthState {
    state: AtomicU8,
    changes: Arc<Changes>,
    /// The number of completed checks.
    pub attempts: Count,
    /// The number of failed checks, by `Reason::index`.
    pub failures: [Count; Reason::ALL.len()],
    account: Mutex<Account>,
}

/// The history of a [`HealthState`], for operators.
#[derive(Clone, Debug, Default)]
pub struct Account {
    judge: Judge,
    /// The error of the last failed check.
    pub last_failure: Option<String>,
    /// The time of the last state change, in Unix seconds.
    pub changed_unix_s: Option<u64>,
}

impl HealthState {
    /// Creates the state of an endpoint without a completed check. Its changes are counted in
    /// `changes`.
    pub fn new(changes: Arc<Changes>) -> Self {
        Self {
            state: AtomicU8::new(State::Unchecked as u8),
            changes,
            attempts: Count::default(),
            failures: Default::default(),
            account: Mutex::default(),
        }
    }

    /// The current state.
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            state if state == State::Healthy as u8 => State::Healthy,
            state if state == State::Unhealthy as u8 => State::Unhealthy,
            _ => State::Unchecked,
        }
    }

    /// The history of the checks.
    pub fn account(&self) -> Account {
        self.locked().clone()
    }

    /// Records the result of a check that ended at `now_unix_s`. A failure has a reason and a
    /// message. Returns the new state if it has changed. Only the control thread may call this.
    pub fn hear(
        &self,
        outcome: Result<(), (Reason, String)>,
        thresholds: Thresholds,
        now_unix_s: u64,
    ) -> Option<State> {
        self.attempts.increment();
        let mut account = self.locked();
        let outcome = outcome.map_err(|(reason, message)| {
            self.failures[reason.index()].increment();
            account.last_failure = Some(message);
            reason
        });
        let state = account.judge.hear(outcome, thresholds)?;
        account.changed_unix_s = Some(now_unix_s);
        self.state.store(state as u8, Ordering::Release);
        self.changes.note();
        Some(state)
    }

    fn locked(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_heard_is_counted_and_shown() {
        let changes = Arc::new(Changes::default());
        let health_state = HealthState::new(Arc::clone(&changes));
        let thresholds = Thresholds { healthy: 1, unhealthy: 2 };
        let silent = || Err((Reason::Timeout, "silence".to_owned()));
        assert_eq!(health_state.state(), State::Unchecked);
        assert_eq!(health_state.hear(Ok(()), thresholds, 1), Some(State::Healthy));
        assert_eq!(health_state.hear(silent(), thresholds, 2), None);
        assert_eq!((health_state.state(), changes.count()), (State::Healthy, 1));
        assert_eq!(health_state.hear(silent(), thresholds, 3), Some(State::Unhealthy));
        assert_eq!((health_state.state(), changes.count()), (State::Unhealthy, 2));
        let account = health_state.account();
        assert_eq!(account.last_failure.as_deref(), Some("silence"));
        assert_eq!(account.changed_unix_s, Some(3));
        assert_eq!(health_state.attempts.value(), 3);
        assert_eq!(health_state.failures[Reason::Timeout.index()].value(), 2);
    }
}
