//! The metrics of endpoints.

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;

use super::{CLASSES, Label, Page, families};
use crate::cluster::{Endpoint, Service};
use crate::snapshot::Snapshot;

/// The current endpoints of all services, each with its service.
pub(super) fn all_endpoints(snapshot: &Snapshot) -> Vec<(&Service, Arc<Endpoint>)> {
    let of_service = |service: &Service| service.endpoints.load().list.clone();
    let pairs = |service| of_service(service).into_iter().map(move |endpoint| (service, endpoint));
    snapshot.services.iter().flat_map(|service| pairs(&**service)).collect()
}

/// Writes the metrics of all endpoints.
pub(super) fn write(page: &mut Page, snapshot: &Snapshot) {
    let pairs = all_endpoints(snapshot);
    counts(page, &pairs);
    responses(page, &pairs);
    zones(page, &pairs);
}

fn counts(page: &mut Page, pairs: &[(&Service, Arc<Endpoint>)]) {
    let label: Label<(&Service, Arc<Endpoint>)> =
        |item| vec![("service", item.0.name.to_string()), ("endpoint", item.1.address.to_string())];
    families(
        page,
        pairs,
        label,
        &[
            (
                "counter",
                "ringway_endpoint_requests_total",
                "Requests and L4 connections sent to the endpoint.",
                |i| i.1.stats.sum(|c| &c.requests),
            ),
            (
                "counter",
                "ringway_endpoint_failures_total",
                "Requests and L4 connections that failed: status 5xx, or no response.",
                |i| i.1.stats.sum(|c| &c.failures),
            ),
            ("counter", "ringway_endpoint_connections_total", "Connections opened.", |i| {
                i.1.stats.sum(|c| &c.connections)
            }),
            (
                "counter",
                "ringway_endpoint_connect_failures_total",
                "Connections that could not be opened.",
                |i| i.1.stats.sum(|c| &c.connect_failures),
            ),
            ("gauge", "ringway_endpoint_connections_active", "Connections open.", |i| {
                i.1.stats.sum(|c| &c.active)
            }),
            ("gauge", "ringway_endpoint_connections_idle", "Connections kept for reuse.", |i| {
                i.1.stats.sum(|c| &c.idle)
            }),
        ],
    );
}

/// Writes the requests of each zone and level of a service.
fn zones(page: &mut Page, pairs: &[(&Service, Arc<Endpoint>)]) {
    let name = "ringway_service_zone_requests_total";
    let help = "Requests and L4 connections to the endpoints of a zone. At `distance` 0, they stay \
        in the zone of this proxy. Only services with zones or priorities have it.";
    page.family(name, "counter", help);
    let mut written = HashSet::new();
    for (service, endpoint) in pairs {
        if let Some(stats) = &endpoint.zone_stats
            && written.insert(Arc::as_ptr(stats))
        {
            let zone = endpoint.zone.as_deref().unwrap_or_default();
            let labels: [(&str, &dyn Display); 4] = [
                ("service", &service.name),
                ("zone", &zone),
                ("priority", &endpoint.level.priority),
                ("distance", &endpoint.level.distance),
            ];
            page.sample(name, &labels, stats.sum(|cells| &cells.requests));
        }
    }
}

fn responses(page: &mut Page, pairs: &[(&Service, Arc<Endpoint>)]) {
    let name = "ringway_endpoint_responses_total";
    let help = "Complete responses by status class. A class appears after its first response.";
    page.family(name, "counter", help);
    for (service, endpoint) in pairs {
        for (index, class) in CLASSES.iter().enumerate().take(5) {
            let count = endpoint.stats.sum(|cells| &cells.status_class[index]);
            if count > 0 {
                let labels: [(&str, &dyn Display); 3] =
                    [("service", &service.name), ("endpoint", &endpoint.address), ("class", class)];
                page.sample(name, &labels, count);
            }
        }
    }
    let name = "ringway_endpoint_response_duration_seconds";
    let help = "Time from the choice of the endpoint to the end of its complete response.";
    page.family(name, "summary", help);
    for (service, endpoint) in pairs {
        let count = |index: usize| endpoint.stats.sum(|cells| &cells.status_class[index]);
        let total: u64 = (0..5).map(count).sum();
        if total > 0 {
            let sum_us = endpoint.stats.sum(|cells| &cells.duration_us);
            let labels: [(&str, &dyn Display); 2] =
                [("service", &service.name), ("endpoint", &endpoint.address)];
            page.sample(&format!("{name}_sum"), &labels, sum_us as f64 / 1e6);
            page.sample(&format!("{name}_count"), &labels, total);
        }
    }
}
