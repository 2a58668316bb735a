//! `health_check:` of services.

use std::sync::Arc;
use std::time::Duration;

use super::compile::Compiler;
use super::diagnostic::Place;
use super::file;
use super::file_health::{CheckMethod, GrpcCheckMap, HealthCheck, HttpCheckMap};
use super::file_tls::ServiceTls;
use super::values::Placed;
use crate::health::{Ask, Check, Statuses, Thresholds};

/// Between two checks unless it is told otherwise.
const INTERVAL: Duration = Duration::from_secs(2);

/// How long a check may take unless it is told otherwise.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How many answers change a state unless it is told otherwise.
const THRESHOLDS: Thresholds = Thresholds { healthy: 2, unhealthy: 3 };

/// With fewer healthy endpoints all of them take requests, unless it is told otherwise.
const PANIC_PERCENT: u8 = 50;

/// How the endpoints of the service called `name` are checked.
pub(super) fn check(
    compiler: &mut Compiler<'_>,
    name: &str,
    service: &file::Service,
) -> Option<Arc<Check>> {
    let written = service.health_check.as_ref()?;
    let value = &written.value;
    let ask = match (&value.http, &value.grpc, &value.tcp) {
        (Some(http), None, None) => http_ask(compiler, name, service, http.place, &http.value.0)?,
        (None, Some(grpc), None) => {
            if matches!(service.protocol, file::ServiceProtocol::Http1) {
                let help = "write `protocol: grpc`, or check by `http`";
                let message = "gRPC is not spoken over HTTP/1.1";
                compiler.mistake_with_help(grpc.place, message, help);
            }
            grpc_ask(compiler, name, service, grpc.place, &grpc.value.0)?
        }
        (None, None, Some(tcp)) if tcp.value => Ask::Tcp,
        (None, None, Some(tcp)) => {
            let help = "leave `health_check` out if nothing is to be checked";
            compiler.mistake_with_help(tcp.place, "only `tcp: true` can be asked for", help);
            return None;
        }
        _ => {
            let message = "a health check needs one of http, grpc and tcp";
            compiler.mistake(written.place, message);
            return None;
        }
    };
    Some(Arc::new(Check {
        ask,
        interval: value.interval.as_ref().map_or(INTERVAL, |time| time.0),
        timeout: value.timeout.as_ref().map_or(TIMEOUT, |time| time.0),
        thresholds: thresholds(compiler, value),
        panic_percent: value.panic_threshold.as_ref().map_or(PANIC_PERCENT, |percent| percent.0),
        changes: compiler.registry.changes(name),
    }))
}

fn thresholds(compiler: &mut Compiler<'_>, written: &HealthCheck) -> Thresholds {
    let mut count = |written: &Option<Placed<u32>>, default: u32| {
        let Some(written) = written else { return default };
        if written.value == 0 {
            compiler.mistake(written.place, "at least one check is needed to know anything");
        }
        written.value
    };
    Thresholds {
        healthy: count(&written.healthy, THRESHOLDS.healthy),
        unhealthy: count(&written.unhealthy, THRESHOLDS.unhealthy),
    }
}

fn http_ask(
    compiler: &mut Compiler<'_>,
    name: &str,
    service: &file::Service,
    place: Place,
    written: &HttpCheckMap,
) -> Option<Ask> {
    let path = &written.path;
    // Where the path stands alone, it is the whole value.
    let place = if path.place == Place::default() { place } else { path.place };
    let visible = |byte: u8| (b'!'..=b'~').contains(&byte) && byte != b'#';
    if !path.value.starts_with('/') || !path.value.bytes().all(visible) {
        let message = format!("{:?} is not the path of a resource", path.value);
        compiler.mistake_with_help(place, message, "write /healthz, with a query if need be");
    }
    let mut statuses = Vec::new();
    for status in &written.status.0 {
        match range(&status.value) {
            Some(range) => statuses.push(range),
            None => {
                let message = format!("{:?} is no status of a final answer", status.value);
                compiler.mistake_with_help(status.place, message, "write 200 or 200-299");
            }
        }
    }
    if written.status.0.is_empty() {
        statuses.push((200, 200));
    }
    Some(Ask::Http {
        method: match written.method {
            CheckMethod::Get => "GET".into(),
            CheckMethod::Head => "HEAD".into(),
        },
        path: path.value.as_str().into(),
        host: authority(compiler, name, service, place, written.host.as_ref(), "host")?,
        statuses: Statuses(statuses),
    })
}

fn grpc_ask(
    compiler: &mut Compiler<'_>,
    name: &str,
    service: &file::Service,
    place: Place,
    written: &GrpcCheckMap,
) -> Option<Ask> {
    let asked = written.service.as_ref();
    let named = written.authority.as_ref();
    Some(Ask::Grpc {
        service: asked.map_or_else(Default::default, |asked| asked.value.as_str().into()),
        authority: authority(compiler, name, service, place, named, "authority")?,
    })
}

/// `200`, or `200-299`.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = (first.parse().ok()?, last.parse().ok()?);
    (200 <= range.0 && range.0 <= range.1 && range.1 <= 599).then_some(range)
}

/// What is written under `key`, or else the name by which the service is known to its endpoints.
fn authority(
    compiler: &mut Compiler<'_>,
    name: &str,
    service: &file::Service,
    place: Place,
    written: Option<&Placed<String>>,
    key: &str,
) -> Option<Box<str>> {
    let sni = match service.tls.as_ref().map(|tls| &tls.value) {
        Some(ServiceTls::Files(files)) => files.sni.as_ref(),
        _ => None,
    };
    let text = written.or(sni).map_or(name, |named| named.value.as_str());
    if text.parse::<http::uri::Authority>().is_err() {
        let place = written.map_or(place, |written| written.place);
        let message = format!("{text:?} cannot be asked for as a host");
        compiler.mistake_with_help(place, message, format!("write `{key}: NAME`"));
        return None;
    }
    Some(text.into())
}
