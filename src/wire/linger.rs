//! Closes a connection in order while its peer may still send.

use std::time::Duration;

use super::Wire;
use crate::runtime::alarm::Alarm;
use crate::runtime::io::{Io, Read, Stream};

/// How long a closing connection is still read. Without this, a reset could destroy the last
/// response.
pub const LINGER: Duration = Duration::from_secs(2);
/// The maximum number of bytes that are read from a closing connection.
pub const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// Shuts down our side of the connection and reads the client's bytes for a short time.
pub async fn linger<I: Io>(io: &I, alarm: &Alarm, stream: &Wire<I::Stream>) {
    alarm.set(io.now() + LINGER);
    if alarm.guard(stream.shutdown_write()).await.is_err() {
        return;
    }
    let mut buf = io.buffers().take();
    let mut seen_bytes = 0;
    while seen_bytes < LINGER_BYTES_MAX {
        match alarm.guard(stream.read(buf)).await {
            Ok((Ok(Read::Data(n)), back)) => {
                seen_bytes += n;
                buf = back;
                buf.clear();
            }
            _ => return,
        }
    }
}
