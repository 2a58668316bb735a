//! Slow start: a new or recovered endpoint gets little traffic at first.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::Time;

/// The default of [`SlowStart::aggression`].
pub const AGGRESSION: f64 = 1.0;

/// The default of [`SlowStart::min_percent`].
pub const MIN_WEIGHT_PERCENT: u8 = 10;

/// The number of steps in which the weight of an endpoint grows.
const STEPS: u32 = 100;

/// The minimum duration of a step. The balancers are built again after each step.
const STEP_MIN: Duration = Duration::from_millis(100);

/// The slow start of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct SlowStart {
    /// The duration of the slow start. During this time the traffic of the endpoint grows to its
    /// full share.
    pub window: Duration,
    /// The shape of the growth. With 1 it is linear; a larger value gives more traffic early.
    pub aggression: f64,
    /// The weight at the beginning, in percent of the full weight.
    pub min_percent: u8,
}

impl SlowStart {
    /// The factor for the weight of an endpoint that has had traffic for `age`, from 0 to 1.
    pub fn factor(&self, age: Duration) -> f64 {
        let time = age.as_secs_f64() / self.window.as_secs_f64();
        match time {
            1.0.. => 1.0,
            _ => time.powf(1.0 / self.aggression).max(f64::from(self.min_percent) / 100.0),
        }
    }

    /// The time after which the weights are computed again.
    pub fn step(&self) -> Duration {
        (self.window / STEPS).max(STEP_MIN)
    }
}

impl fmt::Display for SlowStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { window, aggression, min_percent } = self;
        write!(f, "{window:?} from {min_percent}% of the weight, aggression {aggression}")
    }
}

/// The time when the slow start of an endpoint began. It is kept over reloads while the endpoint
/// stays in the service.
#[derive(Debug)]
pub struct Warmup(AtomicU64);

/// The slow start has not begun.
const NEW: u64 = u64::MAX;

/// The slow start is over: the endpoint has its full weight.
const WARM: u64 = u64::MAX - 1;

impl Default for Warmup {
    fn default() -> Self {
        Self(AtomicU64::new(NEW))
    }
}

impl Warmup {
    /// Begins a slow start at `now`, because the endpoint is new or has just recovered.
    pub fn begin(&self, now: Time) {
        self.0.store(now.as_micros().min(WARM - 1), Ordering::Release);
    }

    /// Begins a slow start at `now` if none has begun. A `known` endpoint gets its full weight at
    /// once, because it had traffic before its service had a slow start.
    pub fn begin_if_new(&self, now: Time, known: bool) {
        let began = if known { WARM } else { now.as_micros().min(WARM - 1) };
        self.0.compare_exchange(NEW, began, Ordering::Release, Ordering::Relaxed).ok();
    }

    /// The time since the slow start began.
    pub fn age(&self, now: Time) -> Duration {
        match self.0.load(Ordering::Acquire) {
            NEW => Duration::ZERO,
            WARM => Duration::MAX,
            began => now.since(Time::from_micros(began)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_grow_to_the_full_weight() {
        for (aggression, min_percent, seconds, expected) in [
            (1.0, 10, 0.0, 0.1),
            (1.0, 10, 1.0, 0.1),
            (1.0, 10, 3.0, 0.3),
            (1.0, 10, 9.0, 0.9),
            (1.0, 10, 10.0, 1.0),
            (1.0, 10, 1e9, 1.0),
            (1.0, 0, 0.0, 0.0),
            (2.0, 10, 2.5, 0.5),
            (0.5, 10, 5.0, 0.25),
            (1.0, 100, 0.0, 1.0),
        ] {
            let window = Duration::from_secs(10);
            let factor = SlowStart { window, aggression, min_percent };
            let factor = factor.factor(Duration::from_secs_f64(seconds));
            assert!((factor - expected).abs() < 1e-9, "{aggression} {seconds}: {factor}");
        }
    }

    #[test]
    fn an_endpoint_begins_once_and_again_when_it_recovers() {
        let at = |seconds: u64| Time::from_micros(seconds * 1_000_000);
        let warmup = Warmup::default();
        assert_eq!(warmup.age(at(5)), Duration::ZERO);
        warmup.begin_if_new(at(5), false);
        warmup.begin_if_new(at(6), false);
        assert_eq!(warmup.age(at(8)), Duration::from_secs(3));
        warmup.begin(at(9));
        assert_eq!(warmup.age(at(10)), Duration::from_secs(1));
        let known = Warmup::default();
        known.begin_if_new(at(5), true);
        assert_eq!(known.age(at(5)), Duration::MAX);
    }
}
