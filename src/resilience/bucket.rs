//! The token bucket of a rate limit: the generic cell rate algorithm (GCRA, ITU-T I.371).
//!
//! The state of a bucket is one number: the time at which it is full again. A request moves this
//! time into the future by its cost. If the time would be too far in the future, the request is
//! refused. One compare-and-swap decides, so the limit is exact over all workers, without a lock. A
//! counter for each window of time would let twice the limit pass around the end of a window.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::Time;

/// The maximum time in which a bucket becomes full. It prevents overflows of sums of times.
pub const FILL_TIME_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// A rate: `units` in each `per`, and the number of units that may pass at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    units: u64,
    per_ns: u64,
    /// The cost of one unit: the time in which one unit is restored.
    interval_ns: u64,
    /// One more unit passes if the time at which the bucket is full is not further in the future
    /// than this.
    tolerance_ns: u64,
}

/// The reason why a rate is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateError {
    /// The number of units or the time is zero.
    Zero,
    /// The rate is more than one unit in each nanosecond.
    TooFast,
    /// The bucket would become full only after more than [`FILL_TIME_MAX`].
    TooSlow,
}

impl Rate {
    /// Creates a rate of `units` in each `per`. `burst` more units may pass at the same time as the
    /// first.
    ///
    /// # Errors
    /// If the rate, or the time in which the bucket becomes full, is out of range.
    pub fn new(units: u64, per: Duration, burst: u64) -> Result<Self, RateError> {
        let rate = Self::of_bytes(units, per, burst)?;
        if rate.interval_ns == 0 { Err(RateError::TooFast) } else { Ok(rate) }
    }

    /// Creates a rate for [`Bucket::owe`]. It has no upper limit, because many bytes are taken at
    /// once.
    ///
    /// # Errors
    /// If the rate is zero, or if the time in which the bucket becomes full is out of range.
    pub fn of_bytes(units: u64, per: Duration, burst: u64) -> Result<Self, RateError> {
        let per_ns = u64::try_from(per.as_nanos()).map_err(|_| RateError::TooSlow)?;
        if units == 0 || per_ns == 0 {
            return Err(RateError::Zero);
        }
        let cost = |n: u64| u128::from(n) * u128::from(per_ns) / u128::from(units);
        if cost(burst.saturating_add(1)) > FILL_TIME_MAX.as_nanos() {
            return Err(RateError::TooSlow);
        }
        let (interval_ns, tolerance_ns) = (cost(1) as u64, cost(burst) as u64);
        Ok(Self { units, per_ns, interval_ns, tolerance_ns })
    }

    /// The number of units in each [`Rate::per`].
    pub fn units(self) -> u64 {
        self.units
    }

    /// The time in which [`Rate::units`] units are restored.
    pub fn per(self) -> Duration {
        Duration::from_nanos(self.per_ns)
    }

    fn cost_ns(self, units: u64) -> u64 {
        let cost = u128::from(units) * u128::from(self.per_ns) / u128::from(self.units);
        u64::try_from(cost).unwrap_or(u64::MAX)
    }

    /// How many more single units pass now, if the bucket is full again after `ahead_ns`.
    fn left(self, ahead_ns: u64) -> u64 {
        match self.tolerance_ns.checked_sub(ahead_ns) {
            Some(room) => room / self.interval_ns + 1,
            None => 0,
        }
    }
}

/// The decision about one request. What clients are told follows from it, and is computed only
/// when somebody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// How long the request would have to wait. Zero means that it passes at once.
    wait_ns: u64,
    /// The time until the bucket is full.
    ahead_ns: u64,
}

impl Taken {
    /// The refusal by a bucket that owes so much that it is full in `full_in`.
    pub fn refused(wait: Duration, full_in: Duration) -> Self {
        Self { wait_ns: wait.as_nanos() as u64, ahead_ns: full_in.as_nanos() as u64 }
    }

    /// Whether the request passes.
    pub fn passes(self) -> bool {
        self.wait_ns == 0
    }

    /// How long the request would have to wait. Zero means that it passes at once.
    pub fn wait(self) -> Duration {
        Duration::from_nanos(self.wait_ns)
    }

    /// The time until the bucket is full.
    pub fn full_in(self) -> Duration {
        Duration::from_nanos(self.ahead_ns)
    }

    /// The number of further requests that would pass now. `rate` is that of the bucket.
    pub fn left(self, rate: Rate) -> u64 {
        if self.passes() { rate.left(self.ahead_ns) } else { 0 }
    }
}

/// The token bucket. All workers share it.
#[derive(Debug, Default)]
pub struct Bucket {
    /// The time at which the bucket is full again, in nanoseconds of [`Time`].
    full_at_ns: AtomicU64,
}

