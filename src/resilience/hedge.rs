//! Hedging: a slow request is also sent to a second endpoint. This module computes when.

use std::fmt;
use std::time::Duration;

use crate::time::Time;

/// The minimum number of responses, for each worker, from which a latency percentile is computed.
/// With fewer, a single slow response would decide.
pub const HEDGE_SAMPLES_MIN: u32 = 100;

/// The length of a window of latencies. The percentile covers the current window and the one
/// before.
pub const HEDGE_WINDOW: Duration = Duration::from_secs(30);

/// The time after which a request is also sent to a second endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeAfter {
    /// A percentile of the latency of the version, in tenths of a percent.
    Percentile(u16),
    /// A fixed time.
    Time(Duration),
}

impl fmt::Display for HedgeAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percentile(tenths) => write!(f, "p{}", f64::from(*tenths) / 10.0),
            Self::Time(time) => write!(f, "{time:?}"),
        }
    }
}

/// The result of a hedged request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hedged {
    /// The client got the response of the second endpoint.
    Won,
    /// The second endpoint did not respond first, or the request ended before.
    Lost,
    /// The second endpoint failed.
    Failed,
}

impl Hedged {
    /// All results, in the order of [`Hedged::index`].
    pub const ALL: [Self; 3] = [Self::Won, Self::Lost, Self::Failed];

    /// The position in [`Hedged::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Lost => "lost",
            Self::Failed => "failed",
        }
    }
}

/// The number of histogram buckets for each power of two.
const PARTS: usize = 8;

/// The number of powers of two, in microseconds. They cover more than two minutes.
const POWERS: usize = 25;

const BUCKETS: usize = PARTS * POWERS;

/// The number of new responses after which a cached percentile is computed again.
const REFRESH: u32 = 32;

/// A histogram of the recent latencies of a version, as one worker measured them. A percentile is
/// rounded up by at most an eighth.
#[derive(Debug)]
pub struct Latencies {
    /// The counts by bucket: of the current window, and of the one before.
    counts: [[u32; BUCKETS]; 2],
    /// The number of responses in each of the two windows.
    totals: [u32; 2],
    /// The start of the current window.
    began: Time,
    /// The percentile that was computed last.
    known: Option<Known>,
    /// The number of responses since `known` was computed.
    fresh: u32,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    tenths: u16,
    latency: Duration,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            counts: [[0; BUCKETS]; 2],
            totals: [0; 2],
            began: Time::default(),
            known: None,
            fresh: 0,
        }
    }
}

impl Latencies {
    /// Adds the latency of a response that was received at the time `now`.
    pub fn add(&mut self, now: Time, latency: Duration) {
        self.turn(now);
        self.counts[0][bucket(latency)] += 1;
        self.totals[0] += 1;
        self.fresh += 1;
    }

    /// The latency that `tenths` of the responses, in tenths of a percent, did not exceed. `None`
    /// while there are fewer than [`HEDGE_SAMPLES_MIN`] responses.
    pub fn percentile(&mut self, now: Time, tenths: u16) -> Option<Duration> {
        self.turn(now);
        if let Some(known) = self.known.filter(|it| it.tenths == tenths && self.fresh < REFRESH) {
            return Some(known.latency);
        }
        let total = self.totals[0] + self.totals[1];
        if total < HEDGE_SAMPLES_MIN {
            return None;
        }
        let rank = (u64::from(total) * u64::from(tenths)).div_ceil(1000);
        let [now, before] = &self.counts;
        let mut seen = 0;
        let reaches = |(now, before): (&u32, &u32)| {
            seen += u64::from(*now) + u64::from(*before);
            seen >= rank
        };
        let index = now.iter().zip(before).position(reaches).unwrap_or(BUCKETS - 1);
        let latency = end_of(index);
        self.known = Some(Known { tenths, latency });
        self.fresh = 0;
        Some(latency)
    }

