//! Istio's standard metrics.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::{Escaped, Page};
use crate::cells::{Histogram, LATENCY_BUCKETS_MS, PerWorker};
use crate::identity::SpiffeId;
use crate::snapshot::Snapshot;
use crate::standard::{
    Known, LABELS, Metric, Reporter, Shape, Spoken, Standard, TcpCells, Workload,
};

/// The value of a label that is not known.
const UNKNOWN: &str = "unknown";

/// The number of buckets of a histogram, with that of `+Inf`.
const BUCKETS: usize = LATENCY_BUCKETS_MS.len() + 1;

/// Writes the standard metrics. `uptime` is the time since the start of the process. Series that
/// were not used for too long are dropped first.
pub(super) fn write(page: &mut Page, snapshot: &Snapshot, uptime: Duration) {
    let Some(standard) = &snapshot.standard else { return };
    standard.store.sweep(uptime, standard.unused_after);
    let mut series: Vec<Labelled> = standard
        .store
        .all()
        .into_iter()
        .map(|series| Labelled { values: values(standard, &series), series, text: String::new() })
        .collect();
    series.sort_by(|one, other| one.values.cmp(&other.values));
    own(page, standard, &series);
    for metric in Metric::ALL {
        let name = metric.name();
        let kind = if is_histogram(metric) { "histogram" } else { "counter" };
        page.family(name, kind, metric.help());
        for reporter in Reporter::ALL {
            let shape = &standard.shapes[reporter.index()][metric.index()];
            let meant = |it: &&mut Labelled| {
                it.series.key.reporter == reporter && applies(metric, &it.series)
            };
            if shape.disabled {
                continue;
            }
            if *shape == Shape::default() {
                write_each(page, metric, series.iter_mut().filter(meant));
                continue;
            }
            let mut merged: BTreeMap<String, Sums> = BTreeMap::new();
            for it in series.iter_mut().filter(meant) {
                let sums = Sums::of(metric, &it.series);
                merged.entry(labels(it, shape)).or_default().add(&sums);
            }
            for (labels, sums) in merged {
                sums.write(page, name, &labels);
            }
        }
    }
}

/// Writes a metric of series in the order of their labels. Several series may have the same labels,
/// because a series also knows what its side does not show. They are one series of the page.
fn write_each<'s>(page: &mut Page, metric: Metric, all: impl Iterator<Item = &'s mut Labelled>) {
    let mut last: Option<(&Labelled, Sums)> = None;
    for it in all {
        it.text();
        let it: &Labelled = it;
        let sums = Sums::of(metric, &it.series);
        match &mut last {
            Some((known, all)) if known.values == it.values => all.add(&sums),
            _ => {
                if let Some((known, all)) = last.replace((it, sums)) {
                    all.write(page, metric.name(), &known.text);
                }
            }
        }
    }
    if let Some((known, all)) = last {
        all.write(page, metric.name(), &known.text);
    }
}

/// Writes the proxy's own metrics about the series.
fn own(page: &mut Page, standard: &Standard, series: &[Labelled]) {
    page.gauge(
        "ringway_istio_series",
        "Label sets of Istio's metrics. The limit is telemetry.metrics.series.",
        series.len(),
    );
    let excess = series.iter().filter(|it| it.series.is_other());
    let excess = excess.map(|it| {
        let tcp = &it.series.tcp;
        requests(&it.series).wrapping_add(tcp.sum(|cells| &cells.opened))
    });
    page.counter(
        "ringway_istio_series_overflow_total",
        "Requests and L4 connections counted as `other`, because there were too many label sets.",
        excess.sum::<u64>(),
    );
    page.counter(
        "ringway_istio_series_dropped_total",
        "Label sets dropped because they had no traffic for telemetry.metrics.unused_after.",
        standard.store.dropped(),
    );
}

/// A series with the values of its labels.
struct Labelled {
    series: std::sync::Arc<Known>,
    values: [String; LABELS.len()],
    /// The labels as text, once they were needed.
    text: String,
}

impl Labelled {
    fn text(&mut self) -> &str {
        if self.text.is_empty() {
            self.text = labels(self, &Shape::default());
        }
        &self.text
    }
}

fn is_histogram(metric: Metric) -> bool {
    matches!(metric, Metric::RequestDuration | Metric::RequestSize | Metric::ResponseSize)
}

