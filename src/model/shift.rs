//! Shifts of traffic between two versions.

use std::time::Duration;

use super::Item;

/// A plan that moves the traffic of a rule from one version to another.
#[derive(Clone, Debug, Default)]
pub struct Shift {
    /// The old version, `VERSION`, `SERVICE/VERSION` or `SERVICE`. It is required.
    pub from: Option<Item<String>>,
    /// The new version. It is required.
    pub to: Option<Item<String>>,
    /// How much the share of the new version grows with each step, in millionths of the traffic of
    /// both versions ([`super::SHARE_PARTS`]). It is required.
    pub step: Option<Item<u32>>,
    /// The time between two steps. It is required.
    pub every: Option<Item<Duration>>,
    /// The time of the first step, in milliseconds since 1970. `None` means the next multiple of
    /// `every` on the clock.
    pub start: Option<u64>,
    /// The reasons to go back. `None` means that there are none.
    pub abort_if: Option<Item<AbortIf>>,
}

/// The reasons to go back to the old version.
#[derive(Clone, Debug, Default)]
pub struct AbortIf {
    /// The largest share of failed requests, in millionths ([`super::SHARE_PARTS`]).
    pub error_rate: Option<Item<u32>>,
    /// The time that 99 of 100 requests may take.
    pub p99: Option<Item<Duration>>,
    /// The requests of a step that are needed to judge it. `None` means the default.
    pub min_requests: Option<Item<u32>>,
}
