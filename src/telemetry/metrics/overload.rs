//! The metrics of overload protection.

use super::Page;
use crate::snapshot::Priority;
use crate::telemetry::status::{Known, Reading};

/// Writes the usage of the resources that have a limit, and the number of refused requests.
pub(super) fn write(page: &mut Page, known: &Known) {
    let mut family = |name, help, value: fn(&Reading) -> f64| {
        page.family(name, "gauge", help);
        for reading in known.overload.iter().flatten() {
            page.sample(name, &[("resource", &reading.resource.name())], value(reading));
        }
    };
    family(
        "ringway_overload_level",
        "0: all requests are served; 1: those of low priority are refused; 2: only those of high \
         priority are served.",
        |reading| reading.level.number().into(),
    );
    family(
        "ringway_overload_used_ratio",
        "How much of a limit is in use; 1 is all of it.",
        |reading| reading.used / reading.limit,
    );
    family(
        "ringway_overload_limit",
        "The limit of the process: bytes, descriptors or CPUs.",
        |reading| reading.limit,
    );
    let name = "ringway_overload_shed_requests_total";
    page.family(name, "counter", "Requests refused because the process was overloaded.");
    for priority in [Priority::Low, Priority::Normal] {
        let shed = known.workers.sum(|cells| &cells.shed[priority.index()]);
        page.sample(name, &[("priority", &priority.name())], shed);
    }
}
