//! Telemetry: changes of metrics, the access log, and the sampling of traces.

use super::Context;
use super::at;
use super::selector::{Reach, reach};
use crate::model::{
    Item, MetricOverride, RequestFact, Settings as ProcessSettings, StandardMetric, TagValue,
    Tracing,
};
use crate::sources::objects::{Fields, Object, items};
use crate::sources::yaml::node::Node;

const METRICS: [(&str, Option<StandardMetric>); 11] = [
    ("ALL_METRICS", None),
    ("REQUEST_COUNT", Some(StandardMetric::RequestCount)),
    ("REQUEST_DURATION", Some(StandardMetric::RequestDuration)),
    ("REQUEST_SIZE", Some(StandardMetric::RequestSize)),
    ("RESPONSE_SIZE", Some(StandardMetric::ResponseSize)),
    ("TCP_OPENED_CONNECTIONS", Some(StandardMetric::TcpOpenedConnections)),
    ("TCP_CLOSED_CONNECTIONS", Some(StandardMetric::TcpClosedConnections)),
    ("TCP_SENT_BYTES", Some(StandardMetric::TcpSentBytes)),
    ("TCP_RECEIVED_BYTES", Some(StandardMetric::TcpReceivedBytes)),
    ("GRPC_REQUEST_MESSAGES", Some(StandardMetric::GrpcRequestMessages)),
    ("GRPC_RESPONSE_MESSAGES", Some(StandardMetric::GrpcResponseMessages)),
];

/// The modes, each with whether clients and servers are meant.
const MODES: [(&str, (bool, bool)); 3] =
    [("CLIENT_AND_SERVER", (true, true)), ("CLIENT", (true, false)), ("SERVER", (false, true))];

/// The advice for a value of a label that is not supported.
const SUPPORTED: &str = "write a constant in quotes, such as value: \"'abc'\", \
    node.metadata['LABELS']['NAME'], request.method, request.host, request.url_path, or a value of \
    a standard label, such as source.workload.name or destination.labels['app']";

/// Attributes that standard labels have.
const ATTRIBUTES: [(&str, &str); 27] = [
    ("source.workload.name", "source_workload"),
    ("source.workload.namespace", "source_workload_namespace"),
    ("source.namespace", "source_workload_namespace"),
    ("source.principal", "source_principal"),
    ("source.labels['app']", "source_app"),
    ("source.labels['version']", "source_version"),
    ("downstream_peer.name", "source_workload"),
    ("downstream_peer.workload", "source_workload"),
    ("downstream_peer.namespace", "source_workload_namespace"),
    ("downstream_peer.app", "source_app"),
    ("downstream_peer.version", "source_version"),
    ("downstream_peer.cluster", "source_cluster"),
    ("destination.workload.name", "destination_workload"),
    ("destination.workload.namespace", "destination_workload_namespace"),
    ("destination.namespace", "destination_workload_namespace"),
    ("destination.principal", "destination_principal"),
    ("destination.service.host", "destination_service"),
    ("destination.service.name", "destination_service_name"),
    ("destination.service.namespace", "destination_service_namespace"),
    ("destination.labels['app']", "destination_app"),
    ("destination.labels['version']", "destination_version"),
    ("upstream_peer.name", "destination_workload"),
    ("upstream_peer.namespace", "destination_workload_namespace"),
    ("upstream_peer.app", "destination_app"),
    ("request.protocol", "request_protocol"),
    ("response.code", "response_code"),
    ("response.flags", "response_flags"),
];

/// Facts about a request.
const FACTS: [(&str, RequestFact); 4] = [
    ("request.method", RequestFact::Method),
    ("request.host", RequestFact::Host),
    ("request.url_path", RequestFact::Path),
    ("request.path", RequestFact::Path),
];

