//! Mirroring: another service gets a copy of a request. The response to the copy is discarded.

use std::fmt;
use std::time::Duration;

use super::Chance;

/// The default maximum size of a request body that is mirrored.
pub const MIRROR_BYTES: usize = 64 * 1024;

/// The default time limit of a mirrored request, from its start to the end of its response.
pub const MIRROR_TIMEOUT: Duration = Duration::from_secs(15);

/// Which requests are mirrored, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorPolicy {
    /// The share of requests that are mirrored.
    pub chance: Chance,
    /// The maximum size of a request body that is mirrored.
    pub mirror_bytes: usize,
    /// The time limit of a mirrored request.
    pub timeout: Duration,
    /// Whether the host of a mirrored request ends with `-shadow`.
    pub shadow_host: bool,
}

impl fmt::Display for MirrorPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chance, mirror_bytes, timeout, .. } = self;
        write!(f, "{chance} of requests, with bodies up to {mirror_bytes} bytes, for {timeout:?}")
    }
}

/// The result of a mirrored request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mirrored {
    /// The endpoint has sent a complete response, whatever its status is.
    Answered,
    /// No connection could be opened, or the response was not complete.
    Failed,
    /// The time limit has passed.
    TimedOut,
    /// The request body is larger than `mirror_bytes`. Nothing was sent.
    TooLarge,
    /// The request body did not arrive completely. Nothing was sent.
    Incomplete,
    /// The worker had too many mirrored requests in progress. Nothing was sent.
    Overflow,
}

impl Mirrored {
    /// All results, in the order of [`Mirrored::index`].
    pub const ALL: [Self; 6] = [
        Self::Answered,
        Self::Failed,
        Self::TimedOut,
        Self::TooLarge,
        Self::Incomplete,
        Self::Overflow,
    ];

    /// The position in [`Mirrored::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::TooLarge => "too_large",
            Self::Incomplete => "incomplete",
            Self::Overflow => "overflow",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_their_place_and_a_label_of_their_own() {
        let mut labels = std::collections::HashSet::new();
        for (index, result) in Mirrored::ALL.into_iter().enumerate() {
            assert_eq!(result.index(), index);
            assert!(labels.insert(result.label()));
        }
    }
}
