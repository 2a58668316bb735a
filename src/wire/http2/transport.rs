//! Reads and writes the bytes of an HTTP/2 connection.
//!
//! While one write is in progress, the frames of all streams are collected for the next write. An
//! idle connection holds no buffer.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::CLOSE_TIMEOUT;
use crate::http2::{Connection, End, Peer};
use crate::runtime::alarm::Alarm;
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Io, Read, Stream};
use crate::time::Time;
use crate::wire::Wire;
use crate::wire::{EXCEEDED, LEFT, linger};

/// How long an idle connection keeps its read buffer.
const BUFFER_GRACE: Duration = Duration::from_millis(200);

/// The length of the largest frame with its header.
const FRAME_BYTES_MAX: usize = 9 + 16 * 1024;

type Reading = Pin<Box<dyn Future<Output = (io::Result<Read>, Option<Buf>)>>>;
type Writing = Pin<Box<dyn Future<Output = io::Result<()>>>>;

/// Reads and writes the bytes of one HTTP/2 connection.
pub struct Transport<I: Io> {
    io: I,
    wire: Rc<Wire<I::Stream>>,
    connection: Rc<Connection>,
    peer: Peer,
    /// The time when bytes last arrived.
    heard: Cell<Time>,
    reading: Option<Reading>,
    /// The received bytes of an incomplete frame.
    rest: Option<Buf>,
    writing: Option<Writing>,
    /// Fires at [`Connection::deadline`].
    alarm: Alarm,
}

impl<I: Io> Transport<I> {
    /// Creates the transport of `connection` over `wire`. `first` has bytes that were read already.
    pub fn new(
        io: I,
        wire: Wire<I::Stream>,
        connection: Rc<Connection>,
        peer: Peer,
        first: Option<Buf>,
    ) -> Self {
        let alarm = io.alarms().alarm();
        let heard = Cell::new(io.now());
        let wire = Rc::new(wire);
        let mut transport = Self {
            io,
            wire,
            connection,
            peer,
            heard,
            reading: None,
            rest: None,
            writing: None,
            alarm,
        };
        if let Some(first) = first {
            transport.take(first);
        }
        transport
    }

    /// The time when bytes last arrived.
    pub fn heard(&self) -> Time {
        self.heard.get()
    }

