//! The counters of a token issuer.

use super::Rejection;
use crate::cells::Count;

/// The counters of one token issuer, for one worker.
#[derive(Debug, Default)]
pub struct ProviderCells {
    /// Requests whose token was accepted.
    pub accepted: Count,
    /// Requests that were rejected, by reason.
    pub rejected: [Count; Rejection::ALL.len()],
}
