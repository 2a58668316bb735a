//! Limits the buffers that a slow peer occupies.
//!
//! A write that waits for a slow receiver holds its buffer. So no more of a body is read than the
//! receiver accepts without waiting. If it accepts too little, the proxy waits before it takes a
//! buffer for the read. A read that waits for a slow sender returns its buffer to the pool.
//!
//! At the limit of all buffers, no body waits with a buffer after its first portion: each one waits
//! for a receiver that accepts it, and for its sender, before it takes one. Nothing waits for a
//! buffer, so held bytes are always written, and a fast body goes on beside slow ones.

use std::cell::{Cell, OnceCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use crate::runtime::alarm::Alarm;
use crate::runtime::buffer::{BUFFER_BYTES, Buf, BufferPool};
use crate::runtime::io::{Io, Read, Stream};
use crate::wire::Wire;

/// If the receiver has less free space than this, reading the body waits. A TLS source returns
/// whole records, and this is their maximum size.
pub const ROOM_MIN_BYTES: usize = 16 * 1024;

/// The smallest portion. A send buffer may be so small that it never has [`ROOM_MIN_BYTES`] free.
const PORTION_MIN_BYTES: usize = 1024;

/// How long a read keeps its buffer while it waits. A source that sends steadily is then read with
/// one operation.
const BUFFER_GRACE: Duration = Duration::from_millis(200);

/// If the receiver accepts fewer bytes than this, the size of the next read is limited.
const AMPLE_BYTES: usize = 2 * BUFFER_BYTES;

/// How much of a message is sent without asking for the free space of the socket. An empty send
/// buffer accepts this much even if the peer's receive buffer is full: that of a new connection has
/// 85 KiB. So a body of 32 KiB needs no extra system call.
const UNASKED_BYTES: usize = 64 * 1024;

/// The state of one direction: how much the receiver accepts without waiting.
pub struct Pace {
    /// The number of bytes that the receiver accepts without waiting, as far as it is known.
    ahead_bytes: Cell<usize>,
    /// The timer after which a waiting read returns its buffer.
    grace: OnceCell<Alarm>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { ahead_bytes: Cell::new(UNASKED_BYTES), grace: OnceCell::new() }
    }
}

/// The minimum room for reading the head of a response. Most heads fit into it, together with only
/// few bytes of the body.
const HEAD_BYTES: usize = 4 * 1024;

impl Pace {
    /// The state for a message to `sink`. The windows of an HTTP/2 stream are known without a
    /// system call.
    pub fn to<S: Stream>(sink: &Wire<S>) -> Self {
        let pace = Self::default();
        match sink {
            Wire::Client(client) if client.takes(1) => pace.ahead_bytes.set(client.share()),
            Wire::Client3(client) if client.takes(1) => pace.ahead_bytes.set(client.share()),
            _ if sink.version().is_multiplexed() => pace.ahead_bytes.set(0),
            _ => {}
        }
        pace
    }

    /// The state for the head of a response and the beginning of its body. An HTTP/2 client may
    /// accept only little of it now.
    pub fn of_head<S: Stream>(client: &Wire<S>) -> Self {
        let pace = Self::default();
        if let Some(share) = client.share() {
            pace.ahead_bytes.set(share.max(HEAD_BYTES));
        }
        pace
    }

    /// Whether to call [`Pace::renew`] before the next read. The caller must drop its buffer before
    /// that.
    pub fn is_due(&self, buffers: &BufferPool) -> bool {
        self.ahead_bytes.get() < BUFFER_BYTES || buffers.is_full()
    }

    /// Asks `sink` for its free space, and waits while there is too little. Calls `waits` when it
    /// begins to wait.
    pub async fn renew(&self, buffers: &BufferPool, sink: &impl Stream, waits: impl FnOnce()) {
        let room = pin!(sink.room(ROOM_MIN_BYTES));
        let waits = || {
            if buffers.is_full() {
                buffers.count_pause();
            }
            waits();
        };
        let room = noticed(room, waits).await;
        self.ahead_bytes.set(room.max(PORTION_MIN_BYTES));
    }

    /// Limits the next read into `buf` to the bytes that the receiver accepts. The limit lets a TLS
    /// source read whole records: it would hold the rest of a record while the body waits.
    pub fn limit(&self, buf: &mut Buf) {
        if self.ahead_bytes.get() < AMPLE_BYTES {
            buf.limit_room(self.ahead_bytes.get().min(buf.room().saturating_sub(1)));
        }
    }

    /// Like [`Stream::read`] from `source` into an empty buffer, but limited to the bytes that the
    /// receiver accepts. While the source sends nothing for more than [`BUFFER_GRACE`], it holds no
    /// buffer.
    pub async fn read<I: Io>(
        &self,
        io: &I,
        source: &impl Stream,
        mut buf: Buf,
    ) -> (io::Result<Read>, Buf) {
        if !io.buffers().is_crowded() {
            let grace = self.grace.get_or_init(|| io.alarms().alarm());
            grace.set(io.now() + BUFFER_GRACE);
            self.limit(&mut buf);
            match source.read_or_woken(buf, grace).await {
                (Ok(Read::Woken), back) => buf = back,
                done => return done,
            }
        }
        drop(buf);
        Box::pin(self.read_ready(io, source)).await
    }

    /// Waits until `source` is readable. Takes a buffer only after that.
    async fn read_ready<I: Io>(&self, io: &I, source: &impl Stream) -> (io::Result<Read>, Buf) {
        let ready = source.readable().await;
        let mut buf = io.buffers().take();
        if let Err(error) = ready {
            return (Err(error), buf);
        }
        self.limit(&mut buf);
        source.read(buf).await
    }

    /// Counts `bytes` that are sent to the receiver.
    pub fn passed(&self, bytes: usize) {
        self.ahead_bytes.set(self.ahead_bytes.get().saturating_sub(bytes));
    }
}

/// Returns the output of `operation`. Calls `waits` once if the operation is pending. The caller
/// pins the operation: an async function would hold it twice.
pub async fn noticed<T>(
    mut operation: Pin<&mut impl Future<Output = T>>,
    waits: impl FnOnce(),
) -> T {
    let mut waits = Some(waits);
    poll_fn(|context| {
        let polled = operation.as_mut().poll(context);
        if polled.is_pending()
            && let Some(waits) = waits.take()
        {
            waits();
        }
        polled
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_32_kib_asks_its_sink_nothing() {
        let (pace, buffers) = (Pace::default(), BufferPool::default());
        for portion in [31, 1] {
            assert!(!pace.is_due(&buffers));
            pace.passed(portion * 1024);
        }
        pace.passed(1024);
        assert!(pace.is_due(&buffers));
    }

    #[test]
    fn at_the_limit_of_all_buffers_each_portion_asks_its_sink() {
        let (pace, buffers) = (Pace::default(), BufferPool::default());
        buffers.limit(BUFFER_BYTES);
        assert!(!pace.is_due(&buffers));
        let held = buffers.take();
        assert!(pace.is_due(&buffers));
        drop(held);
        assert!(!pace.is_due(&buffers));
    }
}
