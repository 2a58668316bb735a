//! Compiles `telemetry.metrics`: Istio's standard metrics.

use std::sync::Arc;

use super::mesh::{INBOUND_SERVICE, PASSTHROUGH_SERVICE};
use super::suggestion::value_suggestion;
use super::{Compiler, Item};
use crate::model::{self, MetricOverride, Model, RequestFact, StandardMetric, TagValue};
use crate::standard::{
    Fact, LABELS, LabelValue, Metric, Reporter, SERIES_MAX, Shape, Standard, Target, TargetFacts,
    UNUSED_AFTER, Workload,
};
use crate::time::NO_LIMIT;

/// Istio's names of unknown destinations.
const PASSTHROUGH: &str = "PassthroughCluster";
const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";

/// Whether the standard metrics are on. They are off by default in a proxy that is in no mesh.
fn is_on(model: &Model) -> bool {
    let in_mesh = model.mesh.identity.is_some() || model.mesh.captures();
    model.settings.metrics.istio.unwrap_or(in_mesh)
}

/// The service in the labels of the standard metrics. `None` if they are off.
pub(super) fn target(compiler: &mut Compiler<'_>, written: &model::Service) -> Option<Arc<Target>> {
    is_on(compiler.model).then(|| {
        let mutual =
            matches!(written.tls.as_ref().map(|tls| &tls.value), Some(model::ClientTls::Mesh));
        let principal = match &*written.identities {
            [one] if mutual => Some(one.value.as_str().into()),
            _ => None,
        };
        let service = Some(written.name.value.as_str().into());
        compiler.registry.series.target(&TargetFacts { service, principal, mutual })
    })
}

/// The service for unknown destinations, in the labels of the standard metrics.
pub(super) fn unknown_target(compiler: &mut Compiler<'_>, name: &str) -> Option<Arc<Target>> {
    let service = match name {
        INBOUND_SERVICE => {
            let own = compiler.model.settings.metrics.workload.service.as_deref();
            own.unwrap_or(INBOUND_PASSTHROUGH)
        }
        PASSTHROUGH_SERVICE => PASSTHROUGH,
        name => name,
    };
    is_on(compiler.model).then(|| {
        let facts = TargetFacts { service: Some(service.into()), ..TargetFacts::default() };
        compiler.registry.series.target(&facts)
    })
}

/// Compiles the standard metrics. `None` means that they are off.
pub(super) fn standard(compiler: &mut Compiler<'_>) -> Option<Arc<Standard>> {
    let written = &compiler.model.settings.metrics;
    let mut shapes: [[Shape; Metric::ALL.len()]; 2] = Default::default();
    for item in &written.overrides {
        check(compiler, item);
        let sides =
            [(Reporter::Source, item.value.client), (Reporter::Destination, item.value.server)];
        for (reporter, _) in sides.into_iter().filter(|(_, meant)| *meant) {
            for metric in Metric::ALL {
                if item.value.metric.is_none_or(|it| self::metric(it) == metric) {
                    change(&mut shapes[reporter.index()][metric.index()], &item.value);
                }
            }
        }
    }
    if let Some(series) = written.series.as_ref().filter(|series| series.value == 0) {
        let message = "Istio's metrics need room for a label set";
        let help = "write a number from 1; the default is 2000. `istio: false` turns them off";
        compiler.fault_with_help(&series.origin, message, help);
    }
    is_on(compiler.model).then(|| {
        let store = Arc::clone(&compiler.registry.series);
        let max = written.series.as_ref().map_or(SERIES_MAX, |it| it.value as usize);
        let unused_after = written.unused_after.unwrap_or(UNUSED_AFTER);
        let unused_after = Some(unused_after).filter(|time| *time != NO_LIMIT);
        let facts = facts(&shapes);
        Arc::new(Standard { store, own: own(compiler), shapes, facts, unused_after, max })
    })
}

/// The description of this workload: the written facts, or else those in its SPIFFE ID.
fn own(compiler: &Compiler<'_>) -> Workload {
    let model::WorkloadFacts { name, namespace, app, version, cluster, service } =
        compiler.model.settings.metrics.workload.clone();
    let id = compiler.mesh.as_ref().and_then(|mesh| mesh.id());
    let found = id.as_ref().and_then(|id| id.workload());
    let boxed = |text: Option<String>| text.map(String::into_boxed_str);
    Workload {
        principal: id.as_ref().map(|id| id.as_str().into()),
        name: boxed(name).or_else(|| found.map(|found| found.name().into())),
        namespace: boxed(namespace).or_else(|| found.map(|found| found.namespace().into())),
        app: boxed(app),
        version: boxed(version),
        cluster: boxed(cluster),
        service: boxed(service),
    }
}

