//! Limits on frames that an HTTP/2 peer can misuse for a flood, and the names of these limits.

use std::time::Duration;

/// The limits for one connection. A limit on frames is the largest allowed burst, because the count
/// of these frames decreases steadily: from the limit to zero within `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloodLimits {
    /// The time in which a count decreases from its limit to zero.
    pub window: Duration,
    /// Maximum number of CONTINUATION frames in one header block.
    pub continuation_frames: u32,
    /// Limit on RST_STREAM frames that arrive soon after their stream was opened. Each answered
    /// stream earns credit for one frame.
    pub stream_resets: u32,
    /// Limit on streams that we reset because of an error of the peer.
    pub provoked_resets: u32,
    /// Limit on empty DATA and HEADERS frames that do not end a stream or a header block.
    pub empty_frames: u32,
    /// Limit on SETTINGS frames.
    pub settings_frames: u32,
    /// Limit on PING frames. Each DATA frame that we send earns credit for one.
    pub ping_frames: u32,
    /// Limit on PRIORITY and PRIORITY_UPDATE frames. Each stream earns credit for 100.
    pub priority_frames: u32,
    /// Limit on WINDOW_UPDATE frames. Each KiB of DATA that we send earns credit for 10.
    pub window_update_frames: u32,
    /// Limit on GOAWAY frames and frames of unknown types. Each stream earns credit for 10.
    pub other_frames: u32,
    /// Limit on the memory overhead of small unread DATA frames of one stream, in bytes.
    pub data_overhead_bytes: usize,
    /// Time limit for an endpoint to complete a header block, or a frame other than DATA.
    pub endpoint_header_timeout: Duration,
}

impl Default for FloodLimits {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            continuation_frames: 5,
            stream_resets: 1000,
            provoked_resets: 500,
            empty_frames: 100,
            settings_frames: 100,
            ping_frames: 1000,
            priority_frames: 1000,
            window_update_frames: 1000,
            other_frames: 100,
            data_overhead_bytes: 512 * 1024,
            endpoint_header_timeout: Duration::from_secs(10),
        }
    }
}

/// The limit that a peer exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// The limit [`FloodLimits::continuation_frames`] was exceeded.
    ContinuationFrames,
    /// The limit [`FloodLimits::stream_resets`] was exceeded.
    StreamResets,
    /// The limit [`FloodLimits::provoked_resets`] was exceeded.
    ProvokedResets,
    /// The limit [`FloodLimits::empty_frames`] was exceeded.
    EmptyFrames,
    /// The limit [`FloodLimits::settings_frames`] was exceeded.
    SettingsFrames,
    /// The limit [`FloodLimits::ping_frames`] was exceeded.
    PingFrames,
    /// The limit [`FloodLimits::priority_frames`] was exceeded.
    PriorityFrames,
    /// The limit [`FloodLimits::window_update_frames`] was exceeded.
    WindowUpdateFrames,
    /// The limit [`FloodLimits::other_frames`] was exceeded.
    OtherFrames,
    /// The limit [`FloodLimits::data_overhead_bytes`] was exceeded.
    DataOverhead,
    /// A header block, or a frame other than DATA, was not complete in time.
    UnfinishedHeaders,
    /// The fields of a header block decode to more than four times `limits.header_bytes`.
    HeaderBytes,
}

impl Flood {
    /// Every kind, in the order of [`Flood::index`].
    pub const ALL: [Self; 12] = [
        Self::ContinuationFrames,
        Self::StreamResets,
        Self::ProvokedResets,
        Self::EmptyFrames,
        Self::SettingsFrames,
        Self::PingFrames,
        Self::PriorityFrames,
        Self::WindowUpdateFrames,
        Self::OtherFrames,
        Self::DataOverhead,
        Self::UnfinishedHeaders,
        Self::HeaderBytes,
    ];

    /// The value of the metric label `limit`. For a limit that is configurable, also its key in
    /// `limits.http2`.
    pub fn label(self) -> &'static str {
        match self {
            Self::ContinuationFrames => "continuation_frames",
            Self::StreamResets => "stream_resets",
            Self::ProvokedResets => "provoked_resets",
            Self::EmptyFrames => "empty_frames",
            Self::SettingsFrames => "settings_frames",
            Self::PingFrames => "ping_frames",
            Self::PriorityFrames => "priority_frames",
            Self::WindowUpdateFrames => "window_update_frames",
            Self::OtherFrames => "other_frames",
            Self::DataOverhead => "data_overhead",
            Self::UnfinishedHeaders => "unfinished_headers",
            Self::HeaderBytes => "header_bytes",
        }
    }

    /// The position in [`Flood::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// The error when a peer exceeds a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    /// The exceeded limit.
    pub flood: Flood,
    /// The value of the limit: a number of frames, bytes, or milliseconds for a time.
    pub limit: u64,
}
