//! The endpoints of one service, and the ejected ones among them.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{EjectionReason, OutlierHub, OutlierPolicy, OutlierState, Sample};
use crate::health::Changes;
use crate::time::Time;

/// The endpoints of one service, for outlier detection. The group is kept over reloads.
#[derive(Debug)]
pub struct OutlierGroup {
    /// The name of the service.
    pub service: Box<str>,
    changes: Arc<Changes>,
    hub: Arc<OutlierHub>,
    /// The limits of the policy, by [`EjectionReason::index`]. Failures are compared with them
    /// without a lock.
    limits: [AtomicU32; EjectionReason::IN_A_ROW.len()],
    /// Whether success rates or failure percentages are measured.
    rated: AtomicBool,
    /// Whether the next failure begins an interval. Only set while `rated` is.
    waits: AtomicBool,
    /// The number of ejections, by [`EjectionReason::index`].
    ejections: [AtomicU64; EjectionReason::ALL.len()],
    over_limit: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    policy: OutlierPolicy,
    /// The current endpoints of the service.
    members: Vec<Arc<OutlierState>>,
    /// The members that are ejected, each with the end of its ejection.
    ejected: Vec<(Time, Arc<OutlierState>)>,
    /// The end of the current interval. `None` while rates are not measured, or no interval has
    /// begun.
    interval_ends: Option<Time>,
    /// Events for the log. An endpoint has at most two before the control thread takes them.
    events: Vec<OutlierEvent>,
    /// Whether a task of the control thread attends to the group, or is about to do so.
    attended: bool,
    /// Whether there is a change that this task has not yet handled.
    news: bool,
    waker: Option<Waker>,
}

/// An event for the log.
#[derive(Clone, Debug)]
pub struct OutlierEvent {
    /// The endpoint that was ejected, or whose ejection has ended.
    pub endpoint: Arc<OutlierState>,
    /// The reason and the length of the ejection. `None` means that the ejection has ended.
    pub ejection: Option<(EjectionReason, Duration)>,
    /// The number of ejected endpoints of the service after the event.
    pub ejected: usize,
    /// The number of all endpoints of the service.
    pub members: usize,
}

impl OutlierGroup {
    /// Creates the group of a service without endpoints. Ejections and their ends are counted in
    /// `changes`.
    pub fn new(service: &str, changes: Arc<Changes>, hub: Arc<OutlierHub>) -> Self {
        Self {
            service: service.into(),
            changes,
            hub,
            limits: Default::default(),
            rated: AtomicBool::new(false),
            waits: AtomicBool::new(false),
            ejections: Default::default(),
            over_limit: AtomicU64::new(0),
            inner: Mutex::default(),
        }
    }

    /// The hub that passes this group to the control thread.
    pub fn hub(&self) -> &Arc<OutlierHub> {
        &self.hub
    }

    /// The number of ejections for `reason` so far.
    pub fn ejections(&self, reason: EjectionReason) -> u64 {
        self.ejections[reason.index()].load(Ordering::Relaxed)
    }

    /// How often an endpoint was not ejected because too many others were ejected.
    pub fn over_limit(&self) -> u64 {
        self.over_limit.load(Ordering::Relaxed)
    }

    /// The number of endpoints that are ejected now.
    pub fn ejected(&self) -> usize {
        self.lock().ejected.len()
    }

    /// Applies `policy` to exactly these endpoints from `now` on. Endpoints that stay in the
    /// service stay ejected. If more are ejected than the new limit allows, the ejections that
    /// would end first are ended now.
    pub fn follow(
        self: &Arc<Self>,
        policy: &OutlierPolicy,
        members: Vec<Arc<OutlierState>>,
        now: Time,
    ) {
        for reason in EjectionReason::IN_A_ROW {
            self.limits[reason.index()].store(policy.limit(reason), Ordering::Relaxed);
        }
        let mut inner = self.lock();
        let allowed = match members.is_empty() {
            true => 0,
            false => policy.ejected_max(members.len()),
        };
        inner.policy = policy.clone();
        self.rated.store(policy.is_rated(), Ordering::Relaxed);
        inner.interval_ends = inner.interval_ends.filter(|_| policy.is_rated());
        let waits = policy.is_rated() && inner.interval_ends.is_none();
        self.waits.store(waits, Ordering::Relaxed);
        let gone: Vec<_> = inner
            .ejected
            .extract_if(.., |(_, it)| !members.iter().any(|member| Arc::ptr_eq(member, it)))
            .collect();
        gone.iter().for_each(|(_, state)| state.set_ejected(false));
        inner.members = members;
        inner.ejected.sort_by_key(|(until, _)| *until);
        let excess = inner.ejected.len().saturating_sub(allowed);
        let returning: Vec<_> = inner.ejected.drain(..excess).collect();
        self.give_back(&mut inner, returning, now);
        if !inner.events.is_empty() {
            self.call(&mut inner);
        }
    }

