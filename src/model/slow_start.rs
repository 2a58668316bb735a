//! Slow start: new and recovered endpoints get little traffic at first.

use std::time::Duration;

/// The slow start of a service. `None` means the default.
#[derive(Clone, Debug)]
pub struct SlowStart {
    /// How long an endpoint gets less traffic.
    pub window: Duration,
    /// The shape of the growth.
    pub aggression: Option<f64>,
    /// The share at the beginning.
    pub min_percent: Option<u8>,
}
