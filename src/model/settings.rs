//! Settings of the process. `None` means the default value.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Http2Limits, Item};

/// Settings of the process.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The number of workers.
    pub workers: Option<usize>,
    /// Whether each worker stays on a CPU of its own. `None` means that the start decides.
    pub pin: Option<bool>,
    /// The kernel interface.
    pub driver: Driver,
    /// The address of the admin interface.
    pub admin: AdminBind,
    /// How long a drain may take.
    pub drain: Option<Duration>,
    /// Limits on clients.
    pub limits: Limits,
    /// The access log. `None` means no access log.
    pub access_log: Option<AccessLog>,
}

/// A kernel interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// io_uring, or epoll where io_uring is not allowed.
    #[default]
    Auto,
    /// io_uring only.
    IoUring,
    /// epoll.
    Epoll,
}

/// The address of the admin interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdminBind {
    /// The default address.
    #[default]
    Default,
    /// No interface.
    Off,
    /// This address.
    At(SocketAddr),
}

/// Limits on clients.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// The maximum number of open connections, over all listeners.
    pub connections: Option<u32>,
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
    /// Limits on HTTP/2 frames.
    pub http2: Http2Limits,
}

/// The access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// The target of the lines.
    pub sink: LogSink,
    /// Whether lines are text instead of JSON.
    pub text: bool,
}

/// A target of log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogSink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file.
    File(PathBuf),
}
