//! The state of a shift that all workers share: the share in force, and the counts of both
//! versions. It survives reloads.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Chance, ShiftCounts, ShiftEvent, ShiftPhase, ShiftPlan, ShiftProgress, UnixMs};
use crate::cells::{Count, PerWorker};

/// One of the two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShiftSide {
    /// The old version.
    From,
    /// The new version.
    To,
}

impl ShiftSide {
    /// Both versions.
    pub const BOTH: [Self; 2] = [Self::From, Self::To];
}

/// The end of a request to one of the versions.
#[derive(Clone, Copy, Debug)]
pub struct ShiftEnding {
    /// Whether it failed, as its client sees it.
    pub failed: bool,
    /// The time to the response. `None` says nothing about the version.
    pub took: Option<Duration>,
}

/// The state of one shift.
#[derive(Debug)]
pub struct ShiftState {
    /// Its plan. A changed plan has a new state.
    pub plan: ShiftPlan,
    /// The key of the plan in the state file.
    pub id: Box<str>,
    /// The share of the new version. All workers read it; the control thread writes it.
    share: AtomicU32,
    cells: PerWorker<Cells>,
    place: Mutex<Place>,
}

/// The cells of one worker.
#[derive(Debug, Default)]
struct Cells {
    /// The position in the sequence of the two versions.
    turn: Count,
    sides: [SideCells; 2],
}

#[derive(Debug, Default)]
struct SideCells {
    requests: Count,
    errors: Count,
    slow: Count,
}

/// The place in the plan, for the control thread and the admin interface.
#[derive(Debug, Default)]
struct Place {
    /// `None` before the plan begins.
    progress: Option<ShiftProgress>,
    /// The counts at the last step.
    at_step: [ShiftCounts; 2],
}

impl ShiftState {
    /// The state of a plan that has not begun.
    pub fn new(id: &str, plan: ShiftPlan, workers: usize) -> Self {
        Self {
            share: AtomicU32::new(plan.first),
            plan,
            id: id.into(),
            cells: PerWorker::new(workers),
            place: Mutex::default(),
        }
    }

    /// The version that gets the next request of a worker. Each has its exact share in every run
    /// of requests.
    pub fn pick(&self, worker: usize) -> ShiftSide {
        let share = u64::from(self.share.load(Ordering::Relaxed));
        let parts = u64::from(Chance::PARTS);
        if share == 0 || share >= parts {
            return if share == 0 { ShiftSide::From } else { ShiftSide::To };
        }
        let turn = &self.cells.worker(worker).turn;
        let place = turn.value() % parts;
        turn.increment();
        let is_to = (place + 1) * share / parts > place * share / parts;
        if is_to { ShiftSide::To } else { ShiftSide::From }
    }

    /// Counts a request of `worker`.
    pub fn count(&self, worker: usize, side: ShiftSide, ending: ShiftEnding) {
        let cells = &self.cells.worker(worker).sides[side as usize];
        cells.requests.increment();
        if ending.failed {
            cells.errors.increment();
        }
        if let (Some(limit), Some(took)) = (self.slow_limit(), ending.took)
            && took > limit
        {
            cells.slow.increment();
        }
    }

    /// The longest time to a response that is not slow. `None` means that the time does not count.
    pub fn slow_limit(&self) -> Option<Duration> {
        self.plan.abort_if.as_ref().and_then(|limits| limits.p99)
    }

    /// The share of the new version, in [`Chance::PARTS`].
    pub fn share(&self) -> u32 {
        self.share.load(Ordering::Relaxed)
    }

    /// All requests to `side` so far.
    fn total(&self, side: ShiftSide) -> ShiftCounts {
        let side = side as usize;
        ShiftCounts {
            requests: self.cells.sum(|cells| &cells.sides[side].requests),
            errors: self.cells.sum(|cells| &cells.sides[side].errors),
            slow: self.cells.sum(|cells| &cells.sides[side].slow),
        }
    }

    /// All requests to both versions so far.
    pub fn totals(&self) -> [ShiftCounts; 2] {
        ShiftSide::BOTH.map(|side| self.total(side))
    }

    /// Whether the plan has reached its end.
    pub fn is_done(&self) -> bool {
        self.is_in(|phase| matches!(phase, ShiftPhase::Done { .. }))
    }

    /// Whether the plan went back.
    pub fn is_aborted(&self) -> bool {
        self.is_in(|phase| matches!(phase, ShiftPhase::Aborted(_)))
    }

