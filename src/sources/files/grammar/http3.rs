//! The grammar of `http3:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{Placed, Size, Time};

/// Whether a listener serves HTTP/3, and how.
#[derive(Clone, Debug)]
pub enum Http3 {
    /// `true` or `false`.
    Switch(bool),
    /// HTTP/3 with these settings.
    Settings(Http3Map),
}

/// HTTP/3 settings of a listener.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http3Map {
    /// Whether responses over TCP have the field `alt-svc`, which tells clients of HTTP/3. Default
    /// true.
    pub alt_svc: Option<bool>,
    /// The maximum number of open streams on a connection. Default 100.
    pub max_concurrent_streams: Option<Placed<u32>>,
    /// How many bytes of a stream the client may send before they are forwarded. Default 256KiB.
    pub stream_window: Option<Placed<Size>>,
    /// How many bytes of all streams of a connection the client may send before they are forwarded.
    /// Default 1MiB.
    pub connection_window: Option<Placed<Size>>,
    /// When a client must prove its address with another round trip (Retry) before its handshake
    /// costs anything. Default `auto`.
    pub retry: Retry,
    /// The maximum number of handshakes in progress on a worker. Above half of it, `retry: auto`
    /// asks for a proof; above all of it, clients are refused. Default 1000.
    pub max_handshakes: Option<Placed<u32>>,
    /// Whether a connection continues when the client changes its address. Default true.
    pub migration: Option<bool>,
    /// Whether requests with a safe method are served before the handshake of a resumed connection
    /// is complete (0-RTT). Endpoints see them with `early-data: 1`. Default false.
    pub early_data: Option<Placed<bool>>,
}

/// When a client must prove its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// While many handshakes are in progress.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Limits on HTTP/3 frames and streams that carry no message data. Each number is the largest
/// burst. Counts decrease evenly, from the limit to zero within `window`. If a client exceeds a
/// limit, its connection is closed with H3_EXCESSIVE_LOAD.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http3Limits {
    /// The time in which a count decreases by its whole limit. Default 10s.
    pub window: Option<Time>,
    /// Streams that the client resets in the first 100 to 200 ms. Each stream with a response earns
    /// credit for one. Default 1000.
    pub stream_resets: Option<Placed<u32>>,
    /// Streams that the proxy resets because of errors of the peer. Default 500.
    pub provoked_resets: Option<Placed<u32>>,
    /// Empty DATA frames. Default 100.
    pub empty_frames: Option<Placed<u32>>,
    /// PRIORITY_UPDATE frames. Each stream earns credit for 100 frames. Default 1000.
    pub priority_frames: Option<Placed<u32>>,
    /// GOAWAY and MAX_PUSH_ID frames, and frames and streams of unknown types. Each stream earns
    /// credit for 10. Default 100.
    pub other_frames: Option<Placed<u32>>,
    /// Changes of the QPACK table. Each field section earns credit for 100. Default 1000.
    pub table_changes: Option<Placed<u32>>,
}
