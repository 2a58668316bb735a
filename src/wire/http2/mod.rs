//! A connection of HTTP/2 under the `h2` crate: its bytes, its PINGs, and the watch on its peer.

mod adapter;
mod ping;
mod watch;

use std::time::Duration;

pub use adapter::Adapter;
pub use ping::Pings;
pub use watch::{Watch, report};

/// How long a connection that has said goodbye may take to go.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Streams that we have reset and still know, so that what was under way is not taken for a
/// mistake of the peer; for a second each.
pub const RESET_STREAMS_MAX: usize = 1000;
