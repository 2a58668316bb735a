//! The pages of the admin interface. Each function renders one page.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::rendering::{elsewhere, json, put, put_list};
use crate::cells::{Count, Durations};
use crate::cluster::Service;
use crate::health::{EjectionReason, HealthState, OutlierState, Reason};
use crate::resilience::{ShiftCounts, ShiftPhase, UnixMs};
use crate::route::Shift;
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::{self, Format};
use crate::telemetry::status::{ResourceState, Status};

pub(super) const INDEX: &str = "\
ringway admin
/ready      200 when configured and not draining, else 503
/live       200
/           in a browser: the dashboard
/dashboard  the values of the dashboard
/metrics    Prometheus text, or OpenMetrics
/config     the files in use, and how the last reload went
/listeners  listeners and their connections
/services   services, versions, endpoints, their loads and health, shifts
/latencies  durations of requests to each service: pairs of microseconds and a count
/overload   memory, descriptors and CPU time against their limits
/traffic    the traffic of the last minute, for the dashboards of other proxies
/mesh       the same of this proxy and of those in admin.peers
/certs      certificates in use: their users, names, chain and expiry
/requests   the last requests (?failed=true, ?limit=N); /requests/ID: the story of one
/tap        a stream of requests, one JSON object per line (?filter=FILTER, ?header=NAME,
            ?bodies=BYTES)
";

pub(super) async fn live() -> &'static str {
    "live\n"
}

pub(super) async fn ready(State(status): State<Status>) -> (StatusCode, &'static str) {
    let known = status.known();
    match (&known.snapshot, known.draining) {
        (_, true) => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        (None, _) => (StatusCode::SERVICE_UNAVAILABLE, "not configured yet\n"),
        (Some(_), _) => (StatusCode::OK, "ready\n"),
    }
}

