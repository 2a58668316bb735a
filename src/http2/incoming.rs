//! Receives the body of a stream as bytes, and its trailers.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::RecvStream;

use super::receive::trailer_lines;
use super::stream::unreadable;
use crate::runtime::alarm::Alarm;
use crate::runtime::buffer::Buf;
use crate::runtime::io::Read;

/// Space that a read leaves free at the end of a buffer, for the end of a chunk.
const SLACK_BYTES: usize = 64;

/// The receiving half of a stream.
pub(super) struct Incoming {
    frames: RecvStream,
    /// Data that did not fit into the buffer.
    pub(super) left: Bytes,
    pub(super) ended: bool,
    pub(super) trailers: Vec<u8>,
}

impl Incoming {
    pub(super) fn new(frames: RecvStream) -> Self {
        let ended = frames.is_end_stream();
        Self { frames, left: Bytes::new(), ended, trailers: Vec::new() }
    }

    /// Whether the peer has ended the body and the whole body was read.
    pub(super) fn is_read(&self) -> bool {
        self.ended && self.left.is_empty()
    }

    /// Appends all received data that fits.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buf: &mut Buf,
    ) -> Poll<io::Result<Read>> {
        let before = buf.len();
        loop {
            if !self.left.is_empty() {
                let room = buf.room().saturating_sub(SLACK_BYTES).min(self.left.len());
                let n = buf.append(&self.left[..room]);
                self.left.advance(n);
                if !self.left.is_empty() {
                    return Poll::Ready(Ok(Read::Data(buf.len() - before)));
                }
            }
            match self.poll_left(context) {
                Poll::Ready(Ok(true)) => {}
                // The stream keeps the error. Return the data before it first.
                Poll::Ready(Err(error)) if buf.len() == before => return Poll::Ready(Err(error)),
                Poll::Pending if buf.len() == before => return Poll::Pending,
                Poll::Ready(Ok(false)) if buf.len() == before => return Poll::Ready(Ok(Read::End)),
                _ => return Poll::Ready(Ok(Read::Data(buf.len() - before))),
            }
        }
    }

    /// Waits for data or the end of the stream.
    pub(super) fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.left.is_empty() {
            true => self.poll_left(context).map_ok(drop),
            false => Poll::Ready(Ok(())),
        }
    }

    /// Waits for more data. Returns false at the end of the body.
    fn poll_left(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while !self.ended {
            match ready!(self.frames.poll_data(context)) {
                Some(Ok(data)) => {
                    // At most one frame is kept here. Allow the peer to send more.
                    self.frames.flow_control().release_capacity(data.len()).ok();
                    self.left = data;
                    self.ended = self.frames.is_end_stream();
                    if !self.left.is_empty() {
                        return Poll::Ready(Ok(true));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(unreadable(error))),
                None => {
                    let trailers = ready!(self.frames.poll_trailers(context));
                    if let Some(fields) = trailers.map_err(unreadable)? {
                        let bad = |detail| io::Error::new(io::ErrorKind::InvalidData, detail);
                        self.trailers = trailer_lines(&fields).map_err(bad)?;
                    }
                    self.ended = true;
                }
            }
        }
        Poll::Ready(Ok(false))
    }
}

pub(super) async fn read(
    poll: impl Fn(&mut Context<'_>, &mut Buf) -> Poll<io::Result<Read>>,
    mut buf: Buf,
) -> (io::Result<Read>, Buf) {
    let read = poll_fn(|context| poll(context, &mut buf)).await;
    (read, buf)
}

pub(super) async fn read_or_woken(
    poll: impl Fn(&mut Context<'_>, &mut Buf) -> Poll<io::Result<Read>>,
    mut buf: Buf,
    alarm: &Alarm,
) -> (io::Result<Read>, Buf) {
    let read = poll_fn(|context| match poll(context, &mut buf) {
        Poll::Ready(read) => Poll::Ready(read),
        Poll::Pending => alarm.poll_woken(context).map(|_| Ok(Read::Woken)),
    });
    let read = read.await;
    (read, buf)
}
