//! The metrics of global rate limits.

use std::fmt::Display;

use super::{Page, families};
use crate::snapshot::Snapshot;

/// Writes the metrics of all global rate limits. Writes nothing if there is none.
pub(super) fn write(page: &mut Page, snapshot: &Snapshot) {
    if snapshot.rate_limits.global.is_empty() {
        return;
    }
    families(
        page,
        &snapshot.rate_limits.global,
        |limit| {
            vec![
                ("scope", limit.scope.word().to_owned()),
                ("host", limit.host.to_string()),
                ("name", limit.name.to_string()),
            ]
        },
        &[
            (
                "counter",
                "ringway_global_rate_limit_ok_total",
                "Requests that the rate limit service let pass.",
                |i| i.stats.sum(|c| &c.ok),
            ),
            (
                "counter",
                "ringway_global_rate_limit_over_limit_total",
                "Requests over a limit of the rate limit service.",
                |i| i.stats.sum(|c| &c.over_limit),
            ),
            (
                "counter",
                "ringway_global_rate_limit_errors_total",
                "Requests about which the rate limit service did not answer.",
                |i| i.stats.sum(|c| &c.errors),
            ),
            (
                "counter",
                "ringway_global_rate_limit_failure_mode_allowed_total",
                "Requests that passed without an answer of the rate limit service.",
                |i| i.stats.sum(|c| &c.failure_mode_allowed),
            ),
        ],
    );
    duration(page, snapshot);
}

fn duration(page: &mut Page, snapshot: &Snapshot) {
    let name = "ringway_global_rate_limit_duration_seconds";
    page.family(name, "histogram", "Time until the rate limit service has answered or failed.");
    for limit in &snapshot.rate_limits.global {
        let scope = limit.scope.word();
        let labels: [(&str, &dyn Display); 3] =
            [("scope", &scope), ("host", &limit.host), ("name", &limit.name)];
        page.histogram(name, &labels, &limit.stats, |c| &c.duration);
    }
}
