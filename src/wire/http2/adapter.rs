//! A connection as the `h2` crate wants it: poll-based reads and writes over our streams.
//!
//! What is written gathers in one buffer until the crate flushes, so that the frames of many
//! streams leave in one write. What passes is metered on its way: a peer that goes too far is told
//! so, and nothing more is read of it.

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

/// How long a silent connection keeps a buffer for what comes next.
const BUFFER_GRACE: Duration = Duration::from_millis(200);

type Reading = Pin<Box<dyn Future<Output = (io::Result<Read>, Option<Buf>)>>>;
type Writing = Pin<Box<dyn Future<Output = io::Result<()>>>>;

/// See the module.
pub struct Adapter<I: Io> {
    io: I,
    wire: Rc<Wire<I::Stream>>,
    /// When something last came.
    heard: Rc<Cell<Time>>,
    reading: Option<Reading>,
    received: Option<Buf>,
    writing: Option<Writing>,
    gathered: Option<Buf>,
    /// Bytes that are being written, and with those gathered.
    writing_bytes: usize,
    held: HeldBytes,
    watch: Rc<Watch>,
    /// For what the peer has to complete.
    alarm: Alarm,
    leaving: Option<Leaving>,
}

/// The peer has gone too far.
enum Leaving {
    /// It is being told.
    Farewell(Writing),
    /// It has been.
    Gone,
}

// Nothing in it is pinned in place: the operations are boxed.
impl<I: Io> Unpin for Adapter<I> {}

impl<I: Io> Adapter<I> {
    /// `first` is what was read already; `heard` is told when something comes, and `watch` of all
    /// that passes.
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

    /// Sends what has gathered, unless a write is under way already.
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

    /// Tells the peer that it has gone too far, and lets it hear that; gives the error with which
    /// the connection ends.
    fn poll_leave(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if self.leaving.is_none() {
            self.leaving = Some(Leaving::Farewell(self.farewell()));
        }
        if let Some(Leaving::Farewell(farewell)) = &mut self.leaving {
            // Whether the peer got it makes no difference.
            drop(ready!(farewell.as_mut().poll(context)));
            self.leaving = Some(Leaving::Gone);
        }
        let said = "the peer went beyond a limit";
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

    /// Waits for the moment at which what the peer has begun has to be complete.
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
            return Poll::Ready(Ok(bytes.len())); // nobody listens any more
        }
        loop {
            let buf = this.gathered.get_or_insert_with(|| this.io.buffers().take());
            match buf.append(bytes) {
                0 if !bytes.is_empty() => ready!(this.poll_send(context))?,
                n => {
                    this.count_held();
                    if !this.watch.sent(&bytes[..n], this.io.recent()) {
                        // What reads has to see that it is over.
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