    /// Reads and writes until both would wait. Completes when the connection has ended. The caller
    /// must then call [`Transport::finish`].
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.connection.wait(context);
        let mut received = false;
        loop {
            if self.connection.end().is_some() {
                return Poll::Ready(());
            }
            match self.poll_read(context) {
                Poll::Ready(Ok(())) => received = true,
                Poll::Ready(Err(_)) => {
                    self.connection.close();
                    return Poll::Ready(());
                }
                Poll::Pending => break,
            }
        }
        if received && self.writing.is_none() {
            // Let the woken streams add their frames first, so that one write sends all of them.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.poll_write(context).is_err() {
            self.connection.close();
            return Poll::Ready(());
        }
        if self.reading.is_none() && !self.connection.is_stuck() {
            context.waker().wake_by_ref(); // the peer reads again, so read from it
        }
        self.poll_late(context)
    }

    /// Reads once. Pending while the peer sends nothing, or while too many frames wait to be
    /// written.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reading.is_none() && self.connection.is_stuck() {
            return Poll::Pending;
        }
        let mut reading = match self.reading.take() {
            Some(reading) => reading,
            None => self.begin_read(),
        };
        match reading.as_mut().poll(context) {
            Poll::Pending => {
                self.reading = Some(reading);
                Poll::Pending
            }
            Poll::Ready((Ok(Read::Data(_)), Some(buf))) => {
                self.take(buf);
                Poll::Ready(Ok(()))
            }
            Poll::Ready((Ok(_), _)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready((Err(error), _)) => Poll::Ready(Err(error)),
        }
    }

    /// Passes received bytes to the connection, and stores the last frame if it is incomplete.
    fn take(&mut self, mut buf: Buf) {
        let now = self.io.recent();
        self.heard.set(now);
        // Complete the stored frame first. Its buffer has room for the rest of it.
        while let Some(mut rest) = self.rest.take() {
            let part = self.connection.missing_bytes(rest.data()).min(buf.len());
            if part == 0 {
                self.rest = Some(rest);
                break;
            }
            rest.append(&buf.data()[..part]);
            buf.consume(part);
            let read = self.connection.receive(rest.data(), now);
            rest.consume(read);
            self.rest = Some(rest).filter(|rest| !rest.is_empty());
        }
        if self.rest.is_some() {
            return;
        }
        let read = self.connection.receive(buf.data(), now);
        buf.consume(read);
        if self.connection.take_pong() {
            // The time of `recent` may be before the PING was sent, so read the clock.
            self.heard.set(self.io.now());
        }
        if !buf.is_empty() {
            buf.make_room(FRAME_BYTES_MAX);
            self.rest = Some(buf);
        }
    }

    fn begin_read(&mut self) -> Reading {
        let (io, wire) = (self.io.clone(), Rc::clone(&self.wire));
        // With TLS, read into another buffer: `rest` may not have room for a complete TLS record.
        let rest = if wire.tls().is_none() { self.rest.take() } else { None };
        Box::pin(async move {
            if let Some(rest) = rest {
                let (read, buf) = wire.read(rest).await;
                return (read, Some(buf));
            }
            if !io.buffers().is_crowded() {
                let alarm: Alarm = io.alarms().alarm();
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

    /// Writes the frames that wait, in one or more writes.
    fn poll_write(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        loop {
            if let Some(writing) = &mut self.writing {
                match writing.as_mut().poll(context) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(written) => {
                        self.writing = None;
                        self.connection.written();
                        written?;
                    }
                }
            }
            let Some(buf) = self.connection.transmit() else { return Ok(()) };
            let wire = Rc::clone(&self.wire);
            self.writing = Some(Box::pin(async move { wire.write_all(buf).await.0 }));
        }
    }

    /// Completes when the peer misses [`Connection::deadline`].
    fn poll_late(&self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(at) = self.connection.deadline() else {
                self.alarm.clear();
                return Poll::Pending;
            };
            if self.io.recent() >= at {
                self.connection.late();
                return Poll::Ready(());
            }
            self.alarm.set(at);
            if self.alarm.poll_woken(context).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Writes the frames that wait, and closes our side. A client may still send. Its bytes are
    /// read for a short time: a reset would discard the GOAWAY that it has not read yet.
    pub async fn finish(&mut self) {
        (self.reading, self.rest) = (None, None);
        let writing = self.writing.take();
        let (wire, connection) = (Rc::clone(&self.wire), Rc::clone(&self.connection));
        let write = async {
            if let Some(writing) = writing {
                writing.await?;
            }
            while let Some(buf) = connection.transmit() {
                wire.write_all(buf).await.0?;
            }
            Ok::<_, io::Error>(())
        };
        self.alarm.set(self.io.now() + CLOSE_TIMEOUT);
        if !matches!(self.alarm.guard(write).await, Ok(Ok(()))) {
            return;
        }
        match (self.connection.end(), self.peer) {
            (Some(End::Breach(_) | End::Flood(_)), Peer::Client) => {
                linger(&self.io, &self.alarm, &wire, EXCEEDED).await;
            }
            (None, Peer::Client) => linger(&self.io, &self.alarm, &wire, LEFT).await,
            _ => {
                self.alarm.set(self.io.now() + CLOSE_TIMEOUT);
                self.alarm.guard(wire.shutdown_write()).await.ok();
            }
        }
    }
}

impl<I: Io> Drop for Transport<I> {
    /// Ends the connection, so that no stream waits for bytes that no task reads or writes.
    fn drop(&mut self) {
        self.connection.discard();
    }
}
