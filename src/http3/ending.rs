//! How the streams of a connection end.

use super::code::{Code, ConnectionError};
use super::connection::Core;
use super::streams::{Cut, wake};
use crate::http2::Peer;
use crate::quic::StreamId;
use crate::time::Time;

impl Core {
    /// A stream whose exchange does not read now may have been reset.
    pub(super) fn look_for_reset(&mut self, id: StreamId) -> Result<(), ConnectionError> {
        let Some(code) = self.quic.received_reset(id) else { return Ok(()) };
        self.is_cancelled(id, code)
    }

    /// The peer wants no more of our message.
    pub(super) fn stopped(&mut self, id: StreamId, code: u64) -> Result<(), ConnectionError> {
        self.quic.reset(id, code);
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        stream.pending.clear();
        let was_complete = stream.finishing;
        stream.sent_all = true;
        wake(&mut stream.writer);
        // A server that has sent a complete response may stop the rest of the request with
        // NO_ERROR (RFC 9114 4.1).
        if was_complete || self.peer == Peer::Endpoint && code == Code::NO_ERROR.0 {
            return Ok(());
        }
        self.is_cancelled(id, code)?;
        self.forget_unserved(id);
        Ok(())
    }

    /// The peer has given up a stream. Counts it once.
    fn is_cancelled(&mut self, id: StreamId, code: u64) -> Result<(), ConnectionError> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if stream.cut.is_none() {
            stream.cut(Cut::Reset(code));
            self.session.reset_by_peer(id.into())?;
        }
        Ok(())
    }

    /// Ends an open stream early.
    pub(super) fn abandon(&mut self, id: StreamId, code: Code) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !stream.sent_all {
            stream.sent_all = true;
            stream.pending.clear();
            self.quic.reset(id, code.0);
        }
        stream.cut(Cut::Ours);
    }

    /// Ends a stream early, unless our message is complete.
    pub(super) fn abandon_unfinished(&mut self, id: StreamId, code: Code) {
        if self.streams.get(&id).is_some_and(|stream| !stream.finishing) {
            self.abandon(id, code);
        }
    }

    /// Forgets a stream that no exchange uses any more. If it is open, ends it with `code`.
    pub(super) fn release(&mut self, id: StreamId, code: Code) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.is_released = true;
        // The rest of a request whose response is incomplete must not reach the endpoint.
        let is_left = self.peer == Peer::Endpoint && !stream.sent_all;
        if !stream.is_read_to_end() {
            // After a complete response, NO_ERROR stops the rest of the upload.
            let is_answered = stream.finishing && self.peer == Peer::Client;
            let stop = if is_answered { Code::NO_ERROR } else { code };
            let is_ours = stream.cut.is_none();
            self.quic.stop(id, stop.0);
            let counted = if is_ours { stop } else { Code::NO_ERROR };
            self.session.reset_by_us(id.into(), counted).ok();
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if is_left || !stream.finishing && !stream.sent_all {
            stream.pending.clear();
            self.quic.reset(id, code.0);
        } else if !stream.sent_all {
            return; // its last bytes are still to be written
        }
        self.forget(id);
    }

    /// Forgets the stream of a client that has ended before its head was complete. No exchange
    /// knows it.
    pub(super) fn forget_unserved(&mut self, id: StreamId) {
        let stream = self.streams.get(&id);
        if self.peer == Peer::Client && stream.is_some_and(|stream| !stream.in_body) {
            self.release(id, Code::REQUEST_CANCELLED);
        }
    }

    pub(super) fn forget(&mut self, id: StreamId) {
        let stream = self.streams.remove(&id);
        self.blocked.remove(&id.into());
        // Only a complete response earns credit, or a flood of resets would pay for itself.
        if stream.is_some_and(|stream| stream.finishing) {
            self.session.answered();
        }
    }

    /// The time when the oldest request began whose head is not complete.
    pub(super) fn oldest_head(&mut self) -> Option<Time> {
        while let Some((id, began)) = self.heads.front() {
            if self.streams.get(id).is_some_and(|stream| !stream.in_body) {
                return Some(*began);
            }
            self.heads.pop_front();
        }
        None
    }

    /// Ends the requests that began before `began`, and whose heads are not complete.
    pub(super) fn end_heads(&mut self, began: Time) {
        while self.oldest_head().is_some_and(|oldest| oldest <= began) {
            let Some((id, _)) = self.heads.pop_front() else { return };
            self.abandon(id, Code::REQUEST_CANCELLED);
            self.forget_unserved(id);
        }
    }
}
