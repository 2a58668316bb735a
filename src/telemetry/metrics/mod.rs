//! Renders all metrics in the Prometheus text format or in OpenMetrics.
//!
//! No client library is used: such a library stores the values itself, but here the values are in
//! the cells of the workers.

mod breaker;
mod capture;
mod endpoints;
mod faults;
mod global_limits;
mod health;
mod http3;
mod mirrors;
mod negotiation;
mod outliers;
mod overload;
mod page;
mod rate_limits;
mod retries;
mod shifts;
mod sources;
mod standard;
mod taps;

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cells::{Count, Durations};
use crate::cluster::Service;
use crate::error::Flag;
use crate::grpc::Code;
use crate::grpc::methods::MethodCells;
use crate::http2::Flood;
use crate::jwt::Rejection;
use crate::snapshot::Snapshot;
use crate::telemetry::logs;
use crate::telemetry::status::Known;
use crate::tls::reason::Failure;

pub use negotiation::Format;
use page::{Escaped, Page};

/// Renders all metrics of the process.
pub fn render(known: &Known, format: Format) -> String {
    let mut page = Page { text: String::new(), format };
    process(&mut page, known);
    workers(&mut page, known);
    overload::write(&mut page, known);
    taps::write(&mut page, known);
    if let Some(snapshot) = &known.snapshot {
        listeners(&mut page, snapshot);
        tls_failures(&mut page, snapshot);
        http2_floods(&mut page, snapshot);
        http3::write(&mut page, snapshot);
        http3::passed(&mut page, snapshot);
        capture::write(&mut page, snapshot);
        certificates(&mut page, snapshot);
        routes(&mut page, snapshot);
        faults::write(&mut page, snapshot);
        authorization(&mut page, snapshot);
        jwt(&mut page, snapshot);
        services(&mut page, snapshot);
        retries::write(&mut page, snapshot);
        breaker::write(&mut page, snapshot);
        breaker::write_adaptive(&mut page, snapshot);
        mirrors::write(&mut page, snapshot);
        outliers::write(&mut page, snapshot);
        rate_limits::write(&mut page, snapshot);
        shifts::write(&mut page, snapshot);
        global_limits::write(&mut page, snapshot);
        calls(&mut page, snapshot);
        endpoints::write(&mut page, snapshot);
        health::write(&mut page, snapshot);
        standard::write(&mut page, snapshot, known.begun.elapsed());
    }
    if format == Format::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

fn process(page: &mut Page, known: &Known) {
    page.family("ringway_build_info", "gauge", "The version of ringway.");
    page.sample("ringway_build_info", &[("version", &env!("CARGO_PKG_VERSION"))], 1);
    let started = known.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    page.gauge(
        "process_start_time_seconds",
        "Start time of the process, in Unix seconds.",
        started.as_secs_f64(),
    );
    if let Some(bytes) = resident_bytes() {
        page.gauge("process_resident_memory_bytes", "Resident memory.", bytes);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        page.gauge("process_open_fds", "Open file descriptors.", open.count());
    }
    let version = known.snapshot.as_ref().map_or(0, |snapshot| snapshot.version);
    page.gauge(
        "ringway_config_version",
        "Version of the configuration in use. The first is 1.",
        version,
    );
    let name = "ringway_config_reloads_total";
    page.family(name, "counter", "Configurations applied (success) or refused (failure).");
    page.sample(name, &[("result", &"success")], known.reloads.succeeded);
    page.sample(name, &[("result", &"failure")], known.reloads.failed);
    page.gauge(
        "ringway_config_last_reload_successful",
        "1 if the last configuration was applied, 0 if it was refused.",
        u8::from(known.reloads.errors.is_empty()),
    );
    page.gauge(
        "ringway_config_files_differ",
        "1 if the files differ from the configuration in use, or cannot be read.",
        u8::from(known.reloads.files_differ),
    );
    let name = "ringway_dns_lookups_total";
    page.family(name, "counter", "DNS lookups of services.");
    page.sample(name, &[("result", &"success")], known.lookups.succeeded);
    page.sample(name, &[("result", &"none")], known.lookups.none);
    page.sample(name, &[("result", &"failure")], known.lookups.failed);
    let name = "ringway_dns_queries_total";
    page.family(name, "counter", "Captured DNS queries, by result.");
    let queries = known.queries;
    for (result, count) in [
        ("here", queries.here),
        ("elsewhere", queries.elsewhere),
        ("failed", queries.failed),
        ("dropped", queries.dropped),
    ] {
        page.sample(name, &[("result", &result)], count);
    }
    sources::write(page, &known.sources, known.absent.len());
    let name = "ringway_jwks_fetches_total";
    page.family(name, "counter", "Fetches of the keys of token issuers.");
    page.sample(name, &[("result", &"success")], known.key_fetches.0);
    page.sample(name, &[("result", &"failure")], known.key_fetches.1);
    page.counter(
        "ringway_access_log_dropped_lines_total",
        "Access log lines dropped because they could not be written in time.",
        known.access_log.dropped(),
    );
    page.counter(
        "ringway_log_dropped_lines_total",
        "Lines of the log on standard error dropped because they could not be written in time.",
        logs::process_log_dropped(),
    );
}

/// A metric of each `T`: its type, name and help text, and a function that returns its value.
type Metric<T> = (&'static str, &'static str, &'static str, fn(&T) -> u64);

/// A function that returns the labels of a `T`.
type Label<T> = fn(&T) -> Vec<(&'static str, String)>;

/// Writes one metric family for each entry of `metrics`, with one sample for each item.
fn families<T>(page: &mut Page, items: &[T], label: Label<T>, metrics: &[Metric<T>]) {
    for (kind, name, help, value) in metrics {
        page.family(name, kind, help);
        for item in items {
            let labels = label(item);
            let labels: Vec<(&str, &dyn Display)> =
                labels.iter().map(|(label, text)| (*label, text as &dyn Display)).collect();
            page.sample(name, &labels, value(item));
        }
    }
}

/// A worker's number and counters.
type WorkerItem<'a> = (usize, &'a crate::runtime::core::WorkerCells);

fn buffers<'a>(page: &mut Page, workers: &[WorkerItem<'a>], label: Label<WorkerItem<'a>>) {
    families(
        page,
        workers,
        label,
        &[
            ("gauge", "ringway_worker_buffers_used", "Buffers in use.", |i| {
                i.1.buffers_used.value()
            }),
            ("gauge", "ringway_worker_buffers_pooled", "Buffers kept for reuse.", |i| {
                i.1.buffers_pooled.value()
            }),
            ("gauge", "ringway_worker_buffer_bytes", "Bytes of the buffers in use.", |i| {
                i.1.buffer_bytes.value()
            }),
            (
                "gauge",
                "ringway_worker_buffer_bytes_max",
                "The worker's share of limits.buffer_bytes.",
                |i| i.1.buffer_bytes_max.value(),
            ),
            (
                "counter",
                "ringway_worker_buffer_pauses_total",
                "Waits for a slow peer while the buffers are at limits.buffer_bytes.",
                |i| i.1.buffer_pauses.value(),
            ),
            (
                "gauge",
                "ringway_worker_http2_held_bytes",
                "Bytes for HTTP/2 peers that are not written yet.",
                |i| i.1.http2_held_bytes.value(),
            ),
        ],
    );
}

