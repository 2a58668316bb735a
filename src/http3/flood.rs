//! Limits on frames that an HTTP/3 peer can misuse for a flood, and the counters of a connection.
//!
//! As in HTTP/2, normal traffic earns credit, and counts decrease with time. QUIC itself limits
//! streams, bytes and acknowledgements.

use std::time::Duration;

use super::code::Code;
use crate::time::Time;

/// The limits for one connection. A limit is the largest allowed burst, because a count decreases
/// steadily: from the limit to zero within `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloodLimits {
    /// The time in which a count decreases from its limit to zero.
    pub window: Duration,
    /// Limit on streams that a client resets soon after it has opened them. Each answered stream
    /// earns credit for one.
    pub stream_resets: u32,
    /// Limit on streams that we reset because of an error of the peer.
    pub provoked_resets: u32,
    /// Limit on empty DATA frames.
    pub empty_frames: u32,
    /// Limit on PRIORITY_UPDATE frames. Each stream earns credit for 100.
    pub priority_frames: u32,
    /// Limit on frames and streams of unknown types, and on GOAWAY and MAX_PUSH_ID frames. Each
    /// stream earns credit for 10.
    pub other_frames: u32,
    /// Limit on changes of the QPACK table. Each field section earns credit for 100.
    pub table_changes: u32,
}

impl Default for FloodLimits {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            stream_resets: 1000,
            provoked_resets: 500,
            empty_frames: 100,
            priority_frames: 1000,
            other_frames: 100,
            table_changes: 1000,
        }
    }
}

/// The limit that a peer exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// The limit [`FloodLimits::stream_resets`] was exceeded.
    StreamResets,
    /// The limit [`FloodLimits::provoked_resets`] was exceeded.
    ProvokedResets,
    /// The limit [`FloodLimits::empty_frames`] was exceeded.
    EmptyFrames,
    /// The limit [`FloodLimits::priority_frames`] was exceeded.
    PriorityFrames,
    /// The limit [`FloodLimits::other_frames`] was exceeded.
    OtherFrames,
    /// The limit [`FloodLimits::table_changes`] was exceeded.
    TableChanges,
    /// The fields of a section decode to more than four times `limits.header_bytes`.
    HeaderBytes,
    /// The peer does not read our decoder stream: more than 64 KiB wait for it.
    UnreadAnswers,
}

impl Flood {
    /// Every kind, in the order of [`Flood::index`].
    pub const ALL: [Self; 8] = [
        Self::StreamResets,
        Self::ProvokedResets,
        Self::EmptyFrames,
        Self::PriorityFrames,
        Self::OtherFrames,
        Self::TableChanges,
        Self::HeaderBytes,
        Self::UnreadAnswers,
    ];

    /// The value of the metric label `limit`. For a limit that is configurable, also its key in
    /// `limits.http3`.
    pub fn label(self) -> &'static str {
        match self {
            Self::StreamResets => "stream_resets",
            Self::ProvokedResets => "provoked_resets",
            Self::EmptyFrames => "empty_frames",
            Self::PriorityFrames => "priority_frames",
            Self::OtherFrames => "other_frames",
            Self::TableChanges => "table_changes",
            Self::HeaderBytes => "header_bytes",
            Self::UnreadAnswers => "unread_answers",
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
    /// The value of the limit: a number of frames, or of bytes.
    pub limit: u64,
}

/// The number of bytes that may wait for our decoder stream. A section adds a few.
pub(super) const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// One stream earns credit for this many PRIORITY_UPDATE frames, as in HTTP/2.
const PRIORITY_PER_STREAM: f64 = 100.0;

/// One stream earns credit for this many frames and streams of unknown types.
const OTHER_PER_STREAM: f64 = 10.0;

/// One field section earns credit for this many changes of the table.
const CHANGES_PER_SECTION: f64 = 100.0;

/// The counters of one connection.
#[derive(Debug)]
pub(super) struct Meter {
    limits: FloodLimits,
    header_bytes: usize,
    /// The count of each limit in [`Flood::ALL`].
    levels: [f64; Flood::ALL.len()],
    /// The time of the last decrease of `levels`.
    lowered: Time,
}

impl Meter {
    pub(super) const fn new(limits: FloodLimits, header_bytes: usize, now: Time) -> Self {
        Self { limits, header_bytes, levels: [0.0; Flood::ALL.len()], lowered: now }
    }

    /// Decreases the counts for the time since the last call.
    pub(super) fn pass_time(&mut self, now: Time) {
        let part = (now - self.lowered).as_secs_f64() / self.limits.window.as_secs_f64();
        if part == 0.0 {
            return;
        }
        self.lowered = now;
        for flood in Flood::ALL {
            if self.levels[flood.index()] > 0.0 {
                self.pay(flood, self.limit(flood) as f64 * part);
            }
        }
    }

    /// Records a new stream of a message.
    pub(super) fn opened(&mut self) {
        self.pay(Flood::PriorityFrames, PRIORITY_PER_STREAM);
        self.pay(Flood::OtherFrames, OTHER_PER_STREAM);
    }

    /// Records a field section of the peer.
    pub(super) fn section(&mut self) {
        self.pay(Flood::TableChanges, CHANGES_PER_SECTION);
    }

    /// Records that we have ended the stream of a client: it earns credit for one reset.
    pub(super) fn answered(&mut self) {
        self.pay(Flood::StreamResets, 1.0);
    }

    /// Counts a stream that we reset with `code`.
    pub(super) fn sent_reset(&mut self, code: Code) -> Result<(), Excess> {
        match code.is_provoked() {
            true => self.charge(Flood::ProvokedResets, 1),
            false => Ok(()),
        }
    }

    /// Counts `count` events.
    pub(super) fn charge(&mut self, flood: Flood, count: u64) -> Result<(), Excess> {
        let limit = self.limit(flood);
        let level = &mut self.levels[flood.index()];
        *level += count as f64;
        match *level > limit as f64 {
            true => Err(Excess { flood, limit }),
            false => Ok(()),
        }
    }

    /// The error for exceeding the limit `flood`.
    pub(super) fn excess(&self, flood: Flood) -> Excess {
        Excess { flood, limit: self.limit(flood) }
    }

    fn pay(&mut self, flood: Flood, amount: f64) {
        let level = &mut self.levels[flood.index()];
        *level = (*level - amount).max(0.0);
    }

    fn limit(&self, flood: Flood) -> u64 {
        let limits = &self.limits;
        match flood {
            Flood::StreamResets => limits.stream_resets.into(),
            Flood::ProvokedResets => limits.provoked_resets.into(),
            Flood::EmptyFrames => limits.empty_frames.into(),
            Flood::PriorityFrames => limits.priority_frames.into(),
            Flood::OtherFrames => limits.other_frames.into(),
            Flood::TableChanges => limits.table_changes.into(),
            Flood::HeaderBytes => self.header_bytes as u64,
            Flood::UnreadAnswers => ANSWER_BYTES_MAX as u64,
        }
    }
}
