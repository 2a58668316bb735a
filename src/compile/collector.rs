//! Compiles the addresses of collectors for OTLP.

use std::sync::Arc;

use super::{Compiler, tls};
use crate::model::{Item, Material};
use crate::observe::Export;

/// The default name of the service at a collector.
const SERVICE: &str = "ringway";

/// The port of OTLP over gRPC.
const GRPC_PORT: &str = ":4317";

/// The schemes of URLs, each with whether it means gRPC and TLS.
const SCHEMES: [(&str, bool, bool); 4] =
    [("http", false, false), ("https", false, true), ("grpc", true, false), ("grpcs", true, true)];

/// Reads the URL of a collector. `path` is that of OTLP over HTTP for what is exported, `ca` the CA
/// of the collector, and `service` the name of this proxy there.
pub(super) fn export<'a>(
    compiler: &mut Compiler<'a>,
    url: &Item<String>,
    ca: Option<&'a Item<Material>>,
    service: Option<&str>,
    path: &str,
) -> Option<Export> {
    let text = url.value.trim_end_matches('/');
    let parts = text.split_once("://").and_then(|(scheme, rest)| {
        let known = SCHEMES.iter().find(|(name, ..)| *name == scheme)?;
        is_host(rest).then_some((*known, rest))
    });
    let Some(((_, is_grpc, is_tls), rest)) = parts else {
        let host = text.split_once("://").map_or(text, |(_, rest)| rest);
        let scheme = if text.ends_with(GRPC_PORT) { "grpc" } else { "http" };
        let help = match is_host(host) && !text.contains("://") {
            true => format!("write {scheme}://{host}"),
            false => {
                "write http://HOST:PORT or grpc://HOST:PORT of a collector for OTLP".to_owned()
            }
        };
        compiler.fault_with_help(&url.origin, format!("{text:?} is not a collector"), help);
        return None;
    };
    if !is_grpc && rest.ends_with(GRPC_PORT) {
        let message = format!("{text} is the port of OTLP over gRPC");
        let scheme = if is_tls { "grpcs" } else { "grpc" };
        compiler.warn(&url.origin, message, format!("write {scheme}://{rest}"));
    }
    if is_grpc && rest.contains('/') {
        let host = rest.split('/').next().unwrap_or_default();
        let help = format!("write {}://{host}", if is_tls { "grpcs" } else { "grpc" });
        compiler.fault_with_help(&url.origin, "a collector of gRPC has no path", help);
        return None;
    }
    let ca = match ca {
        Some(ca) if !is_tls => {
            let message = format!("{text} has no TLS, so there is no certificate to verify");
            let scheme = if is_grpc { "grpcs" } else { "https" };
            let help = format!("write {scheme}://{rest}, or leave `ca` out");
            compiler.fault_with_help(&ca.origin, message, help);
            return None;
        }
        Some(ca) => {
            tls::authorities(compiler, ca)?;
            Some(Arc::from(compiler.material(ca)?))
        }
        None => None,
    };
    let path = if is_grpc || rest.contains('/') { "" } else { path };
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let resource = vec![
        pair("service.name", service.unwrap_or(SERVICE)),
        pair("telemetry.sdk.name", "ringway"),
        pair("telemetry.sdk.language", "rust"),
        pair("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ];
    Some(Export { url: format!("{text}{path}"), is_grpc, is_tls, ca, resource })
}

/// Whether `rest`, the part of a URL after its scheme, begins with a host.
fn is_host(rest: &str) -> bool {
    let host = rest.split('/').next().unwrap_or_default();
    let is_char = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    !host.is_empty() && !host.starts_with(':') && host.bytes().all(is_char)
}
