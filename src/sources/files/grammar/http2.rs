//! The grammar of `http2:` and `limits.http2:`. Its comments are the descriptions in the JSON
//! Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{Placed, Size, Time, TimeOrNone};

/// How HTTP/2 is spoken on a connection.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http2 {
    /// Streams open at once on a connection. To a service, the endpoint's own limit counts too; a
    /// further connection is opened when it is reached. Default 100.
    pub max_concurrent_streams: Option<Placed<u32>>,
    /// Bytes that the peer may send on a stream before we have passed them on. Default 256KiB.
    pub stream_window: Option<Placed<Size>>,
    /// The same for all streams of a connection together. Default 1MiB.
    pub connection_window: Option<Placed<Size>>,
    /// Bytes of a stream that are kept while its peer takes no more. Default 64KiB.
    pub stream_buffer: Option<Placed<Size>>,
    /// A connection with open streams on which nothing has come for this long is asked with PING
    /// whether it is still there. Default 30s; `none` for never.
    pub ping_interval: Option<TimeOrNone>,
    /// How long the answer to a PING may take before the connection is given up. Default 20s.
    pub ping_timeout: Option<TimeOrNone>,
    /// How old a connection gets before it is drained, give or take a tenth. Default `none`.
    pub max_connection_age: Option<TimeOrNone>,
}

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
