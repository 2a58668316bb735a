//! Counters that need no lock and no atomic addition. Each worker writes its own cells, and the
//! control thread sums them when the metrics are read.

mod fine;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

pub use fine::{Durations, FineHistogram};

/// A monotonic counter or a gauge. Only one worker writes it; every thread may read it.
///
/// An addition is a load and a store, not a locked operation. This is exact because there is only
/// one writer.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`. Only the owning worker may call this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Adds one. Only the owning worker may call this.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Subtracts one (gauges). Only the owning worker may call this.
    #[inline]
    pub fn decrement(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
    }

    /// Sets a gauge. Only the owning worker may call this.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The current value.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One `T` for each worker. The padding keeps the values of two workers in different cache lines.
/// The memory is allocated on first use, because most counters of a large configuration are never
/// used.
#[derive(Debug)]
pub struct PerWorker<T> {
    cells: OnceLock<Box<[Padded<T>]>>,
    workers: u32,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> PerWorker<T> {
    /// Creates cells for `workers` workers, all zero.
    pub fn new(workers: usize) -> Self {
        Self { cells: OnceLock::new(), workers: workers.max(1) as u32 }
    }

    /// The cell of worker `index`. The index must be below the count given to `new`.
    #[inline]
    pub fn worker(&self, index: usize) -> &T {
        &self.cells.get_or_init(|| self.all_zero())[index].0
    }

    #[cold]
    fn all_zero(&self) -> Box<[Padded<T>]> {
        (0..self.workers).map(|_| Padded::default()).collect()
    }
}

impl<T> PerWorker<T> {
    /// The number of workers.
    pub fn workers(&self) -> usize {
        self.workers as usize
    }

    /// All cells, worker 0 first. Empty before the first use.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.cells.get().into_iter().flatten().map(|padded| &padded.0)
    }

    /// The sum of one counter over all workers.
    pub fn sum(&self, count: impl Fn(&T) -> &Count) -> u64 {
        self.iter().map(|cells| count(cells).value()).fold(0, u64::wrapping_add)
    }
}

/// Upper bounds of the latency buckets, in milliseconds. They are Envoy's bounds, so dashboards for
/// Envoy work unchanged. The last bucket (+Inf) is not in the list.
pub const LATENCY_BUCKETS_MS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// A histogram of durations over [`LATENCY_BUCKETS_MS`].
#[derive(Debug, Default)]
pub struct Histogram {
    /// One count for each bucket (not cumulative). The last bucket is +Inf.
    pub buckets: [Count; LATENCY_BUCKETS_MS.len() + 1],
    /// Sum of all durations in microseconds.
    pub sum_us: Count,
}

impl Histogram {
    /// Counts one duration, given in microseconds.
    #[inline]
    pub fn observe_us(&self, duration_us: u64) {
        let bucket = LATENCY_BUCKETS_MS
            .iter()
            .position(|bound| duration_us as f64 <= bound * 1000.0)
            .unwrap_or(LATENCY_BUCKETS_MS.len());
        self.buckets[bucket].increment();
        self.sum_us.add(duration_us);
    }

    /// Counts one size, in a histogram that has only sizes. The bounds are bytes then, and the sum
    /// counts thousandths of a byte.
    #[inline]
    pub fn observe_bytes(&self, bytes: u64) {
        self.observe_us(bytes.wrapping_mul(1000));
    }
}
