//! The counters of a token issuer.

use super::Rejection;
use crate::cells::Count;

/// The counters of one token issuer, for one worker.
#[derive(Debug, Default)]
pub struct ProviderCells {
    /// Requests whose token of this issuer was accepted.
    pub accepted: Count,
    /// Requests whose token was rejected, by [`Rejection::index`].
    pub rejected: [Count; Rejection::ALL.len()],
}
