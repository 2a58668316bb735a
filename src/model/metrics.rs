//! `telemetry.metrics`: Istio's standard metrics, and the buckets of the proxy's own ones.

use std::time::Duration;

use super::Item;

/// The settings of Istio's standard metrics. `None` means the default.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Whether they are on.
    pub istio: Option<bool>,
    /// The description of this workload.
    pub workload: WorkloadFacts,
    /// The maximum number of label sets.
    pub series: Option<Item<u32>>,
    /// The time after which a label set without traffic is dropped.
    pub unused_after: Option<Duration>,
    /// Changes of metrics, in order.
    pub overrides: Vec<Item<MetricOverride>>,
    /// Whether the durations of requests to services have exponential buckets.
    pub exponential_buckets: bool,
}

/// The description of this workload. `None` means that a part is unknown.
#[derive(Clone, Debug, Default)]
pub struct WorkloadFacts {
    /// The name.
    pub name: Option<String>,
    /// The namespace.
    pub namespace: Option<String>,
    /// The name of the application.
    pub app: Option<String>,
    /// The version of the application.
    pub version: Option<String>,
    /// The name of the cluster.
    pub cluster: Option<String>,
    /// The service of captured inbound requests.
    pub service: Option<String>,
}

/// A change of one metric, or of all.
#[derive(Clone, Debug, Default)]
pub struct MetricOverride {
    /// The metric. `None` means all of them.
    pub metric: Option<StandardMetric>,
    /// Whether outbound listeners are meant.
    pub client: bool,
    /// Whether inbound listeners are meant.
    pub server: bool,
    /// Whether the metric is left out. `None` means no change.
    pub disabled: Option<bool>,
    /// The labels to leave out.
    pub remove: Vec<Item<String>>,
    /// Labels with other values: names and values.
    pub set: Vec<(Item<String>, Item<TagValue>)>,
}

/// The value of a label that an override sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagValue {
    /// A fixed text.
    Text(String),
    /// The value of another label, or a text where it is not known.
    Label(&'static str, Option<String>),
    /// A fact about the request, or a text where there is none.
    Request(RequestFact, Option<String>),
}

/// A fact about a request, for a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFact {
    /// The method.
    Method,
    /// The host, without its port.
    Host,
    /// The path, without its query.
    Path,
}

/// One of Istio's standard metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandardMetric {
    /// `istio_requests_total`.
    RequestCount,
    /// `istio_request_duration_milliseconds`.
    RequestDuration,
    /// `istio_request_bytes`.
    RequestSize,
    /// `istio_response_bytes`.
    ResponseSize,
    /// `istio_request_messages_total`.
    GrpcRequestMessages,
    /// `istio_response_messages_total`.
    GrpcResponseMessages,
    /// `istio_tcp_connections_opened_total`.
    TcpOpenedConnections,
    /// `istio_tcp_connections_closed_total`.
    TcpClosedConnections,
    /// `istio_tcp_sent_bytes_total`.
    TcpSentBytes,
    /// `istio_tcp_received_bytes_total`.
    TcpReceivedBytes,
}
