//! An HTTP/2 connection below the `h2` crate: its bytes, its PINGs, and the watch over its peer.

mod adapter;
mod ping;
mod watch;

use std::time::Duration;

pub use adapter::Adapter;
pub use ping::Pings;
pub use watch::{Watch, report};

/// How long a connection may take to close after GOAWAY.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The number of streams that we have reset and still remember, for one second each. Frames that
/// were in flight for them are not errors of the peer.
pub const RESET_STREAMS_MAX: usize = 1000;
