//! Holds no buffer for a slow peer.
//!
//! A write that waits for a slow sink would hold its buffer for as long as the sink likes. So no
//! more of a body is read than the sink takes at once, and a wait before the read holds no buffer.
//! A read that waits for a slow source gives its buffer back, too.

use std::cell::{Cell, OnceCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::time::Duration;

use crate::message::Version;
use crate::runtime::alarm::Alarm;
use crate::runtime::buffer::{BUFFER_BYTES, Buf};
use crate::runtime::io::{Io, Read, Stream};
use crate::wire::Wire;

/// With less free space than this, a body waits for its sink. A TLS source gives whole records, and
/// the largest has this many bytes.
pub const ROOM_MIN_BYTES: usize = 16 * 1024;

/// The smallest portion. A send buffer may be so small that it never has [`ROOM_MIN_BYTES`].
const PORTION_MIN_BYTES: usize = 1024;

/// How long a read waits with a buffer at hand. A source that sends steadily is read with one
/// operation.
const BUFFER_GRACE: Duration = Duration::from_millis(200);

/// While a sink takes less than this, the next read may be the last one before a wait.
const AMPLE_BYTES: usize = 2 * BUFFER_BYTES;

/// How much of a message passes unasked. An empty send buffer takes this: that of a new connection
/// has 85 KiB and fills only when the peer's receive buffer is full. So a body of 64 KiB costs no
/// system call more.
const UNASKED_BYTES: usize = 96 * 1024;

/// The pace of one direction.
pub struct Pace {
    /// The number of bytes that the sink takes without waiting, as far as it is known.
    ahead_bytes: Cell<usize>,
    /// Ends the time that a read waits with a buffer.
    grace: OnceCell<Alarm>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { ahead_bytes: Cell::new(UNASKED_BYTES), grace: OnceCell::new() }
    }
}

/// The room that a read of the head of a response has at least. Most heads fit, and what comes with
/// them is little.
const HEAD_BYTES: usize = 4 * 1024;

impl Pace {
    /// The pace of a message to `sink`. A system call is not needed for the windows of a stream of
    /// HTTP/2.
    pub fn to<S: Stream>(sink: &Wire<S>) -> Self {
        let pace = Self::default();
        match sink {
            Wire::Client(client) if client.takes(1) => pace.ahead_bytes.set(client.share()),
            _ if sink.version() == Version::Http2 => pace.ahead_bytes.set(0),
            _ => {}
        }
        pace
    }

    /// The pace of the head of a response, and of the beginning of its body: an HTTP/2 client may
    /// take little of it now.
    pub fn of_head<S: Stream>(client: &Wire<S>) -> Self {
        let pace = Self::default();
        if let Wire::Client(client) = client {
            pace.ahead_bytes.set(client.share().max(HEAD_BYTES));
        }
        pace
    }

    /// Whether to [renew](Pace::renew) before the next read. The caller drops its buffer first.
    pub fn is_due(&self) -> bool {
        self.ahead_bytes.get() < BUFFER_BYTES
    }

    /// Asks `sink` for its free space, and waits while there is little. `waits` is called when it
    /// begins to wait.
    pub async fn renew(&self, sink: &impl Stream, waits: impl FnOnce()) {
        let room = noticed(sink.room(ROOM_MIN_BYTES), waits).await;
        self.ahead_bytes.set(room.max(PORTION_MIN_BYTES));
    }

    /// Limits the next read into `buf` to what the sink takes. A TLS source then reads whole
    /// records: a part of one would be held while the body waits for its sink.
    pub fn limit(&self, buf: &mut Buf) {
        if self.ahead_bytes.get() < AMPLE_BYTES {
            buf.limit_room(self.ahead_bytes.get().min(buf.room().saturating_sub(1)));
        }
    }

    /// Like [`Stream::read`] from `source` into an empty buffer, but no more than the sink takes.
    /// While the source is silent for more than a moment, it holds no buffer.
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

    /// Waits until `source` is readable, and takes a buffer only then.
    async fn read_ready<I: Io>(&self, io: &I, source: &impl Stream) -> (io::Result<Read>, Buf) {
        let ready = source.readable().await;
        let mut buf = io.buffers().take();
        if let Err(error) = ready {
            return (Err(error), buf);
        }
        self.limit(&mut buf);
        source.read(buf).await
    }

    /// Counts `bytes` that go to the sink.
    pub fn passed(&self, bytes: usize) {
        self.ahead_bytes.set(self.ahead_bytes.get().saturating_sub(bytes));
    }
}

/// Completes like `operation`. Calls `waits` when it begins to wait.
pub async fn noticed<T>(operation: impl Future<Output = T>, waits: impl FnOnce()) -> T {
    let mut waits = Some(waits);
    let mut operation = pin!(operation);
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
    fn a_body_of_64_kib_asks_its_sink_nothing() {
        let pace = Pace::default();
        for portion in [31, 31, 2] {
            assert!(!pace.is_due());
            pace.passed(portion * 1024);
        }
        pace.passed(32 * 1024);
        assert!(pace.is_due());
    }
}
