//! The place of a shift in its plan, and the decisions: stay, step, go back, end.

use std::time::Duration;

use super::{Chance, ShiftPlan, UnixMs};

/// The place of a shift in its plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShiftProgress {
    /// The steps taken.
    pub steps: u32,
    /// The time of the next step. After the last step, it is the end of the plan.
    pub next: UnixMs,
    /// Whether the plan still runs.
    pub phase: ShiftPhase,
}

/// Whether a plan still runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShiftPhase {
    /// It runs, or waits for its first step.
    Running,
    /// All traffic is on the new version.
    Done {
        /// The time of the end.
        at: UnixMs,
    },
    /// All traffic is back on the old version.
    Aborted(ShiftAbort),
}

impl ShiftPhase {
    /// The word for operators.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done { .. } => "done",
            Self::Aborted(_) => "aborted",
        }
    }
}

/// The end of a plan whose new version was bad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShiftAbort {
    /// The time.
    pub at: UnixMs,
    /// The share of the new version before that.
    pub share: u32,
    /// The limit that was crossed.
    pub fault: ShiftFault,
    /// The requests to the new version in the step.
    pub requests: u64,
    /// Those that crossed the limit.
    pub bad: u64,
}

/// The limit that the new version has crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShiftFault {
    /// Too many requests failed.
    ErrorRate,
    /// Too many requests were slow.
    Slow,
}

impl ShiftFault {
    /// All limits.
    pub const ALL: [Self; 2] = [Self::ErrorRate, Self::Slow];

    /// The key of `abort_if`.
    pub fn label(self) -> &'static str {
        match self {
            Self::ErrorRate => "error_rate",
            Self::Slow => "p99",
        }
    }
}

impl ShiftAbort {
    /// The reason, with its numbers.
    pub fn why(&self, plan: &ShiftPlan) -> String {
        let Self { fault, requests, bad, .. } = self;
        let percent = *bad as f64 * 100.0 / (*requests).max(1) as f64;
        let limits = plan.abort_if.as_ref();
        let did = match fault {
            ShiftFault::ErrorRate => {
                let limit = limits.and_then(|limits| limits.error_rate).unwrap_or_default();
                format!("failed; the limit is {}", Chance::of_parts(limit))
            }
            ShiftFault::Slow => {
                let limit = limits.and_then(|limits| limits.p99).unwrap_or_default();
                format!("took longer than {limit:?}; the limit is 1%")
            }
        };
        format!("{bad} of {requests} requests ({percent:.1}%) in this step {did}")
    }
}

/// Requests to one version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShiftCounts {
    /// Requests that ended.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// Those whose response took longer than the limit of the plan.
    pub slow: u64,
}

impl ShiftCounts {
    /// The requests since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            errors: self.errors.saturating_sub(earlier.errors),
            slow: self.slow.saturating_sub(earlier.slow),
        }
    }
}

/// A change of a shift.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShiftEvent {
    /// The new version has this share from now on.
    Step {
        /// The share.
        share: u32,
        /// The number of the step, from 1.
        step: u32,
        /// The number of steps of the plan.
        steps: u32,
        /// The time of the next one.
        next: UnixMs,
    },
    /// The plan has ended well.
    Done,
    /// The plan went back.
    Aborted(ShiftAbort),
}

impl ShiftProgress {
    /// The place of a plan that begins at `now`.
    pub fn begin(plan: &ShiftPlan, now: UnixMs) -> Self {
        let next = plan.start.unwrap_or_else(|| plan.next_multiple(now));
        Self { steps: 0, next, phase: ShiftPhase::Running }
    }

    /// Whether the plan still runs.
    pub fn is_running(&self) -> bool {
        self.phase == ShiftPhase::Running
    }

    /// The share of the new version.
    pub fn share(&self, plan: &ShiftPlan) -> u32 {
        match self.phase {
            ShiftPhase::Running => plan.share(self.steps),
            ShiftPhase::Done { .. } => Chance::PARTS,
            ShiftPhase::Aborted(_) => 0,
        }
    }

    /// Decides at `now`. `seen` are the requests to the new version since its last step. `resumed`
    /// says that the plan was not looked at for a time, because the process was not there.
    ///
    /// The clock decides about steps: without a fault, a step with few requests is followed by the
    /// next one. A step is never taken back because a clock was set back.
    pub fn decide(
        &mut self,
        plan: &ShiftPlan,
        now: UnixMs,
        seen: ShiftCounts,
        resumed: bool,
    ) -> Option<ShiftEvent> {
        if !self.is_running() {
            return None;
        }
        if self.is_judged(plan)
            && let Some(abort) = self.judge(plan, now, seen)
        {
            self.phase = ShiftPhase::Aborted(abort.clone());
            return Some(ShiftEvent::Aborted(abort));
        }
        self.step(plan, now, resumed)
    }