/// Reads all Telemetry objects. Those for the mesh come first, then those for the namespace.
pub(super) fn telemetries<'o>(
    cx: &mut Context<'_>,
    objects: impl Iterator<Item = &'o Object>,
    settings: &mut ProcessSettings,
) {
    let mut all: Vec<(Reach, Part)> = Vec::new();
    for object in objects {
        let Some(mut spec) = cx.reader.spec(object) else { continue };
        let reach = reach(cx, object, &mut spec);
        let mut part = Part::default();
        for node in spec.list(&mut cx.reader, "metrics") {
            metrics(cx, node, &mut part.overrides);
        }
        for node in spec.list(&mut cx.reader, "accessLogging") {
            access_logging(cx, node, &mut part);
        }
        for node in spec.list(&mut cx.reader, "tracing") {
            tracing(cx, node, &mut part, settings.tracing.is_some());
        }
        spec.finish(&mut cx.reader);
        all.extend(reach.map(|reach| (reach, part)));
    }
    all.sort_by_key(|(reach, _)| *reach);
    for (_, part) in all {
        settings.metrics.overrides.extend(part.overrides);
        if let Some(filter) = part.filter {
            settings.access_log.filter = Some(filter);
        }
        if let Some(tracing) = &mut settings.tracing {
            let Tracing { sample, tags, .. } = tracing;
            *sample = part.sample.or(*sample);
            tags.extend(part.tags);
        }
    }
}

/// The settings of one object.
#[derive(Default)]
struct Part {
    overrides: Vec<Item<MetricOverride>>,
    filter: Option<Item<String>>,
    sample: Option<u32>,
    tags: Vec<(Item<String>, Item<String>)>,
}

/// Reads the names of providers. The outputs of Ringway's own configuration are used instead.
fn providers(cx: &mut Context<'_>, fields: &mut Fields<'_>) {
    let r = &mut cx.reader;
    for node in fields.list(r, "providers") {
        if !node.text().is_empty() {
            let message = format!("a provider is a map with a name, not {}", node.describe());
            r.at(node.place, message, format!("write `- name: {}`", node.text()));
            continue;
        }
        let Some(mut provider) = Fields::of(r, node, "a provider") else { continue };
        provider.string(r, "name");
        provider.finish(r);
    }
}

fn metrics(cx: &mut Context<'_>, node: &Node, overrides: &mut Vec<Item<MetricOverride>>) {
    let Some(mut fields) = Fields::of(&mut cx.reader, node, "an element of `metrics`") else {
        return;
    };
    providers(cx, &mut fields);
    for node in fields.list(&mut cx.reader, "overrides") {
        overrides.extend(one_override(cx, node));
    }
    fields.refuse(&mut cx.reader, "reportingInterval", "leave it out: metrics are read on demand");
    fields.finish(&mut cx.reader);
}

fn one_override(cx: &mut Context<'_>, node: &Node) -> Option<Item<MetricOverride>> {
    let before = cx.reader.count();
    let r = &mut cx.reader;
    let mut fields = Fields::of(r, node, "an override")?;
    let mut change = MetricOverride { client: true, server: true, ..MetricOverride::default() };
    if let Some(mut matches) = fields.map(r, "match") {
        change.metric = matches.one_of(r, "metric", &METRICS).and_then(|metric| metric.value);
        matches.refuse(r, "customMetric", "write `metric: NAME`, one of Istio's standard metrics");
        if let Some(mode) = matches.one_of(r, "mode", &MODES) {
            (change.client, change.server) = mode.value;
        }
        matches.finish(r);
    }
    change.disabled = fields.boolean(r, "disabled").map(|it| it.value);
    if let Some(node) = fields.get("tagOverrides") {
        for (name, value) in items(&mut cx.reader, node, "tagOverrides") {
            tag(cx, name, value, &mut change);
        }
    }
    let r = &mut cx.reader;
    fields.hint("name", "the metric is in `match: {metric: REQUEST_COUNT}`; take this line out");
    fields
        .hint("dimensions", "write `tagOverrides: {NAME: {operation: UPSERT, value: EXPRESSION}}`");
    fields.hint("tags_to_remove", "write `tagOverrides: {NAME: {operation: REMOVE}}`");
    fields.finish(r);
    let MetricOverride { disabled, remove, set, .. } = &change;
    if disabled.is_none() && remove.is_empty() && set.is_empty() {
        if cx.reader.count() == before {
            let help = "write `disabled: true`, or `tagOverrides: {NAME: {operation: REMOVE}}`";
            cx.reader.at(node.place, "this override changes nothing", help);
        }
        return None;
    }
    Some(Item::new(change, at(node.place)))
}

/// Reads the change of one label.
fn tag(cx: &mut Context<'_>, name: Item<String>, node: &Node, change: &mut MetricOverride) {
    let r = &mut cx.reader;
    let Some(mut fields) = Fields::of(r, node, "a change of a label") else { return };
    let removes = fields.one_of(r, "operation", &[("UPSERT", false), ("REMOVE", true)]);
    let value = fields.string(r, "value");
    fields.finish(r);
    if removes.is_some_and(|removes| removes.value) {
        change.remove.push(name);
        return;
    }
    let Some(value) = value else {
        r.at(node.place, "this label has no value", "write `value: EXPRESSION`");
        return;
    };
    match expression(&value.value, &cx.settings.labels) {
        Some(found) => change.set.push((name, Item::new(found, value.origin))),
        None => cx.reader.item(&value, "this expression is not supported", SUPPORTED),
    }
}

