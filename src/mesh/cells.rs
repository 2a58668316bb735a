//! The counters of captured traffic.

use super::{CaptureError, OUTCOMES, UdpRefusal};
use crate::cells::{Count, Histogram};

/// The counters of one listener of captured traffic, for one worker.
#[derive(Debug, Default)]
pub struct CaptureCells {
    /// Connections by what they were found to speak (`mesh::outcome_index`).
    pub detected: [Count; OUTCOMES],
    /// From the accept until that was known.
    pub detection: Histogram,
    /// Connections onward that were opened before it was known, because the client was silent.
    pub early: Count,
    /// Connections that could not be served at all, by `CaptureError::index`.
    pub errors: [Count; CaptureError::ALL.len()],
    /// Requests of orchestrators that needed no identity.
    pub probes: Count,
    /// Flows of UDP opened.
    pub flows: Count,
    /// Flows of UDP open now (gauge).
    pub flows_active: Count,
    /// Flows of UDP not carried, by `UdpRefusal::index`; their datagrams, to be exact.
    pub flows_refused: [Count; UdpRefusal::ALL.len()],
    /// Datagrams sent on to destinations.
    pub datagrams_out: Count,
    /// Datagrams sent back to clients.
    pub datagrams_in: Count,
    /// Bytes of them.
    pub datagram_bytes_out: Count,
    /// Bytes of them.
    pub datagram_bytes_in: Count,
    /// Datagrams that the kernel had no room for.
    pub datagrams_lost: Count,
}
