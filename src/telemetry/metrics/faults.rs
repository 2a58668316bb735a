//! The metrics of injected faults.

use std::fmt::Display;

use super::Page;
use crate::snapshot::Snapshot;

/// Writes the metrics of all rules that inject faults.
pub(super) fn write(page: &mut Page, snapshot: &Snapshot) {
    let name = "ringway_faults_injected_total";
    page.family(
        name,
        "counter",
        "Faults that a rule has injected, by kind: delay, abort, bandwidth.",
    );
    for rule in snapshot.used_rules().filter(|rule| rule.fault.is_some()) {
        for (kind, count) in [
            ("delay", rule.stats.sum(|cells| &cells.delays)),
            ("abort", rule.stats.sum(|cells| &cells.aborts)),
            ("bandwidth", rule.stats.sum(|cells| &cells.bandwidths)),
        ] {
            let labels: [(&str, &dyn Display); 3] =
                [("host", &rule.host), ("route", &rule.name), ("kind", &kind)];
            page.sample(name, &labels, count);
        }
    }
}
