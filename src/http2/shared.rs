//! A connection to an endpoint that many exchanges share, each with a stream of its own.
//!
//! What reads and writes its frames is a task of its own (`serve::http2`); this is what exchanges
//! see of it.

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

/// See the module.
pub struct SharedConnection {
    /// `None` when it takes no more streams.
    send: RefCell<Option<SendRequest<Bytes>>>,
    streams: Cell<usize>,
    /// Streams that have been opened on it.
    opened: Cell<u64>,
    streams_max: usize,
    /// The authority of its last request.
    authority: RefCell<Option<Authority>>,
    /// How the endpoint has proven itself; `None` in the clear.
    issued: Option<Rc<[Issued]>>,
    /// Wakes the task that drives it.
    wake: WakeHandle,
    /// The endpoint has said what it allows, or will not any more; and who waits for that.
    greeted: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl SharedConnection {
    /// A connection with at most `streams_max` streams at once, however many the endpoint allows.
    /// `wake` is rung when its last stream ends.
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

    /// A place for one more stream, if there is one.
    pub fn slot(self: &Rc<Self>) -> Option<Slot> {
        let mut send = self.send.borrow_mut();
        let sender = send.as_mut()?;
        // Whether the last stream has been written already does not matter: each has its sender.
        if self.streams.get() >= self.streams_max.min(sender.current_max_send_streams()) {
            return None;
        }
        match sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => {
                // The endpoint is going away, or has gone.
                *send = None;
                return None;
            }
            Poll::Pending => return None,
        }
        self.streams.set(self.streams.get() + 1);
        self.opened.set(self.opened.get() + 1);
        // A sender takes one stream until that is written, a clone another one at once. That there
        // are not too many is seen to here.
        let sender = RefCell::new(sender.clone());
        Some(Slot { connection: Rc::clone(self), sender })
    }

    /// Whether it takes no more streams, now and later.
    pub fn is_closed(&self) -> bool {
        self.send.borrow().is_none()
    }

    /// Takes no more streams; those that are open go on to their end.
    pub fn close(&self) {
        drop(self.send.borrow_mut().take());
        self.greet();
        self.wake.ring();
    }

    /// The endpoint has said what it allows.
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

    /// Streams that are open.
    pub fn streams(&self) -> usize {
        self.streams.get()
    }

    /// Streams that were ever opened on it.
    pub fn opened(&self) -> u64 {
        self.opened.get()
    }

    /// How the endpoint has proven itself; `None` in the clear.
    pub fn issued(&self) -> Option<&Rc<[Issued]>> {
        self.issued.as_ref()
    }
}

/// A place for one stream, for as long as it lives: also when no more are taken meanwhile.
pub struct Slot {
    connection: Rc<SharedConnection>,
    sender: RefCell<SendRequest<Bytes>>,
}

impl Slot {
    /// Whether the connection goes through TLS.
    pub fn is_secure(&self) -> bool {
        self.connection.issued.is_some()
    }

    /// How the endpoint has proven itself; `None` in the clear.
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

    /// The connection's last request goes to `authority`.
    pub fn asks(&self, authority: Option<&Authority>) {
        let mut last = self.connection.authority.borrow_mut();
        // To the letter: what is asked for again is compared like that.
        if last.as_ref().map(Authority::as_str) != authority.map(Authority::as_str) {
            *last = authority.cloned();
        }
    }

    /// Whether the endpoint has said what it allows.
    pub fn is_greeted(&self) -> bool {
        self.connection.greeted.get()
    }

    /// Waits until the endpoint has said what it allows, or has gone.
    pub async fn greeted(&self) {
        poll_fn(|context| self.connection.poll_greeted(context)).await;
    }

    /// Opens the stream.
    ///
    /// # Errors
    /// When the connection has gone, or the endpoint does not know extended CONNECT.
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
