//! Chooses among the endpoints of a subset, on one worker.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::{Load, Maglev, Policy};
use crate::health::{Changes, SlowStart, State, eligible};
use crate::time::Time;

/// The endpoints and the policy of a service.
pub trait Candidates {
    /// The load balancing policy.
    fn policy(&self) -> &Policy;

    /// The counter of state changes. `None` if the service has neither a health check nor outlier
    /// detection.
    fn changes(&self) -> Option<&Changes>;

    /// If fewer endpoints than this percentage are healthy, all endpoints get requests.
    fn panic_percent(&self) -> u8;

    /// The indices of the endpoints in a subset. Empty if the subset does not exist.
    fn members(&self, subset: usize) -> &[u32];

    /// The weight of an endpoint.
    fn weight(&self, index: u32) -> u32;

    /// The state of an endpoint. `None` if it has neither a health check nor outlier detection.
    fn state(&self, index: u32) -> Option<State>;

    /// The slow start. `None` means that a new endpoint gets its full traffic at once. The hash
    /// policy has no slow start.
    fn slow_start(&self) -> Option<&SlowStart>;

    /// The time since the slow start of an endpoint began. `Duration::MAX` if it has none.
    fn age(&self, index: u32, now: Time) -> Duration;

    /// The Maglev table of a subset, for the hash policy.
    fn maglev(&self, subset: usize) -> Option<&Maglev>;
}

/// The share of a member with weight 1 while a slow start is in progress.
const SHARE_UNIT: f64 = 1000.0;

/// Chooses among the endpoints of one subset of a service, on one worker.
#[derive(Debug)]
pub struct Balancer {
    subset: usize,
    takers: RefCell<Takers>,
    /// The value of [`Candidates::changes`] for which `takers` was computed.
    changes: Cell<u64>,
}

/// The members of the subset that get traffic.
#[derive(Debug)]
struct Takers {
    members: Vec<Member>,
    shares_total: u64,
    /// Whether all members have the same share.
    even: bool,
    /// Whether health states exclude no endpoint: all endpoints with a weight above 0 get traffic.
    everyone: bool,
    /// When shares have grown by a step of the slow start. `Time::NEVER` if no endpoint is in its
    /// slow start.
    renew_at: Time,
}

#[derive(Debug)]
struct Member {
    /// Index into the endpoints of the service.
    index: u32,
    weight: u32,
    /// The factor for the weight of an endpoint during its slow start, from 0 to 1.
    ramp: f64,
    /// The current weight, scaled to an integer. With most policies, it includes the slow start.
    share: u64,
    /// The sum of the shares up to and including this member.
    cumulative: u64,
    /// For smooth weighted round robin: each turn adds the share to the credit, and the member with
    /// the largest credit is chosen.
    credit: Cell<i64>,
}

impl Balancer {
    /// Creates the balancer for the subset with this index.
    pub fn new(service: &impl Candidates, subset: usize) -> Self {
        // Read the count first, so that a change in the meantime is noticed at the next request.
        let changes = service.changes().map_or(0, Changes::count);
        // The first pick knows the time, and computes the shares again.
        let takers = RefCell::new(Takers::of(service, subset, Time::default()));
        Self { subset, takers, changes: Cell::new(changes) }
    }

    /// Returns the index of the endpoint for the next request, or `None` if there is no endpoint.
    /// `load` returns the load of an endpoint by index. `key` is the hash of the request, for the
    /// hash policy. An endpoint of `avoid` is chosen only if there is no other.
    pub fn pick<'l>(
        &self,
        service: &impl Candidates,
        load: impl Fn(u32) -> &'l Load,
        key: Option<u64>,
        avoid: &[u32],
        now: Time,
        random: &mut fastrand::Rng,
    ) -> Option<u32> {
        if let Some(changes) = service.changes() {
            let changes = changes.count();
            let changed = self.changes.replace(changes) != changes;
            if changed || now >= self.takers.borrow().renew_at {
                let new = Takers::of(service, self.subset, now);
                if !changed {
                    new.continue_turns(&self.takers.borrow());
                }
                *self.takers.borrow_mut() = new;
            }
        }
        let takers = self.takers.borrow();
        let picked = match service.policy() {
            Policy::RoundRobin => takers.next_in_turn(),
            Policy::Random => takers.any(random),
            Policy::LeastRequest => {
                takers.better_of_two(random, |member| f64::from(load(member.index).active() + 1))
            }
            Policy::PeakEwma => takers.better_of_two(random, |member| {
                let load = load(member.index);
                load.latency_us(now) * f64::from(load.active() + 1)
            }),
            Policy::Hash(_) => match (key, service.maglev(self.subset)) {
                (Some(key), Some(table)) => table.lookup(key, |index| takers.includes(index)),
                _ => takers.any(random),
            },
        }?;
        if !avoid.contains(&picked) {
            return Some(picked);
        }
        let next = match (service.policy(), key, service.maglev(self.subset)) {
            // All requests with the same key move to the same other endpoint.
            (Policy::Hash(_), Some(key), Some(table)) => {
                table.lookup(key, |index| takers.includes(index) && !avoid.contains(&index))
            }
            _ => takers.another(avoid, random),
        };
        Some(next.unwrap_or(picked))
    }
}