/// Whether a series counts into a metric.
fn applies(metric: Metric, series: &Known) -> bool {
    let spoken = series.key.spoken;
    match metric {
        Metric::RequestCount
        | Metric::RequestDuration
        | Metric::RequestSize
        | Metric::ResponseSize => spoken != Spoken::Tcp,
        Metric::GrpcRequestMessages | Metric::GrpcResponseMessages => spoken == Spoken::Grpc,
        Metric::TcpOpenedConnections
        | Metric::TcpClosedConnections
        | Metric::TcpSentBytes
        | Metric::TcpReceivedBytes => spoken == Spoken::Tcp,
    }
}

fn requests(series: &Known) -> u64 {
    let buckets = 0..BUCKETS;
    let count = |bucket: usize| series.http.sum(|cells| &cells.duration.buckets[bucket]);
    buckets.map(count).fold(0, u64::wrapping_add)
}

/// The values of a metric of one or several series.
#[derive(Default)]
enum Sums {
    #[default]
    Nothing,
    Count(u64),
    /// The counts of the buckets, not cumulative, and the sum in thousandths.
    Histogram(Box<[u64; BUCKETS]>, u64),
}

impl Sums {
    fn of(metric: Metric, series: &Known) -> Self {
        let tcp = |of: fn(&TcpCells) -> &crate::cells::Count| Self::Count(series.tcp.sum(of));
        match metric {
            Metric::RequestCount => Self::Count(requests(series)),
            Metric::RequestDuration => histogram(&series.http, |cells| &cells.duration),
            Metric::RequestSize => histogram(&series.http, |cells| &cells.request_bytes),
            Metric::ResponseSize => histogram(&series.http, |cells| &cells.response_bytes),
            Metric::GrpcRequestMessages => {
                Self::Count(series.http.sum(|cells| &cells.request_messages))
            }
            Metric::GrpcResponseMessages => {
                Self::Count(series.http.sum(|cells| &cells.response_messages))
            }
            Metric::TcpOpenedConnections => tcp(|cells| &cells.opened),
            Metric::TcpClosedConnections => tcp(|cells| &cells.closed),
            Metric::TcpSentBytes => tcp(|cells| &cells.sent_bytes),
            Metric::TcpReceivedBytes => tcp(|cells| &cells.received_bytes),
        }
    }

    fn add(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Count(sum), Self::Count(more)) => *sum = sum.wrapping_add(*more),
            (Self::Histogram(counts, sum), Self::Histogram(more, more_sum)) => {
                for (count, more) in counts.iter_mut().zip(&**more) {
                    *count = count.wrapping_add(*more);
                }
                *sum = sum.wrapping_add(*more_sum);
            }
            (_, Self::Nothing) => {}
            (_, Self::Count(more)) => *self = Self::Count(*more),
            (_, Self::Histogram(counts, sum)) => *self = Self::Histogram(counts.clone(), *sum),
        }
    }

    /// Writes the samples. `labels` has no braces.
    fn write(&self, page: &mut Page, name: &str, labels: &str) {
        match self {
            Self::Nothing => {}
            Self::Count(count) => page.raw(name, "", labels, "", count),
            Self::Histogram(counts, sum) => {
                let mut total: u64 = 0;
                for (index, count) in counts.iter().enumerate() {
                    total = total.wrapping_add(*count);
                    let bound = page.bound(LATENCY_BUCKETS_MS.get(index));
                    page.raw(name, "_bucket", labels, &bound, total);
                }
                page.raw(name, "_sum", labels, "", *sum as f64 / 1000.0);
                page.raw(name, "_count", labels, "", total);
            }
        }
    }
}

fn histogram<C>(stats: &PerWorker<C>, of: impl Fn(&C) -> &Histogram) -> Sums {
    let count = |bucket: usize| stats.sum(|cells| &of(cells).buckets[bucket]);
    let counts = std::array::from_fn(count);
    Sums::Histogram(Box::new(counts), stats.sum(|cells| &of(cells).sum_us))
}

/// The labels of a series as text, without braces.
fn labels(of: &Labelled, shape: &Shape) -> String {
    let (values, facts) = (&of.values, of.series.facts.as_deref());
    let mut text = String::with_capacity(1024);
    let mut put = |name: &str, value: &dyn std::fmt::Display| {
        let before = if text.is_empty() { "" } else { "," };
        // Writing to a String does not fail.
        write!(text, "{before}{name}=\"{}\"", Escaped(value)).ok();
    };
    let set = |name: &str| {
        let found = shape.set.iter().find(|(set, _)| **set == *name);
        found.map(|(_, value)| value.of(values, facts))
    };
    for (name, value) in LABELS.iter().zip(values) {
        if let Some(value) = set(name) {
            put(name, &value);
        } else if !value.is_empty() && !shape.removed.iter().any(|removed| **removed == **name) {
            put(name, value);
        }
    }
    for (name, value) in shape.set.iter().filter(|(name, _)| !LABELS.contains(&&**name)) {
        put(name, &value.of(values, facts));
    }
    text
}

