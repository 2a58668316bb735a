//! Lowers `telemetry.tracing` to the model.

use super::super::grammar::tracing::{ParentRule, TraceForm, Tracing};
use super::super::values::Placed;
use super::Lower;
use crate::model;

pub(super) fn tracing(lower: &Lower<'_>, written: Placed<Tracing>) -> model::Tracing {
    let Tracing { otlp, ca, sample, parent, propagation, service, custom_tags } = written.value;
    let form = |form| match form {
        TraceForm::W3c => model::TraceForm::W3c,
        TraceForm::B3 => model::TraceForm::B3,
        TraceForm::B3Multi => model::TraceForm::B3Multi,
    };
    model::Tracing {
        otlp: otlp.map(Into::into),
        ca: lower.materials(&ca),
        sample: sample.map(|share| share.0),
        follows_parent: parent == ParentRule::Follow,
        forms: propagation.0.into_iter().map(form).collect(),
        service: service.map(|service| service.value),
        tags: custom_tags.0.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
    }
}
