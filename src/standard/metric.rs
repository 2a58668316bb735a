//! The standard metrics, and how the configuration changes their labels.

use super::LabelValue;

/// One of Istio's standard metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Requests.
    RequestCount,
    /// Durations of requests.
    RequestDuration,
    /// Sizes of the bodies of requests.
    RequestSize,
    /// Sizes of the bodies of responses.
    ResponseSize,
    /// Messages of gRPC clients.
    GrpcRequestMessages,
    /// Messages to gRPC clients.
    GrpcResponseMessages,
    /// Opened TCP connections.
    TcpOpenedConnections,
    /// Closed TCP connections.
    TcpClosedConnections,
    /// Bytes to TCP clients.
    TcpSentBytes,
    /// Bytes from TCP clients.
    TcpReceivedBytes,
}

impl Metric {
    /// All metrics, in the order of [`Metric::index`].
    pub const ALL: [Self; 10] = [
        Self::RequestCount,
        Self::RequestDuration,
        Self::RequestSize,
        Self::ResponseSize,
        Self::GrpcRequestMessages,
        Self::GrpcResponseMessages,
        Self::TcpOpenedConnections,
        Self::TcpClosedConnections,
        Self::TcpSentBytes,
        Self::TcpReceivedBytes,
    ];

    /// The position in [`Metric::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The name of the metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::RequestCount => "istio_requests_total",
            Self::RequestDuration => "istio_request_duration_milliseconds",
            Self::RequestSize => "istio_request_bytes",
            Self::ResponseSize => "istio_response_bytes",
            Self::GrpcRequestMessages => "istio_request_messages_total",
            Self::GrpcResponseMessages => "istio_response_messages_total",
            Self::TcpOpenedConnections => "istio_tcp_connections_opened_total",
            Self::TcpClosedConnections => "istio_tcp_connections_closed_total",
            Self::TcpSentBytes => "istio_tcp_sent_bytes_total",
            Self::TcpReceivedBytes => "istio_tcp_received_bytes_total",
        }
    }

    /// The help text of the metric.
    pub fn help(self) -> &'static str {
        match self {
            Self::RequestCount => "HTTP requests and gRPC calls.",
            Self::RequestDuration => "Time from the request head to the end of the response.",
            Self::RequestSize => "Sizes of the bodies of requests.",
            Self::ResponseSize => "Sizes of the bodies of responses.",
            Self::GrpcRequestMessages => "gRPC messages from clients.",
            Self::GrpcResponseMessages => "gRPC messages to clients.",
            Self::TcpOpenedConnections => "TCP connections opened.",
            Self::TcpClosedConnections => "TCP connections closed.",
            Self::TcpSentBytes => "Bytes to TCP clients.",
            Self::TcpReceivedBytes => "Bytes from TCP clients.",
        }
    }
}

/// The labels of the standard metrics.
pub const LABELS: [&str; 25] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];

/// How a metric is shown on one side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Whether the metric is left out.
    pub disabled: bool,
    /// The labels that are left out. Series that then have the same labels are added up.
    pub removed: Vec<Box<str>>,
    /// The labels that get another value, or that are added.
    pub set: Vec<(Box<str>, LabelValue)>,
}