/// The value of an expression: a constant of this workload, an attribute, or
/// `has(ATTRIBUTE) ? ATTRIBUTE : 'TEXT'`.
fn expression(text: &str, labels: &[(String, String)]) -> Option<TagValue> {
    let text = text.trim();
    if let Some(constant) = constant(text, labels) {
        return Some(TagValue::Text(constant));
    }
    let (attribute, otherwise) = match text.strip_prefix("has(") {
        None => (text, None),
        Some(rest) => {
            let (asked, rest) = rest.split_once(')')?;
            let (found, otherwise) = rest.trim_start().strip_prefix('?')?.split_once(':')?;
            if asked.trim() != found.trim() {
                return None;
            }
            (found.trim(), Some(constant(otherwise.trim(), labels)?))
        }
    };
    // Older forms of the attributes.
    let plain = attribute.replace('"', "'");
    let plain = plain.strip_suffix(".value").unwrap_or(&plain);
    let plain = plain.strip_prefix("xds.").unwrap_or(plain);
    if let Some((_, fact)) = FACTS.iter().find(|(known, _)| *known == plain) {
        return Some(TagValue::Request(*fact, otherwise));
    }
    let (_, label) = ATTRIBUTES.iter().find(|(known, _)| *known == plain)?;
    Some(TagValue::Label(label, otherwise))
}

/// The value of an expression that is constant for this workload.
fn constant(expression: &str, labels: &[(String, String)]) -> Option<String> {
    let text = expression.trim();
    for quote in ['\'', '"'] {
        let inner = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        if let Some(inner) = inner.filter(|inner| !inner.contains(['\'', '"', '\\'])) {
            return Some(inner.to_owned());
        }
    }
    let rest = text.strip_prefix("xds.").unwrap_or(text).strip_prefix("node.metadata")?;
    let mut keys = rest.strip_prefix('[')?.strip_suffix(']')?.split("][");
    let key = |text: &str| Some(text.trim_matches(['\'', '"']).to_owned());
    let (Some("LABELS"), Some(name), None) =
        (keys.next().and_then(key).as_deref(), keys.next().and_then(key), keys.next())
    else {
        return None;
    };
    let value = labels.iter().find(|(label, _)| *label == name).map(|(_, value)| value.clone());
    Some(value.unwrap_or_else(|| "unknown".to_owned()))
}

fn access_logging(cx: &mut Context<'_>, node: &Node, part: &mut Part) {
    let owner = "an element of `accessLogging`";
    let Some(mut fields) = Fields::of(&mut cx.reader, node, owner) else { return };
    providers(cx, &mut fields);
    mode(cx, &mut fields);
    let r = &mut cx.reader;
    let disabled = fields.boolean(r, "disabled");
    let expression = fields.map(r, "filter").and_then(|mut filter| {
        let expression = filter.string(r, "expression");
        filter.finish(r);
        expression
    });
    fields.finish(r);
    if let Some(off) = disabled.filter(|disabled| disabled.value) {
        part.filter = Some(Item::new("none".to_owned(), off.origin));
    } else if let Some(expression) = expression {
        part.filter = filter(cx, expression);
    } else {
        part.filter = Some(Item::new("all".to_owned(), at(node.place)));
    }
}

/// Reads `match`. Ringway has one access log for both directions.
fn mode(cx: &mut Context<'_>, fields: &mut Fields<'_>) {
    let r = &mut cx.reader;
    let Some(mut matches) = fields.map(r, "match") else { return };
    let mode = matches.one_of(r, "mode", &MODES);
    matches.finish(r);
    if let Some(mode) = mode.filter(|mode| mode.value != (true, true)) {
        let help = "leave it out: the proxy treats both directions alike";
        r.item(&mode, "a single direction is not supported here", help);
    }
}

