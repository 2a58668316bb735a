//! How HTTP/2 is spoken on a connection, as configured.

use std::time::Duration;

/// What is agreed or demanded on each connection; the defaults are those of the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Streams open at once (RFC 9113 5.1.2 asks for at least 100).
    pub streams_max: u32,
    /// Bytes that the peer may send on one stream before we have read any.
    pub stream_window_bytes: u32,
    /// The same for all streams together.
    pub connection_window_bytes: u32,
    /// Bytes of a stream that are kept while the peer takes no more.
    pub stream_buffer_bytes: u32,
    /// Silence after which a connection with open streams is asked with PING; `None` for never.
    pub ping_interval: Option<Duration>,
    /// How long the answer may take; `None` for any time.
    pub ping_timeout: Option<Duration>,
    /// How old a connection gets before it is drained; `None` for any age.
    pub age_max: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            streams_max: 100,
            stream_window_bytes: 256 * 1024,
            connection_window_bytes: 1024 * 1024,
            stream_buffer_bytes: 64 * 1024,
            ping_interval: Some(Duration::from_secs(30)),
            ping_timeout: Some(Duration::from_secs(20)),
            age_max: None,
        }
    }
}

impl Settings {
    /// The age at which one connection is drained: not all of those that began together at once.
    /// `chance` is drawn anew for each, from 0 to 1.
    pub fn age(&self, chance: f64) -> Option<Duration> {
        self.age_max.map(|age| age.mul_f64(0.9 + 0.2 * chance.clamp(0.0, 1.0)))
    }
}
