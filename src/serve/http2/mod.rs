//! Connections of HTTP/2: what reads and writes their frames. Each stream is an exchange of its
//! own.

mod adapter;
mod client;
mod endpoint;
mod ping;
mod watch;

pub use client::serve;
pub use endpoint::{open, share, stream};

use std::time::Duration;

/// How long a connection that has said goodbye may take to go.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Streams that we have reset and still know, so that what was under way is not taken for a
/// mistake of the peer; for a second each.
const RESET_STREAMS_MAX: usize = 1000;
