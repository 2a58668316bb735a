//! A connection to an endpoint that many exchanges share. Each exchange has its own stream.
//!
//! A separate task (`upstream::http2`) reads and writes the frames. This file has the part that
//! exchanges use.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::Request;
use http::uri::Authority;

use crate::runtime::alarm::WakeHandle;
use crate::tls::Issued;

/// A shared connection to an endpoint. See the module.
pub struct SharedConnection {
    /// `None` means that the connection accepts no more streams.
    send: RefCell<Option<SendRequest<Bytes>>>,
    streams: Cell<usize>,
    /// Number of streams opened so far.
    opened: Cell<u64>,
    streams_max: usize,
    /// The authority of its last request.
    authority: RefCell<Option<Authority>>,
    /// The endpoint's certificates. `None` means plain text.
    issued: Option<Rc<[Issued]>>,
    /// Wakes the task that drives the connection.
    wake: WakeHandle,
    /// Whether the endpoint has sent SETTINGS, or the connection is closed.
    greeted: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl SharedConnection {
    /// Creates a connection with at most `streams_max` open streams, or fewer if the endpoint
    /// allows fewer. The wake handle fires when the last stream ends.
    pub fn new(
        send: SendRequest<Bytes>,
        streams_max: usize,
        issued: Option<Rc<[Issued]>>,
        wake: WakeHandle,
    ) -> Rc<Self> {
        let (streams, opened) = (Cell::new(0), Cell::new(0));
        let (send, authority) = (RefCell::new(Some(send)), RefCell::default());
        let (greeted, waiting) = (Cell::new(false), RefCell::default());
        Rc::new(Self {
            send,
            streams,
            opened,
            streams_max,
            authority,
            issued,
            wake,
            greeted,
            waiting,
        })
    }

    /// Reserves a slot for one more stream, if there is room.
    pub fn slot(self: &Rc<Self>) -> Option<Slot> {
        let mut send = self.send.borrow_mut();
        let sender = send.as_mut()?;
        // The last stream need not be written yet, because each stream has its own sender.
        if self.streams.get() >= self.streams_max.min(sender.current_max_send_streams()) {
            return None;
        }
        match sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => {
                // The endpoint is closing the connection, or has closed it.
                *send = None;
                return None;
            }
            Poll::Pending => return None,
        }
        self.streams.set(self.streams.get() + 1);
        self.opened.set(self.opened.get() + 1);
        // A sender accepts one stream until it is written; a clone accepts another one at once.
        // This function limits their number.
        let sender = RefCell::new(sender.clone());
        Some(Slot { connection: Rc::clone(self), sender })
    }

    /// Whether the connection accepts no more streams.
    pub fn is_closed(&self) -> bool {
        self.send.borrow().is_none()
    }

    /// Accepts no more streams. Open streams continue.
    pub fn close(&self) {
        drop(self.send.borrow_mut().take());
        self.greet();
        self.wake.ring();
    }

    /// Records that the endpoint has sent SETTINGS.
    pub fn greet(&self) {
        if !self.greeted.replace(true) {
            self.waiting.take().into_iter().for_each(Waker::wake);
        }
    }

    fn poll_greeted(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.greeted.get() {
            return Poll::Ready(());
        }
        self.waiting.borrow_mut().push(context.waker().clone());
        Poll::Pending
    }

    /// The number of open streams.
    pub fn streams(&self) -> usize {
        self.streams.get()
    }

    /// The number of streams opened so far.
    pub fn opened(&self) -> u64 {
        self.opened.get()
    }

    /// The endpoint's certificates. Returns `None` for plain text.
    pub fn issued(&self) -> Option<&Rc<[Issued]>> {
        self.issued.as_ref()
    }
}

/// A reserved stream. It stays valid when the connection accepts no more streams.
pub struct Slot {
    connection: Rc<SharedConnection>,
    sender: RefCell<SendRequest<Bytes>>,
}

impl Slot {
    /// Whether the connection goes through TLS.
    pub fn is_secure(&self) -> bool {
        self.connection.issued.is_some()
    }

    /// The endpoint's certificates. Returns `None` for plain text.
    pub fn issued(&self) -> Option<&Rc<[Issued]>> {
        self.connection.issued()
    }

    /// Whether the connection has carried a stream before.
    pub fn is_reused(&self) -> bool {
        self.connection.opened() > 1
    }

    /// The authority of the connection's last request.
    pub fn last_authority(&self) -> Option<Authority> {
        self.connection.authority.borrow().clone()
    }

    /// Records the `authority` of the connection's last request.
    pub fn asks(&self, authority: Option<&Authority>) {
        let mut last = self.connection.authority.borrow_mut();
        // Compare exact bytes, like the check before reuse.
        if last.as_ref().map(Authority::as_str) != authority.map(Authority::as_str) {
            *last = authority.cloned();
        }
    }

    /// Whether the endpoint has sent SETTINGS.
    pub fn is_greeted(&self) -> bool {
        self.connection.greeted.get()
    }

    /// Waits until the endpoint has sent SETTINGS or the connection is closed.
    pub async fn greeted(&self) {
        poll_fn(|context| self.connection.poll_greeted(context)).await;
    }

    /// Opens the stream.
    ///
    /// # Errors
    /// When the connection is closed, or the endpoint does not support extended CONNECT.
    pub fn send_request(
        &self,
        request: Request<()>,
        ends: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut sender = self.sender.borrow_mut();
        if request.extensions().get::<h2::ext::Protocol>().is_some()
            && !sender.is_extended_connect_protocol_enabled()
        {
            return Err(h2::Reason::HTTP_1_1_REQUIRED.into());
        }
        sender.send_request(request, ends)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Self { connection, .. } = self;
        connection.streams.set(connection.streams.get() - 1);
        if connection.streams.get() == 0 {
            connection.wake.ring();
        }
    }
}
