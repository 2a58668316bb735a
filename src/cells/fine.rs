//! A histogram of durations that is fine enough for percentiles, in memory that grows with the
//! range of the durations.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::{Count, PerWorker};

/// The number of buckets for each power of two. So the middle of a bucket is at most 1.6 % off.
const PARTS: usize = 32;

/// `PARTS` as a power of two.
const PARTS_BITS: u32 = PARTS.trailing_zeros();

/// The number of powers of two. Durations of more than an hour are in the last bucket.
const POWERS: usize = 28;

/// The number of all buckets.
const BUCKETS: usize = PARTS * POWERS;

type Part = OnceLock<Box<[Count; PARTS]>>;

/// A histogram of durations for one worker. It needs no memory before the first duration, and then
/// a quarter of a KiB for each power of two that occurs.
#[derive(Debug, Default)]
pub struct FineHistogram(OnceLock<Box<[Part; POWERS]>>);

impl FineHistogram {
    /// Counts one duration, given in microseconds.
    #[inline]
    pub fn observe_us(&self, duration_us: u64) {
        let bucket = bucket_of(duration_us);
        let powers = self.0.get_or_init(Box::default);
        let part = powers[bucket / PARTS]
            .get_or_init(|| Box::new(std::array::from_fn(|_| Count::default())));
        part[bucket % PARTS].increment();
    }

    /// The buckets that are not empty, each with its number and its count, in their order.
    fn counts(&self) -> impl Iterator<Item = (u16, u64)> {
        let powers = self.0.get().into_iter().flat_map(|powers| powers.iter().enumerate());
        let parts = powers.filter_map(|(power, part)| Some((power, part.get()?)));
        parts.flat_map(|(power, part)| {
            let counts = part.iter().enumerate();
            counts.filter_map(move |(at, count)| {
                let count = count.value();
                (count > 0).then_some(((power * PARTS + at) as u16, count))
            })
        })
    }
}

/// The durations of all workers in some time: the buckets that are not empty, and their counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations(BTreeMap<u16, u64>);

impl Durations {
    /// The durations that all workers have counted so far.
    pub fn of<T>(cells: &PerWorker<T>, of: impl Fn(&T) -> &FineHistogram) -> Self {
        let mut all = Self::default();
        for (bucket, count) in cells.iter().flat_map(|cells| of(cells).counts()) {
            *all.0.entry(bucket).or_default() += count;
        }
        all
    }

    /// Durations in microseconds, and how often each occurred.
    pub fn of_us(counts: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut all = Self::default();
        for (us, count) in counts {
            *all.0.entry(bucket_of(us) as u16).or_default() += count;
        }
        all
    }

    /// The durations in microseconds, in their order, and how often each occurred.
    pub fn us(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(bucket, count)| (middle_us(*bucket), *count))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds other durations.
    pub fn add(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            *self.0.entry(*bucket).or_default() += count;
        }
    }

    /// The durations since `earlier`. A count that went back has begun anew.
    pub fn since(&self, earlier: &Self) -> Self {
        let counts = self.0.iter().filter_map(|(bucket, now)| {
            let before = earlier.0.get(bucket).copied().unwrap_or_default();
            let more = now.checked_sub(before).unwrap_or(*now);
            (more > 0).then_some((*bucket, more))
        });
        Self(counts.collect())
    }

    /// The durations, in milliseconds, that these shares of them do not exceed, at most 1.6 % off.
    /// The shares must rise. `None` if there are none.
    pub fn quantiles_ms<const N: usize>(&self, shares: [f64; N]) -> Option<[f64; N]> {
        let total: u64 = self.0.values().sum();
        let mut counts = self.us();
        let (mut us, mut seen) = counts.next()?;
        Some(shares.map(|share| {
            let wanted = ((share * total as f64).ceil() as u64).clamp(1, total);
            while seen < wanted
                && let Some((next, count)) = counts.next()
            {
                (us, seen) = (next, seen + count);
            }
            us as f64 / 1000.0
        }))
    }

    /// The numbers of durations up to each of these bounds, in microseconds, and of all. The bounds
    /// must rise and be those of buckets.
    pub fn up_to(&self, bounds: &[u64]) -> (Vec<u64>, u64) {
        let mut counts = self.0.iter().peekable();
        let mut total = 0;
        let up_to = bounds.iter().map(|bound| {
            let end = bucket_of(*bound);
            while let Some((_, count)) = counts.next_if(|(bucket, _)| usize::from(**bucket) < end) {
                total += count;
            }
            total
        });
        (up_to.collect(), self.0.values().sum())
    }
}

