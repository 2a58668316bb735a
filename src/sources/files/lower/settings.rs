//! Lowers `runtime:`, `drain:`, `tcp:`, `dns:`, `limits:` and `telemetry:` to the model.

use super::super::grammar::admin::Admin;
use super::super::grammar::overload::Overload;
use super::super::grammar::settings::{self as grammar, Dns, Drain, Limits, Runtime, Telemetry};
use super::super::grammar::sources::Sources;
use super::super::grammar::tcp::Tcp;
use super::super::log_file::{self, LogFault, Target};
use super::super::materials::path_of;
use super::super::values::{Placed, Size};
use super::{Lower, http2, http3, list, time};
use crate::model::{self, AccessLog, Driver, Item, LogSink, Settings, Zone};

/// The sections of a configuration that belong to the process.
pub(super) struct Written {
    pub runtime: Runtime,
    pub admin: Admin,
    pub drain: Option<Drain>,
    pub tcp: Tcp,
    pub dns: Dns,
    pub limits: Limits,
    pub overload: Overload,
    pub telemetry: Telemetry,
    pub sources: Sources,
    pub zone: Option<Item<Zone>>,
}

pub(super) fn settings(lower: &mut Lower<'_>, written: Written) -> Settings {
    let Written { runtime, admin, drain, tcp, dns, limits, overload, telemetry, sources, zone } =
        written;
    Settings {
        workers: runtime.workers.and_then(|workers| workers.0),
        pin: runtime.pin,
        driver: match runtime.driver {
            grammar::Driver::Auto => Driver::Auto,
            grammar::Driver::IoUring => Driver::IoUring,
            grammar::Driver::Epoll => Driver::Epoll,
        },
        state_dir: runtime.state_dir.map(|directory| path_of(lower.sources, &directory)),
        admin: super::admin::admin(lower, admin),
        drain: drain.map(self::drain).unwrap_or_default(),
        tcp: super::tcp::tcp(tcp),
        zone,
        gone_after: time(dns.gone_after),
        limits: self::limits(limits),
        overload: super::overload::overload(overload),
        metrics: super::metrics::metrics(telemetry.metrics),
        access_log: access_log(lower, telemetry.access_log),
        tracing: telemetry.tracing.map(|written| super::tracing::tracing(lower, written)),
        sources: super::sources::sources(lower, sources),
    }
}

fn drain(Drain(written): Drain) -> model::Drain {
    let outbound = written.outbound.map(|outbound| outbound.0).unwrap_or_default();
    model::Drain { inbound: time(written.inbound), outbound }
}

fn limits(limits: Limits) -> model::Limits {
    let bytes = |size: Option<Size>| size.map(|size| size.0);
    model::Limits {
        connections: limits.connections.map(Into::into),
        header_bytes: size(limits.header_bytes),
        headers: limits.headers.map(Into::into),
        uri_bytes: bytes(limits.uri_bytes),
        chunk_extension_bytes: bytes(limits.chunk_extension_bytes),
        trailer_bytes: bytes(limits.trailer_bytes),
        buffer_bytes: size(limits.buffer_bytes),
        mirrored_requests: limits.mirrored_requests,
        rate_limit_keys: limits.rate_limit_keys.map(Into::into),
        http2: http2::limits(limits.http2),
        http3: http3::limits(limits.http3),
    }
}

pub(super) fn size(size: Option<Placed<Size>>) -> Option<Item<usize>> {
    size.map(|size| Item::new(size.value.0, super::origin(size.place)))
}

fn access_log(lower: &mut Lower<'_>, log: grammar::AccessLog) -> AccessLog {
    let sink = log.path.and_then(|path| log_sink(lower, &path));
    AccessLog {
        sink,
        otlp: log.otlp.map(Into::into),
        ca: lower.materials(&log.ca),
        service: log.service.map(Into::into),
        format: log.format.map(Into::into),
        fields: list(log.fields.0),
        filter: log.filter.map(Into::into),
        sample: log.sample.map(|share| Item::new(share.value.0, super::origin(share.place))),
    }
}

/// The target of access log lines. `None` if it is not valid; the mistake was reported.
fn log_sink(lower: &mut Lower<'_>, path: &Placed<String>) -> Option<LogSink> {
    if let Some(socket) = path.value.strip_prefix("syslog:").filter(|it| !it.starts_with('/')) {
        let message = format!("{:?} names no socket of a syslog daemon", path.value);
        let help = format!("write `syslog:/{socket}`, or `syslog` for /dev/log");
        lower.mistake_with_help(path.place, message, &help);
        return None;
    }
    match log_file::target(&path.value) {
        Target::Stdout => Some(LogSink::Stdout),
        Target::Stderr => Some(LogSink::Stderr),
        Target::Syslog(socket) => Some(LogSink::Syslog(socket.into())),
        Target::Off => {
            let message = format!("{:?} is not a file for the access log", path.value);
            let help = "for no access log write `access_log: {filter: none}`";
            lower.mistake_with_help(path.place, message, help);
            None
        }
        Target::File => {
            let materials = lower.materials;
            if let Some(LogFault { message, help }) = materials.log_fault() {
                lower.mistake_with_help(path.place, message, help);
            }
            Some(LogSink::File(path_of(lower.sources, path)))
        }
    }
}
