//! QUIC (RFC 9000) on `quinn-proto`: endpoints and connections without I/O and without a clock.
//!
//! One [`Endpoint`] for each UDP socket gives received datagrams to its [`Connection`]s. A driver
//! (`wire::quic`) sends what [`Connection::transmit`] returns and calls
//! [`Connection::on_timeout`]. All of them run on one thread.

mod connection;
mod endpoint;
mod ids;
mod keys;
mod settings;

use std::time::Instant;

pub use connection::{Closed, Connection, Event, ReadError, Side, WriteError};
pub use endpoint::{Attempt, Endpoint, Received};
pub use ids::Place;
pub use keys::Keys;
pub use settings::{ClientQuic, ServerQuic, Transport};

pub use quinn_proto::{Dir, StreamId, Transmit};

use crate::time::Time;

/// Converts between [`Time`] and the instants of `quinn-proto`. The clock itself does not run.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Creates a clock whose [`Time`] 0 is `start`.
    pub const fn new(start: Instant) -> Self {
        Self(start)
    }

    fn instant(self, time: Time) -> Instant {
        self.0 + time.since(Time::default())
    }

    /// The first time that is not before `instant`: at an earlier one, its timer would not be due,
    /// and be asked for again and again.
    fn time(self, instant: Instant) -> Time {
        let passed = instant.saturating_duration_since(self.0);
        Time::from_micros(u64::try_from(passed.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_is_never_before_its_instant() {
        let start = Instant::now();
        let clock = Clock::new(start);
        for (nanoseconds, microseconds) in [(0, 0), (1, 1), (999, 1), (1000, 1), (1001, 2)] {
            let instant = start + Duration::from_nanos(nanoseconds);
            let time = clock.time(instant);
            assert_eq!(time, Time::from_micros(microseconds), "{nanoseconds}");
            assert!(clock.instant(time) >= instant);
        }
    }
}