impl Bucket {
    /// Takes one unit, if the bucket has one.
    pub fn take(&self, rate: Rate, now: Time) -> Taken {
        let now_ns = nanos(now);
        let mut full_at_ns = self.full_at_ns.load(Ordering::Relaxed);
        loop {
            let from_ns = full_at_ns.max(now_ns);
            let ahead_ns = from_ns - now_ns;
            if ahead_ns > rate.tolerance_ns {
                return Taken { wait_ns: ahead_ns - rate.tolerance_ns, ahead_ns };
            }
            let next_ns = from_ns.saturating_add(rate.interval_ns);
            match self.swap(full_at_ns, next_ns) {
                Ok(_) => return Taken { wait_ns: 0, ahead_ns: next_ns - now_ns },
                Err(changed) => full_at_ns = changed,
            }
        }
    }

    /// Decides about a request without taking anything. So [`Taken::left`] still includes it.
    pub fn look(&self, rate: Rate, now: Time) -> Taken {
        let ahead_ns = self.full_at_ns.load(Ordering::Relaxed).saturating_sub(nanos(now));
        Taken { wait_ns: ahead_ns.saturating_sub(rate.tolerance_ns), ahead_ns }
    }

    /// Gives the unit back that was `taken` at the time `then`. Without this unit, the bucket might
    /// have been full since then, and restored less. This part is not given back, so other workers
    /// that took units meanwhile do not get more than the rate.
    pub fn give_back(&self, rate: Rate, taken: Taken, then: Time, now: Time) {
        let next_ns = nanos(then).saturating_add(taken.ahead_ns);
        let restored_ns = nanos(now).saturating_sub(next_ns.saturating_sub(rate.interval_ns));
        let cost_ns = rate.interval_ns.saturating_sub(restored_ns);
        let mut full_at_ns = self.full_at_ns.load(Ordering::Relaxed);
        while let Err(changed) = self.swap(full_at_ns, full_at_ns.saturating_sub(cost_ns)) {
            full_at_ns = changed;
        }
    }

    /// Takes `units`, even if the bucket does not have them. Returns how long to wait before the
    /// next units, so that the rate is not exceeded.
    pub fn owe(&self, rate: Rate, units: u64, now: Time) -> Duration {
        let (now_ns, cost_ns) = (nanos(now), rate.cost_ns(units));
        let mut full_at_ns = self.full_at_ns.load(Ordering::Relaxed);
        loop {
            let next_ns = full_at_ns.max(now_ns).saturating_add(cost_ns);
            match self.swap(full_at_ns, next_ns) {
                Ok(_) => {
                    let over_ns = (next_ns - now_ns).saturating_sub(rate.tolerance_ns);
                    return Duration::from_nanos(over_ns);
                }
                Err(changed) => full_at_ns = changed,
            }
        }
    }

    /// Gives `units` back that [`Bucket::owe`] took and nobody used.
    pub fn forgive(&self, rate: Rate, units: u64, now: Time) {
        let (now_ns, cost_ns) = (nanos(now), rate.cost_ns(units));
        let mut full_at_ns = self.full_at_ns.load(Ordering::Relaxed);
        // A bucket that is full by now has got them back already.
        while full_at_ns > now_ns {
            let next_ns = full_at_ns.saturating_sub(cost_ns).max(now_ns);
            match self.swap(full_at_ns, next_ns) {
                Ok(_) => return,
                Err(changed) => full_at_ns = changed,
            }
        }
    }

    /// The time until the bucket owes nothing. Zero means that it owes nothing now.
    pub fn debt(&self, rate: Rate, now: Time) -> Duration {
        let ahead_ns = self.full_at_ns.load(Ordering::Relaxed).saturating_sub(nanos(now));
        Duration::from_nanos(ahead_ns.saturating_sub(rate.tolerance_ns))
    }

    fn swap(&self, from: u64, to: u64) -> Result<u64, u64> {
        // The number protects no other data, so the order of other memory accesses does not matter.
        self.full_at_ns.compare_exchange_weak(from, to, Ordering::Relaxed, Ordering::Relaxed)
    }

    /// The time at which the bucket is full again, in nanoseconds of [`Time`].
    pub(super) fn full_at_ns(&self) -> u64 {
        self.full_at_ns.load(Ordering::Relaxed)
    }
}

