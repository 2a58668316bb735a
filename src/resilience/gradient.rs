//! Computes an adaptive limit on the requests in flight from the gradient of the latency.
//!
//! As long as a server does not queue requests, its latency does not depend on the load. If there
//! are more requests in flight than it can process at the same time, it queues them, and the
//! latency grows. So the limit follows the ratio of the latency without load to the current
//! latency. Probes measure the latency without load: for a few requests, the limit is at its
//! minimum.

use std::time::Duration;

use crate::cells::{Count, PerWorker};
use crate::time::Time;

/// The default of `min`, which is also Envoy's.
pub const CONCURRENCY_MIN: u32 = 3;

/// The default of `max`, which is also Envoy's.
pub const CONCURRENCY_MAX: u32 = 1000;

/// The default of `percentile`, which is also Envoy's.
pub const PERCENTILE: u32 = 50;

/// The default of `interval`, which is also Envoy's.
pub const UPDATE_INTERVAL: Duration = Duration::from_millis(100);

/// The default of `probe_interval`, which is also Envoy's.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(60);

/// The default of `probe_requests`, which is also Envoy's.
pub const PROBE_REQUESTS: u32 = 50;

/// The maximum random part that is added to the interval of probes. Without it, all proxies in
/// front of a service could probe at the same time.
const PROBE_JITTER: f64 = 0.15;

/// The time after which a probe ends with [`PROBE_REQUESTS_MIN`] requests.
const PROBE_TIME: Duration = Duration::from_secs(1);

/// The minimum number of requests of a probe.
const PROBE_REQUESTS_MIN: u64 = 5;

/// The time after which a probe ends without a result, because most requests may be refused during
/// a probe.
const PROBE_TIME_MAX: Duration = Duration::from_secs(5);

/// The limit before the first probe.
const INITIAL: u32 = 20;

/// The accepted ratio of the current latency to the latency without load. Latency also varies
/// without a queue.
const TOLERANCE: f64 = 1.25;

/// The smallest gradient, so that one update halves the limit at most.
const GRADIENT_MIN: f64 = 0.5;

/// The number of requests that an update needs. With fewer requests, a percentile is not reliable.
const SAMPLES_MIN: u64 = 20;

/// The time after which an update needs only one request.
const UPDATE_TIME_MAX: Duration = Duration::from_secs(1);

/// The number of consecutive updates with the limit at its minimum after which a probe begins,
/// because the latency without load has probably grown.
const AT_MIN_MAX: u32 = 5;

/// The settings of an adaptive concurrency limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConcurrencyTerms {
    /// The minimum of the limit. It is also the limit during a probe.
    pub min: u32,
    /// The maximum of the limit.
    pub max: u32,
    /// The percentile of the latencies that is compared with that without load, 1 to 99.
    pub percentile: u32,
    /// The time between two updates of the limit.
    pub interval: Duration,
    /// The time between two probes, which measure the latency without load.
    pub probe_interval: Duration,
    /// The number of requests after which a probe ends.
    pub probe_requests: u32,
}

/// The number of buckets of equal width for each power of two.
const BUCKETS_PER_OCTAVE: usize = 16;

/// Each latency below this number of microseconds has a bucket of its own.
const EXACT_US: u64 = 32;

/// The exponent of [`EXACT_US`] as a power of two.
const EXACT_BITS: u32 = EXACT_US.trailing_zeros();

/// The number of powers of two above [`EXACT_US`]. The last one ends at 38 hours.
const OCTAVES: usize = 32;

const BUCKETS: usize = EXACT_US as usize + OCTAVES * BUCKETS_PER_OCTAVE;

/// The latencies that one worker has recorded, in buckets that are at most 6 % wide.
#[derive(Debug)]
pub struct Latencies(Box<[Count]>);

impl Default for Latencies {
    fn default() -> Self {
        Self((0..BUCKETS).map(|_| Count::default()).collect())
    }
}