    /// Ends all ejections, because the service has no outlier detection any more.
    pub fn leave(self: &Arc<Self>, now: Time) {
        self.follow(&OutlierPolicy::default(), Vec::new(), now);
    }

    /// Whether attempts are counted, because rates are measured.
    #[inline]
    pub(super) fn is_rated(&self) -> bool {
        self.rated.load(Ordering::Relaxed)
    }

    /// Whether the next failure begins an interval.
    pub(super) fn waits_for_failure(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// Begins an interval at `now`, unless another worker has begun it already.
    #[cold]
    pub(super) fn begin_interval(self: &Arc<Self>, now: Time) {
        let mut inner = self.lock();
        if self.waits.swap(false, Ordering::Relaxed) {
            inner.measure_from(now);
            self.call(&mut inner);
        }
    }

    /// The number of consecutive failures that ejects an endpoint. 0 means never.
    pub(super) fn limit(&self, reason: EjectionReason) -> u32 {
        self.limits[reason.index()].load(Ordering::Relaxed)
    }

    /// Ejects the endpoint of `state` at `now`, unless it is ejected already, is not in the service
    /// any more, or too many others are ejected.
    pub(super) fn eject(self: &Arc<Self>, state: &OutlierState, reason: EjectionReason, now: Time) {
        let mut inner = self.lock();
        let found = inner.members.iter().find(|member| std::ptr::eq(&***member, state));
        if let Some(endpoint) = found.map(Arc::clone)
            && self.eject_member(&mut inner, endpoint, reason, now)
        {
            self.call(&mut inner);
        }
    }

    /// Ejects a member, unless it is ejected already or too many others are.
    fn eject_member(
        &self,
        inner: &mut Inner,
        endpoint: Arc<OutlierState>,
        reason: EjectionReason,
        now: Time,
    ) -> bool {
        if endpoint.is_ejected() {
            return false;
        }
        let (members, policy) = (inner.members.len(), &inner.policy);
        if inner.ejected.len() >= policy.ejected_max(members) {
            self.over_limit.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let mut account = endpoint.locked();
        let before = policy.remaining(account.times, now.since(account.until));
        account.times = before.saturating_add(1).min(policy.times_max());
        let lasts = policy.lasts(account.times);
        account.ejections += 1;
        (account.reason, account.lasts, account.until) = (Some(reason), lasts, now + lasts);
        account.since_unix_s = None;
        drop(account);
        inner.ejected.push((now + lasts, Arc::clone(&endpoint)));
        endpoint.set_ejected(true);
        self.ejections[reason.index()].fetch_add(1, Ordering::Relaxed);
        let (ejection, ejected) = (Some((reason, lasts)), inner.ejected.len());
        inner.events.push(OutlierEvent { endpoint, ejection, ejected, members });
        self.changes.note();
        true
    }

    /// Ends the ejections and the interval whose time has passed. Returns the events since the last
    /// call, and the time of the next call. `None` means that nothing is left to do: after the next
    /// change, the hub returns the group again.
    pub fn tick(&self, now: Time) -> (Vec<OutlierEvent>, Option<Time>) {
        let mut inner = self.lock();
        let over: Vec<_> = inner.ejected.extract_if(.., |(until, _)| *until <= now).collect();
        self.give_back(&mut inner, over, now);
        if inner.interval_ends.is_some_and(|end| end <= now) {
            self.end_interval(&mut inner, now);
        }
        let ends = inner.ejected.iter().map(|(until, _)| *until);
        let next = ends.chain(inner.interval_ends).min();
        inner.attended = next.is_some();
        inner.news = false;
        (std::mem::take(&mut inner.events), next)
    }

    /// Completes when the group has changed since the last [`OutlierGroup::tick`].
    pub fn poll_news(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.lock();
        if inner.news {
            return Poll::Ready(());
        }
        inner.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Ejects the endpoints whose rates are too bad. If no attempt failed in the interval, the next
    /// interval begins with the next failure.
    fn end_interval(&self, inner: &mut Inner, now: Time) {
        let judged: Vec<_> = inner.members.iter().filter(|it| !it.is_ejected()).cloned().collect();
        let sample = |state: &Arc<OutlierState>| state.sample().since(state.locked().before);
        let samples: Vec<Sample> = judged.iter().map(sample).collect();
        let failed = inner.members.iter().map(sample).any(|sample| sample.failures > 0);
        let Inner { policy, .. } = &*inner;
        let rate = policy.success_rate.as_ref().map(|rule| rule.outliers(&samples));
        let failing = policy.failure_percentage.as_ref().map(|rule| rule.outliers(&samples));
        let rate = rate.into_iter().flatten().map(|at| (at, EjectionReason::SuccessRate));
        let failing = failing.into_iter().flatten();
        let failing = failing.map(|at| (at, EjectionReason::FailurePercentage));
        for (at, reason) in rate.chain(failing) {
            self.eject_member(inner, Arc::clone(&judged[at]), reason, now);
        }
        match failed {
            true => inner.measure_from(now),
            false => {
                inner.interval_ends = None;
                self.waits.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Ends ejections: the endpoints get requests again.
    fn give_back(&self, inner: &mut Inner, returning: Vec<(Time, Arc<OutlierState>)>, now: Time) {
        let (ejected, members) = (inner.ejected.len(), inner.members.len());
        let left = (0..returning.len()).rev();
        for ((_, endpoint), left) in returning.into_iter().zip(left) {
            endpoint.warmup.begin(now);
            endpoint.set_ejected(false);
            let ejected = ejected + left;
            inner.events.push(OutlierEvent { endpoint, ejection: None, ejected, members });
            self.changes.note();
        }
    }

    /// Wakes the task that attends to the group. If there is none, asks the control thread to start
    /// one.
    fn call(self: &Arc<Self>, inner: &mut Inner) {
        match inner.attended {
            true => inner.waker.take().into_iter().for_each(Waker::wake),
            false => self.hub.push(Arc::clone(self)),
        }
        inner.attended = true;
        inner.news = true;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Begins an interval at `now`.
    fn measure_from(&mut self, now: Time) {
        for member in &self.members {
            let sample = member.sample();
            member.locked().before = sample;
        }
        self.interval_ends = Some(now + self.policy.interval);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    use super::*;
    use crate::health::Heard;

    const POLICY: OutlierPolicy = OutlierPolicy {
        consecutive_5xx: 3,
        consecutive_gateway_errors: 0,
        consecutive_local_failures: 0,
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_time: Duration::from_secs(75),
        max_ejection_percent: 50,
        success_rate: None,
        failure_percentage: None,
    };

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    struct Bench {
        changes: Arc<Changes>,
        hub: Arc<OutlierHub>,
        group: Arc<OutlierGroup>,
        states: Vec<Arc<OutlierState>>,
    }

    impl Bench {
        fn new(policy: &OutlierPolicy, count: usize) -> Self {
            let (changes, hub) = (Arc::new(Changes::default()), Arc::new(OutlierHub::default()));
            let group = OutlierGroup::new("shop", Arc::clone(&changes), Arc::clone(&hub));
            let group = Arc::new(group);
            let state = |index| {
                OutlierState::new(
                    format!("10.0.0.{index}:80"),
                    Arc::clone(&group),
                    Arc::default(),
                    2,
                )
            };
            let states: Vec<_> = (0..count).map(|index| Arc::new(state(index))).collect();
            group.follow(policy, states.clone(), at(0));
            Self { changes, hub, group, states }
        }

        fn hear(&self, index: usize, seconds: u64, heard: &str) {
            for letter in heard.chars() {
                let heard = match letter {
                    '5' => Heard::ServerError,
                    'g' => Heard::GatewayError,
                    'l' => Heard::LocalFailure,
                    _ => Heard::Success,
                };
                self.states[index].hear(0, at(seconds), heard);
            }
        }

        fn ejected(&self) -> Vec<usize> {
            (0..self.states.len()).filter(|&index| self.states[index].is_ejected()).collect()
        }

        /// The number of groups that wait in the hub.
        fn called(&self) -> usize {
            let mut context = Context::from_waker(Waker::noop());
            (0..).take_while(|_| self.hub.poll_next(&mut context) != Poll::Pending).count()
        }
    }

    impl PartialEq for OutlierGroup {
        fn eq(&self, other: &Self) -> bool {
            std::ptr::eq(self, other)
        }
    }

    #[test]
    fn the_failures_in_a_row_decide() {
        let gateway = OutlierPolicy { consecutive_gateway_errors: 2, ..POLICY };
        let local = OutlierPolicy { consecutive_local_failures: 2, ..gateway.clone() };
        let only_local = OutlierPolicy { consecutive_5xx: 0, ..local.clone() };
        let only_local = OutlierPolicy { consecutive_gateway_errors: 0, ..only_local };
        let none = "";
        for (policy, heard, reason) in [
            (&POLICY, "55", none),
            (&POLICY, "555", "consecutive_5xx"),
            (&POLICY, "5gl", "consecutive_5xx"),
            (&POLICY, "55.55", none),
            (&POLICY, "55.5.555", "consecutive_5xx"),
            (&gateway, "gg", "consecutive_gateway_errors"),
            (&gateway, "lg", "consecutive_gateway_errors"),
            (&gateway, "g5g", "consecutive_5xx"),
            (&gateway, "g5.g", none),
            (&gateway, "g.g", none),
            // Failures without a response have their own counter.
            (&local, "ll", "consecutive_local_failures"),
            (&local, "gl", none),
            (&local, "55l5", "consecutive_5xx"),
            (&local, "l5l", none),
            (&local, "l.l", none),
            (&only_local, "555ggg", none),
            (&only_local, "5ll", "consecutive_local_failures"),
        ] {
            let bench = Bench::new(policy, 2);
            bench.hear(1, 1, heard);
            let found = bench.states[1].account().reason.map_or(none, EjectionReason::label);
            assert_eq!(
                (found, bench.ejected().len()),
                (reason, usize::from(reason != none)),
                "{heard}"
            );
            let count = |reason| bench.group.ejections(reason);
            assert_eq!(
                EjectionReason::ALL.map(count).iter().sum::<u64>(),
                bench.ejected().len() as u64
            );
        }
    }

    #[test]
    fn statuses_are_failures_from_500_on() {
        for (status, heard) in [
            (200, Heard::Success),
            (404, Heard::Success),
            (499, Heard::Success),
            (500, Heard::ServerError),
            (501, Heard::ServerError),
            (502, Heard::GatewayError),
            (504, Heard::GatewayError),
            (505, Heard::ServerError),
            (599, Heard::ServerError),
        ] {
            assert_eq!(Heard::status(status), heard, "{status}");
        }
    }

    #[test]
    fn ejections_end_grow_and_are_forgotten() {
        let bench = Bench::new(&POLICY, 2);
        let (mut now, mut lengths) = (100, Vec::new());
        for quiet in [0, 0, 0, 25, 200] {
            now += quiet;
            bench.hear(0, now, "555");
            assert_eq!(bench.ejected(), [0]);
            let (_, next) = bench.group.tick(at(now));
            let length = next.unwrap().since(at(now)).as_secs();
            bench.hear(0, now + 1, "555");
            assert_eq!(
                bench.group.tick(at(now + length - 1)).1,
                next,
                "failures do not prolong it"
            );
            now += length;
            let (events, next) = bench.group.tick(at(now));
            assert!(events[0].ejection.is_none() && events.len() == 1 && next.is_none());
            assert!(bench.ejected().is_empty());
            lengths.push(length);
        }
        assert_eq!(
            lengths,
            [30, 60, 75, 60, 30],
            "the longest is not exceeded, and one interval is one"
        );
        bench.hear(0, now, "55");
        assert!(bench.ejected().is_empty(), "the count begins anew");
    }

    #[test]
    fn the_control_thread_is_called_once_and_told_of_the_news() {
        let bench = Bench::new(&POLICY, 4);
        bench.hear(0, 1, "55");
        assert_eq!(
            (bench.called(), bench.changes.count()),
            (0, 0),
            "a quiet service costs nothing"
        );
        bench.hear(0, 1, "5");
        bench.hear(1, 2, "555");
        assert_eq!((bench.called(), bench.changes.count()), (1, 2));
        let (events, next) = bench.group.tick(at(2));
        let told: Vec<_> = events.iter().map(|it| (&*it.endpoint.address, it.ejected)).collect();
        assert_eq!(told, [("10.0.0.0:80", 1), ("10.0.0.1:80", 2)]);
        assert_eq!(next, Some(at(31)));
        let (events, next) = bench.group.tick(at(31));
        assert_eq!((events.len(), events[0].ejected, next), (1, 1, Some(at(32))));
        bench.hear(2, 31, "555");
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(bench.group.poll_news(&mut context), Poll::Ready(()));
        assert_eq!(bench.called(), 0, "its task is still there");
        assert_eq!(bench.group.tick(at(99)).1, None);
        bench.hear(0, 99, "555");
        assert_eq!(bench.called(), 1);
    }

    #[test]
    fn endpoints_that_stay_remain_ejected_and_a_smaller_limit_holds() {
        let bench = Bench::new(&POLICY, 8);
        (0..4).for_each(|index| bench.hear(index, 1 + index as u64, "555"));
        bench.hear(4, 9, "555");
        assert_eq!((bench.ejected(), bench.group.over_limit()), (vec![0, 1, 2, 3], 1));
        bench.group.follow(&POLICY, bench.states[1..].to_vec(), at(9));
        assert_eq!(bench.ejected(), [1, 2, 3]);
        bench.group.follow(&POLICY, bench.states[2..6].to_vec(), at(9));
        assert_eq!(bench.ejected(), [2, 3]);
        bench.hear(7, 9, "555");
        assert_eq!(bench.ejected(), [2, 3], "it is no member now");
        bench.group.follow(&POLICY, bench.states[2..4].to_vec(), at(9));
        assert_eq!(bench.ejected(), [3], "the ejection that would end first has ended");
        bench.group.leave(at(9));
        assert!(bench.ejected().is_empty());
        assert_eq!(bench.group.tick(at(9)).1, None);
    }

    #[test]
    fn no_interleaving_exceeds_the_limit() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (count, percent) = (random.usize(1..12), random.u8(1..=100));
            let policy = OutlierPolicy { max_ejection_percent: percent, ..POLICY };
            let bench = Bench::new(&policy, count);
            let (mut now, mut members, mut most) = (1, count, 0);
            for _ in 0..400 {
                now += u64::from(random.u8(..4) == 0);
                match random.u8(..20) {
                    0 => drop(bench.group.tick(at(now))),
                    1 => {
                        members = random.usize(0..=count);
                        bench.group.follow(&policy, bench.states[..members].to_vec(), at(9));
                    }
                    _ => bench.hear(
                        random.usize(..count),
                        now,
                        random.choice(["5", "555", "."]).unwrap(),
                    ),
                }
                let ejected = bench.ejected();
                let allowed = if members == 0 { 0 } else { policy.ejected_max(members) };
                let case = format!("seed {seed} at {now}: {ejected:?} of {members}");
                assert!(
                    ejected.len() <= allowed && ejected.len() == bench.group.ejected(),
                    "{case}"
                );
                assert!(ejected.iter().all(|&index| index < members), "{case}");
                most = most.max(ejected.len());
            }
            assert!(most > 0, "seed {seed}");
        }
    }

    #[test]
    fn threads_that_eject_at_once_share_one_limit() {
        let policy = OutlierPolicy { max_ejection_percent: 30, consecutive_5xx: 1, ..POLICY };
        for _ in 0..50 {
            let bench = Bench::new(&policy, 10);
            let (done, most) = (AtomicBool::new(false), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                let workers: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| (0..10).for_each(|index| bench.hear(index, 1, "5"))))
                    .collect();
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        most.fetch_max(bench.ejected().len(), Ordering::Relaxed);
                    }
                });
                workers.into_iter().for_each(|worker| worker.join().unwrap());
                done.store(true, Ordering::Relaxed);
            });
            assert_eq!((bench.ejected().len(), bench.group.ejected()), (3, 3));
            assert!(most.into_inner() <= 3);
            let (events, _) = bench.group.tick(at(1));
            assert_eq!(events.iter().map(|it| it.ejected).collect::<Vec<_>>(), [1, 2, 3]);
        }
    }
}
