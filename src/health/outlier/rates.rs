//! Finds endpoints with a bad success rate or too many failures in an interval.

use std::fmt;

/// The default of `minimum_hosts`.
pub const MINIMUM_HOSTS: u32 = 5;

/// The default of [`SuccessRate::request_volume`].
pub const SUCCESS_RATE_VOLUME: u32 = 100;

/// The default of [`SuccessRate::stdev_factor`].
pub const STDEV_FACTOR: f64 = 1.9;

/// The default of [`FailurePercentage::threshold`].
pub const FAILURE_PERCENT: u8 = 85;

/// The default of [`FailurePercentage::request_volume`].
pub const FAILURE_PERCENTAGE_VOLUME: u32 = 50;

/// Ejects endpoints whose success rate is far below the average of all endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct SuccessRate {
    /// The minimum number of endpoints with enough requests. With fewer, none is ejected.
    pub minimum_hosts: u32,
    /// The minimum number of requests in an interval. An endpoint with fewer is left out.
    pub request_volume: u32,
    /// Ejects an endpoint if its success rate is more than this many standard deviations below the
    /// average.
    pub stdev_factor: f64,
}

/// Ejects endpoints with too many failed requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailurePercentage {
    /// Ejects an endpoint if at least this percentage of its requests fails.
    pub threshold: u8,
    /// The minimum number of endpoints with enough requests. With fewer, none is ejected.
    pub minimum_hosts: u32,
    /// The minimum number of requests in an interval. An endpoint with fewer is left out.
    pub request_volume: u32,
}

/// The attempts at one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Attempts that succeeded.
    pub successes: u64,
    /// Attempts that failed.
    pub failures: u64,
}

impl Sample {
    /// Returns the attempts since `before`, an earlier sample.
    pub fn since(self, before: Self) -> Self {
        Self {
            successes: self.successes.wrapping_sub(before.successes),
            failures: self.failures.wrapping_sub(before.failures),
        }
    }

    fn total(self) -> u64 {
        self.successes + self.failures
    }

    fn success_rate(self) -> f64 {
        self.successes as f64 / self.total().max(1) as f64
    }
}

impl SuccessRate {
    /// Returns the endpoints to eject, the worst first, as positions in `samples`.
    pub fn outliers(&self, samples: &[Sample]) -> Vec<usize> {
        let Some(judged) = enough(samples, self.request_volume, self.minimum_hosts) else {
            return Vec::new();
        };
        let rates = || judged.iter().map(|&index| samples[index].success_rate());
        let count = judged.len() as f64;
        let mean = rates().sum::<f64>() / count;
        let variance = rates().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
        let lowest = mean - self.stdev_factor * variance.sqrt();
        let below = |&index: &usize| samples[index].success_rate() < lowest;
        worst_first(judged.iter().copied().filter(below).collect(), samples)
    }
}

impl FailurePercentage {
    /// Returns the endpoints to eject, the worst first, as positions in `samples`.
    pub fn outliers(&self, samples: &[Sample]) -> Vec<usize> {
        let judged = enough(samples, self.request_volume, self.minimum_hosts).unwrap_or_default();
        let fails = |&index: &usize| {
            let sample = samples[index];
            sample.failures * 100 >= sample.total() * u64::from(self.threshold)
        };
        worst_first(judged.into_iter().filter(fails).collect(), samples)
    }
}

/// Returns the endpoints with at least `volume` requests, and at least one. `None` if there are
/// fewer than `hosts` such endpoints.
fn enough(samples: &[Sample], volume: u32, hosts: u32) -> Option<Vec<usize>> {
    let volume = u64::from(volume.max(1));
    let busy = |&index: &usize| samples[index].total() >= volume;
    let judged: Vec<usize> = (0..samples.len()).filter(busy).collect();
    (judged.len() >= hosts as usize && !judged.is_empty()).then_some(judged)
}

fn worst_first(mut found: Vec<usize>, samples: &[Sample]) -> Vec<usize> {
    let rate = |index: usize| samples[index].success_rate();
    found.sort_by(|&one, &other| rate(one).total_cmp(&rate(other)));
    found
}

impl fmt::Display for SuccessRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "success rate {} deviations below the average", self.stdev_factor)
    }
}

