//! A connection in the form that the `h2` crate needs: poll-based reads and writes over our
//! streams.
//!
//! Written bytes gather in one buffer until the crate flushes, so frames of many streams leave in
//! one write. The meter sees all bytes in both directions. A peer that exceeds a limit gets a
//! GOAWAY frame, and the adapter stops reading.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::CLOSE_TIMEOUT;
use super::watch::Watch;
use crate::http2::HeldBytes;
use crate::runtime::alarm::Alarm;
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Io, Read, Stream};
use crate::time::Time;
use crate::wire::Wire;
use crate::wire::linger;

/// How long a silent connection keeps a read buffer.
const BUFFER_GRACE: Duration = Duration::from_millis(200);

type Reading = Pin<Box<dyn Future<Output = (io::Result<Read>, Option<Buf>)>>>;
type Writing = Pin<Box<dyn Future<Output = io::Result<()>>>>;

/// The adapter of one connection.
pub struct Adapter<I: Io> {
    io: I,
    wire: Rc<Wire<I::Stream>>,
    /// The time when bytes last arrived.
    heard: Rc<Cell<Time>>,
    reading: Option<Reading>,
    received: Option<Buf>,
    writing: Option<Writing>,
    gathered: Option<Buf>,
    /// The number of bytes in the write in progress.
    writing_bytes: usize,
    held: HeldBytes,
    watch: Rc<Watch>,
    /// Fires at the deadline of the watch.
    alarm: Alarm,
    leaving: Option<Leaving>,
}

/// The peer exceeded a limit.
enum Leaving {
    /// The GOAWAY frame is being written.
    Farewell(Writing),
    /// The GOAWAY frame was written, or could not be written.
    Gone,
}

// The adapter has no pinned fields: the operations are boxed.
impl<I: Io> Unpin for Adapter<I> {}

impl<I: Io> Adapter<I> {
    /// `first` holds bytes that were read already. The adapter writes the time of each read to
    /// `heard`, and shows all bytes to `watch`.
    pub fn new(
        io: I,
        wire: Rc<Wire<I::Stream>>,
        first: Option<Buf>,
        heard: Rc<Cell<Time>>,
        watch: Rc<Watch>,
    ) -> Self {
        let alarm = io.alarms().alarm();
        Self {
            io,
            wire,
            heard,
            reading: None,
            received: first,
            writing: None,
            gathered: None,
            writing_bytes: 0,
            held: HeldBytes::default(),
            watch,
            alarm,
            leaving: None,
        }
    }

    fn begin_read(&self) -> Reading {
        let (io, wire) = (self.io.clone(), Rc::clone(&self.wire));
        let alarm: Alarm = io.alarms().alarm();
        Box::pin(async move {
            if !io.buffers().is_crowded() {
                alarm.set(io.now() + BUFFER_GRACE);
                let (read, buf) = wire.read_or_woken(io.buffers().take(), &alarm).await;
                if !matches!(read, Ok(Read::Woken)) {
                    return (read, Some(buf));
                }
            }
            if let Err(error) = wire.readable().await {
                return (Err(error), None);
            }
            let (read, buf) = wire.read(io.buffers().take()).await;
            (read, Some(buf))
        })
    }