fn workers(page: &mut Page, known: &Known) {
    let workers: Vec<_> = known.workers.iter().enumerate().collect();
    let label: Label<WorkerItem<'_>> = |item| vec![("worker", item.0.to_string())];
    families(
        page,
        &workers,
        label,
        &[
            ("counter", "ringway_worker_accepted_total", "Connections accepted.", |i| {
                i.1.accepted.value()
            }),
            (
                "counter",
                "ringway_worker_handed_over_total",
                "Connections handed to a less loaded worker.",
                |i| i.1.handed_over.value(),
            ),
            ("gauge", "ringway_worker_connections_active", "Client connections open.", |i| {
                i.1.active.value()
            }),
            (
                "counter",
                "ringway_worker_requests_total",
                "Requests and L4 connections served.",
                |i| i.1.requests.value(),
            ),
            (
                "counter",
                "ringway_worker_panics_total",
                "Panics. Each one ended one connection.",
                |i| i.1.panics.value(),
            ),
            ("counter", "ringway_worker_accept_errors_total", "Failed accept calls.", |i| {
                i.1.accept_errors.value()
            }),
            (
                "gauge",
                "ringway_worker_mirrored_requests_active",
                "Mirrored requests in progress.",
                |i| i.1.mirrored.value(),
            ),
        ],
    );
    buffers(page, &workers, label);
    page.family("ringway_worker_info", "gauge", "The kernel interface of each worker.");
    for (worker, driver) in known.drivers.iter().enumerate() {
        page.sample("ringway_worker_info", &[("worker", &worker), ("driver", driver)], 1);
    }
    let name = "ringway_response_flags_total";
    page.family(name, "counter", "Requests refused before a service was known, by flag.");
    for flag in Flag::ALL {
        let count = known.workers.sum(|cells| &cells.flags[flag.index()]);
        page.sample(name, &[("flag", &flag.letters())], count);
    }
}

