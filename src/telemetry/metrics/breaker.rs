//! The metrics of circuit breakers and adaptive limits.

use std::fmt::Display;
use std::sync::Arc;

use super::Page;
use crate::cluster::{CircuitBreaker, Concurrency, Limit, Service};
use crate::snapshot::Snapshot;

/// Writes the metrics of all services that have a circuit breaker.
pub(super) fn write(page: &mut Page, snapshot: &Snapshot) {
    let with = |service| {
        let service: &Arc<Service> = service;
        service.breaker.as_deref().map(|breaker| (&**service, breaker))
    };
    let services: Vec<_> = snapshot.all_services().filter_map(with).collect();
    overflows(page, snapshot);
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

/// Writes the numbers of requests and connections that reached a limit of the circuit breaker or
/// the adaptive concurrency limit.
fn overflows(page: &mut Page, snapshot: &Snapshot) {
    let name = "ringway_service_circuit_breaker_overflows_total";
    page.family(name, "counter", "How often a limit of the circuit breaker was reached.");
    for service in snapshot.all_services() {
        let mut sample = |limit: &str, count: u64| {
            let labels: [(&str, &dyn Display); 2] = [("service", &service.name), ("limit", &limit)];
            page.sample(name, &labels, count);
        };
        for limit in service.breaker.iter().flat_map(|_| Limit::ALL) {
            sample(limit.name(), service.stats.sum(|cells| &cells.overflows[limit.index()]));
        }
        if service.concurrency.is_some() {
            sample("concurrency", service.stats.sum(|cells| &cells.concurrency_overflows));
        }
    }
}

/// Writes the metrics of all services that have an adaptive concurrency limit.
pub(super) fn write_adaptive(page: &mut Page, snapshot: &Snapshot) {
    let with = |service| {
        let service: &Arc<Service> = service;
        service.concurrency.as_deref().map(|limit| (&**service, limit))
    };
    let services: Vec<_> = snapshot.all_services().filter_map(with).collect();
    let mut family = |name, kind, help, value: fn(&Service, &Concurrency) -> f64| {
        page.family(name, kind, help);
        for (service, limit) in &services {
            page.sample(name, &[("service", &service.name)], value(service, limit));
        }
    };
    family(
        "ringway_service_concurrency_limit",
        "gauge",
        "The adaptive limit on the requests in flight.",
        |_, limit| limit.limit().into(),
    );
    family(
        "ringway_service_concurrency_in_flight",
        "gauge",
        "Requests that wait for the beginning of their response, where there is an adaptive limit.",
        |_, limit| limit.taken().into(),
    );
    family(
        "ringway_service_concurrency_unloaded_seconds",
        "gauge",
        "The latency of the service without load, as the last probe measured it; 0 if unknown.",
        |_, limit| limit.unloaded().unwrap_or_default().as_secs_f64(),
    );
    family(
        "ringway_service_concurrency_probes_total",
        "counter",
        "Probes of the latency without load.",
        |_, limit| limit.probes() as f64,
    );
}
