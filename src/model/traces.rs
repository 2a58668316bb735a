//! Traces.

use super::{Item, Material};

/// Traces. `None` means the default value.
#[derive(Clone, Debug)]
pub struct Tracing {
    /// The URL of the collector.
    pub otlp: Option<Item<String>>,
    /// The CAs of the collector's certificate.
    pub ca: Option<Item<Material>>,
    /// The share of new traces that are sampled, in millionths ([`super::SHARE_PARTS`]).
    pub sample: Option<u32>,
    /// Whether the decision of the caller holds.
    pub follows_parent: bool,
    /// The forms in which services get the context. Empty means that of W3C.
    pub forms: Vec<TraceForm>,
    /// The name of the service in traces.
    pub service: Option<String>,
    /// Attributes of the span of each request: names, and texts with operators.
    pub tags: Vec<(Item<String>, Item<String>)>,
}

/// A form of the trace context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceForm {
    /// `traceparent` and `tracestate`.
    W3c,
    /// `b3`.
    B3,
    /// `x-b3-traceid` and others.
    B3Multi,
}
