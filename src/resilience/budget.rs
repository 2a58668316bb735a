//! The retry budget: retries are limited to a share of the requests in the last seconds, over all
//! workers.
//!
//! Retries help while few requests fail. If many requests fail, retries multiply the load of a
//! service that is already too slow. The budget prevents this. It counts the requests and the
//! retries of a service in a sliding window, and denies retries beyond the share.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cells::PerWorker;
use crate::time::Time;

/// The length of the window, in seconds.
pub const BUDGET_WINDOW_S: u64 = 10;

/// One slot for each second of the window, including the current second.
const SLOTS: u64 = BUDGET_WINDOW_S;

/// The requests and retries of a service in the window. The counts survive reloads.
#[derive(Debug)]
pub struct RetryBudget {
    requests: PerWorker<Recent>,
    /// Locked only for retries, which are rare, and only for a few additions.
    retries: Mutex<Recent>,
}

impl RetryBudget {
    /// Creates a budget for `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self { requests: PerWorker::new(workers), retries: Mutex::default() }
    }

    /// Counts a request of `worker`. Retries are counted by [`RetryBudget::try_retry`] instead.
    pub fn request(&self, worker: usize, now: Time) {
        self.requests.worker(worker).add(second(now));
    }

    /// Counts a retry if the budget allows it. The budget is `percent` of the requests in the
    /// window, or `min` if that is more.
    pub fn try_retry(&self, now: Time, percent: u32, min: u32) -> bool {
        let second = second(now);
        let requests: u64 = self.requests.iter().map(|recent| recent.sum(second)).sum();
        let allowed = (requests * u64::from(percent) / 100).max(u64::from(min));
        // The counts are valid at any point, so a panic of another thread does no harm.
        let retries = self.retries.lock().unwrap_or_else(PoisonError::into_inner);
        let allows = retries.sum(second) < allowed;
        if allows {
            retries.add(second);
        }
        allows
    }
}

fn second(now: Time) -> u64 {
    now.as_micros() / 1_000_000
}

/// The number of events in each second of the window. Only one thread may add at a time; others may
/// read.
#[derive(Debug, Default)]
struct Recent {
    /// One slot for each second. The upper 32 bits are the second, and the lower 32 bits are the
    /// number of events.
    slots: [AtomicU64; SLOTS as usize],
}

impl Recent {
    fn add(&self, second: u64) {
        let slot = &self.slots[(second % SLOTS) as usize];
        let value = slot.load(Ordering::Relaxed);
        let next = if value >> 32 == second { value + 1 } else { second << 32 | 1 };
        slot.store(next, Ordering::Relaxed);
    }

    /// The number of events in the window that ends with `second`.
    fn sum(&self, second: u64) -> u64 {
        let first = (second + 1).saturating_sub(SLOTS);
        let events = |slot: &AtomicU64| {
            let value = slot.load(Ordering::Relaxed);
            if (first..=second).contains(&(value >> 32)) { value & u64::from(u32::MAX) } else { 0 }
        };
        self.slots.iter().map(events).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn retries_are_a_share_of_the_requests_of_all_workers() {
        let budget = RetryBudget::new(2);
        for n in 0..100 {
            budget.request(n % 2, at(50));
        }
        let granted = (0..100).filter(|_| budget.try_retry(at(51), 20, 3)).count();
        assert_eq!(granted, 20);
    }

    #[test]
    fn a_quiet_service_has_the_minimum() {
        let budget = RetryBudget::new(1);
        budget.request(0, at(0));
        let granted = (0..10).filter(|_| budget.try_retry(at(0), 20, 3)).count();
        assert_eq!(granted, 3);
        assert!(!budget.try_retry(at(9), 20, 3), "the retries are still in the window");
        assert!(budget.try_retry(at(10), 20, 3), "the window has passed");
    }

    #[test]
    fn no_interleaving_exceeds_the_budget() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let budget = RetryBudget::new(3);
            let (mut requests, mut retries) = (Vec::new(), Vec::new());
            let mut now = 0;
            for _ in 0..2000 {
                now += u64::from(random.u8(..40) == 0);
                if random.bool() {
                    budget.request(random.usize(..3), at(now));
                    requests.push(now);
                } else if budget.try_retry(at(now), 20, 3) {
                    retries.push(now);
                    let in_window = |events: &[u64]| {
                        events.iter().filter(|&&then| then + BUDGET_WINDOW_S > now).count()
                    };
                    let (requests, retries) = (in_window(&requests), in_window(&retries));
                    assert!(retries <= (requests / 5).max(3), "seed {seed} at {now}");
                }
            }
            assert!(!retries.is_empty(), "seed {seed}");
        }
    }

    #[test]
    fn threads_that_retry_at_once_share_one_budget() {
        let budget = RetryBudget::new(4);
        (0..400).for_each(|n| budget.request(n % 4, at(7)));
        let granted = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let here = (0..200).filter(|_| budget.try_retry(at(8), 20, 3)).count();
                    granted.fetch_add(here, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(granted.into_inner(), 80);
    }
}