    fn judge(&self, plan: &ShiftPlan, now: UnixMs, seen: ShiftCounts) -> Option<ShiftAbort> {
        let limits = plan.abort_if.as_ref()?;
        let ShiftCounts { requests, errors, slow } = seen;
        if requests < limits.min_requests.max(1) {
            return None;
        }
        let is_over = |bad: u64, parts: u32| {
            u128::from(bad) * u128::from(Chance::PARTS) > u128::from(requests) * u128::from(parts)
        };
        let (fault, bad) = match () {
            () if limits.error_rate.is_some_and(|rate| is_over(errors, rate)) => {
                (ShiftFault::ErrorRate, errors)
            }
            () if limits.p99.is_some() && is_over(slow, Chance::PARTS / 100) => {
                (ShiftFault::Slow, slow)
            }
            () => return None,
        };
        Some(ShiftAbort { at: now, share: plan.share(self.steps), fault, requests, bad })
    }

    /// Whether the new version gets requests that show how good it is.
    fn is_judged(&self, plan: &ShiftPlan) -> bool {
        self.steps > 0 || plan.first > 0
    }

    fn step(&mut self, plan: &ShiftPlan, now: UnixMs, resumed: bool) -> Option<ShiftEvent> {
        let every = plan.every_ms();
        if plan.start.is_none() && self.next > now.saturating_add(every) {
            // The clock was set back.
            self.next = plan.next_multiple(now);
        }
        let late = now.checked_sub(self.next)?;
        let missed = late / every;
        self.next = self.next.saturating_add(missed.saturating_add(1).saturating_mul(every));
        // The clock of a host may be set long after the start of the proxy. Without a start in the
        // file, this must not take all steps at once.
        let taken = if plan.start.is_some() || resumed { missed.saturating_add(1) } else { 1 };
        let (steps, reached) = (plan.steps(), taken.saturating_add(self.steps.into()));
        if reached > u64::from(steps) {
            self.steps = steps;
            self.phase = ShiftPhase::Done { at: now };
            return Some(ShiftEvent::Done);
        }
        self.steps = reached as u32;
        let share = plan.share(self.steps);
        Some(ShiftEvent::Step { share, step: self.steps, steps, next: self.next })
    }

    /// The time until the plan must be looked at again. `None` means that it has ended.
    pub fn due_in(&self, plan: &ShiftPlan, now: UnixMs) -> Option<Duration> {
        /// How often a running step is judged.
        const LOOK: Duration = Duration::from_secs(1);
        let until_step = Duration::from_millis(self.next.saturating_sub(now));
        let look = if self.is_judged(plan) && plan.abort_if.is_some() {
            LOOK.min(plan.every / 10)
        } else {
            LOOK
        };
        self.is_running().then(|| until_step.min(look))
    }
}

#[cfg(test)]
mod tests {
    use super::super::AbortIf;
    use super::*;

    const EVERY: u64 = 300_000;

    fn plan(start: Option<UnixMs>) -> ShiftPlan {
        let p99 = Some(Duration::from_millis(500));
        let abort_if = AbortIf { error_rate: Some(20_000), p99, min_requests: 100 };
        ShiftPlan {
            first: 0,
            step: 250_000,
            every: Duration::from_millis(EVERY),
            start,
            abort_if: Some(abort_if),
        }
    }

    fn counts(requests: u64, errors: u64, slow: u64) -> ShiftCounts {
        ShiftCounts { requests, errors, slow }
    }

    /// The share after each second from `from` to `to`.
    fn shares(plan: &ShiftPlan, from: UnixMs, to: UnixMs) -> Vec<(UnixMs, u32)> {
        let mut progress = ShiftProgress::begin(plan, from);
        let mut shares = Vec::new();
        for now in (from..=to).step_by(1000) {
            if progress.decide(plan, now, ShiftCounts::default(), now == from).is_some() {
                shares.push((now, progress.share(plan)));
            }
        }
        shares
    }

    #[test]
    fn steps_are_at_multiples_of_the_clock_or_of_the_start() {
        let expected = |first: UnixMs| {
            let shares = [250_000, 500_000, 750_000, 1_000_000, 1_000_000];
            (0..).zip(shares).map(|(n, share)| (first + n * EVERY, share)).collect::<Vec<_>>()
        };
        let now = 10 * EVERY + 77_000;
        assert_eq!(shares(&plan(None), now, now + 9 * EVERY), expected(11 * EVERY));
        let start = 12 * EVERY + 7000;
        assert_eq!(shares(&plan(Some(start)), now, now + 9 * EVERY), expected(start));
        // A proxy that begins later is at the same place at once.
        let late = shares(&plan(Some(start)), start + EVERY + 1000, now + 9 * EVERY);
        assert_eq!(late[0], (start + EVERY + 1000, 500_000));
        assert_eq!(late[1..], expected(start)[2..]);
    }

