//! Ends a connection so that the peer receives all written bytes first.
//!
//! A client that still sends when it gets its answer may read the answer only after it has sent
//! everything. A reset would destroy the answer, so the rest is read and discarded for some time
//! (RFC 9112 9.6). The limit is a time and not a number of bytes: the sender of a large upload must
//! learn that it was refused, too.

use std::future::pending;
use std::time::Duration;

use super::Wire;
use crate::runtime::alarm::Alarm;
use crate::runtime::io::{Io, Read, Stream};

/// How long a closing connection is read.
#[derive(Clone, Copy)]
pub struct Patience {
    /// The longest time in total.
    pub total: Duration,
    /// The longest time without a byte from the peer.
    pub silence: Duration,
}

/// For a client that got an answer before it had sent its whole request.
pub const ANSWERED: Patience =
    Patience { total: Duration::from_secs(30), silence: Duration::from_secs(5) };

/// For a peer that exceeded a limit.
pub const EXCEEDED: Patience =
    Patience { total: Duration::from_secs(2), silence: Duration::from_secs(2) };

/// Shuts down our side of the connection, and discards what the peer sends until it closes or our
/// patience ends.
pub async fn linger<I: Io>(io: &I, alarm: &Alarm, stream: &Wire<I::Stream>, patience: Patience) {
    let end = io.now() + patience.total;
    alarm.set(end);
    if alarm.guard(stream.shutdown_write()).await.is_err() {
        return;
    }
    while io.now() < end {
        alarm.set(end.min(io.now() + patience.silence));
        // No buffer is held while the peer is silent.
        match alarm.guard(stream.readable()).await {
            Ok(Ok(())) => {}
            Err(_) if io.now() >= end => break,
            Ok(Err(_)) | Err(_) => return,
        }
        match alarm.guard(stream.read(io.buffers().take())).await {
            Ok((Ok(Read::Data(_)), _)) => {}
            _ => return,
        }
    }
    // Closing now would reset the connection. Give the peer a last moment to read the answer.
    alarm.set(io.now() + patience.silence);
    alarm.guard(pending::<()>()).await.ok();
}

/// The first and the longest pause between two checks of the unsent bytes.
const LOOK_AFTER_MIN: Duration = Duration::from_millis(1);
const LOOK_AFTER_MAX: Duration = Duration::from_millis(50);

/// The longest wait for a peer that receives nothing. It also limits a longer `idle`.
const DELIVERED_WITHIN: Duration = Duration::from_secs(120);

/// Waits until the peer's system has received all written bytes. An earlier reset would destroy the
/// bytes that are in transit. Stops if the peer's system receives nothing for `idle`.
pub async fn delivered<I: Io>(io: &I, stream: &Wire<I::Stream>, idle: Duration) {
    let idle = idle.min(DELIVERED_WITHIN);
    let mut deadline = io.now() + idle;
    let mut unsent_before = usize::MAX;
    let mut pause = LOOK_AFTER_MIN;
    loop {
        let unsent = stream.unsent_bytes();
        if unsent == 0 || io.now() >= deadline {
            return;
        }
        if unsent < unsent_before {
            deadline = io.now() + idle;
            unsent_before = unsent;
        }
        // The kernel does not report when a send buffer becomes empty.
        io.sleep_until(io.now() + pause).await;
        pause = (pause * 2).min(LOOK_AFTER_MAX);
    }
}
