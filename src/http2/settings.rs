//! The HTTP/2 settings of a connection.

use std::time::Duration;

/// The settings of each connection. The defaults are those of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The maximum number of open streams. RFC 9113 5.1.2 recommends at least 100.
    pub streams_max: u32,
    /// The largest receive window of a stream. It starts with at most 64 KiB, and grows while we
    /// read.
    pub stream_window_bytes: u32,
    /// Bytes that the peer may send on all streams together before we have read any, in addition to
    /// 64 KiB for each of `streams_max`.
    pub connection_window_bytes: u32,
    /// Idle time after which a PING is sent if streams are open. `None` means never.
    pub ping_interval: Option<Duration>,
    /// Time limit for the answer to a PING. `None` means no limit.
    pub ping_timeout: Option<Duration>,
    /// Age at which a connection is drained. `None` means no limit.
    pub age_max: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            streams_max: 100,
            stream_window_bytes: 256 * 1024,
            connection_window_bytes: 1024 * 1024,
            ping_interval: Some(Duration::from_secs(30)),
            ping_timeout: Some(Duration::from_secs(20)),
            age_max: None,
        }
    }
}

impl Settings {
    /// Returns `age_max`, varied by up to 10 % with `chance` (random, 0 to 1), so that connections
    /// that were opened together are not drained together.
    pub fn age(&self, chance: f64) -> Option<Duration> {
        self.age_max.map(|age| age.mul_f64(0.9 + 0.2 * chance.clamp(0.0, 1.0)))
    }
}
