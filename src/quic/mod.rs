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

    fn time(self, instant: Instant) -> Time {
        Time::default() + instant.saturating_duration_since(self.0)
    }
}