impl fmt::Display for FailurePercentage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}% failures", self.threshold)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::health::{
        EjectionReason, Heard, OutlierEvent, OutlierGroup, OutlierHub, OutlierPolicy, OutlierState,
    };
    use crate::time::Time;

    fn samples(pairs: &[(u64, u64)]) -> Vec<Sample> {
        pairs.iter().map(|&(successes, failures)| Sample { successes, failures }).collect()
    }

    #[test]
    fn a_success_rate_far_below_the_others_stands_out() {
        let rule = |minimum_hosts, stdev_factor| SuccessRate {
            minimum_hosts,
            request_volume: 100,
            stdev_factor,
        };
        let good = (100, 0);
        for (pairs, hosts, factor, expected) in [
            (&[good; 6][..], 5, 1.9, &[][..]),
            (&[good, good, good, good, good, (50, 50)], 5, 1.9, &[5]),
            // The rate of one of n endpoints is at most sqrt(n - 1) deviations below the average.
            (&[good, good, good, good, (0, 100)], 5, 1.9, &[4]),
            (&[good, good, good, (0, 100)], 4, 1.9, &[]),
            (&[good, good, good, (0, 100)], 4, 1.7, &[3]),
            // Too few endpoints, or too few requests.
            (&[good, good, good, (0, 100)], 5, 1.0, &[]),
            (&[good, good, good, good, good, (0, 99)], 5, 1.0, &[]),
            (&[(9, 0), good, good, good, good, (0, 100)], 5, 1.0, &[5]),
            // If all endpoints fail equally, none is ejected.
            (&[(10, 90); 6], 5, 1.0, &[]),
            // The worst endpoint comes first.
            (&[(80, 20), good, good, good, good, good, good, good, (70, 30)], 5, 1.0, &[8, 0]),
            (&[], 0, 1.0, &[]),
            (&[(0, 0)], 0, 1.0, &[]),
        ] {
            assert_eq!(rule(hosts, factor).outliers(&samples(pairs)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn an_interval_begins_with_a_failure_and_its_end_ejects() {
        let hub = Arc::new(OutlierHub::default());
        let group = OutlierGroup::new("shop", Arc::default(), Arc::clone(&hub));
        let group = Arc::new(group);
        let state = |index| {
            OutlierState::new(format!("10.0.0.{index}:80"), Arc::clone(&group), Arc::default(), 2)
        };
        let states: Vec<_> = (0..6).map(|index| Arc::new(state(index))).collect();
        let rate = SuccessRate { minimum_hosts: 5, request_volume: 10, stdev_factor: 1.9 };
        let failures = FailurePercentage { threshold: 85, minimum_hosts: 1, request_volume: 10 };
        let policy = OutlierPolicy {
            consecutive_5xx: 0,
            max_ejection_percent: 50,
            success_rate: Some(rate),
            failure_percentage: Some(failures),
            ..OutlierPolicy::default()
        };
        let at = |seconds: u64| Time::from_micros(seconds * 1_000_000);
        group.follow(&policy, states.clone(), at(0));
        let hear = |index: usize, seconds, heard, times| {
            (0..times).for_each(|n| states[index].hear(n % 2, at(seconds), heard));
        };
        let calls = || {
            let mut context = Context::from_waker(Waker::noop());
            std::iter::from_fn(|| match hub.poll_next(&mut context) {
                Poll::Ready(group) => Some(group),
                Poll::Pending => None,
            })
            .count()
        };
        (0..6).for_each(|index| hear(index, 1, Heard::Success, 100));
        assert_eq!((calls(), group.tick(at(1)).1), (0, None), "nothing fails");
        hear(0, 2, Heard::LocalFailure, 5);
        assert_eq!((calls(), group.tick(at(2)).1), (1, Some(at(12))));
        hear(0, 3, Heard::Success, 5);
        (1..6).for_each(|index| hear(index, 3, Heard::Success, 10));
        let (events, next) = group.tick(at(12));
        let told = |event: &OutlierEvent| (event.endpoint.address.to_string(), event.ejection);
        let expected = (EjectionReason::SuccessRate, policy.base_ejection_time);
        let told: Vec<_> = events.iter().map(told).collect();
        assert_eq!(told, [("10.0.0.0:80".to_owned(), Some(expected))]);
        assert_eq!(next, Some(at(22)), "the requests before the interval did not count");
        (1..6).for_each(|index| hear(index, 13, Heard::GatewayError, 10));
        let (events, next) = group.tick(at(22));
        let reasons: Vec<_> = events.iter().map(|it| it.ejection.map(|it| it.0)).collect();
        assert_eq!(reasons, [Some(EjectionReason::FailurePercentage); 2], "half of six");
        assert_eq!((group.over_limit(), next), (3, Some(at(32))));
        assert_eq!(group.tick(at(32)).1, Some(at(42)), "no interval without a failure");
        assert_eq!(group.tick(at(52)).1, None);
        group.follow(&OutlierPolicy::default(), states.clone(), at(52));
        hear(1, 53, Heard::ServerError, 1);
        assert_eq!((calls(), group.tick(at(53)).1), (0, None), "rates are off");
    }

    #[test]
    fn too_many_failures_stand_out_whatever_the_others_do() {
        let rule = |threshold, minimum_hosts| FailurePercentage {
            threshold,
            minimum_hosts,
            request_volume: 50,
        };
        for (pairs, threshold, hosts, expected) in [
            (&[(100, 0), (15, 85), (16, 84)][..], 85, 1, &[1][..]),
            (&[(0, 100), (10, 90)], 85, 2, &[0, 1]),
            (&[(10, 90), (0, 100)], 85, 2, &[1, 0]),
            (&[(0, 100), (0, 49)], 85, 2, &[]),
            (&[(0, 100), (0, 49)], 85, 1, &[0]),
            (&[(100, 0)], 1, 1, &[]),
            (&[(99, 1)], 1, 1, &[0]),
            (&[(0, 0)], 1, 0, &[]),
        ] {
            assert_eq!(rule(threshold, hosts).outliers(&samples(pairs)), expected, "{pairs:?}");
        }
    }
}
