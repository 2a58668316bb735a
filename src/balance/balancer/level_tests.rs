//! Tests of endpoint levels (priority and distance) with all load balancing policies.

use super::tests::{Bench, policies};
use super::*;
use crate::balance::OVERPROVISIONING_FACTOR;

const FAILOVER: Locality =
    Locality { overprovisioning_factor: OVERPROVISIONING_FACTOR, local_percent: None };

/// Creates healthy endpoints, one at each of these distances. All have priority 0.
fn at_distances(policy: Policy, distances: &[u32], locality: Locality) -> Bench {
    let mut bench = Bench::checked(policy, distances.len(), 50);
    bench.service.locality = Some(locality);
    let level = |&distance: &u32| Level { priority: 0, distance };
    bench.service.levels = distances.iter().map(level).collect();
    bench.balancer = Balancer::new(&bench.service, 0);
    bench
}

/// Picks 4000 times, each with another key. Returns the share of each endpoint, from 0 to 1.
fn shares(bench: &mut Bench) -> Vec<f64> {
    const PICKS: u64 = 4000;
    let mut counts = vec![0.0; bench.loads.len()];
    for key in 0..PICKS {
        let key = key.wrapping_mul(0xd6e8_feb8_6659_fd93);
        let picked = bench.pick(Some(key ^ (key >> 32)), None);
        picked.into_iter().for_each(|index| counts[index as usize] += 1.0 / PICKS as f64);
    }
    counts
}

fn is_near(shares: &[f64], expected: &[f64]) -> bool {
    shares.iter().zip(expected).all(|(one, other)| (one - other).abs() < 0.03)
}

#[test]
fn the_nearest_endpoints_get_all_and_the_next_ones_take_over_by_health() {
    for policy in policies() {
        // Compare the sums of levels: with the hash policy and few endpoints, the endpoints of one
        // level do not get equal shares.
        let of_level = |shares: &[f64]| [shares[..3].iter().sum(), shares[3..].iter().sum::<f64>()];
        let mut bench = at_distances(policy.clone(), &[0, 0, 0, 1, 1, 1], FAILOVER);
        for (unhealthy, expected) in [
            (&[][..], [1.0, 0.0]),
            (&[0], [0.933, 0.067]),
            (&[0, 1], [0.467, 0.533]),
            (&[0, 1, 2], [0.0, 1.0]),
            (&[3, 4, 5], [1.0, 0.0]),
        ] {
            (0..6).for_each(|index| bench.hear(index, !unhealthy.contains(&index)));
            let shares = shares(&mut bench);
            assert!(is_near(&of_level(&shares), &expected), "{policy:?} {unhealthy:?} {shares:?}");
            assert!(unhealthy.iter().all(|&index| shares[index] == 0.0), "{policy:?} {shares:?}");
        }
    }
}

#[test]
fn a_part_stays_local_and_the_rest_is_spread() {
    let locality = Locality { local_percent: Some(80), ..FAILOVER };
    for policy in policies() {
        let mut bench = at_distances(policy.clone(), &[2, 0, 0, 1], locality);
        let shares = shares(&mut bench);
        assert!(is_near(&[shares[1] + shares[2]], &[0.8]), "{policy:?} {shares:?}");
        assert!(shares.iter().all(|share| *share > 0.05), "{policy:?} {shares:?}");
    }
    let mut bench = at_distances(Policy::RoundRobin, &[0, 1], locality);
    for _ in 0..20 {
        assert_eq!(bench.counts(5), [4, 1], "turns are exact");
    }
}

#[test]
fn a_key_moves_only_as_far_as_the_shares_change() {
    let hash = policies().into_iter().find(Policy::is_hash).unwrap();
    let mut bench = at_distances(hash, &[0, 0, 0, 0, 1, 1, 1, 1], FAILOVER);
    let chosen = |bench: &mut Bench| -> Vec<u32> {
        (0..2000)
            .map(|key: u64| {
                bench.pick(Some(key.wrapping_mul(0x9e37_79b9_97f4_a7c1)), None).unwrap()
            })
            .collect()
    };
    let all = chosen(&mut bench);
    assert!(all.iter().all(|&index| index < 4));
    bench.hear(0, false);
    bench.hear(1, false);
    // Half of the near level is healthy, and the factor is 1.4: the level keeps 70% of the
    // requests.
    let half = chosen(&mut bench);
    let kept = all.iter().zip(&half).filter(|(before, after)| before == after).count();
    assert!((600..=800).contains(&kept), "{kept}: 0.7 of the half on healthy endpoints");
    let near = half.iter().filter(|&&index| index < 4).count();
    assert!((1300..=1500).contains(&near), "{near}");
    bench.hear(0, true);
    bench.hear(1, true);
    assert_eq!(chosen(&mut bench), all);
}

