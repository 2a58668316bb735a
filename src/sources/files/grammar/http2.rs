//! The grammar of `http2:` and `limits.http2:`. Its comments are the descriptions in the JSON
//! Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{Placed, Size, Time, TimeOrNone};

/// HTTP/2 settings of connections.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http2 {
    /// The maximum number of open streams on a connection. On connections to a service, the
    /// endpoint's own limit applies, too. If all connections have reached the limit, another
    /// connection is opened. Default 100.
    pub max_concurrent_streams: Option<Placed<u32>>,
    /// The receive window of a stream: how many bytes the peer may send before any of them are
    /// forwarded. Default 256KiB.
    pub stream_window: Option<Placed<Size>>,
    /// The receive window of a connection, for all its streams together. Default 1MiB.
    pub connection_window: Option<Placed<Size>>,
    /// Has no effect. If a peer does not read a stream, the proxy does not buffer its data.
    pub stream_buffer: Option<Placed<Size>>,
    /// A connection with open streams gets a PING after this time without received bytes. Default
    /// 30s; `none` for never.
    pub ping_interval: Option<TimeOrNone>,
    /// The time limit for the answer to a PING. After it, the connection is closed. Default 20s.
    pub ping_timeout: Option<TimeOrNone>,
    /// The age at which a connection is drained, with a jitter of one tenth. Default `none`.
    pub max_connection_age: Option<TimeOrNone>,
}

/// Limits on HTTP/2 frames that carry no message data. Each number is the largest burst of frames.
/// Counts decrease evenly, from the limit to zero within `window`. If a peer exceeds a limit, its
/// connection is closed with ENHANCE_YOUR_CALM.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http2Limits {
    /// The time in which a count decreases by its whole limit. Default 10s.
    pub window: Option<Time>,
    /// The maximum number of CONTINUATION frames of one header block. Default 5.
    pub continuation_frames: Option<u32>,
    /// RST_STREAM frames of the peer for streams opened in the last 100 to 200 ms. Each stream with
    /// a response earns credit for one frame. Default 1000.
    pub stream_resets: Option<Placed<u32>>,
    /// RST_STREAM frames that the proxy sends because of errors of the peer. Default 500.
    pub provoked_resets: Option<Placed<u32>>,
    /// Empty DATA and HEADERS frames that do not end a stream. Default 100.
    pub empty_frames: Option<Placed<u32>>,
    /// SETTINGS frames. Default 100.
    pub settings_frames: Option<Placed<u32>>,
    /// PING frames. Each DATA frame that the proxy sends earns credit for one frame. Default 1000.
    pub ping_frames: Option<Placed<u32>>,
    /// PRIORITY and PRIORITY_UPDATE frames. Each stream earns credit for 100 frames. Default 1000.
    pub priority_frames: Option<Placed<u32>>,
    /// WINDOW_UPDATE frames. Each KiB of DATA that the proxy sends earns credit for 10 frames.
    /// Default 1000.
    pub window_update_frames: Option<Placed<u32>>,
    /// GOAWAY frames and frames of unknown types. Each stream earns credit for 10 frames. Default
    /// 100.
    pub other_frames: Option<Placed<u32>>,
    /// The memory overhead of buffered small DATA frames. The overhead of a frame is 256 bytes less
    /// its length; larger frames have none. Default 512KiB.
    pub data_overhead: Option<Placed<Size>>,
    /// The time limit for a complete header block of an endpoint. For clients, `timeouts.header`
    /// applies. Default 10s.
    pub endpoint_header_timeout: Option<Time>,
}
