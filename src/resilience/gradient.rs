//! The gradient of latency: how an adaptive limit on the requests in flight moves.
//!
//! A server without a queue answers in a time that does not depend on its load. When more requests
//! are in flight than it works on, they queue, and the latency grows. So the limit follows the
//! relation between the latency without load and the latency now. The latency without load is
//! measured by probes: for a few requests, the limit is at its minimum.

use std::time::Duration;

use crate::cells::{Count, PerWorker};
use crate::time::Time;

/// The default of `min`, as Envoy's.
pub const CONCURRENCY_MIN: u32 = 3;

/// The default of `max`, as Envoy's.
pub const CONCURRENCY_MAX: u32 = 1000;

/// The default of `percentile`, as Envoy's.
pub const PERCENTILE: u32 = 50;

/// The default of `interval`, as Envoy's.
pub const UPDATE_INTERVAL: Duration = Duration::from_millis(100);

/// The default of `probe_interval`, as Envoy's.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(60);

/// The default of `probe_requests`, as Envoy's.
pub const PROBE_REQUESTS: u32 = 50;

/// The part of the interval between two probes that is added at random, at most. Without it, all
/// proxies in front of a service would probe at the same time.
const PROBE_JITTER: f64 = 0.15;

/// After this time, a probe ends with fewer requests.
const PROBE_TIME: Duration = Duration::from_secs(1);

/// The number of requests that a probe needs at least.
const PROBE_REQUESTS_MIN: u64 = 5;

/// After this time, a probe ends without a result. While it lasts, most requests may be refused.
const PROBE_TIME_MAX: Duration = Duration::from_secs(5);

/// The limit before anything is known about the service.
const INITIAL: u32 = 20;

/// How much slower than without load the service may be. Latency varies without a queue, too.
const TOLERANCE: f64 = 1.25;

/// The smallest gradient: one update at most halves the limit.
const GRADIENT_MIN: f64 = 0.5;

/// The number of requests that an update needs. Fewer requests say little about a percentile.
const SAMPLES_MIN: u64 = 20;

/// After this time, an update needs one request only.
const UPDATE_TIME_MAX: Duration = Duration::from_secs(1);

/// After so many updates with the limit at its minimum, a probe begins: the service itself has
/// become slower.
const AT_MIN_MAX: u32 = 5;

/// The terms of an adaptive limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConcurrencyTerms {
    /// The smallest limit, and the limit during a probe.
    pub min: u32,
    /// The largest limit.
    pub max: u32,
    /// The percentile of the latencies that is compared.
    pub percentile: u32,
    /// The time between two updates of the limit.
    pub interval: Duration,
    /// The time between two probes.
    pub probe_interval: Duration,
    /// The number of requests of a probe.
    pub probe_requests: u32,
}

/// Buckets of equal width for one power of two.
const BUCKETS_PER_OCTAVE: usize = 16;

/// Latencies below this number of microseconds have a bucket each.
const EXACT_US: u64 = 32;

/// The power of two of [`EXACT_US`].
const EXACT_BITS: u32 = EXACT_US.trailing_zeros();

/// The number of octaves above. The last one ends at 38 hours.
const OCTAVES: usize = 32;

const BUCKETS: usize = EXACT_US as usize + OCTAVES * BUCKETS_PER_OCTAVE;

/// The latencies that one worker has seen, in buckets that are at most 6 % wide.
#[derive(Debug)]
pub struct Latencies(Box<[Count]>);

impl Default for Latencies {
    fn default() -> Self {
        Self((0..BUCKETS).map(|_| Count::default()).collect())
    }
}

impl Latencies {
    /// Adds a latency. Only the owning worker may call this.
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

/// The smallest latency of a bucket, in microseconds.
fn begin_of(bucket: usize) -> f64 {
    let Some(above) = bucket.checked_sub(EXACT_US as usize) else { return bucket as f64 };
    let (octave, within) = (above / BUCKETS_PER_OCTAVE, above % BUCKETS_PER_OCTAVE);
    (((BUCKETS_PER_OCTAVE + within) as u64) << (octave + 1)) as f64
}

/// The latencies since the last update.
#[derive(Debug)]
pub struct Window {
    /// The sums over all workers at the last update.
    before: Box<[u64]>,
    /// The difference to them now.
    counts: Box<[u64]>,
}

impl Default for Window {
    fn default() -> Self {
        Self { before: vec![0; BUCKETS].into(), counts: vec![0; BUCKETS].into() }
    }
}

impl Window {
    /// Looks at the latencies of all workers.
    pub fn look(&mut self, workers: &PerWorker<Latencies>) {
        for (bucket, count) in self.counts.iter_mut().enumerate() {
            let sum = workers.sum(|latencies| &latencies.0[bucket]);
            *count = sum.wrapping_sub(self.before[bucket]);
        }
    }

    /// Begins a new window with the next look.
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

/// The controller of one limit.
#[derive(Debug, Default)]
pub struct Gradient {
    /// The limit outside of probes. 0 means that nothing has begun yet.
    limit: u32,
    /// The latency without load, in microseconds.
    unloaded_us: Option<f64>,
    /// When the current probe began.
    probe: Option<Time>,
    /// When the next probe begins.
    next_probe: Time,
    /// When the current window began.
    since: Time,
    /// The number of updates in sequence that left the limit at its minimum.
    at_min: u32,
}

/// The result of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// The window is too small yet. Look again at the next interval.
    Wait,
    /// A probe has begun. Older requests do not count.
    Probe,
    /// The limit has its new value.
    Limit(u32),
}

impl Gradient {
    /// Looks at a window that ends at `now`. `most` is the largest number of requests in flight
    /// in it. `jitter` is random, from 0 to 1.
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
            // The service is faster than the last probe found. One window may be a coincidence.
            Some(known) if latency < known && samples >= u64::from(terms.probe_requests) => {
                f64::midpoint(known, latency)
            }
            Some(known) => known,
        };
        self.unloaded_us = Some(unloaded);
        let gradient = (unloaded * TOLERANCE / latency).clamp(GRADIENT_MIN, 1.0);
        let limit = f64::from(self.limit);
        let moved = (limit * gradient + limit.sqrt()) as u32;
        // A limit that is not used says nothing about a higher one.
        let is_used = most >= self.limit / 2;
        let moved = if is_used { moved } else { moved.min(self.limit) };
        self.limit = moved.clamp(terms.min, terms.max);
        let is_at_min = self.limit == terms.min && gradient < 1.0;
        self.at_min = if is_at_min { self.at_min + 1 } else { 0 };
        Update::Limit(self.limit)
    }

    /// The latency without load, if it is known.
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