#[test]
fn another_endpoint_is_one_of_the_same_level_if_there_is_one() {
    for policy in policies() {
        let mut bench = at_distances(policy.clone(), &[0, 0, 1, 2], FAILOVER);
        for key in 0..100 {
            let key = Some(key * 7919);
            assert_eq!(bench.pick_beside(key, &[0]), Some(1), "{policy:?}");
            assert_eq!(bench.pick_beside(key, &[0, 1]), Some(2), "{policy:?}");
            assert_eq!(bench.pick_beside(key, &[0, 1, 2]), Some(3), "{policy:?}");
            assert!(bench.pick_beside(key, &[0, 1, 2, 3]).is_some(), "{policy:?}");
        }
    }
}

#[test]
fn no_unhealthy_endpoint_is_chosen_unless_the_levels_together_are_too_few() {
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..300 {
        let count = random.usize(2..12);
        let distances: Vec<u32> = (0..count).map(|_| random.u32(..3)).collect();
        let local_percent = random.bool().then(|| random.u8(..=100));
        let locality = Locality { local_percent, ..FAILOVER };
        let policy = random.choice(policies()).unwrap();
        let mut bench = at_distances(policy, &distances, locality);
        let healthy: Vec<bool> = (0..count).map(|_| random.u8(..3) > 0).collect();
        (0..count).for_each(|index| bench.hear(index, healthy[index]));
        let capacity = |distance: u32| {
            let same = (0..count).filter(|&index| {
                let own = distances[index];
                own == distance || local_percent.is_some()
            });
            let (all, well) = same.fold((0.0, 0.0), |(all, well), index| {
                (all + 1.0, well + f64::from(u8::from(healthy[index])))
            });
            if all > 0.0 { (1.4_f64 * well / all).min(1.0) } else { 0.0 }
        };
        let together = (0..3).map(capacity).fold(0.0_f64, |sum, part| match local_percent {
            Some(_) => part,
            None => sum + part,
        });
        let one_level = distances
            .iter()
            .map(|it| locality.compared(Level { priority: 0, distance: *it }))
            .collect::<std::collections::HashSet<_>>()
            .len()
            == 1;
        if together < 1.0 || one_level {
            continue;
        }
        for key in 0..200_u64 {
            let avoid: Vec<u32> = (0..count as u32).filter(|_| random.u8(..4) == 0).collect();
            let picked = bench.pick_beside(Some(key * 0x9e37_79b9), &avoid).unwrap();
            let case = format!("{round}: {distances:?} {healthy:?} {avoid:?} {picked}");
            assert!(healthy[picked as usize], "{case}");
            let other = (0..count as u32).any(|it| healthy[it as usize] && !avoid.contains(&it));
            assert!(!other || !avoid.contains(&picked), "{case}");
        }
    }
}

#[test]
fn unchecked_endpoints_are_near_or_far_like_others() {
    let mut bench = Bench::new(Policy::RoundRobin, &[1, 1]);
    let changes = std::sync::Arc::new(Changes::default());
    let state = |_| crate::health::HealthState::new(std::sync::Arc::clone(&changes));
    bench.service.health = (0..2).map(state).collect();
    bench.service.locality = Some(FAILOVER);
    bench.service.levels = vec![Level { priority: 0, distance: 1 }, Level::default()];
    bench.balancer = Balancer::new(&bench.service, 0);
    assert_eq!(bench.counts(10), [0, 10], "no check has ended yet");
}

/// The near zone gets a new endpoint, or its only endpoint recovers. Its share grows with the
/// endpoint; the far zone takes the rest.
#[test]
fn a_zone_whose_only_endpoint_is_cold_gets_its_share_step_by_step() {
    for policy in policies().into_iter().filter(|policy| !policy.is_hash()) {
        let mut bench = at_distances(policy.clone(), &[0, 1, 1], FAILOVER);
        let window = Duration::from_secs(100);
        bench.service.slow_start = Some(SlowStart { window, aggression: 1.0, min_percent: 10 });
        let at = |seconds: u64| Time::from_micros(seconds * 1_000_000);
        bench.service.began[0] = at(1000);
        bench.balancer = Balancer::new(&bench.service, 0);
        for (seconds, expected) in [(1000, 0.1), (1005, 0.1), (1050, 0.5), (1080, 0.8), (1101, 1.0)]
        {
            bench.now = at(seconds);
            let shares = shares(&mut bench);
            assert!(is_near(&shares[..1], &[expected]), "{policy:?} at {seconds}: {shares:?}");
        }
        // A second endpoint of the zone is new. The first one is warm, so the zone keeps its share.
        let mut bench = at_distances(policy.clone(), &[0, 0, 1], FAILOVER);
        bench.service.slow_start = Some(SlowStart { window, aggression: 1.0, min_percent: 10 });
        bench.service.began[1] = at(1000);
        bench.balancer = Balancer::new(&bench.service, 0);
        bench.now = at(1000);
        let shares = shares(&mut bench);
        assert!(shares[2] == 0.0 && shares[1] < 0.2, "{policy:?}: {shares:?}");
    }
}
