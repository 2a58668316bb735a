//! Compiles the health checks of services.

use std::sync::Arc;
use std::time::Duration;

use super::Compiler;
use crate::health::{Ask, Check, Statuses, Thresholds};
use crate::model::{
    ClientTls, GrpcProbe, HealthCheck, HealthProbe, HttpProbe, Item, Origin, Service,
    ServiceProtocol,
};

/// The default of `interval`.
const INTERVAL: Duration = Duration::from_secs(2);

/// The default of `timeout`.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The default numbers of consecutive results that change the state of an endpoint.
const THRESHOLDS: Thresholds = Thresholds { healthy: 2, unhealthy: 3 };

/// The default panic threshold, in percent.
pub(super) const PANIC_PERCENT: u8 = 50;

/// Compiles the health check of a service.
pub(super) fn check(compiler: &mut Compiler<'_>, service: &Service) -> Option<Arc<Check>> {
    let written = service.health_check.as_ref()?;
    let value = &written.value;
    let ask = match &value.probe {
        Some(HealthProbe::Http(probe)) => http_ask(compiler, service, probe)?,
        Some(HealthProbe::Grpc(probe)) => {
            let is_http1 = match service.protocol {
                ServiceProtocol::Http1 => true,
                // Without TLS, no ALPN can select HTTP/2.
                ServiceProtocol::Auto => service.tls.is_none(),
                _ => false,
            };
            if is_http1 {
                let help = "write `protocol: grpc` in the service, or check by `http`";
                let message = "gRPC needs HTTP/2";
                compiler.fault_with_help(&probe.origin, message, help);
            }
            grpc_ask(compiler, service, probe)?
        }
        Some(HealthProbe::Tcp) => Ask::Tcp,
        None => {
            let message = "a health check needs one of http, grpc and tcp";
            let help = "write `{http: /healthz}`, {grpc: true} or {tcp: true}";
            compiler.missing(&written.origin, message, help);
            return None;
        }
    };
    Some(Arc::new(Check {
        ask,
        interval: value.interval.unwrap_or(INTERVAL),
        timeout: value.timeout.unwrap_or(TIMEOUT),
        thresholds: thresholds(compiler, value),
    }))
}

fn thresholds(compiler: &mut Compiler<'_>, written: &HealthCheck) -> Thresholds {
    let mut count = |written: &Option<Item<u32>>, default: u32| {
        let Some(written) = written else { return default };
        if written.value == 0 {
            compiler.fault(&written.origin, "at least one check is needed to know anything");
        }
        written.value
    };
    Thresholds {
        healthy: count(&written.healthy, THRESHOLDS.healthy),
        unhealthy: count(&written.unhealthy, THRESHOLDS.unhealthy),
    }
}

fn http_ask(compiler: &mut Compiler<'_>, service: &Service, probe: &HttpProbe) -> Option<Ask> {
    let path = &probe.path;
    let visible = |byte: u8| (b'!'..=b'~').contains(&byte) && byte != b'#';
    if !path.value.starts_with('/') || !path.value.bytes().all(visible) {
        let message = format!("{:?} is not a path", path.value);
        compiler.fault_with_help(&path.origin, message, "write /healthz, with a query if needed");
    }
    let statuses =
        if probe.statuses.is_empty() { vec![(200, 200)] } else { probe.statuses.clone() };
    Some(Ask::Http {
        method: if probe.head { "HEAD".into() } else { "GET".into() },
        path: path.value.as_str().into(),
        host: authority(compiler, service, &path.origin, probe.host.as_ref(), "host")?,
        statuses: Statuses(statuses),
    })
}

fn grpc_ask(
    compiler: &mut Compiler<'_>,
    service: &Service,
    probe: &Item<GrpcProbe>,
) -> Option<Ask> {
    let GrpcProbe { service: asked, authority: named } = &probe.value;
    Some(Ask::Grpc {
        service: asked.as_ref().map_or_else(Default::default, |it| it.value.as_str().into()),
        authority: authority(compiler, service, &probe.origin, named.as_ref(), "authority")?,
    })
}

/// The authority that is written under `key`. Without one, it is the SNI or the name of the
/// service. Reports an authority that is not valid.
fn authority(
    compiler: &mut Compiler<'_>,
    service: &Service,
    origin: &Origin,
    written: Option<&Item<String>>,
    key: &str,
) -> Option<Box<str>> {
    let sni = match service.tls.as_ref().map(|tls| &tls.value) {
        Some(ClientTls::Files(files)) => files.sni.as_ref(),
        _ => None,
    };
    let text = &written.or(sni).unwrap_or(&service.name).value;
    if text.parse::<http::uri::Authority>().is_err() {
        let origin = written.map_or(origin, |written| &written.origin);
        let message = format!("{text:?} cannot be used as a host");
        compiler.fault_with_help(origin, message, format!("write `{key}: NAME`"));
        return None;
    }
    Some(text.as_str().into())
}
