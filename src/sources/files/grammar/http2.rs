//! `http2:` of listeners and services, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{Placed, Size, TimeOrNone};

/// How HTTP/2 is spoken on a connection.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http2 {
    /// Streams open at once on a connection. To a service, the endpoint's own limit counts too; a
    /// further connection is opened when it is reached. Default 100.
    pub max_concurrent_streams: Option<Placed<u32>>,
    /// Bytes that the peer may send on a stream before we have passed them on. Default 256KiB.
    pub stream_window: Option<Placed<Size>>,
    /// The same for all streams of a connection together. Default 1MiB.
    pub connection_window: Option<Placed<Size>>,
    /// Bytes of a stream that are kept while its peer takes no more. Default 64KiB.
    pub stream_buffer: Option<Placed<Size>>,
    /// A connection with open streams on which nothing has come for this long is asked with PING
    /// whether it is still there. Default 30s; `none` for never.
    pub ping_interval: Option<TimeOrNone>,
    /// How long the answer to a PING may take before the connection is given up. Default 20s.
    pub ping_timeout: Option<TimeOrNone>,
    /// How old a connection gets before it is drained, give or take a tenth. Default `none`.
    pub max_connection_age: Option<TimeOrNone>,
}