/// Translates a filter of CEL: comparisons of the status, joined with `&&` or `||`.
fn filter(cx: &mut Context<'_>, expression: Item<String>) -> Option<Item<String>> {
    let mut words = Vec::new();
    for word in expression.value.split_whitespace() {
        words.push(match word {
            "response.code" => "status",
            "request.method" => "method",
            "request.host" => "host",
            "request.url_path" => "path",
            "&&" => "and",
            "||" => "or",
            "==" | "!=" | ">=" | "<=" | "<" | ">" => word,
            text if text.bytes().all(|byte| byte.is_ascii_digit()) => text,
            text if text.len() > 1 && text.starts_with(['\'', '"']) => text,
            _ => {
                let help = "write comparisons of response.code, request.method, request.host and \
                            request.url_path, joined with && or ||; or `telemetry: {access_log: \
                            {filter: ...}}` in Ringway's own files";
                let message = format!("{word:?} in a filter is not supported");
                cx.reader.item(&expression, message, help);
                return None;
            }
        });
    }
    Some(Item::new(words.join(" "), expression.origin))
}

fn tracing(cx: &mut Context<'_>, node: &Node, part: &mut Part, has_collector: bool) {
    let owner = "an element of `tracing`";
    let Some(mut fields) = Fields::of(&mut cx.reader, node, owner) else { return };
    providers(cx, &mut fields);
    mode(cx, &mut fields);
    let r = &mut cx.reader;
    let percentage = fields.number::<f64>(r, "randomSamplingPercentage");
    let off = fields.boolean(r, "disableSpanReporting").is_some_and(|off| off.value);
    fields.ignore("enableIstioTags");
    fields.ignore("useRequestIdForTraceSampling");
    if let Some(node) = fields.get("customTags") {
        for (name, value) in items(&mut cx.reader, node, "customTags") {
            part.tags.extend(custom_tag(cx, value).map(|value| (name, value)));
        }
    }
    fields.finish(&mut cx.reader);
    if let Some(percentage) = &percentage
        && !(0.0..=100.0).contains(&percentage.value)
    {
        let help = "write a number from 0 to 100";
        cx.reader.item(percentage, "a percentage is from 0 to 100", help);
        return;
    }
    if !has_collector && !off {
        let help = "write `telemetry: {tracing: {otlp: http://HOST:4318}}` in Ringway's own files";
        cx.reader.warn(node.place, "there is no collector, so no traces are sent", help);
    }
    let parts = |percent: f64| (percent * 10_000.0).round() as u32;
    part.sample = if off { Some(0) } else { percentage.map(|it| parts(it.value)) };
}

/// Reads a tag: a literal, a variable of the environment, or a header field.
fn custom_tag(cx: &mut Context<'_>, node: &Node) -> Option<Item<String>> {
    let r = &mut cx.reader;
    let mut fields = Fields::of(r, node, "a tag")?;
    let literal = fields.map(r, "literal").and_then(|mut literal| {
        let value = literal.string(r, "value");
        literal.finish(r);
        value.map(|value| value.value.replace('%', "%%"))
    });
    let header = fields.map(r, "header").and_then(|mut header| {
        let name = header.string(r, "name");
        header.refuse(r, "defaultValue", "leave it out: a missing field is `-`");
        header.finish(r);
        name.map(|name| format!("%REQ({})%", name.value))
    });
    fields.refuse(r, "environment", "write `literal: {value: \"${NAME}\"}`");
    fields.refuse(r, "formatter", "write `header` or `literal`");
    fields.finish(r);
    literal.or(header).map(|text| Item::new(text, at(node.place)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_of_labels() {
        let labels = [("app".to_owned(), "web".to_owned())];
        let text = |text: &str| Some(TagValue::Text(text.to_owned()));
        let host = |otherwise: Option<&str>| {
            Some(TagValue::Request(RequestFact::Host, otherwise.map(str::to_owned)))
        };
        for (written, expected) in [
            ("'abc'", text("abc")),
            ("node.metadata['LABELS']['app']", text("web")),
            ("request.host", host(None)),
            ("has(request.host) ? request.host : 'none'", host(Some("none"))),
            ("has(request.host)?request.host:\"none\"", host(Some("none"))),
            ("request.url_path", Some(TagValue::Request(RequestFact::Path, None))),
            ("source.workload.name", Some(TagValue::Label("source_workload", None))),
            ("destination.labels[\"app\"].value", Some(TagValue::Label("destination_app", None))),
            ("has(request.host) ? request.method : 'x'", None),
            ("has(request.host) ? request.host : request.method", None),
            ("request.headers['x-tenant']", None),
            ("request.host + '1'", None),
            ("", None),
        ] {
            assert_eq!(expression(written, &labels), expected, "{written}");
        }
    }
}
