//! The metrics of retries.

use std::fmt::Display;
use std::sync::Arc;

use super::{Label, Page, families};
use crate::cluster::{Hedged, Service};
use crate::snapshot::Snapshot;

/// Writes the metrics of all services to which a retry policy applies: their own, or that of a
/// rule.
pub(super) fn write(page: &mut Page, snapshot: &Snapshot) {
    let services: Vec<Arc<Service>> =
        snapshot.all_services().filter(|service| service.retry_budget.is_some()).cloned().collect();
    let label: Label<Arc<Service>> = |item| vec![("service", item.name.to_string())];
    families(
        page,
        &services,
        label,
        &[
            ("counter", "ringway_service_retries_total", "Retries by the retry policy.", |i| {
                i.stats.sum(|c| &c.retries)
            }),
            (
                "counter",
                "ringway_service_retries_over_budget_total",
                "Requests not retried because the retry budget was used up.",
                |i| i.stats.sum(|c| &c.retries_over_budget),
            ),
            (
                "counter",
                "ringway_service_retries_exhausted_total",
                "Requests that failed after the last allowed retry.",
                |i| i.stats.sum(|c| &c.retries_exhausted),
            ),
        ],
    );
    let name = "ringway_hedged_requests_total";
    page.family(name, "counter", "Requests sent to a second endpoint, by result.");
    for service in &services {
        for result in Hedged::ALL {
            let count = service.stats.sum(|cells| &cells.hedged[result.index()]);
            let labels: [(&str, &dyn Display); 2] =
                [("service", &service.name), ("result", &result.label())];
            page.sample(name, &labels, count);
        }
    }
}
