//! Lowers `telemetry.metrics:` to the model.

use super::super::grammar::metrics::{self as grammar, Buckets, MetricMode, MetricName, Metrics};
use super::{list, origin, pairs, time_or_none};
use crate::model::{self, Item, MetricOverride, RequestFact, StandardMetric, TagValue};

pub(super) fn metrics(written: Metrics) -> model::Metrics {
    let grammar::Workload { name, namespace, app, version, cluster, service } = written.workload;
    model::Metrics {
        istio: written.istio,
        workload: model::WorkloadFacts { name, namespace, app, version, cluster, service },
        series: written.series.map(Into::into),
        unused_after: time_or_none(written.unused_after),
        overrides: written
            .overrides
            .into_iter()
            .map(|it| Item::new(change(it.value), origin(it.place)))
            .collect(),
        exponential_buckets: written.buckets == Buckets::Exponential,
    }
}

fn change(written: grammar::MetricOverride) -> MetricOverride {
    MetricOverride {
        metric: metric(written.metric),
        client: written.mode != MetricMode::Server,
        server: written.mode != MetricMode::Client,
        disabled: written.disabled,
        remove: list(written.tags.remove),
        set: pairs(written.tags.set)
            .into_iter()
            .map(|(name, value)| (name, Item::new(TagValue::Text(value.value), value.origin)))
            .chain(pairs(written.tags.from_request).into_iter().map(|(name, fact)| {
                let value = TagValue::Request(request_fact(fact.value), None);
                (name, Item::new(value, fact.origin))
            }))
            .collect(),
    }
}

fn request_fact(written: grammar::RequestFact) -> RequestFact {
    match written {
        grammar::RequestFact::Method => RequestFact::Method,
        grammar::RequestFact::Host => RequestFact::Host,
        grammar::RequestFact::Path => RequestFact::Path,
    }
}

fn metric(name: MetricName) -> Option<StandardMetric> {
    Some(match name {
        MetricName::AllMetrics => return None,
        MetricName::RequestCount => StandardMetric::RequestCount,
        MetricName::RequestDuration => StandardMetric::RequestDuration,
        MetricName::RequestSize => StandardMetric::RequestSize,
        MetricName::ResponseSize => StandardMetric::ResponseSize,
        MetricName::GrpcRequestMessages => StandardMetric::GrpcRequestMessages,
        MetricName::GrpcResponseMessages => StandardMetric::GrpcResponseMessages,
        MetricName::TcpOpenedConnections => StandardMetric::TcpOpenedConnections,
        MetricName::TcpClosedConnections => StandardMetric::TcpClosedConnections,
        MetricName::TcpSentBytes => StandardMetric::TcpSentBytes,
        MetricName::TcpReceivedBytes => StandardMetric::TcpReceivedBytes,
    })
}
