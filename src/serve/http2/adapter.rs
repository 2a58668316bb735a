//! A connection as the `h2` crate wants it: poll-based reads and writes over our streams.
//!
//! What is written gathers in one buffer until the crate flushes, so that the frames of many
//! streams leave in one write.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::runtime::alarm::Alarm;
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Io, Read, Stream};
use crate::time::Time;
use crate::tls::Wire;

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
}

// Nothing in it is pinned in place: the operations are boxed.
impl<I: Io> Unpin for Adapter<I> {}

impl<I: Io> Adapter<I> {
    /// `first` is what was read already; `heard` is told when something comes.
    pub fn new(
        io: I,
        wire: Rc<Wire<I::Stream>>,
        first: Option<Buf>,
        heard: Rc<Cell<Time>>,
    ) -> Self {
        Self { io, wire, heard, reading: None, received: first, writing: None, gathered: None }
    }

    fn begin_read(&self) -> Reading {
        let (io, wire) = (self.io.clone(), Rc::clone(&self.wire));
        let alarm: Alarm = io.alarms().alarm();
        Box::pin(async move {
            if !io.buffers().is_crowded() {
                alarm.set(io.now() + BUFFER_GRACE);
                let (read, buf) = wire.read_or_rang(io.buffers().take(), &alarm).await;
                if !matches!(read, Ok(Read::Rang)) {
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
                result?;
            }
            let Some(buf) = self.gathered.take() else { return Poll::Ready(Ok(())) };
            let wire = Rc::clone(&self.wire);
            self.writing = Some(Box::pin(async move { wire.write_all(buf).await.0 }));
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
            if let Some(buf) = &mut this.received {
                let n = buf.len().min(out.remaining());
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
                        return Poll::Pending;
                    }
                }
            };
            match read? {
                Read::Data(_) => {
                    this.heard.set(this.io.recent());
                    this.received = buf;
                }
                Read::End | Read::Rang => return Poll::Ready(Ok(())),
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
        loop {
            let buf = this.gathered.get_or_insert_with(|| this.io.buffers().take());
            match buf.append(bytes) {
                0 if !bytes.is_empty() => ready!(this.poll_send(context))?,
                n => return Poll::Ready(Ok(n)),
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
