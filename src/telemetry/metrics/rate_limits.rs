//! The metrics of rate limits.

use super::{Page, families};
use crate::snapshot::Snapshot;

/// Writes the metrics of all rate limits.
pub(super) fn write(page: &mut Page, snapshot: &Snapshot) {
    families(
        page,
        &snapshot.rate_limits.local,
        |limit| {
            let mut labels = vec![
                ("scope", limit.scope.word().to_owned()),
                ("host", limit.host.to_string()),
                ("name", limit.name.to_string()),
            ];
            if !limit.which.is_empty() {
                labels.push(("limit", limit.which.to_string()));
            }
            labels
        },
        &[
            (
                "counter",
                "ringway_rate_limit_passed_total",
                "Requests that passed a rate limit.",
                |i| i.stats.sum(|c| &c.passed),
            ),
            ("counter", "ringway_rate_limited_total", "Requests refused by a rate limit.", |i| {
                i.stats.sum(|c| &c.limited)
            }),
            (
                "counter",
                "ringway_rate_limit_delays_total",
                "Waits of bodies because of a limit on bytes.",
                |i| i.stats.sum(|c| &c.delays),
            ),
            (
                "gauge",
                "ringway_rate_limit_keys",
                "Keys that a rate limit remembers: header values, identities or addresses.",
                |i| i.keys(),
            ),
            (
                "counter",
                "ringway_rate_limit_evicted_keys_total",
                "Keys removed too early because of limits.rate_limit_keys.",
                |i| i.evicted(),
            ),
        ],
    );
}
