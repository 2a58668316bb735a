//! What a peer of HTTP/2 may send besides messages, and what it is called to have sent too much.

use std::time::Duration;

/// How much of each kind is taken. A number of frames is what may come in a burst; what has been
/// counted is forgotten at an even rate, all of it within `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloodLimits {
    /// The time in which as much as a limit is forgotten.
    pub window: Duration,
    /// CONTINUATION frames of one header block.
    pub continuation_frames: u32,
    /// RST_STREAM for streams that were opened a moment ago, less the streams that were answered.
    pub stream_resets: u32,
    /// Resets by us for what the peer has done wrong with a stream.
    pub provoked_resets: u32,
    /// Frames of messages without content that end nothing.
    pub empty_frames: u32,
    /// SETTINGS.
    pub settings_frames: u32,
    /// PING, less the DATA frames that we have sent.
    pub ping_frames: u32,
    /// PRIORITY and PRIORITY_UPDATE, less 100 for each stream.
    pub priority_frames: u32,
    /// WINDOW_UPDATE, less what our own DATA frames give reason for.
    pub window_update_frames: u32,
    /// GOAWAY and frames of unknown types, less 10 for each stream.
    pub other_frames: u32,
    /// Bytes by which small DATA frames may be dearer to keep than large ones.
    pub data_overhead_bytes: usize,
    /// How long a header block of an endpoint may take from its first byte to its last.
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

/// The limit that a peer has gone beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// [`FloodLimits::continuation_frames`].
    ContinuationFrames,
    /// [`FloodLimits::stream_resets`].
    StreamResets,
    /// [`FloodLimits::provoked_resets`].
    ProvokedResets,
    /// [`FloodLimits::empty_frames`].
    EmptyFrames,
    /// [`FloodLimits::settings_frames`].
    SettingsFrames,
    /// [`FloodLimits::ping_frames`].
    PingFrames,
    /// [`FloodLimits::priority_frames`].
    PriorityFrames,
    /// [`FloodLimits::window_update_frames`].
    WindowUpdateFrames,
    /// [`FloodLimits::other_frames`].
    OtherFrames,
    /// [`FloodLimits::data_overhead_bytes`].
    DataOverhead,
    /// A header block that did not end in its time.
    UnfinishedHeaders,
    /// Fields that unpack to several times `limits.header_bytes`.
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

    /// The value of the metric's label: the name of the limit, where it is one of `limits.http2`.
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

    /// Position in [`Flood::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The longest of the names that the `h2` crate has.
    pub(super) const DEBUG_BYTES_MAX: usize = "header_list_way_too_large".len();

    /// The limit that the `h2` crate means when it says this in the debug data of a GOAWAY: it
    /// counts a few things itself.
    pub(super) fn named_in(debug_data: &[u8]) -> Option<Self> {
        match debug_data {
            b"too_many_continuations" => Some(Self::ContinuationFrames),
            b"too_many_resets" => Some(Self::StreamResets),
            b"too_many_internal_resets" => Some(Self::ProvokedResets),
            b"too_many_data_frames" => Some(Self::DataOverhead),
            b"header_list_way_too_large" => Some(Self::HeaderBytes),
            _ => None,
        }
    }
}

/// A peer has gone too far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    /// How.
    pub flood: Flood,
    /// What is allowed, in the unit of the limit; seconds for a time.
    pub limit: u64,
}

/// GOAWAY with ENHANCE_YOUR_CALM (RFC 9113 6.8, 7): streams beyond `last_stream` were not seen.
pub fn calm_down(last_stream: u32) -> [u8; 17] {
    let mut frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0b];
    frame[9..13].copy_from_slice(&last_stream.to_be_bytes());
    frame
}
