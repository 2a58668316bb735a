//! The I/O interface of the proxy: streams, time, buffers and tasks.
//!
//! An operation owns its buffer while it runs and returns it with the result. All methods take
//! `&self`, so one task may read and write a stream at the same time.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use super::alarm::{Alarm, Alarms};
use super::buffer::{Buf, BufferPool};
use super::udp::Datagrams;
use crate::net::{Address, Egress};
use crate::time::Time;

/// The I/O interface of one worker. A clone is cheap.
pub trait Io: Clone + 'static {
    /// A connected byte stream.
    type Stream: Stream;

    /// A UDP socket.
    type Datagrams: Datagrams;

    /// The current time.
    fn now(&self) -> Time;

    /// The last result of [`Io::now`]. It is exact enough for a deadline in seconds, and saves a
    /// clock read.
    fn recent(&self) -> Time;

    /// The buffer pool of this worker.
    fn buffers(&self) -> &BufferPool;

    /// The alarms of this worker.
    fn alarms(&self) -> &Alarms;

    /// Runs `task` on this worker, concurrently with the other tasks.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);

    /// Opens a connection with the socket options of `egress`. Dropping the future closes the
    /// socket.
    ///
    /// # Errors
    /// The error of connect(2).
    fn connect(
        &self,
        to: &Address,
        egress: Egress,
    ) -> impl Future<Output = io::Result<Self::Stream>>;

    /// Opens a UDP socket that exchanges datagrams with `to`, with the socket options of `egress`.
    ///
    /// # Errors
    /// The error of socket(2) or connect(2).
    fn datagrams(&self, to: SocketAddr, egress: Egress) -> io::Result<Self::Datagrams>;

    /// Sleeps until `until`, or up to `alarm::GRANULARITY` longer.
    fn sleep_until(&self, until: Time) -> impl Future<Output = ()>;
}

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// This many bytes were appended to the buffer; always more than zero.
    Data(usize),
    /// The peer has closed its sending side.
    End,
    /// The alarm rang first. No byte was read or lost.
    Woken,
}

/// The state of a stream, from a check that does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiet {
    /// The stream is open, and there is nothing to read.
    Quiet,
    /// There are bytes to read.
    Data,
    /// The peer has closed its sending side, but may still read. There may be bytes to read before
    /// the end.
    Ended,
    /// The stream is reset, or both sides have closed it.
    Closed,
}

/// A connected byte stream: TCP or Unix-domain.
pub trait Stream: 'static {
    /// Appends received bytes to `buf`, which must have room. Dropping the future while it waits
    /// may lose bytes, so drop it only if the stream will not be read again.
    ///
    /// # Errors
    /// The error of recv(2). A reset is an error; an orderly end is [`Read::End`].
    fn read(&self, buf: Buf) -> impl Future<Output = (io::Result<Read>, Buf)>;

    /// Like [`Stream::read`]. If `alarm` rings first, the read is cancelled without losing a byte,
    /// and the result is [`Read::Woken`].
    ///
    /// # Errors
    /// The same as for [`Stream::read`].
    fn read_or_woken(
        &self,
        buf: Buf,
        alarm: &Alarm,
    ) -> impl Future<Output = (io::Result<Read>, Buf)>;

    /// Completes when a read would not wait. The future holds no buffer and may be dropped at any
    /// time.
    ///
    /// # Errors
    /// Only when the ring itself fails.
    fn readable(&self) -> impl Future<Output = io::Result<()>>;

    /// Writes all data of `buf`. Returns `buf` unchanged.
    ///
    /// # Errors
    /// The error of send(2). The number of bytes written is then unknown.
    fn write_all(&self, buf: Buf) -> impl Future<Output = (io::Result<()>, Buf)>;

    /// Returns how many bytes can be written now without waiting, or a lower number that is safe.
    /// If this is less than `enough_bytes`, first waits until the peer has read more. `usize::MAX`
    /// means that the number is not known, or that a write would fail. The future holds no buffer
    /// and may be dropped at any time.
    fn room(&self, enough_bytes: usize) -> impl Future<Output = usize>;

    /// Checks whether the stream is open and has nothing to read. A stream in the pool must be in
    /// this state.
    fn quiet(&self) -> Quiet;

    /// Closes the sending side (FIN). Reads are still possible. The method is async because TLS
    /// sends close_notify first.
    fn shutdown_write(&self) -> impl Future<Output = ()>;

    /// Makes the next close a reset (RST). Without a reset, the peer could regard a truncated
    /// message as complete. A reset discards the [unsent](Stream::unsent_bytes) bytes.
    fn reset_on_close(&self);

    /// The number of written bytes that the peer's kernel has not acknowledged. 0 if the stream is
    /// broken, because no acknowledgement will arrive any more.
    fn unsent_bytes(&self) -> usize;

    /// Moves bytes to `to` inside the kernel, until the source ends, `bytes_max` bytes are moved,
    /// or an error happens. It is meant for streams that carry bulk data. `moved` is called with
    /// the length of each part, so that the caller can count the bytes and move its deadline.
    ///
    /// # Errors
    /// The error of the side that failed.
    fn splice_to(
        &self,
        to: &Self,
        bytes_max: u64,
        moved: impl FnMut(u64),
    ) -> impl Future<Output = Result<Spliced, SpliceError>>;
}

/// The result of a splice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spliced {
    /// `bytes_max` bytes were moved.
    Limit,
    /// The source ended.
    End,
}

/// The side of a splice that failed.
#[derive(Debug)]
pub enum SpliceError {
    /// Reading from the source failed.
    Source(io::Error),
    /// Writing to the sink failed.
    Sink(io::Error),
}
