//! The counters of captured traffic.

use super::{CaptureError, OUTCOMES, UdpRefusal};
use crate::cells::{Count, Histogram};

/// The counters of one listener of captured traffic, for one worker.
#[derive(Debug, Default)]
pub struct CaptureCells {
    /// Connections by detected protocol (`mesh::outcome_index`).
    pub detected: [Count; OUTCOMES],
    /// The time from accept until the protocol was known, in microseconds.
    pub detection: Histogram,
    /// Connections to destinations that were opened before the client sent data, because it sent
    /// none.
    pub early: Count,
    /// Connections that were refused, by `CaptureError::index`.
    pub errors: [Count; CaptureError::ALL.len()],
    /// Health checks of orchestrators that were served without an identity.
    pub probes: Count,
    /// UDP flows opened.
    pub flows: Count,
    /// Open UDP flows (gauge).
    pub flows_active: Count,
    /// UDP flows whose QUIC client has moved from another address.
    pub flows_moved: Count,
    /// Datagrams of refused UDP flows, by `UdpRefusal::index`.
    pub flows_refused: [Count; UdpRefusal::ALL.len()],
    /// Datagrams forwarded to destinations.
    pub datagrams_out: Count,
    /// Datagrams forwarded to clients.
    pub datagrams_in: Count,
    /// Bytes of the datagrams forwarded to destinations.
    pub datagram_bytes_out: Count,
    /// Bytes of the datagrams forwarded to clients.
    pub datagram_bytes_in: Count,
    /// Datagrams lost because the kernel buffer was full.
    pub datagrams_lost: Count,
}
