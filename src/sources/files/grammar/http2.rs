//! The grammar of `http2:` and `limits.http2:`. Its comments are the descriptions in the JSON
//! Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{Placed, Size, Time, TimeOrNone};

/// HTTP/2 settings of connections.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http2 {
    /// The maximum number of open streams on a connection. To a service, the endpoint's own limit
    /// counts too. At the limit, another connection is opened. Default 100.
    pub max_concurrent_streams: Option<Placed<u32>>,
    /// How many bytes the peer may send on a stream before we have forwarded any. Default 256KiB.
    pub stream_window: Option<Placed<Size>>,
    /// The same for all streams of a connection together. Default 1MiB.
    pub connection_window: Option<Placed<Size>>,
    /// Has no effect. A stream whose peer does not read is not buffered.
    pub stream_buffer: Option<Placed<Size>>,
    /// A PING is sent on a connection with open streams after this time without received bytes.
    /// Default 30s; `none` for never.
    pub ping_interval: Option<TimeOrNone>,
    /// How long the answer to a PING may take before the connection is closed. Default 20s.
    pub ping_timeout: Option<TimeOrNone>,
    /// The age at which a connection is drained, with a jitter of one tenth. Default `none`.
    pub max_connection_age: Option<TimeOrNone>,
}

/// Limits on HTTP/2 frames that carry no message data. A number of frames is the largest burst.
/// Counts decrease evenly, from the limit to zero within `window`. At a limit, the connection is
/// closed with ENHANCE_YOUR_CALM.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http2Limits {
    /// The time in which a count decreases by its whole limit. Default 10s.
    pub window: Option<Time>,
    /// CONTINUATION frames of one header block. Default 5.
    pub continuation_frames: Option<u32>,
    /// RST_STREAM for streams opened in the last 100 to 200 ms. Each answered stream earns credit
    /// for one. Default 1000.
    pub stream_resets: Option<Placed<u32>>,
    /// Our resets because of errors of the peer. Default 500.
    pub provoked_resets: Option<Placed<u32>>,
    /// Empty DATA and HEADERS frames that do not end a stream. Default 100.
    pub empty_frames: Option<Placed<u32>>,
    /// SETTINGS frames. Default 100.
    pub settings_frames: Option<Placed<u32>>,
    /// PING frames. Each DATA frame that we send earns credit for one. Default 1000.
    pub ping_frames: Option<Placed<u32>>,
    /// PRIORITY and PRIORITY_UPDATE frames. Each stream earns credit for 100. Default 1000.
    pub priority_frames: Option<Placed<u32>>,
    /// WINDOW_UPDATE frames. Each KiB of DATA that we send earns credit for 10. Default 1000.
    pub window_update_frames: Option<Placed<u32>>,
    /// GOAWAY and frames of unknown types. Each stream earns credit for 10. Default 100.
    pub other_frames: Option<Placed<u32>>,
    /// The memory overhead of small DATA frames until they are read. A frame of fewer than 256
    /// bytes counts the difference to 256. Default 512KiB.
    pub data_overhead: Option<Placed<Size>>,
    /// The time limit of a header block of an endpoint. For clients, `timeouts.header` applies.
    /// Default 10s.
    pub endpoint_header_timeout: Option<Time>,
}
