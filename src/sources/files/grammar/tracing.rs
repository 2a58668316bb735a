//! The grammar of `telemetry.tracing`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{Entries, OneOrMany, Placed, Portion};

/// Traces: spans of requests and their attempts, and the trace context in their fields.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tracing {
    /// The collector: `http://HOST:4318` for OTLP over HTTP, `grpc://HOST:4317` for OTLP over gRPC;
    /// `https://` and `grpcs://` with TLS. Default: no spans are sent, and only the trace context
    /// is passed on.
    pub otlp: Option<Placed<String>>,
    /// PEM file with the CAs of the collector's certificate. Default: those of the system.
    pub ca: Option<Placed<String>>,
    /// The share of new traces whose spans are recorded. Default 1%.
    pub sample: Option<Portion>,
    /// The effect of a sampling decision of the caller. Default `follow`.
    pub parent: ParentRule,
    /// The forms in which services get the trace context: `w3c`, `b3`, `b3multi`. They also get it
    /// in the form of the request. Default `w3c`.
    pub propagation: OneOrMany<TraceForm>,
    /// The name of this proxy's service in traces, `service.name`. Default `ringway`.
    pub service: Option<Placed<String>>,
    /// Attributes of the span of each request: text, or text with the operators of the access log,
    /// such as `'%REQ(X-TENANT)%'`.
    pub custom_tags: Entries<Placed<String>>,
}

/// The effect of a sampling decision of the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParentRule {
    /// It decides.
    #[default]
    Follow,
    /// It is ignored: `sample` decides about each request.
    Ignore,
}

/// A form of the trace context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TraceForm {
    /// `traceparent` and `tracestate`.
    W3c,
    /// The single field `b3`.
    B3,
    /// The fields `x-b3-traceid` and others.
    B3Multi,
}