    #[test]
    fn a_bad_version_gets_nothing_any_more() {
        for (seen, fault) in [
            (counts(99, 99, 99), None),
            (counts(100, 2, 1), None),
            (counts(100, 3, 0), Some(ShiftFault::ErrorRate)),
            (counts(100, 0, 2), Some(ShiftFault::Slow)),
            (counts(1000, 21, 11), Some(ShiftFault::ErrorRate)),
            (counts(u64::MAX, 0, 0), None),
        ] {
            let plan = plan(Some(0));
            let mut progress = ShiftProgress::begin(&plan, 0);
            // No request of before the first step counts.
            assert!(matches!(
                progress.decide(&plan, 0, seen, false),
                Some(ShiftEvent::Step { .. })
            ));
            let event = progress.decide(&plan, 1, seen, false);
            match (event, fault) {
                (None, None) => assert_eq!(progress.share(&plan), 250_000),
                (Some(ShiftEvent::Aborted(abort)), Some(fault)) => {
                    assert_eq!((abort.fault, abort.share, abort.at), (fault, 250_000, 1));
                    assert_eq!(progress.share(&plan), 0);
                    assert_eq!(progress.decide(&plan, 9 * EVERY, counts(0, 0, 0), true), None);
                    assert_eq!(progress.due_in(&plan, 1), None);
                }
                other => panic!("{seen:?}: {other:?}"),
            }
        }
        let abort =
            ShiftAbort { at: 0, share: 0, fault: ShiftFault::ErrorRate, requests: 200, bad: 5 };
        assert_eq!(
            abort.why(&plan(None)),
            "5 of 200 requests (2.5%) in this step failed; the limit is 2%"
        );
        assert_eq!(
            ShiftAbort { fault: ShiftFault::Slow, ..abort }.why(&plan(None)),
            "5 of 200 requests (2.5%) in this step took longer than 500ms; the limit is 1%"
        );
    }

    #[test]
    fn the_last_step_is_judged_too() {
        let plan = ShiftPlan { step: Chance::PARTS, ..plan(Some(0)) };
        let mut progress = ShiftProgress::begin(&plan, 0);
        progress.decide(&plan, 0, counts(0, 0, 0), false);
        assert_eq!(progress.share(&plan), Chance::PARTS);
        let event = progress.decide(&plan, EVERY, counts(100, 50, 0), false);
        assert!(matches!(event, Some(ShiftEvent::Aborted(_))), "{event:?}");
    }

    #[test]
    fn a_restart_goes_on_at_the_place_of_the_clock() {
        let plan = plan(None);
        let mut progress = ShiftProgress::begin(&plan, 0);
        progress.decide(&plan, EVERY, counts(0, 0, 0), false);
        let mut resumed = progress.clone();
        assert_eq!(resumed.decide(&plan, EVERY + 5000, counts(0, 0, 0), true), None);
        assert_eq!(resumed.share(&plan), 250_000);
        let late = 3 * EVERY + 5000;
        resumed.decide(&plan, late, counts(0, 0, 0), true);
        assert_eq!((resumed.share(&plan), resumed.next), (750_000, 4 * EVERY));
        resumed.decide(&plan, 99 * EVERY, counts(0, 0, 0), true);
        assert_eq!(resumed.phase, ShiftPhase::Done { at: 99 * EVERY });
    }

    #[test]
    fn a_clock_that_is_set_takes_one_step_at_most_and_none_back() {
        let plan = plan(None);
        let mut progress = ShiftProgress::begin(&plan, 5000);
        // From 1970 to today.
        let today = 5_900_000 * EVERY + 123;
        progress.decide(&plan, today, counts(0, 0, 0), false);
        assert_eq!((progress.share(&plan), progress.next), (250_000, 5_900_001 * EVERY));
        // An hour back.
        let before = today - 3_600_000;
        assert_eq!(progress.decide(&plan, before, counts(0, 0, 0), false), None);
        assert_eq!(progress.share(&plan), 250_000);
        assert!(progress.next <= before + EVERY);
    }

    #[test]
    fn proxies_of_one_file_stay_together() {
        let mut random = 7_u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        for _ in 0..200 {
            let begin = 1_000 * EVERY + draw(EVERY - 1);
            let plan = plan((draw(2) == 0).then(|| begin + draw(3 * EVERY)));
            // All get the plan in the same interval, look at different times, and restart.
            let mut all: Vec<_> = (0..3).map(|_| ShiftProgress::begin(&plan, begin)).collect();
            for n in 1..9 {
                let now = begin + n * EVERY;
                for progress in &mut all {
                    if draw(4) > 0 {
                        let seen = now - draw(EVERY / 2);
                        progress.decide(&plan, seen, counts(0, 0, 0), draw(2) == 0);
                    }
                    progress.decide(&plan, now, counts(0, 0, 0), true);
                }
                assert_eq!(all[0].share(&plan), all[1].share(&plan), "{plan} at {now}");
                assert_eq!(all[0].share(&plan), all[2].share(&plan), "{plan} at {now}");
                assert_eq!(all[0].is_running(), all[1].is_running());
            }
        }
    }
}