fn listeners(page: &mut Page, snapshot: &Snapshot) {
    type Item = Arc<crate::snapshot::Listener>;
    let label: Label<Item> = |item| vec![("listener", item.name.to_string())];
    families(
        page,
        &snapshot.listeners,
        label,
        &[
            ("counter", "ringway_listener_connections_total", "Connections accepted.", |i| {
                i.stats.sum(|c| &c.connections)
            }),
            ("gauge", "ringway_listener_connections_active", "Connections open.", |i| {
                i.stats.sum(|c| &c.active)
            }),
            (
                "counter",
                "ringway_listener_overflow_total",
                "Connections closed because too many were open.",
                |i| i.stats.sum(|c| &c.overflow),
            ),
            (
                "counter",
                "ringway_listener_source_overflow_total",
                "Connections closed at connections_per_source.",
                |i| i.stats.sum(|c| &c.source_overflow),
            ),
            (
                "counter",
                "ringway_listener_refused_total",
                "Request heads, PROXY headers and TLS ClientHellos refused.",
                |i| i.stats.sum(|c| &c.refused),
            ),
            ("counter", "ringway_listener_tls_handshakes_total", "Full TLS handshakes.", |i| {
                i.stats.sum(|c| &c.tls_handshakes)
            }),
            ("counter", "ringway_listener_tls_resumed_total", "Resumed TLS sessions.", |i| {
                i.stats.sum(|c| &c.tls_resumed)
            }),
            (
                "counter",
                "ringway_listener_revoked_connections_total",
                "Connections closed, and HTTP/2 streams reset, because a certificate was revoked.",
                |i| i.stats.sum(|c| &c.revoked),
            ),
            ("counter", "ringway_listener_received_bytes_total", "Body bytes from clients.", |i| {
                i.stats.sum(|c| &c.received_bytes)
            }),
            ("counter", "ringway_listener_sent_bytes_total", "Body bytes to clients.", |i| {
                i.stats.sum(|c| &c.sent_bytes)
            }),
        ],
    );
}

fn tls_failures(page: &mut Page, snapshot: &Snapshot) {
    let name = "ringway_listener_tls_failures_total";
    page.family(
        name,
        "counter",
        "TLS handshakes refused, by reason. A reason appears after its first refusal.",
    );
    for listener in &snapshot.listeners {
        for failure in Failure::ALL {
            let count = listener.stats.sum(|cells| &cells.tls_failures[failure.index()]);
            if count > 0 {
                let labels: [(&str, &dyn Display); 2] =
                    [("listener", &listener.name), ("reason", &failure.label())];
                page.sample(name, &labels, count);
            }
        }
    }
}