/// The facts about one end of a connection.
#[derive(Default)]
struct End {
    principal: Option<String>,
    name: Option<String>,
    namespace: Option<String>,
    app: Option<String>,
    version: Option<String>,
    cluster: Option<String>,
}

impl End {
    /// This workload. Its identity is shown only if it was used.
    fn own(own: &Workload, mutual: bool) -> Self {
        let text = |part: &Option<Box<str>>| part.as_deref().map(str::to_owned);
        Self {
            principal: text(&own.principal).filter(|_| mutual),
            name: text(&own.name),
            namespace: text(&own.namespace),
            app: text(&own.app),
            version: text(&own.version),
            cluster: text(&own.cluster),
        }
    }

    /// A peer of which only the SPIFFE ID is known.
    fn peer(principal: Option<&str>) -> Self {
        let id = principal.and_then(|text| SpiffeId::parse(text).ok());
        let workload = id.as_ref().and_then(SpiffeId::workload);
        Self {
            principal: principal.map(str::to_owned),
            name: workload.map(|workload| workload.name().to_owned()),
            namespace: workload.map(|workload| workload.namespace().to_owned()),
            ..Self::default()
        }
    }
}

/// The values of all labels of a series, in the order of [`LABELS`]. An empty label is left out.
fn values(standard: &Standard, series: &Known) -> [String; LABELS.len()] {
    let (key, facts) = (&series.key, &series.target.facts);
    let known = |text: Option<String>| text.unwrap_or_else(|| UNKNOWN.to_owned());
    let (source, destination) = match key.reporter {
        Reporter::Source => {
            let own = End::own(&standard.own, facts.mutual);
            (own, End::peer(facts.principal.as_deref()))
        }
        Reporter::Destination => {
            let peer = End::peer(series.source.principal.as_deref());
            (peer, End::own(&standard.own, key.mutual))
        }
    };
    let service = facts.service.as_deref();
    // A name of Kubernetes: NAME.NAMESPACE.svc.DOMAIN.
    let parts = service.and_then(|service| {
        let mut parts = service.splitn(4, '.');
        let (name, namespace, kind) = (parts.next()?, parts.next()?, parts.next()?);
        (kind == "svc").then(|| (name.to_owned(), namespace.to_owned()))
    });
    let (service_name, service_namespace) = match parts {
        Some((name, namespace)) => (Some(name), Some(namespace)),
        None => (service.map(str::to_owned), destination.namespace.clone()),
    };
    let is_http = key.spoken != Spoken::Tcp;
    let flags = match (key.delayed, key.flag) {
        (false, None) => "-".to_owned(),
        (false, Some(flag)) => flag.letters().to_owned(),
        (true, None) => "DI".to_owned(),
        (true, Some(flag)) => format!("DI,{}", flag.letters()),
    };
    let policy = match (key.reporter, key.mutual) {
        (Reporter::Source, _) => UNKNOWN,
        (_, true) => "mutual_tls",
        (_, false) => "none",
    };
    let revision = |end: &End| end.version.clone();
    [
        key.reporter.label().to_owned(),
        known(source.name.clone()),
        known(source.app.clone().or_else(|| source.name.clone())),
        known(revision(&source)),
        known(source.namespace),
        known(source.principal),
        known(source.app),
        known(source.version),
        known(source.cluster),
        known(destination.name.clone()),
        known(destination.namespace.clone()),
        known(destination.principal.clone()),
        known(destination.app.clone()),
        known(destination.version.clone()),
        known(service.map(str::to_owned)),
        known(destination.app.clone().or_else(|| destination.name.clone())),
        known(revision(&destination)),
        known(service_name),
        known(service_namespace),
        known(destination.cluster),
        key.spoken.label().to_owned(),
        if is_http { key.status.to_string() } else { String::new() },
        key.grpc.map(|code| code.to_string()).unwrap_or_default(),
        flags,
        policy.to_owned(),
    ]
}
