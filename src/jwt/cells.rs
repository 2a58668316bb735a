//! The counters of an issuer of tokens.

use super::Rejection;
use crate::cells::Count;

/// The counters of one issuer of tokens, for one worker.
#[derive(Debug, Default)]
pub struct ProviderCells {
    /// Requests whose token was accepted.
    pub accepted: Count,
    /// Requests that were turned away, by reason.
    pub rejected: [Count; Rejection::ALL.len()],
}
