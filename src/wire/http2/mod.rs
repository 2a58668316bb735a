//! The transport of an HTTP/2 connection, and the log line about a peer that exceeded a limit.

mod transport;

use std::fmt::Display;
use std::time::Duration;

pub use transport::Transport;

use crate::cells::Count;
use crate::http2::{Excess, Flood};
use crate::runtime::core::Core;
use crate::runtime::io::Io;

/// How long a connection may take to close after GOAWAY.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Counts and logs a connection that was closed because its peer exceeded a limit. `counts` are the
/// counters of its listener or service. `owner` is `listener NAME` or `service NAME`.
pub fn report<I: Io>(
    core: &Core<I>,
    counts: &[Count; Flood::ALL.len()],
    excess: Excess,
    owner: &dyn Display,
    peer: &dyn Display,
) {
    counts[excess.flood.index()].increment();
    core.log_limited(|suppressed| {
        let (limit, limit_value) = (excess.flood.label(), excess.limit);
        tracing::warn!(
            %peer,
            limit,
            limit_value,
            suppressed,
            "HTTP/2 connection closed: the peer exceeded a limit of {owner}"
        );
    });
}
