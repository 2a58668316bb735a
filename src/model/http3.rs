//! HTTP/3 settings. `None` means the default value.

use std::time::Duration;

use super::Item;

/// HTTP/3 settings of a listener.
#[derive(Clone, Debug, Default)]
pub struct Http3 {
    /// Whether responses over TCP tell clients of HTTP/3.
    pub alt_svc: Option<bool>,
    /// The maximum number of open streams on a connection.
    pub max_concurrent_streams: Option<Item<u32>>,
    /// The receive window of a stream, in bytes.
    pub stream_window: Option<Item<usize>>,
    /// The receive window of a connection, in bytes.
    pub connection_window: Option<Item<usize>>,
    /// When a client must prove its address.
    pub retry: Retry,
    /// The maximum number of handshakes in progress on a worker.
    pub max_handshakes: Option<Item<u32>>,
    /// Whether a connection continues when the client changes its address.
    pub migration: Option<bool>,
    /// Whether early data (0-RTT) is accepted.
    pub early_data: Option<Item<bool>>,
}

/// When a client must prove its address before its handshake costs anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retry {
    /// While many handshakes are in progress.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Limits on HTTP/3 frames and streams that carry no message data. A peer that exceeds one is
/// disconnected.
#[derive(Clone, Debug, Default)]
pub struct Http3Limits {
    /// The time in which a count decreases by its whole limit.
    pub window: Option<Duration>,
    /// Streams that the client resets a short time after it has opened them.
    pub stream_resets: Option<Item<u32>>,
    /// Streams that the proxy resets because of errors of the peer.
    pub provoked_resets: Option<Item<u32>>,
    /// Empty DATA frames.
    pub empty_frames: Option<Item<u32>>,
    /// PRIORITY_UPDATE frames.
    pub priority_frames: Option<Item<u32>>,
    /// GOAWAY and MAX_PUSH_ID frames, and frames and streams of unknown types.
    pub other_frames: Option<Item<u32>>,
    /// Changes of the QPACK table.
    pub table_changes: Option<Item<u32>>,
}
