//! The metrics of mirrored requests.

use std::collections::BTreeSet;
use std::fmt::Display;

use super::Page;
use crate::cluster::Mirrored;
use crate::snapshot::Snapshot;

/// Writes the metrics of all services to which a rule mirrors requests.
pub(super) fn write(page: &mut Page, snapshot: &Snapshot) {
    let name = "ringway_mirrored_requests_total";
    page.family(name, "counter", "Requests mirrored to a service, by result.");
    let mirrors = snapshot.used_rules().filter_map(|rule| rule.mirror.as_ref());
    // Several rules may mirror to the same service.
    let indices: BTreeSet<u32> = mirrors.map(|mirror| mirror.to.service).collect();
    let services = indices.iter().filter_map(|&index| snapshot.services.get(index as usize));
    for service in services {
        for result in Mirrored::ALL {
            let count = service.stats.sum(|cells| &cells.mirrored[result.index()]);
            let labels: [(&str, &dyn Display); 2] =
                [("service", &service.name), ("result", &result.label())];
            page.sample(name, &labels, count);
        }
    }
}
