//! `runtime:`, `admin:`, `drain:`, `limits:` and `telemetry:`.

use std::path::PathBuf;

use super::super::grammar::settings::{
    self as grammar, Admin, Limits, LogFormat, Runtime, Telemetry,
};
use super::super::values::{Placed, Size, Time};
use super::{Lower, http2, time};
use crate::model::{self, AccessLog, AdminBind, Driver, Item, LogSink, Settings};

pub(super) fn settings(
    lower: &mut Lower<'_>,
    runtime: Runtime,
    admin: Admin,
    drain: Option<Time>,
    limits: Limits,
    telemetry: Telemetry,
) -> Settings {
    Settings {
        workers: runtime.workers.and_then(|workers| workers.0),
        pin: runtime.pin,
        driver: match runtime.driver {
            grammar::Driver::Auto => Driver::Auto,
            grammar::Driver::IoUring => Driver::IoUring,
            grammar::Driver::Epoll => Driver::Epoll,
        },
        admin: admin_bind(lower, &admin),
        drain: time(drain),
        limits: self::limits(limits),
        access_log: telemetry.access_log.map(access_log),
    }
}

fn admin_bind(lower: &mut Lower<'_>, admin: &Admin) -> AdminBind {
    match &admin.bind {
        None => AdminBind::Default,
        Some(bind) if bind.value == "off" => AdminBind::Off,
        Some(bind) => {
            lower.address(bind, "write IP:PORT, or `off`").map_or(AdminBind::Off, AdminBind::At)
        }
    }
}

fn limits(limits: Limits) -> model::Limits {
    let bytes = |size: Option<Size>| size.map(|size| size.0);
    model::Limits {
        connections: limits.connections,
        header_bytes: size(limits.header_bytes),
        headers: limits.headers.map(Into::into),
        uri_bytes: bytes(limits.uri_bytes),
        chunk_extension_bytes: bytes(limits.chunk_extension_bytes),
        trailer_bytes: bytes(limits.trailer_bytes),
        http2: http2::limits(limits.http2),
    }
}

pub(super) fn size(size: Option<Placed<Size>>) -> Option<Item<usize>> {
    size.map(|size| Item::new(size.value.0, super::origin(size.place)))
}

fn access_log(log: grammar::AccessLog) -> AccessLog {
    let sink = match log.path.value.as_str() {
        "stdout" => LogSink::Stdout,
        "stderr" => LogSink::Stderr,
        path => LogSink::File(PathBuf::from(path)),
    };
    AccessLog { sink, text: log.format == LogFormat::Text }
}