impl Takers {
    fn of(service: &impl Candidates, subset: usize, now: Time) -> Self {
        let members = service.members(subset).iter().copied();
        let weighty = members.filter(|&index| service.weight(index) > 0);
        // Read each state once, so that all decisions use the same states.
        let states: Vec<_> = weighty.map(|index| (index, service.state(index))).collect();
        let known = states.iter().filter_map(|(_, state)| *state);
        let eligible = eligible(known, service.panic_percent());
        let mut members = Vec::with_capacity(states.len());
        let slow_start = service.slow_start();
        // The policies that compare two members apply the slow start in [`Takers::better_of_two`].
        let two = matches!(service.policy(), Policy::LeastRequest | Policy::PeakEwma);
        let mut shares_total = 0;
        for &(index, state) in &states {
            if state.is_some_and(|state| !eligible.includes(state)) {
                continue;
            }
            let weight = service.weight(index);
            let ramp = slow_start.map_or(1.0, |slow| slow.factor(service.age(index, now)));
            let share = match slow_start {
                Some(_) if !two => ((f64::from(weight) * SHARE_UNIT * ramp) as u64).max(1),
                _ => u64::from(weight),
            };
            shares_total += share;
            let credit = Cell::new(0);
            let cumulative = shares_total;
            members.push(Member { index, weight, ramp, share, cumulative, credit });
        }
        let even = members.windows(2).all(|pair| pair[0].share == pair[1].share);
        let everyone = members.len() == states.len();
        let growing = slow_start.filter(|_| members.iter().any(|member| member.ramp < 1.0));
        let renew_at = growing.map_or(Time::NEVER, |slow_start| now + slow_start.step());
        Self { members, shares_total, even, everyone, renew_at }
    }

    /// Continues the round robin of `before`. The shares have changed only a little since then.
    fn continue_turns(&self, before: &Self) {
        for (member, before) in self.members.iter().zip(&before.members) {
            member.credit.set(before.credit.get());
        }
    }

    /// Whether the endpoint gets traffic. Its weight must be above 0.
    fn includes(&self, index: u32) -> bool {
        let place = || self.members.binary_search_by_key(&index, |member| member.index);
        self.everyone || place().is_ok()
    }

    fn next_in_turn(&self) -> Option<u32> {
        let mut best: Option<&Member> = None;
        for member in &self.members {
            member.credit.set(member.credit.get() + member.share as i64);
            if best.is_none_or(|best| member.credit.get() > best.credit.get()) {
                best = Some(member);
            }
        }
        let best = best?;
        best.credit.set(best.credit.get() - self.shares_total as i64);
        Some(best.index)
    }

    fn any(&self, random: &mut fastrand::Rng) -> Option<u32> {
        self.sample(random).map(|at| self.members[at].index)
    }

    /// Returns the position of a random member, weighted by share.
    fn sample(&self, random: &mut fastrand::Rng) -> Option<usize> {
        if self.members.is_empty() {
            return None;
        }
        if self.even {
            return Some(random.usize(..self.members.len()));
        }
        let point = random.u64(..self.shares_total);
        Some(self.members.partition_point(|member| member.cumulative <= point))
    }

    /// Draws two members at random, weighted by share. Returns the one with the lower cost relative
    /// to its weight.
    fn better_of_two(
        &self,
        random: &mut fastrand::Rng,
        cost: impl Fn(&Member) -> f64,
    ) -> Option<u32> {
        let first = self.sample(random)?;
        if self.members.len() == 1 {
            return Some(self.members[first].index);
        }
        let mut second = self.sample(random)?;
        if second == first {
            second = (first + 1 + random.usize(..self.members.len() - 1)) % self.members.len();
        }
        let (first, second) = (&self.members[first], &self.members[second]);
        let relative = |member: &Member| cost(member) / f64::from(member.weight);
        let (better, other) = match relative(second) < relative(first) {
            true => (second, first),
            false => (first, second),
        };
        // During its slow start, a member passes a part of its requests to the other member.
        let leaves = better.ramp < other.ramp && random.f64() * other.ramp >= better.ramp;
        Some(if leaves { other.index } else { better.index })
    }