pub(super) fn nanos(time: Time) -> u64 {
    time.as_micros().saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicU64;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(units: u64, burst: u64) -> Rate {
        Rate::new(units, SECOND, burst).unwrap()
    }

    fn at_ms(ms: u64) -> Time {
        Time::from_micros(ms * 1000)
    }

    #[test]
    fn the_burst_passes_with_the_first_request_and_the_rate_after_it() {
        let (bucket, rate) = (Bucket::default(), rate(10, 2));
        let pass = |ms: u64| bucket.take(rate, at_ms(ms));
        let taken = |wait_ms, left, full_ms| {
            (Duration::from_millis(wait_ms), left, Duration::from_millis(full_ms))
        };
        for (ms, expected) in [
            (5000, taken(0, 2, 100)),
            (5000, taken(0, 1, 200)),
            (5000, taken(0, 0, 300)),
            (5000, taken(100, 0, 300)),
            (5099, taken(1, 0, 201)),
            (5100, taken(0, 0, 300)),
            (5199, taken(1, 0, 201)),
            (5300, taken(0, 1, 200)),
            (9000, taken(0, 2, 100)),
        ] {
            let taken = pass(ms);
            assert_eq!((taken.wait(), taken.left(rate), taken.full_in()), expected, "{ms}");
        }
    }

    #[test]
    fn rates_out_of_range_are_refused() {
        let year = Duration::from_secs(365 * 24 * 3600);
        for (units, per, burst, expected) in [
            (0, SECOND, 0, Some(RateError::Zero)),
            (1, Duration::ZERO, 0, Some(RateError::Zero)),
            (1_000_000_000, SECOND, 0, None),
            (1_000_000_001, SECOND, 0, Some(RateError::TooFast)),
            (1, year, 0, None),
            (1, year, 1, Some(RateError::TooSlow)),
            (1, SECOND, u64::MAX, Some(RateError::TooSlow)),
            (1, Duration::MAX, 0, Some(RateError::TooSlow)),
            (u64::from(u32::MAX), year, u64::from(u32::MAX) - 1, None),
        ] {
            assert_eq!(Rate::new(units, per, burst).err(), expected, "{units} {per:?} {burst}");
        }
    }

    /// In each time `t`, at most `1 + burst + t * rate` requests pass. If enough requests arrive,
    /// exactly that many pass.
    #[test]
    fn no_interleaving_exceeds_the_rate_and_a_minute_has_it() {
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (units, burst) = match seed {
                0 => (100, 99),
                _ => (random.u64(1..500), random.u64(1..200)),
            };
            let (bucket, rate) = (Bucket::default(), rate(units, burst));
            let (begin, end) = (random.u64(..1_000_000), 60_000_000);
            let (mut now, mut passed) = (begin, Vec::new());
            while now < begin + end {
                // Two workers take a unit at the same time. One of them has read the clock a little
                // earlier.
                for late in [0, random.u64(..20)] {
                    if bucket.take(rate, Time::from_micros(now.saturating_sub(late))).passes() {
                        passed.push(now);
                    }
                }
                now += random.u64(1..=1_000_000 / units / 2);
            }
            let (count, expected) = (passed.len() as u64, units * 60 + burst);
            assert!(count <= expected + 1, "seed {seed}: {count} of {expected}");
            assert!(count + 2 >= expected, "seed {seed}: {count} of {expected}");
            if seed == 0 {
                let per_second = count as f64 / 60.0;
                assert!((98.0..=102.0).contains(&per_second), "{per_second}");
            }
            for first in (0..passed.len()).step_by(97) {
                for last in (first..passed.len()).step_by(61) {
                    let time = passed[last] - passed[first] + 40;
                    let allowed = 1 + burst + (time * units).div_ceil(1_000_000);
                    let count = (last - first + 1) as u64;
                    assert!(count <= allowed, "seed {seed}: {count} of {allowed} in {time} us");
                }
            }
        }
    }

    #[test]
    fn workers_that_ask_at_once_share_one_bucket() {
        let (bucket, rate) = (Bucket::default(), rate(1000, 199_999));
        let (passed, barrier) = (AtomicU64::new(0), Barrier::new(4));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    barrier.wait();
                    let passes = |_: &i32| bucket.take(rate, at_ms(7)).passes();
                    let here = (0..100_000).filter(passes).count();
                    passed.fetch_add(here as u64, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(passed.into_inner(), 200_000);
    }

    #[test]
    fn bytes_are_owed() {
        let (bucket, rate) = (Bucket::default(), Rate::of_bytes(1000, SECOND, 500).unwrap());
        let owe = |units, ms| bucket.owe(rate, units, at_ms(ms)).as_millis();
        assert_eq!(owe(500, 1000), 0, "the burst");
        assert_eq!(owe(100, 1000), 100);
        assert_eq!(owe(100, 1200), 0);
        assert_eq!(owe(2000, 10_000), 1500, "more than the burst at once");
    }

    #[test]
    fn bytes_that_nobody_used_are_given_back() {
        let (bucket, rate) = (Bucket::default(), Rate::of_bytes(1000, SECOND, 500).unwrap());
        let debt = |ms| bucket.debt(rate, at_ms(ms)).as_millis();
        assert_eq!(debt(1000), 0);
        bucket.owe(rate, 2000, at_ms(1000));
        assert_eq!((debt(1000), debt(2000), debt(9000)), (1500, 500, 0));
        bucket.forgive(rate, 800, at_ms(1000));
        assert_eq!(debt(1000), 700);
        // No more than all of it: the bucket is full then, not fuller.
        bucket.forgive(rate, 10_000, at_ms(1100));
        assert_eq!(bucket.owe(rate, 500, at_ms(1100)).as_millis(), 0);
        assert_eq!(bucket.owe(rate, 1, at_ms(1100)).as_millis(), 1);
        bucket.forgive(rate, 1, at_ms(9000));
        assert_eq!(bucket.owe(rate, 501, at_ms(9000)).as_millis(), 1);
    }
}
