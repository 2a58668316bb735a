//! Opens streams on a connection to an endpoint.

use std::rc::Rc;
use std::task::{Context, Poll};

use super::code::Code;
use super::connection::{Connection, Core};
use super::inbound::Inbound;
use super::stream_ref::StreamRef;
use super::streams::Stream;
use crate::http2::{Draft, Shareable};
use crate::message::Method;
use crate::quic::{Dir, StreamId};

/// The right to open the stream with this id. QUIC has counted the stream already, so one that is
/// not used is reset.
pub struct Room {
    connection: Rc<Connection>,
    id: Option<StreamId>,
}

impl Room {
    fn take(mut self) -> Option<StreamId> {
        self.id.take()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let core = self.connection.0.borrow();
            core.quic.reset(id, Code::REQUEST_CANCELLED.0);
            core.quic.stop(id, Code::REQUEST_CANCELLED.0);
        }
    }
}

impl Shareable for Connection {
    type Room = Room;

    fn reserve(self: &Rc<Self>, open: usize) -> Option<Room> {
        let core = self.0.borrow();
        if core.is_left() || open >= core.streams_max {
            return None;
        }
        let id = core.quic.open(Dir::Bi)?;
        Some(Room { connection: Rc::clone(self), id: Some(id) })
    }

    fn is_closed(&self) -> bool {
        self.0.borrow().is_left()
    }
}

/// Methods for opening streams to an endpoint.
impl Connection {
    /// Whether the peer's SETTINGS have arrived, or the connection has ended.
    pub fn is_greeted(&self) -> bool {
        let core = self.0.borrow();
        core.session.is_greeted() || core.end.is_some()
    }

    /// Completes when [`Connection::is_greeted`] holds.
    pub(super) fn poll_greeted(&self, context: &Context<'_>) -> Poll<()> {
        if self.is_greeted() {
            return Poll::Ready(());
        }
        self.0.borrow_mut().greeters.push(context.waker().clone());
        Poll::Pending
    }

    /// Whether the endpoint supports extended CONNECT (RFC 9220).
    pub(super) fn has_extended_connect(&self) -> bool {
        self.0.borrow().session.has_extended_connect()
    }

    /// Opens the stream of `room` with the head of a request. `None` if the connection has ended.
    pub(super) fn begin(
        self: &Rc<Self>,
        room: Room,
        head: &Draft,
        ends: bool,
    ) -> Option<StreamRef> {
        let id = room.take()?;
        let mut core = self.0.borrow_mut();
        if core.is_left() {
            core.quic.reset(id, Code::REQUEST_CANCELLED.0);
            return None;
        }
        let method = if head.is_upgrade() { Method::Connect } else { head.method() };
        core.streams.insert(id, Stream::new(Inbound::response(method)));
        let Core { session, streams, .. } = &mut *core;
        let stream = streams.get_mut(&id)?;
        session.request(id.into(), head, true, &mut stream.pending);
        stream.head_sent = true;
        stream.finishing = ends;
        core.flush_session();
        core.flush(id);
        drop(core);
        Some(StreamRef { connection: Rc::clone(self), id })
    }
}
