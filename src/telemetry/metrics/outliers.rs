//! The metrics of outlier detection.

use std::fmt::Display;

use super::Page;
use crate::health::EjectionReason;
use crate::snapshot::Snapshot;

/// Writes the metrics of all services that have outlier detection.
pub(super) fn write(page: &mut Page, snapshot: &Snapshot) {
    let detections = || {
        let services = snapshot.services.iter();
        services.filter_map(|service| Some((&service.name, &service.outlier.as_ref()?.group)))
    };
    let name = "ringway_service_outlier_ejections_total";
    page.family(name, "counter", "Ejections of endpoints by outlier detection, by reason.");
    for (service, group) in detections() {
        for reason in EjectionReason::ALL {
            let labels: [(&str, &dyn Display); 2] =
                [("service", service), ("reason", &reason.label())];
            page.sample(name, &labels, group.ejections(reason));
        }
    }
    let name = "ringway_service_outlier_ejections_active";
    page.family(name, "gauge", "Endpoints that are ejected now.");
    for (service, group) in detections() {
        page.sample(name, &[("service", service)], group.ejected());
    }
    let name = "ringway_service_outlier_ejections_over_limit_total";
    let help = "Failing endpoints not ejected because of `max_ejection_percent`.";
    page.family(name, "counter", help);
    for (service, group) in detections() {
        page.sample(name, &[("service", service)], group.over_limit());
    }
}