fn change(shape: &mut Shape, change: &MetricOverride) {
    if let Some(disabled) = change.disabled {
        shape.disabled = disabled;
    }
    for name in &change.remove {
        shape.set.retain(|(set, _)| **set != *name.value);
        shape.removed.push(name.value.as_str().into());
    }
    for (name, value) in &change.set {
        shape.removed.retain(|removed| **removed != *name.value);
        shape.set.retain(|(set, _)| **set != *name.value);
        shape.set.push((name.value.as_str().into(), label_value(&value.value)));
    }
}

fn label_value(written: &TagValue) -> LabelValue {
    let boxed = |text: &Option<String>| text.as_deref().map(Into::into);
    match written {
        TagValue::Text(text) => LabelValue::Fixed(text.as_str().into()),
        TagValue::Label(name, otherwise) => {
            let index = LABELS.iter().position(|label| label == name).unwrap_or_default();
            LabelValue::Label(index, boxed(otherwise))
        }
        TagValue::Request(fact, otherwise) => {
            let fact = match fact {
                RequestFact::Method => Fact::Method,
                RequestFact::Host => Fact::Host,
                RequestFact::Path => Fact::Path,
            };
            LabelValue::Fact(fact, boxed(otherwise))
        }
    }
}

/// The facts about requests that the shapes show.
fn facts(shapes: &[[Shape; Metric::ALL.len()]; 2]) -> Arc<[Fact]> {
    let all = shapes.iter().flatten().filter(|shape| !shape.disabled);
    let set: Vec<&LabelValue> = all.flat_map(|shape| &shape.set).map(|(_, value)| value).collect();
    let shown =
        |fact: &Fact| set.iter().any(|it| matches!(it, LabelValue::Fact(it, _) if it == fact));
    Fact::ALL.into_iter().filter(shown).collect()
}

fn check(compiler: &mut Compiler<'_>, item: &Item<MetricOverride>) {
    let MetricOverride { disabled, remove, set, .. } = &item.value;
    if disabled.is_none() && remove.is_empty() && set.is_empty() {
        let help =
            "add `disabled: true`, `tags: {remove: [LABEL]}` or `tags: {set: {LABEL: VALUE}}`";
        compiler.fault_with_help(&item.origin, "this override changes nothing", help);
    }
    for name in remove {
        let earlier = |earlier: &&Item<MetricOverride>| {
            earlier.value.set.iter().any(|(set, _)| set.value == name.value)
        };
        let known = LABELS.contains(&name.value.as_str())
            || compiler.model.settings.metrics.overrides.iter().any(|it| earlier(&it));
        if !known {
            let message = format!("Istio's metrics have no label {:?}", name.value);
            compiler.fault_with_help(&name.origin, message, value_suggestion(&name.value, &LABELS));
        }
    }
    for (name, _) in set {
        let text = name.value.as_str();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let begins = text.bytes().next().is_some_and(|first| !first.is_ascii_digit());
        if !begins || !text.bytes().all(allowed) {
            let message = format!("{text:?} is not a name of a label");
            let help = "write letters, digits and `_`, and begin with a letter";
            compiler.fault_with_help(&name.origin, message, help);
        } else if text == "le" || text.starts_with("__") {
            let message = format!("Prometheus needs the label {text:?} itself");
            compiler.fault_with_help(&name.origin, message, "write another name");
        }
    }
}

fn metric(written: StandardMetric) -> Metric {
    match written {
        StandardMetric::RequestCount => Metric::RequestCount,
        StandardMetric::RequestDuration => Metric::RequestDuration,
        StandardMetric::RequestSize => Metric::RequestSize,
        StandardMetric::ResponseSize => Metric::ResponseSize,
        StandardMetric::GrpcRequestMessages => Metric::GrpcRequestMessages,
        StandardMetric::GrpcResponseMessages => Metric::GrpcResponseMessages,
        StandardMetric::TcpOpenedConnections => Metric::TcpOpenedConnections,
        StandardMetric::TcpClosedConnections => Metric::TcpClosedConnections,
        StandardMetric::TcpSentBytes => Metric::TcpSentBytes,
        StandardMetric::TcpReceivedBytes => Metric::TcpReceivedBytes,
    }
}
