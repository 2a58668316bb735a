//! Istio's standard metrics: the series, their labels, and the settings that change them.
//!
//! A series has one set of labels. Its [`Key`] has numbers instead of names, so a worker finds it
//! without building a text. The names belong to a client ([`Party`]), which is looked up once for
//! each connection, or to a service ([`Target`]), which is looked up when the configuration is
//! compiled.

mod cache;
mod facts;
mod metric;
mod store;

use std::sync::Arc;
use std::time::Duration;

use crate::cells::{Count, Histogram};
use crate::error::Flag;

pub use cache::Cache;
pub use facts::{Fact, LabelValue, RequestFacts, put_facts};
pub use metric::{LABELS, Metric, Shape};
pub use store::{Known, SERIES_MAX, Store};

/// The time after which a series without traffic is dropped, by default.
pub const UNUSED_AFTER: Duration = Duration::from_secs(15 * 60);

/// The side of a connection that reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The proxy of the client: outbound listeners.
    Source,
    /// The proxy of the service: inbound listeners.
    Destination,
}

impl Reporter {
    /// Both sides, in the order of [`Reporter::index`].
    pub const ALL: [Self; 2] = [Self::Source, Self::Destination];

    /// The position in [`Reporter::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The value of the label `reporter`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// The protocol of a request or connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spoken {
    /// HTTP.
    Http,
    /// gRPC.
    Grpc,
    /// Opaque bytes.
    Tcp,
}

impl Spoken {
    /// The value of the label `request_protocol`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }
}

/// All that distinguishes a series from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The number of the client ([`Party::id`]).
    pub source: u32,
    /// The number of the service ([`Target::id`]).
    pub target: u32,
    /// The side that reports.
    pub reporter: Reporter,
    /// The protocol.
    pub spoken: Spoken,
    /// Whether the client has proved its identity by mutual TLS.
    pub mutual: bool,
    /// The status of the response; 0 if there was none.
    pub status: u16,
    /// The response flag.
    pub flag: Option<Flag>,
    /// Whether a fault has delayed the request.
    pub delayed: bool,
    /// The status of a gRPC call.
    pub grpc: Option<u8>,
    /// The number of the facts about the request ([`RequestFacts::id`]). 0 if no override shows any
    /// fact.
    pub facts: u32,
}

/// The client of a connection.
#[derive(Debug)]
pub struct Party {
    /// The number of the client in [`Key::source`].
    pub id: u32,
    /// Its SPIFFE ID. `None` if it is unknown.
    pub principal: Option<Box<str>>,
}

/// A service, as the labels of a destination show it.
#[derive(Debug)]
pub struct Target {
    /// The number of the service in [`Key::target`].
    pub id: u32,
    /// The facts about the service.
    pub facts: TargetFacts,
}

/// The facts about a service that labels show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TargetFacts {
    /// The name of the service. `None` if it is unknown.
    pub service: Option<Box<str>>,
    /// The SPIFFE ID that its endpoints must have. `None` if there is not exactly one.
    pub principal: Option<Box<str>>,
    /// Whether connections to it use the identity of this workload.
    pub mutual: bool,
}

/// The counters of HTTP requests and gRPC calls of a series, for one worker.
#[derive(Debug, Default)]
pub struct HttpCells {
    /// The times from the head of the request to the end of the response. Its count is the number
    /// of requests.
    pub duration: Histogram,
    /// The sizes of the bodies of requests.
    pub request_bytes: Histogram,
    /// The sizes of the bodies of responses.
    pub response_bytes: Histogram,
    /// gRPC messages from clients.
    pub request_messages: Count,
    /// gRPC messages to clients.
    pub response_messages: Count,
}

/// The counters of TCP connections of a series, for one worker.
#[derive(Debug, Default)]
pub struct TcpCells {
    /// Connections opened.
    pub opened: Count,
    /// Connections closed.
    pub closed: Count,
    /// Bytes to the client.
    pub sent_bytes: Count,
    /// Bytes from the client.
    pub received_bytes: Count,
    /// The connections that count into this series now (gauge).
    pub active: Count,
}

/// Istio's standard metrics, as they are configured.
#[derive(Debug)]
pub struct Standard {
    /// The series. They survive reloads.
    pub store: Arc<Store>,
    /// The description of this workload.
    pub own: Workload,
    /// How each metric is shown, by `Reporter::index` and `Metric::index`.
    pub shapes: [[Shape; Metric::ALL.len()]; 2],
    /// The facts about requests that an override shows.
    pub facts: Arc<[Fact]>,
    /// The time without traffic after which a series is dropped. `None` means never.
    pub unused_after: Option<Duration>,
    /// The maximum number of series. It holds from when the configuration is in use.
    pub max: usize,
}

/// The description of this workload, for labels. `None` means that a part is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// The SPIFFE ID.
    pub principal: Option<Box<str>>,
    /// The name of the workload.
    pub name: Option<Box<str>>,
    /// Its namespace.
    pub namespace: Option<Box<str>>,
    /// The name of the application.
    pub app: Option<Box<str>>,
    /// The version of the application.
    pub version: Option<Box<str>>,
    /// The name of the cluster.
    pub cluster: Option<Box<str>>,
    /// The service that captured inbound requests are for.
    pub service: Option<Box<str>>,
}