    /// Returns a random member that is not in `avoid`.
    fn another(&self, avoid: &[u32], random: &mut fastrand::Rng) -> Option<u32> {
        let others = self.members.iter().map(|member| member.index);
        let mut others = others.filter(|index| !avoid.contains(index));
        let count = others.clone().count();
        if count == 0 { None } else { others.nth(random.usize(..count)) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::balance::HashKey;
    use crate::health::{HealthState, Reason, Thresholds};

    /// A service whose endpoints have these weights.
    struct Service {
        policy: Policy,
        weights: Vec<u32>,
        health: Vec<HealthState>,
        changes: Option<Arc<Changes>>,
        panic_percent: u8,
        slow_start: Option<SlowStart>,
        began: Vec<Time>,
        members: Vec<u32>,
        maglev: Maglev,
    }

    impl Candidates for Service {
        fn policy(&self) -> &Policy {
            &self.policy
        }

        fn changes(&self) -> Option<&Changes> {
            self.changes.as_deref()
        }

        fn panic_percent(&self) -> u8 {
            self.panic_percent
        }

        fn members(&self, _: usize) -> &[u32] {
            &self.members
        }

        fn weight(&self, index: u32) -> u32 {
            self.weights[index as usize]
        }

        fn state(&self, index: u32) -> Option<State> {
            self.health.get(index as usize).map(HealthState::state)
        }

        fn slow_start(&self) -> Option<&SlowStart> {
            self.slow_start.as_ref()
        }

        fn age(&self, index: u32, now: Time) -> Duration {
            now.since(self.began[index as usize])
        }

        fn maglev(&self, _: usize) -> Option<&Maglev> {
            Some(&self.maglev)
        }
    }

    fn service(policy: Policy, weights: &[u32]) -> Service {
        let keys: Vec<_> = (0..weights.len()).map(|index| format!("10.0.0.{index}:80")).collect();
        let member = |(index, key): (u32, &'static str)| crate::balance::Member {
            index,
            key: key.as_bytes(),
            weight: weights[index as usize],
        };
        let keys = keys.into_iter().map(|key| &*key.leak());
        let maglev = Maglev::build(&(0..).zip(keys).map(member).collect::<Vec<_>>());
        let members = (0..weights.len() as u32).collect();
        let (weights, health) = (weights.to_vec(), Vec::new());
        let (changes, panic_percent) = (None, 50);
        let (slow_start, began) = (None, vec![Time::default(); weights.len()]);
        Service {
            policy,
            weights,
            health,
            changes,
            panic_percent,
            slow_start,
            began,
            members,
            maglev,
        }
    }

    struct Bench {
        service: Service,
        balancer: Balancer,
        loads: Vec<Load>,
        random: fastrand::Rng,
        now: Time,
    }

    impl Bench {
        fn new(policy: Policy, weights: &[u32]) -> Self {
            let service = service(policy, weights);
            let balancer = Balancer::new(&service, 0);
            let loads = weights.iter().map(|_| Load::default()).collect();
            Self {
                service,
                balancer,
                loads,
                random: fastrand::Rng::with_seed(1),
                now: Time::default(),
            }
        }

        fn pick(&mut self, key: Option<u64>, avoid: Option<u32>) -> Option<u32> {
            self.pick_beside(key, avoid.as_slice())
        }

        fn pick_beside(&mut self, key: Option<u64>, avoid: &[u32]) -> Option<u32> {
            let Self { service, balancer, loads, random, now } = self;
            let load = |index: u32| &loads[index as usize];
            balancer.pick(service, load, key, avoid, *now, random)
        }

        fn counts(&mut self, picks: usize) -> Vec<usize> {
            let mut counts = vec![0; self.loads.len()];
            for _ in 0..picks {
                counts[self.pick(None, None).unwrap() as usize] += 1;
            }
            counts
        }
    }

    fn policies() -> [Policy; 5] {
        let hash = Policy::Hash(HashKey::SourceIp);
        [Policy::LeastRequest, Policy::RoundRobin, Policy::Random, Policy::PeakEwma, hash]
    }

    impl Bench {
        /// Creates endpoints of equal weight with a health check, all healthy at first.
        fn checked(policy: Policy, count: usize, panic_percent: u8) -> Self {
            let mut bench = Self::new(policy, &vec![1; count]);
            let changes = Arc::new(Changes::default());
            let state = |_| HealthState::new(Arc::clone(&changes));
            bench.service.health = (0..count).map(state).collect();
            (bench.service.changes, bench.service.panic_percent) = (Some(changes), panic_percent);
            bench.balancer = Balancer::new(&bench.service, 0);
            (0..count).for_each(|index| bench.hear(index, true));
            bench
        }

        fn hear(&self, index: usize, healthy: bool) {
            let outcome = if healthy { Ok(()) } else { Err((Reason::NotServing, String::new())) };
            self.service.health[index].hear(outcome, AT_ONCE, 0);
        }

        /// Returns the endpoints that are chosen for many keys.
        fn chosen(&mut self) -> Vec<Option<u32>> {
            (0..400).map(|key| self.pick(Some(key * 7919), None)).collect()
        }
    }

    const AT_ONCE: Thresholds = Thresholds { healthy: 1, unhealthy: 1 };

    #[test]
    fn the_unhealthy_get_nothing_until_they_are_well_again() {
        for policy in policies() {
            let mut bench = Bench::checked(policy.clone(), 4, 50);
            bench.hear(2, false);
            let chosen = bench.chosen();
            assert!([0, 1, 3].iter().all(|&i| chosen.contains(&Some(i))), "{policy:?}");
            assert!(!chosen.contains(&Some(2)), "{policy:?}");
            for key in 0..100 {
                let avoided = bench.pick(Some(key), Some(1));
                assert!(matches!(avoided, Some(0 | 3)), "{policy:?}: {avoided:?}");
            }
            bench.hear(2, true);
            assert!(bench.chosen().contains(&Some(2)), "{policy:?}");
        }
    }

    #[test]
    fn when_too_few_are_healthy_all_are_used_or_none() {
        for policy in policies() {
            let mut bench = Bench::checked(policy.clone(), 4, 50);
            (0..3).for_each(|index| bench.hear(index, false));
            let chosen = bench.chosen();
            assert!((0..4).all(|index| chosen.contains(&Some(index))), "{policy:?}");
            let mut bench = Bench::checked(policy.clone(), 4, 0);
            (0..3).for_each(|index| bench.hear(index, false));
            assert!(bench.chosen().iter().all(|&chosen| chosen == Some(3)), "{policy:?}");
            bench.hear(3, false);
            assert!(bench.chosen().iter().all(Option::is_none), "{policy:?}");
        }
    }

    #[test]
    fn a_key_moves_only_when_its_endpoint_is_unhealthy() {
        let mut bench = Bench::checked(Policy::Hash(HashKey::SourceIp), 10, 50);
        let before = bench.chosen();
        bench.hear(4, false);
        let mut refuges = std::collections::HashSet::new();
        for (before, after) in before.iter().zip(bench.chosen()) {
            if *before == Some(4) {
                refuges.insert(after);
            } else {
                assert_eq!(*before, after);
            }
        }
        assert!(refuges.len() > 4, "they are spread: {refuges:?}");
        bench.hear(4, true);
        assert_eq!(bench.chosen(), before);
    }

    #[test]
    fn every_policy_knows_none_one_and_the_one_to_avoid() {
        for policy in policies() {
            assert_eq!(Bench::new(policy.clone(), &[]).pick(Some(1), None), None);
            assert_eq!(Bench::new(policy.clone(), &[0, 0]).pick(Some(1), None), None);
            assert_eq!(Bench::new(policy.clone(), &[0, 5]).pick(Some(1), Some(1)), Some(1));
            let mut bench = Bench::new(policy.clone(), &[1, 1, 1]);
            for key in 0..200 {
                let avoided = bench.pick(Some(key), Some(1));
                assert!(matches!(avoided, Some(0 | 2)), "{policy:?}: {avoided:?}");
                assert_eq!(bench.pick_beside(Some(key), &[0, 1]), Some(2), "{policy:?}");
                assert!(bench.pick_beside(Some(key), &[0, 1, 2]).is_some(), "{policy:?}");
            }
        }
    }

    /// Creates endpoints of these weights. The time is 1000 s. The last endpoint has just begun its
    /// slow start of 100 s, with a tenth of its weight.
    fn warming(policy: Policy, weights: &[u32]) -> Bench {
        let at = |seconds: u64| Time::from_micros(seconds * 1_000_000);
        let mut bench = Bench::new(policy, weights);
        let window = Duration::from_secs(100);
        bench.service.slow_start = Some(SlowStart { window, aggression: 1.0, min_percent: 10 });
        bench.service.changes = Some(Arc::default());
        *bench.service.began.last_mut().unwrap() = at(1000);
        bench.balancer = Balancer::new(&bench.service, 0);
        bench.now = at(1000);
        bench
    }

    #[test]
    fn a_new_endpoint_gets_more_and_more_until_it_has_its_share() {
        let policies = [Policy::RoundRobin, Policy::Random, Policy::LeastRequest, Policy::PeakEwma];
        for (policy, busy) in policies.into_iter().flat_map(|it| [(it.clone(), 0), (it, 3)]) {
            let mut bench = warming(policy.clone(), &[1, 1]);
            // The other endpoint has more requests: that alone would give all requests to the new
            // one.
            (0..busy).for_each(|_| bench.loads[0].started());
            let compares = matches!(policy, Policy::LeastRequest | Policy::PeakEwma) && busy > 0;
            for (seconds, part) in [(0, 0.1), (20, 0.2), (50, 0.5), (99, 0.99), (100, 1.0)] {
                bench.now = Time::from_micros((1000 + seconds) * 1_000_000);
                let count = bench.counts(10_000)[1];
                let expected = match policy {
                    // Each endpoint gets this part of its requests without a slow start.
                    Policy::LeastRequest | Policy::PeakEwma if compares => part,
                    Policy::LeastRequest | Policy::PeakEwma => part / 2.0,
                    _ => part / (1.0 + part),
                };
                let case = format!("{policy:?}, {busy} busy, after {seconds} s: {count}");
                assert!((count as f64 - expected * 10_000.0).abs() < 300.0, "{case}");
            }
        }
    }

    #[test]
    fn round_robin_stays_smooth_while_shares_grow() {
        let mut bench = warming(Policy::RoundRobin, &[2, 1]);
        let mut counts = [0; 2];
        // Each turn comes after a step, so the shares differ from those of the turn before.
        for step in 0..1000 {
            bench.now = Time::from_micros(1_000_000_000 + step * 1_000_000 / 10 * 11);
            counts[bench.pick(None, None).unwrap() as usize] += 1;
        }
        // The average factor of the new endpoint is 0.505 in the first 100 s, and 1 after that.
        assert!((318..=333).contains(&counts[1]), "{counts:?}");
        let mut even = warming(Policy::RoundRobin, &[1, 1]);
        even.service.began[0] = even.service.began[1];
        assert_eq!(even.counts(1000), [500, 500], "if all are new, all are equal");
    }

    #[test]
    fn round_robin_is_exact_and_smooth() {
        let mut bench = Bench::new(Policy::RoundRobin, &[5, 1, 1]);
        let turns: Vec<_> = (0..7).map(|_| bench.pick(None, None).unwrap()).collect();
        assert_eq!(turns, [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(bench.counts(700), [500, 100, 100]);
    }

    #[test]
    fn random_choices_follow_the_weights() {
        for policy in [Policy::Random, Policy::LeastRequest, Policy::Hash(HashKey::SourceIp)] {
            let mut bench = Bench::new(policy.clone(), &[1, 1, 1, 1]);
            for count in bench.counts(8000) {
                assert!((1700..2300).contains(&count), "{policy:?}: {count}");
            }
        }
        let counts = Bench::new(Policy::Random, &[3, 1, 0]).counts(8000);
        assert!((5800..6200).contains(&counts[0]) && counts[2] == 0, "{counts:?}");
    }

    #[test]
    fn the_busy_and_the_slow_get_less() {
        let mut bench = Bench::new(Policy::LeastRequest, &[1, 1]);
        (0..5).for_each(|_| bench.loads[0].started());
        assert_eq!(bench.counts(100), [0, 100]);
        let mut bench = Bench::new(Policy::PeakEwma, &[1, 1]);
        bench.loads[1].started();
        bench.loads[1].finished(Time::default(), Duration::from_secs(1));
        assert_eq!(bench.counts(100), [100, 0]);
    }

    #[test]
    fn the_same_key_goes_to_the_same_endpoint() {
        let mut bench = Bench::new(Policy::Hash(HashKey::SourceIp), &[1; 10]);
        let first: Vec<_> = (0..100).map(|key| bench.pick(Some(key * 7919), None)).collect();
        let again: Vec<_> = (0..100).map(|key| bench.pick(Some(key * 7919), None)).collect();
        assert_eq!(first, again);
    }
}
