//! Settings of the process. `None` means the default value.

use std::path::PathBuf;
use std::time::Duration;

use super::{
    Admin, Http2Limits, Http3Limits, Item, Material, Metrics, Overload, Sources, Tracing, Zone,
};

/// Settings of the process.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The number of worker threads.
    pub workers: Option<usize>,
    /// Whether each worker is pinned to its own CPU. `None` means that the process decides at its
    /// start.
    pub pin: Option<bool>,
    /// The kernel interface that the workers use.
    pub driver: Driver,
    /// The directory for state that survives restarts.
    pub state_dir: Option<PathBuf>,
    /// The zone of this proxy. `None` means that zones are ignored.
    pub zone: Option<Item<Zone>>,
    /// The admin interface.
    pub admin: Admin,
    /// How the process drains.
    pub drain: Drain,
    /// How the kernel detects a dead TCP peer. A listener or service may have its own settings.
    pub tcp: Tcp,
    /// How long the last addresses of a DNS name stay in use after the name has lost all its
    /// addresses.
    pub gone_after: Option<Duration>,
    /// Limits on clients.
    pub limits: Limits,
    /// The overload protection of the process.
    pub overload: Overload,
    /// The target, the format and the filter of the access log.
    pub access_log: AccessLog,
    /// Traces. `None` means that trace contexts pass unread.
    pub tracing: Option<Tracing>,
    /// Istio's standard metrics.
    pub metrics: Metrics,
    /// The servers that are asked for more of the configuration.
    pub sources: Sources,
}

/// How the process drains.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drain {
    /// The time limit for requests in progress. After it, all connections are closed.
    pub inbound: Option<Duration>,
    /// How long outbound listeners accept connections during a drain.
    pub outbound: OutboundDrain,
}

/// How long outbound listeners accept during a drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutboundDrain {
    /// Until the last inbound connection has closed.
    #[default]
    After,
    /// Outbound listeners drain together with the inbound listeners.
    With,
    /// Like `After`, but for at least this time.
    AtLeast(Duration),
}

/// A kernel interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// io_uring, or epoll where io_uring is not allowed.
    #[default]
    Auto,
    /// io_uring. If it is not allowed, the process does not start.
    IoUring,
    /// epoll, even if io_uring is allowed.
    Epoll,
}

/// How the kernel detects a dead TCP peer. `None` means the value of the surrounding settings.
#[derive(Clone, Debug, Default)]
pub struct Tcp {
    /// TCP keep-alive probes. `Some(None)` means no probes.
    pub keepalive: Option<Item<Option<Keepalive>>>,
    /// How long sent bytes may stay unacknowledged (TCP_USER_TIMEOUT). `Some(None)` means the
    /// default of the kernel.
    pub user_timeout: Option<Item<Option<Duration>>>,
}

/// TCP keep-alive.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keepalive {
    /// The idle time before the first probe.
    pub time: Option<Duration>,
    /// The time between two probes.
    pub interval: Option<Duration>,
    /// The number of unanswered probes after which the connection is closed.
    pub probes: Option<u32>,
}

/// Limits on clients.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// The maximum number of open connections, over all listeners.
    pub connections: Option<Item<u32>>,
    /// The maximum number of bytes of a message head.
    pub header_bytes: Option<Item<usize>>,
    /// The maximum number of field lines of a message head.
    pub headers: Option<Item<u32>>,
    /// The maximum number of bytes of a request target.
    pub uri_bytes: Option<usize>,
    /// The maximum number of bytes of all chunk extensions of a message.
    pub chunk_extension_bytes: Option<usize>,
    /// The maximum number of bytes of the trailers of a message.
    pub trailer_bytes: Option<usize>,
    /// The maximum number of bytes of all buffers.
    pub buffer_bytes: Option<Item<usize>>,
    /// The maximum number of mirrored requests that one worker may have in progress.
    pub mirrored_requests: Option<u32>,
    /// The maximum number of keys of one rate limit.
    pub rate_limit_keys: Option<Item<u32>>,
    /// Limits on HTTP/2 frames.
    pub http2: Http2Limits,
    /// Limits on HTTP/3 frames and streams that carry no message data.
    pub http3: Http3Limits,
}

/// The access log.
#[derive(Clone, Debug, Default)]
pub struct AccessLog {
    /// Where the lines are written. `None` means standard error.
    pub sink: Option<LogSink>,
    /// The URL of a collector that gets the lines instead.
    pub otlp: Option<Item<String>>,
    /// The CAs of the collector's certificate.
    pub ca: Option<Item<Material>>,
    /// The name of this proxy's service at the collector.
    pub service: Option<Item<String>>,
    /// The format of a line: `json`, `envoy`, `istio`, or text with operators. `None` means JSON.
    pub format: Option<Item<String>>,
    /// The values of a JSON line. Empty means all.
    pub fields: Vec<Item<String>>,
    /// The exchanges that get a line: `all`, `failed`, `none`, or a filter. `None` means the
    /// default.
    pub filter: Option<Item<String>>,
    /// The share of the exchanges without a failure that gets a line, in millionths.
    pub sample: Option<Item<u32>>,
}

/// Where log lines are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogSink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, to which lines are appended.
    File(PathBuf),
    /// The syslog daemon that listens on this Unix datagram socket.
    Syslog(PathBuf),
}
