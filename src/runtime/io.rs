//! What the driver rooms may do with the outside world, and nothing more.
//!
//! Operations own their buffer while they are under way and give it back with the result. All
//! methods take `&self`: one task may read and write a stream at the same time.

use std::future::Future;
use std::io;

use super::alarm::{Alarm, Alarms};
use super::buffer::{Buf, BufferPool};
use crate::net::{Address, Egress};
use crate::time::Time;

/// One worker's access to the world. Cheap to clone.
pub trait Io: Clone + 'static {
    /// A connected byte stream.
    type Stream: Stream;

    /// The time now.
    fn now(&self) -> Time;

    /// What [`Io::now`] said last. For deadlines of seconds, right after something that has asked
    /// for the time; it saves asking again.
    fn recent(&self) -> Time;

    /// This worker's buffers.
    fn buffers(&self) -> &BufferPool;

    /// This worker's deadlines.
    fn alarms(&self) -> &Alarms;

    /// Runs `task` on this worker beside the others.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);

    /// Opens a connection that leaves by `egress`. Dropping the future gives it up and leaks
    /// nothing.
    ///
    /// # Errors
    /// Whatever connect(2) says.
    fn connect(
        &self,
        to: &Address,
        egress: Egress,
    ) -> impl Future<Output = io::Result<Self::Stream>>;

    /// Waits until `until`, up to `alarm::GRANULARITY` longer.
    fn sleep_until(&self, until: Time) -> impl Future<Output = ()>;
}

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// That many bytes were appended to the buffer; more than zero.
    Data(usize),
    /// The peer has ended its side.
    End,
    /// The alarm rang first; nothing was read and nothing is lost.
    Woken,
}

/// What can be said of a stream without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiet {
    /// Open, and nothing to read.
    Quiet,
    /// Bytes are waiting.
    Data,
    /// The peer has closed or reset it.
    Closed,
}

/// A connected byte stream: TCP or Unix-domain.
pub trait Stream: 'static {
    /// Appends what has come to `buf`, which must have room. Dropping the future while it waits
    /// may lose bytes: do that only with a stream that will not be read again.
    ///
    /// # Errors
    /// Whatever recv(2) says; a reset is an error, an orderly end is [`Read::End`].
    fn read(&self, buf: Buf) -> impl Future<Output = (io::Result<Read>, Buf)>;

    /// As [`Stream::read`], but when `alarm` rings first the read is withdrawn without losing a
    /// byte and gives [`Read::Woken`].
    ///
    /// # Errors
    /// As for [`Stream::read`].
    fn read_or_woken(
        &self,
        buf: Buf,
        alarm: &Alarm,
    ) -> impl Future<Output = (io::Result<Read>, Buf)>;

    /// Completes when a read would not wait. Holds no buffer; may be dropped at any time.
    ///
    /// # Errors
    /// Only when the ring itself fails.
    fn readable(&self) -> impl Future<Output = io::Result<()>>;

    /// Writes all the data of `buf` and gives it back with the same window.
    ///
    /// # Errors
    /// Whatever send(2) says; how much had been written is not known then.
    fn write_all(&self, buf: Buf) -> impl Future<Output = (io::Result<()>, Buf)>;

    /// Looks whether the stream is still open and silent, as a pooled one has to be.
    fn quiet(&self) -> Quiet;

    /// Ends our side (FIN); reading goes on. Through TLS a last message says so first, hence async.
    fn shutdown_write(&self) -> impl Future<Output = ()>;

    /// Makes the coming close a reset (RST), so that a truncated message is not taken for whole.
    fn reset_on_close(&self);

    /// Moves bytes to `to` inside the kernel until the peer ends, or `bytes_max` have been moved,
    /// or an error. The stream is one that has proven to carry bulk. `moved` is called with each
    /// portion, so that the caller can count and push its deadline.
    ///
    /// # Errors
    /// Whatever either side says, as `(side, error)`.
    fn splice_to(
        &self,
        to: &Self,
        bytes_max: u64,
        moved: impl FnMut(u64),
    ) -> impl Future<Output = Result<Spliced, SpliceError>>;
}

/// How a splice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spliced {
    /// `bytes_max` were moved.
    Limit,
    /// The source ended.
    End,
}

/// Which side of a splice failed.
#[derive(Debug)]
pub enum SpliceError {
    /// Reading from the source failed.
    Source(io::Error),
    /// Writing to the sink failed.
    Sink(io::Error),
}