/// The number of the bucket of a duration.
#[inline]
fn bucket_of(us: u64) -> usize {
    if us < PARTS as u64 {
        return us as usize;
    }
    let shift = us.ilog2() - PARTS_BITS;
    let part = (us >> shift) as usize - PARTS;
    ((shift as usize + 1) * PARTS + part).min(BUCKETS - 1)
}

/// The middle of a bucket, in microseconds.
fn middle_us(bucket: u16) -> u64 {
    let (power, part) = (bucket as usize / PARTS, bucket as usize % PARTS);
    match power.min(POWERS - 1) {
        0 => part as u64,
        power => {
            let width = 1u64 << (power - 1);
            (PARTS + part) as u64 * width + width / 2
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_a_bucket_near_it() {
        for us in (0..5000).chain((5..32).map(|bits| (1u64 << bits) + 17)).chain([3_599_999_999]) {
            let bucket = bucket_of(us);
            let middle = middle_us(bucket as u16);
            let far = middle.abs_diff(us) as f64;
            assert!(far <= us as f64 / 64.0, "{us} in {bucket}, about {middle}");
            assert!(bucket <= bucket_of(us + 1), "{us}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn only_what_was_counted_is_told() {
        let fine = FineHistogram::default();
        assert_eq!(fine.counts().count(), 0);
        for us in [0, 0, 31, 32, 1_000_000, u64::MAX] {
            fine.observe_us(us);
        }
        let counts: Vec<(u16, u64)> = fine.counts().collect();
        assert_eq!(counts[..3], [(0, 2), (31, 1), (32, 1)]);
        assert_eq!(counts.last(), Some(&(BUCKETS as u16 - 1, 1)));
        assert!((middle_us(counts[3].0) as f64 / 1e6 - 1.0).abs() < 0.016);
    }

    #[test]
    fn percentiles_are_exact_to_the_width_of_a_bucket() {
        let workers = PerWorker::<FineHistogram>::new(2);
        for ms in 1..=1000 {
            workers.worker(ms % 2).observe_us(ms as u64 * 1000);
        }
        let all = Durations::of(&workers, |fine| fine);
        let found = all.quantiles_ms([0.5, 0.9, 0.99, 1.0]).unwrap();
        for (found, expected) in found.into_iter().zip([500.0f64, 900.0, 990.0, 1000.0]) {
            assert!((found - expected).abs() <= expected * 0.016, "{found} for {expected}");
        }
        assert_eq!(Durations::of_us(all.us()), all);
        let (up_to, count) = all.up_to(&[512, 1024, 1440, 524_288]);
        assert_eq!((up_to, count), (vec![0, 1, 1, 524], 1000));
        // Only what came later.
        workers.worker(0).observe_us(7);
        let later = Durations::of(&workers, |fine| fine).since(&all);
        assert_eq!(later.quantiles_ms([0.0, 1.0]), Some([0.007, 0.007]));
        assert_eq!(later.since(&later).quantiles_ms([0.5]), None);
        // Counters that began anew.
        assert_eq!(later.since(&Durations::of_us([(7, 9)])), later);
        let mut twice = later.clone();
        twice.add(&later);
        assert_eq!(twice.us().collect::<Vec<_>>(), [(7, 2)]);
    }
}
