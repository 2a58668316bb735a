//! The dashboard: one page that shows the state of the proxy, and the values that it shows.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{pages, rendering};
use crate::telemetry::history::{self, Edge, Traffic};
use crate::telemetry::status::{Known, Status};

/// The page: HTML, CSS and JavaScript in one file. It loads nothing from elsewhere.
const PAGE: &str = include_str!("dashboard.html");

/// The text in [`PAGE`] in the place of the number that allows its script and its style.
const NONCE: &str = "NONCE";

/// The maximum number of services that the page shows. The admin page `/services` has all.
const SERVICES_MAX: usize = 300;

/// The dashboard for a browser, and a list of the pages for other clients.
pub(super) async fn index(headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if !accept.is_some_and(|accept| accept.contains("text/html")) {
        return pages::INDEX.into_response();
    }
    let nonce = format!("{:032x}", fastrand::u128(..));
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    let fields = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    (fields, PAGE.replace(NONCE, &nonce)).into_response()
}

/// All that the dashboard shows, except single requests.
pub(super) async fn state(State(status): State<Status>) -> Response {
    let overload = pages::overload(State(status.clone())).await.0;
    let (known, traffic) = (status.copy(), traffic(&status.known()));
    rendering::json(move |text| {
        let snapshot = known.snapshot.iter();
        let services = snapshot.clone().flat_map(|it| pages::shown_services(it));
        let services: Vec<Value> = services.take(SERVICES_MAX).collect();
        let all = snapshot.clone().map(|snapshot| snapshot.services.len()).sum::<usize>();
        let certificates = snapshot.flat_map(|it| pages::shown_certificates(it));
        let shown = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "now_unix_seconds": unix_seconds(SystemTime::now()),
            "started_unix_seconds": unix_seconds(known.started),
            "state": state_of(&known),
            "workload": workload(&known),
            "config": configuration(&known),
            "listeners": listeners(&known),
            "services_left_out": all - services.len(),
            "services": services,
            "traffic": traffic,
            "certificates": certificates.collect::<Vec<_>>(),
            "overload": overload,
            "workers": known.workers.workers(),
        });
        rendering::put(text, &shown);
    })
    .await
}

pub(super) fn state_of(known: &Known) -> &'static str {
    match (&known.snapshot, known.draining) {
        (_, true) => "draining",
        (None, _) => "starting",
        (Some(_), _) => "ready",
    }
}

/// The name of the workload, or else of its identity.
pub(super) fn workload(known: &Known) -> Option<String> {
    let standard = known.snapshot.as_ref()?.standard.as_ref()?;
    let own = &standard.own;
    own.name.as_ref().or(own.principal.as_ref()).map(ToString::to_string)
}

/// The configuration in use. The texts of its files are not here: the admin page `/config` has
/// them.
fn configuration(known: &Known) -> Value {
    let reloads = &known.reloads;
    json!({
        "version": known.snapshot.as_ref().map(|snapshot| snapshot.version),
        "files": known.files.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>(),
        "files_differ": reloads.files_differ,
        "applied": reloads.succeeded,
        "refused": reloads.failed,
        "last_unix_seconds": reloads.last.map(unix_seconds),
        "errors": reloads.errors,
    })
}

fn listeners(known: &Known) -> Vec<Value> {
    let listeners = known.snapshot.iter().flat_map(|snapshot| &snapshot.listeners);
    let shown = listeners.map(|listener| {
        let stats = &listener.stats;
        let failures = (0..stats.iter().next().map_or(0, |cells| cells.tls_failures.len()))
            .map(|reason| stats.sum(|cells| &cells.tls_failures[reason]))
            .sum::<u64>();
        json!({
            "name": listener.name,
            "bind": listener.binds.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "outbound": listener.is_outbound(),
            "tls": listener.tls.is_some(),
            "connections": stats.sum(|cells| &cells.connections),
            "active": stats.sum(|cells| &cells.active),
            "refused": stats.sum(|cells| &cells.refused),
            "overflow": stats.sum(|cells| &cells.overflow),
            "tls_failures": failures,
            "received_bytes": stats.sum(|cells| &cells.received_bytes),
            "sent_bytes": stats.sum(|cells| &cells.sent_bytes),
        })
    });
    shown.collect()
}

/// The traffic of each client and service in the last minute, and by minute in the last hour.
fn traffic(known: &Known) -> Value {
    let recent = known.history.recent();
    let edges = known.history.edges().map(|(edge, now, minutes)| {
        let (kind, name) = match edge {
            Edge::Client(name) => ("client", name),
            Edge::Service(name) => ("service", name),
        };
        let column = |of: fn(&Traffic) -> Value| minutes.iter().map(of).collect::<Vec<_>>();
        let mut whole = Traffic::default();
        minutes.iter().for_each(|minute| whole.add(minute));
        let hour = Duration::from_secs(60) * minutes.len() as u32;
        json!({
            "kind": kind,
            "name": name,
            "minute": of_traffic(&now.traffic, recent, |share| now.quantile_ms(share)),
            "hour": of_traffic(&whole, hour, |share| whole.quantile_ms(share)),
            "minutes": {
                "requests": column(|it| it.requests.into()),
                "errors": column(|it| it.errors.into()),
                "p99_ms": column(|it| it.quantile_ms(0.99).map(rounded).into()),
            },
        })
    });
    json!({
        "interval_seconds": history::INTERVAL.as_secs(),
        "edges": edges.collect::<Vec<_>>(),
        "left_out": known.history.left_out(),
    })
}

fn of_traffic(
    traffic: &Traffic,
    time: Duration,
    quantile_ms: impl Fn(f64) -> Option<f64>,
) -> Value {
    let seconds = time.as_secs_f64().max(1.0);
    let success =
        |requests: u64| (requests - traffic.errors.min(requests)) as f64 / requests as f64;
    json!({
        "requests": traffic.requests,
        "errors": traffic.errors,
        "per_second": rounded(traffic.requests as f64 / seconds),
        "success": (traffic.requests > 0).then(|| success(traffic.requests)),
        "p50_ms": quantile_ms(0.5).map(rounded),
        "p99_ms": quantile_ms(0.99).map(rounded),
    })
}

/// Three digits after the point are enough for people.
pub(super) fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
