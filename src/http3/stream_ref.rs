//! An exchange's access to one stream of a connection.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::connection::{Connection, Core, HEAD_READ_BYTES, WRITE_BYTES_MAX, gone};
use super::streams::{Cut, Stream, wait};
use crate::http2::{Message, Sent};
use crate::quic::StreamId;
use crate::runtime::alarm::Alarm;
use crate::runtime::buffer::Buf;
use crate::runtime::io::Read;

/// A read of a stream's body.
struct Reading<'a> {
    stream: &'a StreamRef,
    buf: Option<Buf>,
    alarm: Option<&'a Alarm>,
}

impl Future for Reading<'_> {
    type Output = (io::Result<Read>, Buf);

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let mut done = None;
        if let Some(buf) = &mut this.buf {
            match this.stream.poll_read(context, buf) {
                Poll::Ready(read) => done = Some(read),
                Poll::Pending => {
                    let woken = this.alarm.map(|alarm| alarm.poll_woken(context).is_ready());
                    if woken == Some(true) {
                        done = Some(Ok(Read::Woken));
                    }
                }
            }
        }
        match (done, this.buf.take()) {
            (Some(done), Some(buf)) => Poll::Ready((done, buf)),
            (_, buf) => {
                this.buf = buf;
                Poll::Pending
            }
        }
    }
}

/// An exchange's access to one stream of a connection.
pub(super) struct StreamRef {
    pub(super) connection: Rc<Connection>,
    pub(super) id: StreamId,
}

impl StreamRef {
    pub(super) fn with<T>(&self, access: impl FnOnce(&mut Core, StreamId) -> T) -> T {
        access(&mut self.connection.0.borrow_mut(), self.id)
    }

    /// Whether the peer has ended the body and all of it was read.
    pub(super) fn is_read(&self) -> bool {
        self.with(|core, id| {
            core.streams.get(&id).is_none_or(|stream| stream.ended && stream.data.is_empty())
        })
    }

    /// Returns a copy of the trailer lines. Empty while data is unread.
    pub(super) fn trailers(&self) -> Vec<u8> {
        self.with(|core, id| match core.streams.get(&id) {
            Some(stream) if stream.data.is_empty() => stream.trailers.clone(),
            _ => Vec::new(),
        })
    }

    /// Takes the trailer lines. Empty while data is unread.
    pub(super) fn take_trailers(&self) -> Vec<u8> {
        self.with(|core, id| match core.streams.get_mut(&id) {
            Some(stream) if stream.data.is_empty() => std::mem::take(&mut stream.trailers),
            _ => Vec::new(),
        })
    }

    /// Reads a part of the body. If `alarm` rings first, no byte is read or lost.
    pub(super) async fn read(&self, buf: Buf, alarm: Option<&Alarm>) -> (io::Result<Read>, Buf) {
        Reading { stream: self, buf: Some(buf), alarm }.await
    }

    /// Sends as much of `data` as possible without waiting.
    pub(super) fn send_ready(&self, data: &[u8], end: Option<&[u8]>) -> io::Result<Sent> {
        self.with(|core, id| core.send(id, data, end))
    }

    /// Sends all of `data`, and waits while the peer's windows are full.
    pub(super) async fn send(&self, mut data: &[u8], end: Option<&[u8]>) -> io::Result<()> {
        loop {
            match self.send_ready(data, end)? {
                Sent::All => return Ok(()),
                Sent::Bytes(sent) => data = &data[sent..],
            }
            poll_fn(|context| self.poll_sendable(context)).await;
        }
    }

    /// Waits until some data can be sent. Returns how much should be read for it.
    pub(super) async fn room(&self) -> usize {
        poll_fn(|context| self.poll_sendable(context)).await;
        WRITE_BYTES_MAX
    }

    /// Ends the body that we send, without trailers.
    pub(super) async fn shutdown_write(&self) {
        let in_body = self.with(|core, id| {
            core.streams.get(&id).is_some_and(|stream| stream.head_sent && stream.can_send())
        });
        if in_body {
            self.send(b"", Some(b"")).await.ok();
        }
    }

    /// Takes the next head of the response, interim or final.
    pub(super) fn poll_head(&self, context: &Context<'_>) -> Poll<Result<Box<Message>, Cut>> {
        self.with(|core, id| {
            let Some(stream) = core.streams.get_mut(&id) else {
                return Poll::Ready(Err(Cut::Closed));
            };
            if let Some(message) = stream.heads.pop_front() {
                return Poll::Ready(Ok(message));
            }
            if let Some(cut) = stream.cut {
                return Poll::Ready(Err(cut));
            }
            wait(&mut stream.reader, context);
            Poll::Pending
        })
    }

    /// Appends received data to `buf`, as much as fits.
    pub(super) fn poll_read(&self, context: &Context<'_>, buf: &mut Buf) -> Poll<io::Result<Read>> {
        self.with(|core, id| {
            let read = match core.read(id, buf) {
                Ok(read) => read,
                Err(error) => {
                    core.breach(&error);
                    0
                }
            };
            core.flush_session();
            let Some(stream) = core.streams.get_mut(&id) else { return Poll::Ready(Err(gone())) };
            if read > 0 {
                return Poll::Ready(Ok(Read::Data(read)));
            }
            if stream.ended {
                return Poll::Ready(Ok(Read::End));
            }
            if let Some(cut) = stream.cut {
                return Poll::Ready(Err(unreadable(cut)));
            }
            wait(&mut stream.reader, context);
            Poll::Pending
        })
    }

    /// Completes when a read would not wait: data, the end of the body or an error is there.
    pub(super) fn poll_readable(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        self.with(|core, id| {
            while core.streams.get(&id).is_some_and(Stream::is_waiting) {
                match core.advance(id, HEAD_READ_BYTES) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => core.breach(&error),
                }
            }
            core.flush_session();
            let Some(stream) = core.streams.get_mut(&id) else { return Poll::Ready(Err(gone())) };
            if !stream.data.is_empty() || stream.ended {
                return Poll::Ready(Ok(()));
            }
            if let Some(cut) = stream.cut {
                return Poll::Ready(Err(unreadable(cut)));
            }
            wait(&mut stream.reader, context);
            Poll::Pending
        })
    }

    /// Completes when some data can be sent, or the stream has ended.
    pub(super) fn poll_sendable(&self, context: &Context<'_>) -> Poll<()> {
        self.with(|core, id| {
            core.flush(id);
            let Some(stream) = core.streams.get_mut(&id) else { return Poll::Ready(()) };
            if !stream.is_blocked || stream.cut.is_some() || stream.sent_all {
                return Poll::Ready(());
            }
            wait(&mut stream.writer, context);
            Poll::Pending
        })
    }

    /// Completes when the stream ends early, before we have ended our message.
    pub(super) fn poll_gone(&self, context: &Context<'_>) -> Poll<()> {
        self.with(|core, id| match core.streams.get_mut(&id) {
            None => Poll::Pending,
            Some(stream) if stream.finishing => Poll::Pending,
            Some(stream) if stream.cut.is_some() => Poll::Ready(()),
            Some(stream) => {
                wait(&mut stream.leaver, context);
                Poll::Pending
            }
        })
    }
}

/// The error of a body that ended too early.
fn unreadable(cut: Cut) -> io::Error {
    match cut {
        Cut::Breach => io::Error::new(io::ErrorKind::InvalidData, "the peer violated HTTP/3"),
        Cut::Reset(_) | Cut::Unprocessed | Cut::Closed | Cut::Ours => {
            io::Error::other("the stream was reset")
        }
    }
}
