//! The state of one stream.

use std::collections::VecDeque;
use std::task::{Context, Waker};

use bytes::Bytes;

use super::inbound::Inbound;
use crate::http2::Message;
use crate::quic::{Connection, ReadError, StreamId};

/// The reason why a stream has ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The peer has reset or stopped it, with this code.
    Reset(u64),
    /// The peer has broken the rules of a message.
    Breach,
    /// The endpoint reports that it did not process the request.
    Unprocessed,
    /// The connection has ended.
    Closed,
    /// We have reset it.
    Ours,
}

/// A bidirectional stream.
pub(super) struct Stream {
    pub(super) inbound: Inbound,
    /// Heads that were received and not taken.
    pub(super) heads: VecDeque<Box<Message>>,
    /// Received bytes that were not parsed yet.
    pub(super) rest: Bytes,
    /// The bytes after `rest`, if they were read already.
    ahead: Bytes,
    /// The part of a DATA frame that was not read yet.
    pub(super) data: Bytes,
    pub(super) trailers: Vec<u8>,
    /// Whether QUIC has given all bytes of the stream.
    fin: bool,
    /// Whether the final head was received, so that the exchange reads the rest.
    pub(super) in_body: bool,
    /// Whether the message of the peer is complete.
    pub(super) ended: bool,
    pub(super) cut: Option<Cut>,
    /// Frames that QUIC did not take yet.
    pub(super) pending: Vec<u8>,
    /// The bytes of our last DATA frame that were not written yet.
    pub(super) frame_left: usize,
    /// Whether the last write was blocked.
    pub(super) is_blocked: bool,
    /// Whether our final head was sent.
    pub(super) head_sent: bool,
    /// Whether our message is complete, but perhaps not written yet.
    pub(super) finishing: bool,
    /// Whether QUIC has our whole message, or the stream was reset.
    pub(super) sent_all: bool,
    pub(super) is_released: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    pub(super) leaver: Option<Waker>,
}

impl Stream {
    pub(super) fn new(inbound: Inbound) -> Self {
        Self {
            inbound,
            heads: VecDeque::new(),
            rest: Bytes::new(),
            ahead: Bytes::new(),
            data: Bytes::new(),
            trailers: Vec::new(),
            fin: false,
            in_body: false,
            ended: false,
            cut: None,
            pending: Vec::new(),
            frame_left: 0,
            is_blocked: false,
            head_sent: false,
            finishing: false,
            sent_all: false,
            is_released: false,
            reader: None,
            writer: None,
            leaver: None,
        }
    }

    /// Reads at most `bytes_max` bytes into `rest`, if it is empty. Reads one more time, because
    /// only this shows whether the stream ends after them. Returns false if nothing is there.
    pub(super) fn fill(
        &mut self,
        quic: &Connection,
        id: StreamId,
        bytes_max: usize,
    ) -> Result<bool, Cut> {
        if self.rest.is_empty() {
            self.rest = std::mem::take(&mut self.ahead);
        }
        while !self.fin && self.ahead.is_empty() {
            match quic.read(id, bytes_max) {
                Ok(Some(bytes)) if self.rest.is_empty() => self.rest = bytes,
                Ok(Some(bytes)) => self.ahead = bytes,
                Ok(None) => self.fin = true,
                Err(ReadError::Blocked) => break,
                Err(ReadError::Reset(code)) => return Err(Cut::Reset(code)),
                Err(ReadError::Closed) => return Err(Cut::Closed),
            }
        }
        Ok(self.fin || !self.rest.is_empty())
    }

    /// Whether [`Stream::fill`] may have more.
    pub(super) fn can_fill(&self) -> bool {
        !self.rest.is_empty() || !self.ahead.is_empty() || !self.fin
    }

    /// Whether the stream ends after `rest`.
    pub(super) fn is_last(&self) -> bool {
        self.fin && self.ahead.is_empty()
    }

    /// Whether QUIC has given all bytes of the stream.
    pub(super) fn is_read_to_end(&self) -> bool {
        self.fin
    }

    /// Whether a reader would have to wait for bytes.
    pub(super) fn is_waiting(&self) -> bool {
        self.data.is_empty() && !self.ended && self.cut.is_none()
    }

    /// Whether we may send more.
    pub(super) fn can_send(&self) -> bool {
        self.cut.is_none() && !self.finishing && !self.sent_all
    }

    /// Ends the stream early, unless it has ended, and wakes all that wait for it.
    pub(super) fn cut(&mut self, cut: Cut) {
        if self.cut.is_none() {
            self.cut = Some(cut);
        }
        for waker in [&mut self.reader, &mut self.writer, &mut self.leaver] {
            wake(waker);
        }
    }
}

/// Stores the waker of `context`.
pub(super) fn wait(slot: &mut Option<Waker>, context: &Context<'_>) {
    match slot {
        Some(known) if known.will_wake(context.waker()) => {}
        _ => *slot = Some(context.waker().clone()),
    }
}

/// Wakes the stored waker.
pub(super) fn wake(slot: &mut Option<Waker>) {
    if let Some(waker) = slot.take() {
        waker.wake();
    }
}