impl Latencies {
    /// Records a latency. Only the worker that owns the value may call this.
    pub fn add(&self, latency: Duration) {
        self.0[bucket(latency.as_micros() as u64)].increment();
    }
}

fn bucket(us: u64) -> usize {
    if us < EXACT_US {
        return us as usize;
    }
    let octave = us.ilog2() - EXACT_BITS;
    let within = (us >> (octave + 1)) as usize - BUCKETS_PER_OCTAVE;
    (EXACT_US as usize + octave as usize * BUCKETS_PER_OCTAVE + within).min(BUCKETS - 1)
}

/// The lower bound of a bucket, in microseconds.
fn begin_of(bucket: usize) -> f64 {
    let Some(above) = bucket.checked_sub(EXACT_US as usize) else { return bucket as f64 };
    let (octave, within) = (above / BUCKETS_PER_OCTAVE, above % BUCKETS_PER_OCTAVE);
    (((BUCKETS_PER_OCTAVE + within) as u64) << (octave + 1)) as f64
}

/// The latencies that were recorded since the last update.
#[derive(Debug)]
pub struct Window {
    /// The counts of each bucket over all workers, at the last update.
    before: Box<[u64]>,
    /// The increase of these counts since then.
    counts: Box<[u64]>,
}

impl Default for Window {
    fn default() -> Self {
        Self { before: vec![0; BUCKETS].into(), counts: vec![0; BUCKETS].into() }
    }
}

impl Window {
    /// Reads the latencies that all workers have recorded.
    pub fn look(&mut self, workers: &PerWorker<Latencies>) {
        for (bucket, count) in self.counts.iter_mut().enumerate() {
            let sum = workers.sum(|latencies| &latencies.0[bucket]);
            *count = sum.wrapping_sub(self.before[bucket]);
        }
    }

    /// Begins a new window.
    pub fn end(&mut self) {
        for (before, count) in self.before.iter_mut().zip(&mut self.counts) {
            *before = before.wrapping_add(std::mem::take(count));
        }
    }

    fn samples(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The latency in microseconds that `percent` of the requests do not exceed.
    fn percentile(&self, percent: u32) -> f64 {
        let mut left = self.samples() as f64 * f64::from(percent) / 100.0;
        for (bucket, &count) in self.counts.iter().enumerate() {
            let count = count as f64;
            if count > 0.0 && left <= count {
                let (begin, end) = (begin_of(bucket), begin_of(bucket + 1));
                return (begin + (end - begin) * left / count).max(1.0);
            }
            left -= count;
        }
        begin_of(BUCKETS)
    }
}

/// The state from which one limit is computed.
#[derive(Debug, Default)]
pub struct Gradient {
    /// The limit outside of probes. 0 before the first update.
    limit: u32,
    /// The latency without load, in microseconds. `None` if it is not known yet.
    unloaded_us: Option<f64>,
    /// The time at which the current probe began. `None` if there is no probe.
    probe: Option<Time>,
    /// The time at which the next probe begins.
    next_probe: Time,
    /// The time at which the current window began.
    since: Time,
    /// The number of consecutive updates that left the limit at its minimum.
    at_min: u32,
}

/// The result of an update of the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// The window has too few requests. Try again after the next interval.
    Wait,
    /// A probe has begun. Requests that were sent before do not count.
    Probe,
    /// The new value of the limit.
    Limit(u32),
}

impl Gradient {
    /// Computes the limit from a window that ends at `now`. `most` is the maximum number of
    /// requests in flight during the window. `jitter` is a random number from 0 to 1.
    pub fn update(
        &mut self,
        terms: &ConcurrencyTerms,
        now: Time,
        window: &Window,
        most: u32,
        jitter: f64,
    ) -> Update {
        let update = match self.probe {
            _ if self.limit == 0 => {
                self.limit = INITIAL.clamp(terms.min, terms.max);
                self.begin_probe(now)
            }
            Some(began) => self.end_probe(terms, began, now, window, jitter),
            None => self.follow(terms, now, window, most),
        };
        if update != Update::Wait {
            self.since = now;
        }
        update
    }