pub(super) async fn metrics(State(status): State<Status>, headers: HeaderMap) -> Response {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = Format::accepted(accept);
    let content_type = (header::CONTENT_TYPE, format.content_type());
    let known = status.copy();
    match elsewhere(move || metrics::render(&known, format)).await {
        Some(page) => ([content_type], page).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

pub(super) async fn certs(State(status): State<Status>) -> Response {
    let snapshot = status.known().snapshot.clone();
    json(move |text| put_list(text, snapshot.iter().flat_map(|it| shown_certificates(it)))).await
}

/// The certificates in use.
pub(super) fn shown_certificates(snapshot: &Snapshot) -> impl Iterator<Item = Value> {
    let now = SystemTime::now();
    snapshot.certificates.iter().map(move |certificate| {
        json!({ "certificate": certificate, "seconds_left": certificate.seconds_left(now) })
    })
}

pub(super) async fn config(State(status): State<Status>) -> Json<Value> {
    let known = status.known();
    let files = known.files.iter();
    let files: Vec<Value> =
        files.map(|(name, text)| json!({ "name": **name, "text": **text })).collect();
    Json(json!({
        "version": known.snapshot.as_ref().map(|snapshot| snapshot.version),
        "files": files,
        "last_reload": {
            "successful": known.reloads.errors.is_empty(),
            "unix_seconds": known.reloads.last.map(unix_seconds),
            "errors": known.reloads.errors,
        },
        "reloads": { "success": known.reloads.succeeded, "failure": known.reloads.failed },
    }))
}

pub(super) async fn listeners(State(status): State<Status>) -> Response {
    let snapshot = status.known().snapshot.clone();
    json(move |text| put_list(text, snapshot.iter().flat_map(|it| shown_listeners(it)))).await
}

fn shown_listeners(snapshot: &Snapshot) -> impl Iterator<Item = Value> {
    snapshot.listeners.iter().map(|listener| {
        let binds: Vec<String> = listener.binds.iter().map(ToString::to_string).collect();
        json!({
            "name": listener.name,
            "bind": binds,
            "connections": listener.stats.sum(|cells| &cells.connections),
            "active": listener.stats.sum(|cells| &cells.active),
        })
    })
}

pub(super) async fn overload(State(status): State<Status>) -> Json<Value> {
    let readings = status.known().overload;
    let shown = readings.iter().flatten().map(|reading| {
        json!({
            "resource": reading.resource.name(),
            "level": reading.level.to_string(),
            "used": reading.used,
            "limit": reading.limit,
            "percent": (reading.used * 100.0 / reading.limit).round(),
        })
    });
    Json(shown.collect())
}

pub(super) async fn sources(State(status): State<Status>) -> Json<Value> {
    let sources = status.known().sources.clone();
    let shown = sources.values().map(|source| {
        json!({
            "source": source.name,
            "keys": source.keys,
            "member": source.member,
            "connected": source.connected,
            "connections": source.connections,
            "age_seconds": source.age().map(|age| age.as_secs()),
            "from_copy": source.copied.is_some(),
            "revision": source.revision,
            "seen_revision": source.seen_revision,
            "documents": source.documents,
            "refused": source.refused,
            "refusal": none_if_empty(&source.refusal),
            "error": none_if_empty(&source.error),
            "bytes": source.bytes,
            "resources": source.resources.iter().map(of_type).collect::<Vec<Value>>(),
        })
    });
    Json(shown.collect())
}

fn of_type(resources: &ResourceState) -> Value {
    let (refused, waiting) = (resources.refused.iter(), resources.waiting.iter());
    json!({
        "type": resources.kind,
        "version": none_if_empty(&resources.version),
        "count": resources.count,
        "refused": refused
            .map(|(name, why)| json!({ "name": name, "why": why }))
            .collect::<Vec<Value>>(),
        "waiting": waiting
            .map(|(name, needed)| json!({ "name": name, "for": needed }))
            .collect::<Vec<Value>>(),
    })
}

fn none_if_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

pub(super) async fn services(State(status): State<Status>) -> Response {
    let snapshot = status.known().snapshot.clone();
    json(move |text| put_list(text, snapshot.iter().flat_map(|snapshot| shown_services(snapshot))))
        .await
}

/// The services, each with its endpoints and the shifts in which it takes part.
pub(super) fn shown_services(snapshot: &Snapshot) -> impl Iterator<Item = Value> {
    let mut shifts: BTreeMap<u32, Vec<&Shift>> = BTreeMap::new();
    for shift in &snapshot.shifts {
        for to in &shift.destinations {
            let list = shifts.entry(to.service).or_default();
            if list.last().is_none_or(|last| !std::ptr::eq(*last, &**shift)) {
                list.push(shift);
            }
        }
    }
    snapshot.services.iter().zip(0_u32..).map(move |(service, index)| {
        let shifts = shifts.get(&index).into_iter().flatten();
        of_service(service, shifts.map(|shift| of_shift(shift)).collect())
    })
}

fn of_service(service: &Service, shifts: Vec<Value>) -> Value {
    let endpoints = service.endpoints.load();
    let endpoints = endpoints.list.iter().map(|endpoint| {
        let stats = &endpoint.stats;
        json!({
            "address": endpoint.address.to_string(),
            "version": endpoint.version,
            "zone": endpoint.zone,
            "priority": endpoint.level.priority,
            "distance": endpoint.level.distance,
            "weight": endpoint.weight,
            "connections_active": stats.sum(|cells| &cells.active),
            "connections_idle": stats.sum(|cells| &cells.idle),
            "requests": stats.sum(|cells| &cells.requests),
            "failures": stats.sum(|cells| &cells.failures),
            "connect_failures": stats.sum(|cells| &cells.connect_failures),
            "health": endpoint.health.as_deref().map(of_standing),
            "outlier": endpoint.outlier.as_deref().map(of_outlier),
        })
    });
    json!({
        "name": service.name,
        "dns": service.dns_name.as_ref().map(ToString::to_string),
        "consul": service.consul_name,
        "kubernetes": service.slices.as_ref().map(|slices| &slices.name),
        "balance": format!("{:?}", service.policy),
        "locality": service.locality.as_ref().map(ToString::to_string),
        "requests_active": service.stats.sum(|cells| &cells.active),
        "latency_ms": latency(service),
        "requests_pending": service.stats.sum(|cells| &cells.pending),
        "health_check": service.health.as_ref().map(ToString::to_string),
        "circuit_breaker": service.breaker.as_ref().map(ToString::to_string),
        "concurrency": service.concurrency.as_ref().map(|it| {
            json!({"limit": it.limit(), "in_flight": it.taken(), "policy": it.to_string()})
        }),
        "outlier_detection": service.outlier.as_ref().map(|outlier| outlier.policy.to_string()),
        "slow_start": service.slow_start.as_ref().map(ToString::to_string),
        "retries": service.retries.as_ref().map(ToString::to_string),
        "shifts": shifts,
        "endpoints": endpoints.collect::<Vec<_>>(),
    })
}

/// The percentiles of the durations since the start. Null without requests.
fn latency(service: &Service) -> Value {
    let all = Durations::of(&service.stats, |cells| &cells.latency);
    all.quantiles_ms([0.5, 0.9, 0.99, 0.999, 1.0]).map_or(Value::Null, |found| {
        let [p50, p90, p99, p999, max] = found;
        json!({ "p50": p50, "p90": p90, "p99": p99, "p999": p999, "max": max })
    })
}

/// The durations of the requests to each service since the start: pairs of microseconds and a
/// count.
pub(super) async fn latencies(State(status): State<Status>) -> Response {
    let snapshot = status.known().snapshot.clone();
    json(move |text| {
        let mut all: BTreeMap<&str, Durations> = BTreeMap::new();
        for service in snapshot.iter().flat_map(|snapshot| snapshot.all_services()) {
            let durations = Durations::of(&service.stats, |cells| &cells.latency);
            if !durations.is_empty() {
                all.entry(&service.name).or_default().add(&durations);
            }
        }
        let shown = all.into_iter().map(|(name, durations)| {
            let pairs = durations.us().map(|(us, count)| json!([us, count])).collect();
            (name.to_owned(), pairs)
        });
        put(text, &Value::Object(shown.collect()));
    })
    .await
}

fn of_shift(shift: &Shift) -> Value {
    let (state, plan) = (&shift.state, &shift.state.plan);
    let progress = state.progress();
    let phase = progress.as_ref().map(|progress| &progress.phase);
    let seconds = |ms: UnixMs| ms as f64 / 1000.0;
    let percent = |parts: u32| f64::from(parts) / 10_000.0;
    let aborted = match phase {
        Some(ShiftPhase::Aborted(abort)) => json!({
            "unix_seconds": seconds(abort.at),
            "percent": percent(abort.share),
            "reason": abort.fault.label(),
            "why": abort.why(plan),
        }),
        _ => Value::Null,
    };
    let of_version = |name: &str, counts: ShiftCounts| {
        let ShiftCounts { requests, errors, slow } = counts;
        json!({ "name": name, "requests": requests, "errors": errors, "slow": slow })
    };
    let [old, new] = state.since_step();
    let running = progress.as_ref().filter(|progress| progress.is_running());
    json!({
        "host": shift.host,
        "rule": shift.rule,
        "place": shift.place,
        "plan": shift.plan(),
        "state": phase.map_or("waiting", ShiftPhase::label),
        "percent": percent(state.share()),
        "step": progress.as_ref().map(|progress| progress.steps),
        "steps": plan.steps(),
        "next_unix_seconds": running.map(|progress| seconds(progress.next)),
        "aborted": aborted,
        "this_step": {
            "from": of_version(&shift.names[0], old),
            "to": of_version(&shift.names[1], new),
        },
    })
}

fn of_standing(health_state: &HealthState) -> Value {
    let account = health_state.account();
    let failures = Reason::ALL.iter().map(|reason| &health_state.failures[reason.index()]);
    json!({
        "state": health_state.state().label(),
        "since_unix_seconds": account.changed_unix_s,
        "checks": health_state.attempts.value(),
        "failures": failures.map(Count::value).sum::<u64>(),
        "last_failure": account.last_failure,
    })
}

fn of_outlier(state: &OutlierState) -> Value {
    let account = state.account();
    json!({
        "ejected": state.is_ejected(),
        "ejections": account.ejections,
        "last_reason": account.reason.map(EjectionReason::label),
        "last_unix_seconds": account.since_unix_s,
        "last_seconds": account.lasts.as_secs_f64(),
    })
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
