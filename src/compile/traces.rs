//! Compiles tracing.

use std::sync::Arc;

use super::access_log::wrong;
use super::{Compiler, collector};
use crate::model::{self, TraceForm};
use crate::observe::otlp::HTTP_PATH;
use crate::observe::{Format, TraceTerms, Tracing, Wanted};
use crate::propagation::trace::Form;

/// The default share of new traces that are sampled, in millionths.
const SAMPLE: u32 = model::SHARE_PARTS / 100;

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
    let (ca, service) = (written.ca.as_ref(), written.service.as_deref());
    let export = match &written.otlp {
        Some(url) => collector::export(compiler, url, ca, service, HTTP_PATH),
        None => None,
    };
    if let (Some(ca), None) = (ca, &written.otlp) {
        let help = "add `otlp: https://HOST:PORT`, or leave `ca` out";
        compiler.fault_with_help(&ca.origin, "there is no collector to verify", help);
    }
    Some(Tracing { terms: Arc::new(terms), export })
}

fn form(form: &TraceForm) -> Form {
    match form {
        TraceForm::W3c => Form::W3c,
        TraceForm::B3 => Form::B3Single,
        TraceForm::B3Multi => Form::B3Multi,
    }
}