    /// Writes the gathered bytes. Waits first for a write in progress.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(writing) = &mut self.writing {
                let result = ready!(writing.as_mut().poll(context));
                self.writing = None;
                self.writing_bytes = 0;
                self.count_held();
                result?;
            }
            let Some(buf) = self.gathered.take() else { return Poll::Ready(Ok(())) };
            let wire = Rc::clone(&self.wire);
            self.writing_bytes = buf.len();
            self.writing = Some(Box::pin(async move { wire.write_all(buf).await.0 }));
        }
    }

    fn count_held(&mut self) {
        self.held.set(self.writing_bytes + self.gathered.as_ref().map_or(0, Buf::len));
    }

    /// Sends the GOAWAY frame and lets the peer read it. Completes with the error that ends the
    /// connection.
    fn poll_leave(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if self.leaving.is_none() {
            self.leaving = Some(Leaving::Farewell(self.farewell()));
        }
        if let Some(Leaving::Farewell(farewell)) = &mut self.leaving {
            // The connection ends whether or not the peer got the frame.
            drop(ready!(farewell.as_mut().poll(context)));
            self.leaving = Some(Leaving::Gone);
        }
        let said = "the peer exceeded a limit";
        Poll::Ready(io::Error::new(io::ErrorKind::QuotaExceeded, said))
    }

    fn farewell(&mut self) -> Writing {
        (self.reading, self.received) = (None, None);
        let (before, gathered) = (self.writing.take(), self.gathered.take());
        let last = self.watch.farewell().map(|frame| self.io.buffers().take().with(&frame));
        self.writing_bytes = 0;
        self.count_held();
        let (io, wire) = (self.io.clone(), Rc::clone(&self.wire));
        let lingers = self.watch.lingers();
        Box::pin(async move {
            let alarm = io.alarms().alarm();
            alarm.set(io.now() + CLOSE_TIMEOUT);
            let write = async {
                if let Some(before) = before {
                    before.await?;
                }
                for buf in [gathered, last].into_iter().flatten() {
                    wire.write_all(buf).await.0?;
                }
                Ok::<_, io::Error>(())
            };
            if let Ok(Ok(())) = alarm.guard(write).await
                && lingers
            {
                linger(&io, &alarm, &wire).await;
            }
            Ok(())
        })
    }

    /// Completes when the peer misses the deadline for the frames it has begun.
    fn poll_late(&self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(at) = self.watch.deadline() else {
                self.alarm.clear();
                return Poll::Pending;
            };
            if self.io.recent() >= at {
                self.watch.late();
                return Poll::Ready(());
            }
            self.alarm.set(at);
            ready!(self.alarm.poll_woken(context));
        }
    }
}

impl<I: Io> AsyncRead for Adapter<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.watch.is_over() {
                return this.poll_leave(context).map(Err);
            }
            if let Some(buf) = &mut this.received {
                let n = buf.len().min(out.remaining());
                if !this.watch.received(&buf.data()[..n], this.io.recent()) {
                    continue;
                }
                out.put_slice(&buf.data()[..n]);
                buf.consume(n);
                if buf.is_empty() {
                    this.received = None;
                }
                return Poll::Ready(Ok(()));
            }
            let reading = match this.reading.take() {
                Some(reading) => reading,
                None => this.begin_read(),
            };
            let (read, buf) = {
                let mut reading = reading;
                match reading.as_mut().poll(context) {
                    Poll::Ready(done) => done,
                    Poll::Pending => {
                        this.reading = Some(reading);
                        ready!(this.poll_late(context));
                        continue;
                    }
                }
            };
            match read? {
                Read::Data(_) => {
                    this.heard.set(this.io.recent());
                    this.received = buf;
                }
                Read::End | Read::Woken => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<I: Io> AsyncWrite for Adapter<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.leaving.is_some() {
            return Poll::Ready(Ok(bytes.len())); // the peer is not read any more
        }
        loop {
            let buf = this.gathered.get_or_insert_with(|| this.io.buffers().take());
            match buf.append(bytes) {
                0 if !bytes.is_empty() => ready!(this.poll_send(context))?,
                n => {
                    this.count_held();
                    if !this.watch.sent(&bytes[..n], this.io.recent()) {
                        // Wake the reader: it must see the excess.
                        context.waker().wake_by_ref();
                    }
                    return Poll::Ready(Ok(n));
                }
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        let wire = Rc::clone(&this.wire);
        this.writing = Some(Box::pin(async move {
            wire.shutdown_write().await;
            Ok(())
        }));
        this.poll_send(context)
    }
}
