//! The metrics of global rate limits.

use std::fmt::Display;

use super::{Page, families};
use crate::cells::LATENCY_BUCKETS_MS;
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
    let name = "ringway_global_rate_limit_duration_milliseconds";
    page.family(name, "histogram", "Time until the rate limit service has answered or failed.");
    for limit in &snapshot.rate_limits.global {
        let (scope, stats) = (limit.scope.word(), &limit.stats);
        let labels: [(&str, &dyn Display); 3] =
            [("scope", &scope), ("host", &limit.host), ("name", &limit.name)];
        let mut total = 0;
        for index in 0..=LATENCY_BUCKETS_MS.len() {
            total += stats.sum(|cells| &cells.duration.buckets[index]);
            let bound =
                LATENCY_BUCKETS_MS.get(index).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            let labels = [labels[0], labels[1], labels[2], ("le", &bound)];
            page.sample(&format!("{name}_bucket"), &labels, total);
        }
        let sum_ms = stats.sum(|cells| &cells.duration.sum_us) as f64 / 1000.0;
        page.sample(&format!("{name}_sum"), &labels, sum_ms);
        page.sample(&format!("{name}_count"), &labels, total);
    }
}