    /// Begins a new window if the current one has ended.
    fn turn(&mut self, now: Time) {
        let age = now.since(self.began);
        if age < HEDGE_WINDOW {
            return;
        }
        self.counts.swap(0, 1);
        self.totals.swap(0, 1);
        let stale = if age < HEDGE_WINDOW * 2 { 0..1 } else { 0..2 };
        for index in stale {
            self.counts[index] = [0; BUCKETS];
            self.totals[index] = 0;
        }
        (self.began, self.known) = (now, None);
    }
}

fn bucket(latency: Duration) -> usize {
    let us = latency.as_micros() as usize;
    let power = us.checked_ilog2().unwrap_or_default() as usize;
    if power < 3 {
        return us;
    }
    ((power - 2) * PARTS + (us >> (power - 3)) % PARTS).min(BUCKETS - 1)
}

/// The upper bound of a bucket. It is exclusive.
fn end_of(index: usize) -> Duration {
    let us = match index / PARTS {
        0 => index + 1,
        power => (PARTS + index % PARTS + 1) << (power - 1),
    };
    Duration::from_micros(us as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_micros(ms * 1000)
    }

    #[test]
    fn a_bucket_holds_its_latencies_and_is_narrow() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..10_000 {
            let us = random.u64(..100_000_000) >> random.u32(..27);
            let end = end_of(bucket(Duration::from_micros(us))).as_micros() as u64;
            assert!(us < end && end <= us + us / 8 + 1, "{us} {end}");
        }
        assert_eq!(bucket(Duration::from_secs(100_000)), BUCKETS - 1);
        assert!((1..BUCKETS).all(|index| end_of(index - 1) < end_of(index)));
    }

    #[test]
    fn a_percentile_is_that_of_the_responses_and_needs_enough_of_them() {
        let mut latencies = Latencies::default();
        for n in 1..=u64::from(HEDGE_SAMPLES_MIN) {
            assert_eq!(latencies.percentile(at(n), 950), None, "{n}");
            let slow = if n % 10 == 0 { 100 } else { 1 };
            latencies.add(at(n), Duration::from_millis(slow));
        }
        let ms = |from: u64, to: u64| Duration::from_millis(from)..=Duration::from_millis(to);
        for (tenths, expected) in [(500, ms(1, 2)), (900, ms(1, 2)), (950, ms(100, 113))] {
            let found = latencies.percentile(at(200), tenths).unwrap();
            assert!(expected.contains(&found), "{tenths}: {found:?}");
        }
    }

    #[test]
    fn a_percentile_follows_the_last_responses() {
        let mut latencies = Latencies::default();
        let mut fill = |from: u64, latency: u64| {
            for n in 0..200 {
                latencies.add(at(from + n * 100), Duration::from_millis(latency));
            }
            let found = latencies.percentile(at(from + 20_000), 950);
            found.map(|found| found.as_millis())
        };
        assert!((10..12).contains(&fill(0, 10).unwrap()));
        assert!((200..230).contains(&fill(20_000, 200).unwrap()), "half of them are slow");
        assert!((10..12).contains(&fill(120_000, 10).unwrap()), "the slow ones are forgotten");
        assert_eq!(latencies.percentile(at(400_000), 950), None, "all are forgotten");
    }

    #[test]
    fn a_share_of_the_responses_is_beyond_the_percentile_whatever_they_are() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut latencies = Latencies::default();
            let mut all: Vec<u64> = Vec::new();
            for n in 0..random.u64(100..3000) {
                let us = random.u64(..10_000_000) >> random.u32(..20);
                all.push(us);
                latencies.add(at(n), Duration::from_micros(us));
            }
            let tenths = random.u16(500..=999);
            let found = latencies.percentile(at(3000), tenths).unwrap().as_micros() as u64;
            let within = all.iter().filter(|&&us| us < found).count();
            assert!(within * 1000 >= all.len() * usize::from(tenths), "seed {seed}");
            let surely = all.iter().filter(|&&us| us + us / 8 + 1 < found).count();
            assert!(surely * 1000 <= all.len() * usize::from(tenths) + 1000, "seed {seed}");
        }
    }
}
