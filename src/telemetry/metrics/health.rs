//! The metrics of health checks.

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;

use super::Page;
use super::endpoints::all_endpoints;
use crate::cluster::Service;
use crate::health::{Eligible, HealthState, Reason, State, eligible};
use crate::net::Address;
use crate::snapshot::Snapshot;

/// Writes the metrics of all endpoints that have health checks.
pub(super) fn write(page: &mut Page, snapshot: &Snapshot) {
    let endpoints = checked(snapshot);
    let name = "ringway_endpoint_healthy";
    page.family(name, "gauge", "1 if a checked endpoint is healthy, else 0.");
    for (service, address, health_state) in &endpoints {
        let healthy = u8::from(health_state.state() == State::Healthy);
        page.sample(name, &[("service", &service.name), ("endpoint", address)], healthy);
    }
    let name = "ringway_health_checks_total";
    page.family(name, "counter", "Health checks sent to endpoints.");
    for (service, address, health_state) in &endpoints {
        let attempts = health_state.attempts.value();
        page.sample(name, &[("service", &service.name), ("endpoint", address)], attempts);
    }
    let name = "ringway_health_check_failures_total";
    page.family(
        name,
        "counter",
        "Failed health checks, by reason. A reason appears after its first failure.",
    );
    for (service, address, health_state) in &endpoints {
        for reason in Reason::ALL {
            let count = health_state.failures[reason.index()].value();
            if count > 0 {
                let labels: [(&str, &dyn Display); 3] = [
                    ("service", &service.name),
                    ("endpoint", address),
                    ("reason", &reason.label()),
                ];
                page.sample(name, &labels, count);
            }
        }
    }
    let name = "ringway_service_health_panic";
    page.family(name, "gauge", "1 if too few endpoints are healthy, so that all are used.");
    for service in &snapshot.services {
        if !service.is_judged() {
            continue;
        }
        let endpoints = service.endpoints.load();
        for (index, subset) in endpoints.subsets.iter().enumerate() {
            let states = endpoints.members(index).filter_map(|endpoint| endpoint.weighted_state());
            let panic = eligible(states, service.panic_percent) == Eligible::Everyone;
            let labels: [(&str, &dyn Display); 2] =
                [("service", &service.name), ("version", &subset.version)];
            page.sample(name, &labels, u8::from(panic));
        }
    }
}

/// The endpoints that have health checks. An endpoint in several versions of a service is listed
/// once.
fn checked(snapshot: &Snapshot) -> Vec<(&Service, Address, Arc<HealthState>)> {
    let mut seen = HashSet::new();
    let known = all_endpoints(snapshot).into_iter().filter_map(|(service, endpoint)| {
        Some((service, endpoint.address.clone(), endpoint.health.clone()?))
    });
    known.filter(|(_, _, health_state)| seen.insert(Arc::as_ptr(health_state))).collect()
}