fn http2_floods(page: &mut Page, snapshot: &Snapshot) {
    let help =
        "HTTP/2 connections closed because the peer exceeded a limit. A limit appears after that.";
    let name = "ringway_listener_http2_floods_total";
    page.family(name, "counter", help);
    for listener in &snapshot.listeners {
        for flood in Flood::ALL {
            let count = listener.stats.sum(|cells| &cells.http2_floods[flood.index()]);
            page.flood(name, ("listener", &listener.name), flood, count);
        }
    }
    let name = "ringway_service_http2_floods_total";
    page.family(name, "counter", help);
    for service in &snapshot.services {
        for flood in Flood::ALL {
            let count = service.stats.sum(|cells| &cells.http2_floods[flood.index()]);
            page.flood(name, ("service", &service.name), flood, count);
        }
    }
}

fn certificates(page: &mut Page, snapshot: &Snapshot) {
    let name = "ringway_certificate_expiry_seconds";
    page.family(name, "gauge", "Seconds until a certificate in use expires; negative after that.");
    let now = SystemTime::now();
    for certificate in &snapshot.certificates {
        let labels: [(&str, &dyn Display); 3] = [
            ("owner", &certificate.owner),
            ("subject", &certificate.subject),
            ("serial", &certificate.serial),
        ];
        page.sample(name, &labels, certificate.seconds_left(now));
    }
}

/// The values of the label for status classes, in the order of the counters.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

fn routes(page: &mut Page, snapshot: &Snapshot) {
    let name = "ringway_route_requests_total";
    page.family(
        name,
        "counter",
        "Requests by rule and status class. A rule appears after its first use.",
    );
    // Rules of the same host and name share their counters.
    let mut seen = HashSet::new();
    for rule in snapshot.used_rules().filter(|rule| seen.insert(Arc::as_ptr(&rule.stats))) {
        for (index, class) in CLASSES.iter().enumerate() {
            let count = rule.stats.sum(|cells| &cells.status_class[index]);
            if count > 0 {
                let labels: [(&str, &dyn Display); 3] =
                    [("host", &rule.host), ("route", &rule.name), ("class", class)];
                page.sample(name, &labels, count);
            }
        }
    }
}

fn authorization(page: &mut Page, snapshot: &Snapshot) {
    let name = "ringway_authorization_requests_total";
    page.family(name, "counter", "Requests and L4 connections, by authorization rule and result.");
    for rule in snapshot.authorization.rules() {
        let stats = &rule.stats;
        for (result, count) in [
            ("allowed", stats.sum(|cells| &cells.allowed)),
            ("denied", stats.sum(|cells| &cells.denied)),
            ("audited", stats.sum(|cells| &cells.audited)),
            ("dry_run_allowed", stats.sum(|cells| &cells.dry_run_allowed)),
            ("dry_run_denied", stats.sum(|cells| &cells.dry_run_denied)),
        ] {
            if count > 0 {
                page.sample(name, &[("rule", &rule.name), ("result", &result)], count);
            }
        }
    }
}

fn jwt(page: &mut Page, snapshot: &Snapshot) {
    let name = "ringway_jwt_requests_total";
    page.family(name, "counter", "Requests with a token, by issuer and result.");
    for provider in &snapshot.jwt_providers {
        let accepted = provider.stats.sum(|cells| &cells.accepted);
        page.sample(name, &[("provider", &provider.name), ("result", &"accepted")], accepted);
        for rejection in Rejection::ALL {
            let count = provider.stats.sum(|cells| &cells.rejected[rejection.index()]);
            if count > 0 {
                let labels: [(&str, &dyn Display); 2] =
                    [("provider", &provider.name), ("result", &rejection.label())];
                page.sample(name, &labels, count);
            }
        }
    }
    let name = "ringway_jwt_keys";
    page.family(name, "gauge", "Public keys of a token issuer. 0: none was fetched yet.");
    for provider in &snapshot.jwt_providers {
        page.sample(name, &[("provider", &provider.name)], provider.keys.len());
    }
}

