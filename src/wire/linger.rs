//! The orderly end of a connection whose peer may still send.

use std::time::Duration;

use super::Wire;
use crate::runtime::alarm::Alarm;
use crate::runtime::io::{Io, Read, Stream};

/// How long a closing connection is still read, so that the client gets the last response instead
/// of a reset.
pub const LINGER: Duration = Duration::from_secs(2);
/// The most bytes that a closing connection still reads.
pub const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// Shuts down our side and reads the client's bytes for a short time. Otherwise a reset could
/// destroy the last response.
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
