//! Settings of the process; `None` for the default of each value.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Http2Limits, Item};

/// Settings of the process.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The number of workers.
    pub workers: Option<usize>,
    /// The kernel interface.
    pub driver: Driver,
    /// Where the admin interface listens.
    pub admin: AdminBind,
    /// The length of a drain.
    pub drain: Option<Duration>,
    /// Limits on clients.
    pub limits: Limits,
    /// The access log; `None` for none.
    pub access_log: Option<AccessLog>,
}

/// A kernel interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// io_uring, or epoll where io_uring is forbidden.
    #[default]
    Auto,
    /// io_uring.
    IoUring,
    /// epoll.
    Epoll,
}

/// Where the admin interface listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdminBind {
    /// At the default address.
    #[default]
    Default,
    /// Nowhere.
    Off,
    /// At this address.
    At(SocketAddr),
}

/// Limits on clients.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Open connections of all listeners.
    pub connections: Option<u32>,
    /// Bytes of a message head.
    pub header_bytes: Option<Item<usize>>,
    /// Field lines of a message head.
    pub headers: Option<Item<u32>>,
    /// Bytes of a request target.
    pub uri_bytes: Option<usize>,
    /// Bytes of all chunk extensions of a message.
    pub chunk_extension_bytes: Option<usize>,
    /// Bytes of the trailers of a message.
    pub trailer_bytes: Option<usize>,
    /// Limits on frames of HTTP/2.
    pub http2: Http2Limits,
}

/// The access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Where it goes.
    pub sink: LogSink,
    /// Text lines instead of JSON.
    pub text: bool,
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogSink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file.
    File(PathBuf),
}
