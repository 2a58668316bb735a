//! The metrics of circuit breakers.

use std::fmt::Display;
use std::sync::Arc;

use super::Page;
use crate::cluster::{CircuitBreaker, Limit, Service};
use crate::snapshot::Snapshot;

/// Writes the metrics of all services that have a circuit breaker.
pub(super) fn write(page: &mut Page, snapshot: &Snapshot) {
    let with = |service| {
        let service: &Arc<Service> = service;
        service.breaker.as_deref().map(|breaker| (&**service, breaker))
    };
    let services: Vec<_> = snapshot.all_services().filter_map(with).collect();
    let mut family = |name, kind, help, value: fn(&Service, &CircuitBreaker, Limit) -> u64| {
        page.family(name, kind, help);
        for (service, breaker) in &services {
            for limit in Limit::ALL {
                let labels: [(&str, &dyn Display); 2] =
                    [("service", &service.name), ("limit", &limit.name())];
                page.sample(name, &labels, value(service, breaker, limit));
            }
        }
    };
    family(
        "ringway_service_circuit_breaker_overflows_total",
        "counter",
        "How often a limit of the circuit breaker was reached.",
        |service, _, limit| service.stats.sum(|cells| &cells.overflows[limit.index()]),
    );
    family(
        "ringway_service_circuit_breaker_in_use",
        "gauge",
        "Connections or requests that count towards a limit of the circuit breaker now.",
        |_, breaker, limit| breaker.taken(limit).into(),
    );
    family(
        "ringway_service_circuit_breaker_limit",
        "gauge",
        "The limit of the circuit breaker.",
        |_, breaker, limit| breaker.max(limit).into(),
    );
}
