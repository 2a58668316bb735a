//! `limits.http2:`, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{Placed, Size, Time};

/// What a peer of HTTP/2 may send besides messages. A number of frames is what may come in a burst;
/// what was counted is forgotten at an even rate, all of it within `window`. Beyond a limit the
/// connection ends with ENHANCE_YOUR_CALM.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http2Limits {
    /// The time in which as much as a limit is forgotten. Default 10s.
    pub window: Option<Time>,
    /// CONTINUATION frames of one header block. Default 5.
    pub continuation_frames: Option<u32>,
    /// RST_STREAM for streams opened in the last 100 to 200 ms, less the streams that were
    /// answered. Default 1000.
    pub stream_resets: Option<Placed<u32>>,
    /// Resets by us for what the peer has done wrong with a stream. Default 500.
    pub provoked_resets: Option<Placed<u32>>,
    /// DATA and HEADERS frames without content that end nothing. Default 100.
    pub empty_frames: Option<Placed<u32>>,
    /// SETTINGS frames. Default 100.
    pub settings_frames: Option<Placed<u32>>,
    /// PING frames, less the DATA frames that we have sent. Default 1000.
    pub ping_frames: Option<Placed<u32>>,
    /// PRIORITY and PRIORITY_UPDATE frames, less 100 for each stream. Default 1000.
    pub priority_frames: Option<Placed<u32>>,
    /// WINDOW_UPDATE frames, less 10 for each KiB of DATA that we have sent. Default 1000.
    pub window_update_frames: Option<Placed<u32>>,
    /// GOAWAY and frames of unknown types, less 10 for each stream. Default 100.
    pub other_frames: Option<Placed<u32>>,
    /// Bytes that small DATA frames may cost beyond what flow control counts, until they are read:
    /// 256 less the size of each. Default 512KiB.
    pub data_overhead: Option<Placed<Size>>,
    /// How long a header block of an endpoint may take; for clients it is `timeouts.header`.
    /// Default 10s.
    pub endpoint_header_timeout: Option<Time>,
}
