//! The grammar of `telemetry.metrics:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{Entries, Placed, TimeOrNone};

/// Istio's standard metrics on the page `/metrics`, and the buckets of the proxy's own metrics,
/// which are always there.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Whether the page has `istio_requests_total` and Istio's other standard metrics. Default:
    /// true if `mesh` has an identity or captures traffic.
    pub istio: Option<bool>,
    /// The description of this workload, for the labels of Istio's metrics.
    pub workload: Workload,
    /// The maximum number of label sets of Istio's metrics. Further ones count together, with the
    /// client and the service `other`. Default 2000.
    pub series: Option<Placed<u32>>,
    /// The time after which a label set without traffic is dropped; `none` for never. Default 15m.
    pub unused_after: Option<TimeOrNone>,
    /// Changes of Istio's metrics, in order: a later one wins.
    pub overrides: Vec<Placed<MetricOverride>>,
    /// The buckets of `ringway_service_request_duration_seconds`. Default `fixed`.
    pub buckets: Buckets,
}

/// The buckets of the histogram of the durations of requests to services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Buckets {
    /// The 19 of Envoy and Istio, from 0.5 ms to an hour.
    #[default]
    Fixed,
    /// Two for each power of two, from 64 microseconds to 67 seconds.
    Exponential,
}

/// The description of this workload, for the labels of Istio's metrics.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Workload {
    /// The name. Default: from the SPIFFE ID of `mesh.identity`.
    pub name: Option<String>,
    /// The namespace. Default: from the SPIFFE ID of `mesh.identity`.
    pub namespace: Option<String>,
    /// The name of the application. Default: unknown.
    pub app: Option<String>,
    /// The version of the application. Default: unknown.
    pub version: Option<String>,
    /// The name of the cluster. Default: unknown.
    pub cluster: Option<String>,
    /// The service of captured inbound requests whose destination is not the address of a service.
    /// Default: `InboundPassthroughCluster`.
    pub service: Option<String>,
}

/// A change of one of Istio's metrics, or of all, on one side or both.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MetricOverride {
    /// The metric. Default `all_metrics`.
    pub metric: MetricName,
    /// The side: `client` for outbound listeners, `server` for inbound ones. Default
    /// `client_and_server`.
    pub mode: MetricMode,
    /// Whether the metric is left out.
    pub disabled: Option<bool>,
    /// Changes of the labels.
    pub tags: Tags,
}

/// Changes of the labels of a metric.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tags {
    /// The labels to leave out. Series that then have the same labels are added up.
    pub remove: Vec<Placed<String>>,
    /// Labels with fixed values, which replace the standard ones or are added.
    pub set: Entries<Placed<String>>,
    /// Labels with a fact about the request: `method`, `host` or `path`. Clients choose them, so
    /// `series` bounds their number; the excess counts as `other`.
    pub from_request: Entries<Placed<RequestFact>>,
}

/// A fact about a request, for a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestFact {
    /// The method.
    Method,
    /// The host, without its port.
    Host,
    /// The path, without its query.
    Path,
}

/// One of Istio's standard metrics, by its name in Istio's Telemetry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MetricName {
    /// All of them.
    #[default]
    AllMetrics,
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

/// The side that reports a metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MetricMode {
    /// Outbound listeners: `reporter="source"`.
    Client,
    /// Inbound listeners: `reporter="destination"`.
    Server,
    /// Both.
    #[default]
    ClientAndServer,
}
