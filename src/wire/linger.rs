//! Closes a connection so that the peer first receives all written bytes.
//!
//! A client that still sends a request may read the response only after it has sent the complete
//! request. A reset would make it lose the response, so the rest of the request is read and
//! discarded for some time (RFC 9112 9.6). The limit is a time and not a number of bytes, because
//! the sender of a large upload must receive its refusal, too.

use std::future::pending;
use std::time::Duration;

use super::Wire;
use crate::runtime::alarm::Alarm;
use crate::runtime::io::{Io, Read, Stream};

/// How long a connection is still read while it is closed.
#[derive(Clone, Copy)]
pub struct Patience {
    /// The time limit in total.
    pub total: Duration,
    /// The time limit without a byte from the peer.
    pub silence: Duration,
}

/// The limits for a client that got a response before it had sent its complete request.
pub const ANSWERED: Patience =
    Patience { total: Duration::from_secs(30), silence: Duration::from_secs(5) };

/// The limits for a peer that exceeded an HTTP/2 limit or violated the protocol.
pub const EXCEEDED: Patience =
    Patience { total: Duration::from_secs(2), silence: Duration::from_secs(2) };

/// The limits for an HTTP/2 client after a graceful shutdown. A request that crosses our last
/// GOAWAY is discarded, and the client sends it elsewhere.
pub const LEFT: Patience =
    Patience { total: Duration::from_secs(1), silence: Duration::from_secs(1) };

/// Shuts down our side of the connection, and discards what the peer sends until the peer closes or
/// a limit of `patience` is reached.
pub async fn linger<I: Io>(io: &I, alarm: &Alarm, stream: &Wire<I::Stream>, patience: Patience) {
    let end = io.now() + patience.total;
    alarm.set(end);
    if alarm.guard(stream.shutdown_write()).await.is_err() {
        return;
    }
    let mut was_read = false;
    while io.now() < end {
        alarm.set(end.min(io.now() + patience.silence));
        // No buffer is held while the peer sends nothing.
        match alarm.guard(stream.readable()).await {
            Ok(Ok(())) => was_read = true,
            Err(_) if io.now() >= end => break,
            Ok(Err(_)) | Err(_) => return,
        }
        match alarm.guard(stream.read(io.buffers().take())).await {
            Ok((Ok(Read::Data(_)), _)) => {}
            _ => return,
        }
    }
    if !was_read {
        return;
    }
    // The peer still sends, so closing now would reset the connection. Wait once more, so that the
    // peer can read the response.
    alarm.set(io.now() + patience.silence);
    alarm.guard(pending::<()>()).await.ok();
}

/// The first and the longest pause between two checks of the unsent bytes.
const LOOK_AFTER_MIN: Duration = Duration::from_millis(1);
const LOOK_AFTER_MAX: Duration = Duration::from_millis(50);

/// The maximum wait for a peer that receives nothing. It also limits a longer `idle`.
const DELIVERED_WITHIN: Duration = Duration::from_secs(120);

/// Waits until the peer's kernel has acknowledged all written bytes. An earlier reset would discard
/// the bytes that are in transit. Stops if the peer's kernel acknowledges nothing for `idle`.
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
