//! Slow start: new and recovered endpoints get a small part of their traffic at first.

use std::time::Duration;

/// The slow start of a service. `None` means the default.
#[derive(Clone, Debug)]
pub struct SlowStart {
    /// The duration of the slow start. During this time the traffic of an endpoint grows to its
    /// full share.
    pub window: Duration,
    /// The shape of the growth: 1 is linear, and a larger value gives more traffic early.
    pub aggression: Option<f64>,
    /// The part of its traffic that an endpoint gets at first, in percent.
    pub min_percent: Option<u8>,
}