    fn is_in(&self, wanted: impl Fn(&ShiftPhase) -> bool) -> bool {
        self.place().progress.as_ref().is_some_and(|progress| wanted(&progress.phase))
    }

    /// The requests to both versions since the last step.
    pub fn since_step(&self) -> [ShiftCounts; 2] {
        let at_step = self.place().at_step;
        ShiftSide::BOTH.map(|side| self.total(side).since(at_step[side as usize]))
    }

    /// The place in the plan. `None` before the plan begins.
    pub fn progress(&self) -> Option<ShiftProgress> {
        self.place().progress.clone()
    }

    /// Begins the plan at `now`, or goes on where it was `saved`. Does nothing if it has begun.
    /// Returns whether it begins.
    pub fn begin(&self, saved: Option<ShiftProgress>, now: UnixMs) -> bool {
        let mut place = self.place();
        if place.progress.is_some() {
            return false;
        }
        let progress = saved.unwrap_or_else(|| ShiftProgress::begin(&self.plan, now));
        self.share.store(progress.share(&self.plan), Ordering::Relaxed);
        place.progress = Some(progress);
        true
    }

    /// Decides at `now`, and puts the decision into force. See [`ShiftProgress::decide`].
    pub fn tick(&self, now: UnixMs, resumed: bool) -> Option<ShiftEvent> {
        let totals = self.totals();
        let mut place = self.place();
        let Place { progress, at_step } = &mut *place;
        let progress = progress.as_mut()?;
        let new = ShiftSide::To as usize;
        let event = progress.decide(&self.plan, now, totals[new].since(at_step[new]), resumed)?;
        if matches!(event, ShiftEvent::Step { .. }) {
            *at_step = totals;
        }
        self.share.store(progress.share(&self.plan), Ordering::Relaxed);
        Some(event)
    }

    /// The time until the next [`ShiftState::tick`]. `None` means that the plan does not run.
    pub fn due_in(&self, now: UnixMs) -> Option<Duration> {
        self.place().progress.as_ref().and_then(|progress| progress.due_in(&self.plan, now))
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::AbortIf;
    use super::*;

    fn state(first: u32) -> ShiftState {
        let p99 = Some(Duration::from_millis(500));
        let abort_if = Some(AbortIf { error_rate: Some(20_000), p99, min_requests: 10 });
        let every = Duration::from_secs(1);
        let plan = ShiftPlan { first, step: 500_000, every, start: Some(0), abort_if };
        ShiftState::new("a", plan, 2)
    }

    #[test]
    fn shares_are_exact_in_every_run() {
        for (share, run, count) in [
            (0, 100, 0),
            (1_000_000, 100, 100),
            (100_000, 10, 1),
            (10_000, 100, 1),
            (250_000, 4, 1),
            (900_000, 10, 9),
        ] {
            let state = state(share);
            for _ in 0..7 {
                let picks = (0..run).filter(|_| state.pick(1) == ShiftSide::To).count();
                assert_eq!(picks, count, "{share}");
            }
        }
    }

    #[test]
    fn a_step_begins_with_new_counts() {
        let state = state(0);
        assert!(state.begin(None, 0));
        assert!(!state.begin(None, 5));
        let bad = ShiftEnding { failed: true, took: Some(Duration::from_secs(1)) };
        (0..100).for_each(|_| state.count(0, ShiftSide::To, bad));
        // Requests of before the first step are no reason to go back.
        assert!(matches!(state.tick(0, false), Some(ShiftEvent::Step { share: 500_000, .. })));
        let none = ShiftCounts::default();
        assert_eq!(state.since_step(), [none, none]);
        (0..10).for_each(|_| state.count(0, ShiftSide::From, bad));
        assert_eq!(state.tick(1, false), None);
        (0..10).for_each(|_| state.count(1, ShiftSide::To, bad));
        assert_eq!(state.since_step()[1], ShiftCounts { requests: 10, errors: 10, slow: 10 });
        assert!(matches!(state.tick(2, false), Some(ShiftEvent::Aborted(_))));
        assert_eq!((state.share(), state.pick(0)), (0, ShiftSide::From));
        assert_eq!(state.due_in(2), None);
    }

    #[test]
    fn a_saved_place_is_in_force_at_once() {
        let state = state(0);
        let saved = ShiftProgress { steps: 1, ..ShiftProgress::begin(&state.plan, 0) };
        assert!(state.begin(Some(saved), 0));
        assert_eq!(state.share(), 500_000);
    }
}
