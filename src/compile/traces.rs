//! Compiles tracing.

use std::sync::Arc;

use super::Compiler;
use super::access_log::wrong;
use crate::model::{self, Item, TraceForm};
use crate::observe::otlp::HTTP_PATH;
use crate::observe::{Export, Format, TraceTerms, Tracing, Wanted};
use crate::propagation::trace::Form;

/// The default share of new traces that are sampled, in millionths.
const SAMPLE: u32 = model::SHARE_PARTS / 100;

/// The default name of the service in traces.
const SERVICE: &str = "ringway";

/// The port of OTLP over gRPC.
const GRPC_PORT: &str = ":4317";

/// Compiles tracing.
pub(super) fn tracing(compiler: &mut Compiler<'_>) -> Option<Tracing> {
    let written = compiler.model.settings.tracing.as_ref()?;
    let mut wanted = Wanted::default();
    let mut tags = Vec::new();
    for (name, value) in &written.tags {
        match Format::parse_text(&value.value) {
            Ok(format) => {
                wanted.extend(&format.wanted());
                tags.push((name.value.as_str().into(), format));
            }
            Err(error) => wrong(compiler, value, error),
        }
    }
    let forms = match &*written.forms {
        [] => vec![Form::W3c],
        forms => forms.iter().map(form).collect(),
    };
    let terms = TraceTerms {
        sample: written.sample.unwrap_or(SAMPLE),
        follows_parent: written.follows_parent,
        forms,
        tags,
        wanted,
    };
    let service = written.service.as_deref().unwrap_or(SERVICE);
    let export = written.otlp.as_ref().and_then(|url| export(compiler, url, service));
    Some(Tracing { terms: Arc::new(terms), export })
}

fn form(form: &TraceForm) -> Form {
    match form {
        TraceForm::W3c => Form::W3c,
        TraceForm::B3 => Form::B3Single,
        TraceForm::B3Multi => Form::B3Multi,
    }
}

/// Reads the URL of the collector.
fn export(compiler: &mut Compiler<'_>, url: &Item<String>, service: &str) -> Option<Export> {
    let text = url.value.trim_end_matches('/');
    let known = ["http", "https", "grpc"];
    let parts = text.split_once("://").filter(|(scheme, _)| known.contains(scheme));
    let Some((scheme, rest)) = parts.filter(|(_, rest)| is_host(rest)) else {
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
    let is_grpc = scheme == "grpc";
    if !is_grpc && rest.ends_with(GRPC_PORT) {
        let message = format!("{text} is the port of OTLP over gRPC");
        compiler.warn(&url.origin, message, format!("write grpc://{rest}"));
    }
    if is_grpc && rest.contains('/') {
        let host = rest.split('/').next().unwrap_or_default();
        let help = format!("write grpc://{host}");
        compiler.fault_with_help(&url.origin, "a collector of gRPC has no path", help);
        return None;
    }
    let path = if is_grpc || rest.contains('/') { "" } else { HTTP_PATH };
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let resource = vec![
        pair("service.name", service),
        pair("telemetry.sdk.name", "ringway"),
        pair("telemetry.sdk.language", "rust"),
        pair("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ];
    Some(Export { url: format!("{text}{path}"), is_grpc, resource })
}

/// Whether `rest`, the part of a URL after its scheme, begins with a host.
fn is_host(rest: &str) -> bool {
    let host = rest.split('/').next().unwrap_or_default();
    let is_char = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    !host.is_empty() && !host.starts_with(':') && host.bytes().all(is_char)
}
