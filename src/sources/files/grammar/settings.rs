//! The grammar of `runtime:`, `drain:`, `limits:` and `telemetry:`. Its comments are the
//! descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::http2::Http2Limits;
use super::http3::Http3Limits;
use super::metrics::Metrics;
use super::tracing::Tracing;
use crate::sources::files::values::{
    AutoOrCount, OneOrMany, OutboundDrain, Placed, Portion, Size, Time,
};

/// Workers and their kernel interface.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Runtime {
    /// The number of worker threads. Default `auto`: one for each CPU that the process may use, but
    /// no more than its CPU quota (cgroups) allows.
    pub workers: Option<AutoOrCount>,
    /// Whether each worker is pinned to its own CPU. Default: only if the process may not use all
    /// CPUs of the machine, and has a worker for each CPU that it may use.
    pub pin: Option<bool>,
    /// The kernel interface. Default `auto`: io_uring, or epoll where io_uring is not allowed.
    pub driver: Driver,
    /// The directory for state that survives restarts: the places of shifts. Default: the first
    /// directory in `$STATE_DIRECTORY`, which systemd sets.
    pub state_dir: Option<Placed<String>>,
}

/// A kernel interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// io_uring, or epoll where io_uring is not allowed.
    #[default]
    Auto,
    /// io_uring. If it is not allowed, the process does not start.
    IoUring,
    /// epoll, even if io_uring is allowed.
    Epoll,
}

/// How the process drains: [`DrainMap`], or only its `inbound`.
#[derive(Clone, Debug, Default)]
pub struct Drain(pub DrainMap);

/// How the process drains, in its long form.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DrainMap {
    /// The time limit for requests in progress. After it, all connections are closed. Default 30s.
    pub inbound: Option<Time>,
    /// How long outbound listeners accept connections. `after`: until the last inbound connection
    /// has closed. A time: as `after`, but at least for this time. `with`: they drain together with
    /// the inbound listeners. Default `after`.
    pub outbound: Option<OutboundDrain>,
}

/// Lookups of service names.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Dns {
    /// How long the last addresses of a name stay in use after a DNS answer that the name does not
    /// exist or has no addresses. After a failed lookup (SERVFAIL, timeout), they stay in use
    /// without limit. Default 30s.
    pub gone_after: Option<Time>,
}

/// Limits on clients.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The maximum number of open connections, over all listeners. Default 100000.
    pub connections: Option<Placed<u32>>,
    /// The maximum number of bytes of a message head. Default 60KiB.
    pub header_bytes: Option<Placed<Size>>,
    /// The maximum number of field lines of a message head, at most 256. Default 100.
    pub headers: Option<Placed<u32>>,
    /// The maximum number of bytes of a request target. Default 8KiB.
    pub uri_bytes: Option<Size>,
    /// The maximum number of bytes of all chunk extensions of a message. Default 4KiB.
    pub chunk_extension_bytes: Option<Size>,
    /// The maximum number of bytes of the trailers of a message. Default 8KiB.
    pub trailer_bytes: Option<Size>,
    /// The number of bytes of all buffers at which HTTP/1 bodies and tunnels are read only while
    /// their receivers accept bytes. Default: a quarter of the memory of the machine, or of the
    /// cgroup's memory limit if that is less.
    pub buffer_bytes: Option<Placed<Size>>,
    /// The maximum number of mirrored requests in progress, for each worker. Default 256.
    pub mirrored_requests: Option<u32>,
    /// The maximum number of keys of one rate limit: header values, identities or addresses. In a
    /// full table, a new key replaces another one. Default 100000.
    pub rate_limit_keys: Option<Placed<u32>>,
    /// Limits on HTTP/2 frames that carry no message data.
    pub http2: Http2Limits,
    /// Limits on HTTP/3 frames and streams that carry no message data.
    pub http3: Http3Limits,
}

/// The logs of the proxy.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// The access log: one line for each exchange. Default: only failed exchanges, on standard
    /// error.
    pub access_log: AccessLog,
    /// Traces. Default: none, and trace contexts pass unread.
    pub tracing: Option<Placed<Tracing>>,
    /// Istio's standard metrics.
    pub metrics: Metrics,
}

/// The access log: one line for each exchange, which is a request and its response.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// `stdout`, `stderr`, `syslog`, `syslog:SOCKET` or a file. A relative path is relative to the
    /// configuration file. Default `stderr`.
    pub path: Option<Placed<String>>,
    /// A collector that gets the lines as log records of OTLP, in place of `path`:
    /// `http://HOST:4318` or `grpc://HOST:4317`; `https://` and `grpcs://` with TLS. Default: none.
    pub otlp: Option<Placed<String>>,
    /// PEM file with the CAs of the collector's certificate. Default: those of the system.
    pub ca: Option<Placed<String>>,
    /// The name of this proxy's service at the collector, `service.name`. Default: that of
    /// `tracing`, else `ringway`.
    pub service: Option<Placed<String>>,
    /// The format of a line: `json`; `envoy` or `istio` for their default text formats; or text
    /// with Envoy's operators, such as `'%REQ(:METHOD)% %RESPONSE_CODE%'`. Default `json`.
    pub format: Option<Placed<String>>,
    /// The values of a JSON line, by the names of filters. Default: all that the exchange has.
    pub fields: OneOrMany<Placed<String>>,
    /// The exchanges that get a line: `all`, `failed`, `none`, or a filter, such as `'status >= 500
    /// or duration > 250ms'`. Default: `all` if there is a `path` or `otlp`, else `failed`.
    pub filter: Option<Placed<String>>,
    /// The share of the exchanges without a failure that gets a line. An exchange that has failed
    /// always gets one. Default 100%.
    pub sample: Option<Placed<Portion>>,
}
