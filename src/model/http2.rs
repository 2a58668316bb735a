//! HTTP/2 settings. `None` means the default value.

use std::time::Duration;

use super::Item;

/// HTTP/2 settings of a connection.
#[derive(Clone, Debug, Default)]
pub struct Http2 {
    /// The maximum number of open streams on a connection.
    pub max_concurrent_streams: Option<Item<u32>>,
    /// The receive window of a stream, in bytes.
    pub stream_window: Option<Item<usize>>,
    /// The receive window of a connection, in bytes.
    pub connection_window: Option<Item<usize>>,
    /// A setting in bytes that has no effect. It is only checked, because older files have it.
    pub stream_buffer: Option<Item<usize>>,
    /// The time without received bytes after which a PING is sent. `Some(None)` means never.
    pub ping_interval: Option<Option<Duration>>,
    /// The time limit for the answer to a PING. `Some(None)` means no limit.
    pub ping_timeout: Option<Option<Duration>>,
    /// The age at which a connection is drained. `Some(None)` means never.
    pub max_connection_age: Option<Option<Duration>>,
}

/// Limits on HTTP/2 frames that carry no message data. A peer that exceeds one is disconnected.
#[derive(Clone, Debug, Default)]
pub struct Http2Limits {
    /// The time in which a count of frames decreases by its whole limit.
    pub window: Option<Duration>,
    /// CONTINUATION frames of one header block.
    pub continuation_frames: Option<u32>,
    /// RST_STREAM frames of the peer for streams that were opened a short time before.
    pub stream_resets: Option<Item<u32>>,
    /// RST_STREAM frames that the proxy sends because of errors of the peer.
    pub provoked_resets: Option<Item<u32>>,
    /// Empty DATA and HEADERS frames that do not end a stream.
    pub empty_frames: Option<Item<u32>>,
    /// SETTINGS frames.
    pub settings_frames: Option<Item<u32>>,
    /// PING frames.
    pub ping_frames: Option<Item<u32>>,
    /// PRIORITY and PRIORITY_UPDATE frames.
    pub priority_frames: Option<Item<u32>>,
    /// WINDOW_UPDATE frames.
    pub window_update_frames: Option<Item<u32>>,
    /// GOAWAY frames and frames of unknown types.
    pub other_frames: Option<Item<u32>>,
    /// The memory overhead of small DATA frames, in bytes.
    pub data_overhead: Option<Item<usize>>,
    /// The time limit for a complete header block of an endpoint.
    pub endpoint_header_timeout: Option<Duration>,
}
