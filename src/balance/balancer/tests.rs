//! Tests of all policies.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::balance::HashKey;
use crate::health::{HealthState, Reason, Thresholds};

/// A service whose endpoints have these weights.
pub(super) struct Service {
    policy: Policy,
    weights: Vec<u32>,
    pub(super) health: Vec<HealthState>,
    changes: Option<Arc<Changes>>,
    pub(super) panic_percent: u8,
    pub(super) slow_start: Option<SlowStart>,
    pub(super) locality: Option<Locality>,
    pub(super) levels: Vec<Level>,
    pub(super) began: Vec<Time>,
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

    fn locality(&self) -> Option<&Locality> {
        self.locality.as_ref()
    }

    fn level(&self, index: u32) -> Level {
        self.levels[index as usize]
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
    let (locality, levels) = (None, vec![Level::default(); weights.len()]);
    Service {
        policy,
        weights,
        health,
        changes,
        panic_percent,
        slow_start,
        locality,
        levels,
        began,
        members,
        maglev,
    }
}

pub(super) struct Bench {
    pub(super) service: Service,
    pub(super) balancer: Balancer,
    pub(super) loads: Vec<Load>,
    random: fastrand::Rng,
    pub(super) now: Time,
}

impl Bench {
    pub(super) fn new(policy: Policy, weights: &[u32]) -> Self {
        let service = service(policy, weights);
        let balancer = Balancer::new(&service, 0);
        let loads = weights.iter().map(|_| Load::default()).collect();
        Self { service, balancer, loads, random: fastrand::Rng::with_seed(1), now: Time::default() }
    }

    pub(super) fn pick(&mut self, key: Option<u64>, avoid: Option<u32>) -> Option<u32> {
        self.pick_beside(key, avoid.as_slice())
    }

    pub(super) fn pick_beside(&mut self, key: Option<u64>, avoid: &[u32]) -> Option<u32> {
        let Self { service, balancer, loads, random, now } = self;
        let load = |index: u32| &loads[index as usize];
        balancer.pick(service, load, key, avoid, *now, random)
    }

    pub(super) fn counts(&mut self, picks: usize) -> Vec<usize> {
        let mut counts = vec![0; self.loads.len()];
        for _ in 0..picks {
            counts[self.pick(None, None).unwrap() as usize] += 1;
        }
        counts
    }
}

pub(super) fn policies() -> [Policy; 5] {
    let hash = Policy::Hash(HashKey::SourceIp);
    [Policy::LeastRequest, Policy::RoundRobin, Policy::Random, Policy::PeakEwma, hash]
}

impl Bench {
    /// Creates endpoints of equal weight with a health check, all healthy at first.
    pub(super) fn checked(policy: Policy, count: usize, panic_percent: u8) -> Self {
        let mut bench = Self::new(policy, &vec![1; count]);
        let changes = Arc::new(Changes::default());
        let state = |_| HealthState::new(Arc::clone(&changes));
        bench.service.health = (0..count).map(state).collect();
        (bench.service.changes, bench.service.panic_percent) = (Some(changes), panic_percent);
        bench.balancer = Balancer::new(&bench.service, 0);
        (0..count).for_each(|index| bench.hear(index, true));
        bench
    }

    pub(super) fn hear(&self, index: usize, healthy: bool) {
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
fn among_equally_loaded_endpoints_each_gets_its_weight() {
    for (weights, active, expected) in [
        (&[2, 1][..], &[0, 0][..], &[0.667, 0.333][..]),
        (&[5, 1, 1], &[0, 0, 0], &[0.714, 0.143, 0.143]),
        (&[1, 1, 1], &[0, 0, 0], &[0.333, 0.333, 0.333]),
        // Both have the same load relative to their weight.
        (&[2, 1], &[2, 1], &[0.667, 0.333]),
        (&[2, 1], &[1, 0], &[0.0, 1.0]),
        (&[2, 1], &[1, 1], &[1.0, 0.0]),
        (&[3, 1], &[2, 1], &[1.0, 0.0]),
        (&[3, 1], &[4, 1], &[0.0, 1.0]),
    ] {
        let mut bench = Bench::new(Policy::LeastRequest, weights);
        for (load, &active) in bench.loads.iter().zip(active) {
            (0..active).for_each(|_| load.started());
        }
        for (count, expected) in bench.counts(10_000).into_iter().zip(expected) {
            let share = count as f64 / 10_000.0;
            assert!((share - expected).abs() < 0.03, "{weights:?} {active:?}: {share} {expected}");
        }
    }
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
