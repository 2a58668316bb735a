//! The counters of an issuer of tokens.

use super::Rejection;
use crate::cells::Count;

/// What one worker counts for one issuer of tokens.
#[derive(Debug, Default)]
pub struct ProviderCells {
    /// Requests whose token was accepted.
    pub accepted: Count,
    /// Requests that were turned away, by reason.
    pub rejected: [Count; Rejection::ALL.len()],
}