fn calls(page: &mut Page, snapshot: &Snapshot) {
    let methods = |service: &Service| service.methods.all();
    let name = "ringway_grpc_requests_total";
    page.family(name, "counter", "gRPC calls, by method and status.");
    for service in &snapshot.services {
        for (method, stats) in methods(service) {
            for code in 0..Code::COUNT {
                let count = stats.sum(|cells| &cells.codes[code]);
                if count > 0 {
                    let labels: [(&str, &dyn Display); 3] =
                        [("service", &service.name), ("method", &method), ("grpc_status", &code)];
                    page.sample(name, &labels, count);
                }
            }
        }
    }
    for (name, help, of) in [
        (
            "ringway_grpc_request_messages_total",
            "gRPC messages from clients.",
            (|cells| &cells.request_messages) as fn(&MethodCells) -> &Count,
        ),
        ("ringway_grpc_response_messages_total", "gRPC messages to clients.", |cells| {
            &cells.response_messages
        }),
    ] {
        page.family(name, "counter", help);
        for service in &snapshot.services {
            for (method, stats) in methods(service) {
                page.sample(
                    name,
                    &[("service", &service.name), ("method", &method)],
                    stats.sum(of),
                );
            }
        }
    }
}

fn services(page: &mut Page, snapshot: &Snapshot) {
    type Item = Arc<Service>;
    let label: Label<Item> = |item| vec![("service", item.name.to_string())];
    let services: Vec<Item> = snapshot.all_services().cloned().collect();
    families(
        page,
        &services,
        label,
        &[
            ("gauge", "ringway_service_requests_active", "Requests in progress.", |i| {
                i.stats.sum(|c| &c.active)
            }),
            (
                "gauge",
                "ringway_service_requests_pending",
                "Requests that wait for a connection.",
                |i| i.stats.sum(|c| &c.pending),
            ),
            (
                "counter",
                "ringway_service_pool_reused_total",
                "Requests sent on a pooled connection.",
                |i| i.stats.sum(|c| &c.pool_reused),
            ),
            (
                "counter",
                "ringway_service_pool_stale_total",
                "Pooled connections found closed before use.",
                |i| i.stats.sum(|c| &c.pool_stale),
            ),
            (
                "counter",
                "ringway_service_requests_repeated_total",
                "Requests repeated because a pooled connection was dead.",
                |i| i.stats.sum(|c| &c.repeated),
            ),
            ("counter", "ringway_service_sent_bytes_total", "Body bytes to the service.", |i| {
                i.stats.sum(|c| &c.sent_bytes)
            }),
            (
                "counter",
                "ringway_service_received_bytes_total",
                "Body bytes from the service.",
                |i| i.stats.sum(|c| &c.received_bytes),
            ),
        ],
    );
    let name = "ringway_service_requests_total";
    page.family(name, "counter", "Requests by status class.");
    for service in &services {
        for (index, class) in CLASSES.iter().enumerate() {
            let count = service.stats.sum(|cells| &cells.status_class[index]);
            page.sample(name, &[("service", &service.name), ("class", class)], count);
        }
    }
    let name = "ringway_service_response_flags_total";
    page.family(name, "counter", "Requests with a response flag, by flag.");
    for service in &services {
        for flag in Flag::ALL {
            let count = service.stats.sum(|cells| &cells.flags[flag.index()]);
            page.sample(name, &[("service", &service.name), ("flag", &flag.letters())], count);
        }
    }
    durations(page, &services, snapshot.exponential_buckets);
}

fn durations(page: &mut Page, services: &[Arc<Service>], exponential: bool) {
    let name = "ringway_service_request_duration_seconds";
    page.family(name, "histogram", "Time from the request head to the end of the response.");
    for service in services {
        let (labels, stats): ([(&str, &dyn Display); 1], _) =
            ([("service", &service.name)], &service.stats);
        if exponential {
            let sum_us = stats.sum(|cells| &cells.duration.sum_us);
            page.exponential(name, &labels, &Durations::of(stats, |cells| &cells.latency), sum_us);
        } else {
            page.histogram(name, &labels, stats, |cells| &cells.duration);
        }
    }
}

fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    let page_bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * page_bytes.unsigned_abs())
}