    fn begin_probe(&mut self, now: Time) -> Update {
        self.probe = Some(now);
        self.at_min = 0;
        Update::Probe
    }

    fn end_probe(
        &mut self,
        terms: &ConcurrencyTerms,
        began: Time,
        now: Time,
        window: &Window,
        jitter: f64,
    ) -> Update {
        let (samples, lasted) = (window.samples(), now.since(began));
        let is_late = lasted >= PROBE_TIME && samples >= PROBE_REQUESTS_MIN;
        if samples >= u64::from(terms.probe_requests) || is_late {
            self.unloaded_us = Some(window.percentile(terms.percentile));
        } else if lasted < PROBE_TIME_MAX {
            return Update::Wait;
        }
        self.probe = None;
        let interval = terms.probe_interval;
        self.next_probe = now + interval + interval.mul_f64(PROBE_JITTER * jitter);
        Update::Limit(self.limit.clamp(terms.min, terms.max))
    }

    fn follow(
        &mut self,
        terms: &ConcurrencyTerms,
        now: Time,
        window: &Window,
        most: u32,
    ) -> Update {
        if now >= self.next_probe || self.at_min >= AT_MIN_MAX {
            return self.begin_probe(now);
        }
        let samples = window.samples();
        let is_late = now.since(self.since) >= UPDATE_TIME_MAX;
        if samples < if is_late { 1 } else { SAMPLES_MIN } {
            return Update::Wait;
        }
        let latency = window.percentile(terms.percentile);
        let unloaded = match self.unloaded_us {
            None => latency,
            // The service is faster than at the last probe. Take the mean, because one window may
            // be a coincidence.
            Some(known) if latency < known && samples >= u64::from(terms.probe_requests) => {
                f64::midpoint(known, latency)
            }
            Some(known) => known,
        };
        self.unloaded_us = Some(unloaded);
        let gradient = (unloaded * TOLERANCE / latency).clamp(GRADIENT_MIN, 1.0);
        // The square root is that of the reduced limit. With that of the whole one, a small limit
        // would never fall to its minimum.
        let reduced = f64::from(self.limit) * gradient;
        let moved = (reduced + reduced.sqrt()) as u32;
        // If the limit was not used, a higher limit cannot be justified by the latency.
        let is_used = most >= self.limit / 2;
        let moved = if is_used { moved } else { moved.min(self.limit) };
        self.limit = moved.clamp(terms.min, terms.max);
        let is_at_min = self.limit == terms.min && gradient < 1.0;
        self.at_min = if is_at_min { self.at_min + 1 } else { 0 };
        Update::Limit(self.limit)
    }

    /// The latency without load. `None` if it is not known yet.
    pub fn unloaded(&self) -> Option<Duration> {
        self.unloaded_us.map(|us| Duration::from_micros(us as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_its_latencies() {
        for us in (0..5000).chain([1 << 20, (1 << 36) - 1]) {
            let bucket = bucket(us);
            assert!(begin_of(bucket) <= us as f64, "{us}");
            assert!((us as f64) < begin_of(bucket + 1), "{us}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_percentile_is_exact_to_a_few_percent() {
        let (workers, mut window) = (PerWorker::<Latencies>::new(2), Window::default());
        for ms in 1..=100 {
            workers.worker(ms as usize % 2).add(Duration::from_millis(ms));
        }
        window.look(&workers);
        for percent in [1, 10, 50, 90, 99] {
            let found = window.percentile(percent) / 1000.0;
            let expected = f64::from(percent);
            assert!((found - expected).abs() <= 0.05 * expected + 0.1, "{percent}: {found}");
        }
        window.end();
        workers.worker(1).add(Duration::from_millis(7));
        window.look(&workers);
        assert_eq!(window.samples(), 1);
        assert!((6600.0..7200.0).contains(&window.percentile(50)));
    }
}
