//! The open connections of a worker. They can be drained and closed from here.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;
use slab::Slab;

use crate::runtime::alarm::WakeHandle;
use crate::tls::Issued;

/// All client connections of a worker. Clones share them.
#[derive(Default)]
pub struct Registry(Rc<RefCell<Slab<Entry>>>);

struct Entry {
    listener: Rc<str>,
    state: Rc<ConnectionState>,
    wake: WakeHandle,
}

/// The name of a service, and the certificates of the endpoint that is used.
type Proven = (Rc<str>, Rc<[Issued]>);

/// The state of a connection that other tasks read and write.
#[derive(Debug, Default)]
pub struct ConnectionState {
    /// Whether the connection must close after the current exchange.
    pub draining: Cell<bool>,
    /// Whether the connection waits for its next request. A drain wakes it at once.
    pub idle: Cell<bool>,
    /// The client's certificates. `None` without mutual TLS.
    pub client: RefCell<Option<Rc<[Issued]>>>,
    /// The service and endpoint that the current exchange uses. `None` without mutual TLS.
    pub endpoint: RefCell<Option<Proven>>,
    /// Whether this is a stream of an HTTP/2 connection.
    pub is_stream: bool,
    /// Whether this is an HTTP/2 connection, which has streams.
    pub is_multiplexed: Cell<bool>,
    /// Whether the connection must close at once.
    cut: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

impl ConnectionState {
    /// Whether the connection must close at once, in the middle of an exchange.
    pub fn is_cut(&self) -> bool {
        self.cut.get()
    }

    fn cut(&self) {
        self.cut.set(true);
        if let Some(task) = self.task.borrow_mut().take() {
            task.wake();
        }
    }
}

pin_project! {
    /// The task of a connection or stream. It ends at once when the connection is cut. It is a
    /// struct, because an async function would reserve the memory of the task twice.
    pub struct Cuttable<F> {
        state: Rc<ConnectionState>,
        #[pin]
        task: F,
    }
}

impl<F: Future<Output = ()>> Future for Cuttable<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.state.cut.get() {
            return Poll::Ready(());
        }
        let poll = this.task.poll(context);
        if poll.is_pending() {
            let mut waker = this.state.task.borrow_mut();
            match waker.as_ref() {
                Some(known) if known.will_wake(context.waker()) => {}
                _ => *waker = Some(context.waker().clone()),
            }
        }
        poll
    }
}

/// The entry of a connection in the registry. Dropping it removes the entry.
pub struct Registered {
    registry: Rc<RefCell<Slab<Entry>>>,
    key: usize,
    /// The state that other tasks read and write.
    pub state: Rc<ConnectionState>,
}

impl Registry {
    /// Adds a connection of the listener called `listener`. `wake` wakes the connection when it is
    /// idle. A connection that is `leaving` closes after its first exchange. The task of the
    /// connection must run in [`Registry::cuttable`].
    pub fn enter(&self, listener: Rc<str>, wake: WakeHandle, leaving: bool) -> Registered {
        self.insert(listener, wake, leaving, false)
    }

    /// Like [`Registry::enter`], for a stream of an HTTP/2 connection.
    pub fn enter_stream(&self, listener: Rc<str>, wake: WakeHandle, leaving: bool) -> Registered {
        self.insert(listener, wake, leaving, true)
    }

    fn insert(
        &self,
        listener: Rc<str>,
        wake: WakeHandle,
        leaving: bool,
        is_stream: bool,
    ) -> Registered {
        let draining = Cell::new(leaving);
        let state = Rc::new(ConnectionState { draining, is_stream, ..Default::default() });
        let entry = Entry { listener, state: Rc::clone(&state), wake };
        let key = self.0.borrow_mut().insert(entry);
        Registered { registry: Rc::clone(&self.0), key, state }
    }

    /// Runs `task`, which serves the connection with this `state`, until it ends or the connection
    /// is cut.
    pub fn cuttable<F: Future<Output = ()>>(state: &Rc<ConnectionState>, task: F) -> Cuttable<F> {
        Cuttable { state: Rc::clone(state), task }
    }

    /// Closes the connections for which `condemned` returns true, at once. `condemned` gets the
    /// name of the listener and the state of the connection.
    pub fn cut(&self, condemned: impl Fn(&str, &ConnectionState) -> bool) {
        let found = |(_, entry): (usize, &Entry)| {
            condemned(&entry.listener, &entry.state).then(|| Rc::clone(&entry.state))
        };
        // Collect the states first, because a task that is woken may use the registry.
        let states: Vec<_> = self.0.borrow().iter().filter_map(found).collect();
        states.iter().for_each(|state| state.cut());
    }

    /// Whether the listener called `listener` has open connections.
    pub fn has(&self, listener: &str) -> bool {
        self.0.borrow().iter().any(|(_, entry)| *entry.listener == *listener)
    }

    /// The number of open connections.
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Whether no connection is open.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Whether all connections that are being drained have closed.
    pub fn is_drained(&self) -> bool {
        self.0.borrow().iter().all(|(_, entry)| !entry.state.draining.get())
    }

    /// Closes idle connections. HTTP/2 connections stay open, as they may have streams.
    pub fn close_idle(&self) {
        let mut wakes = Vec::new();
        for (_, entry) in self.0.borrow().iter() {
            if entry.state.idle.get() && !entry.state.is_multiplexed.get() {
                entry.state.draining.set(true);
                wakes.push(entry.wake.clone());
            }
        }
        wakes.iter().for_each(WakeHandle::ring);
    }

    /// Drains the connections of each listener for which `keep` returns false.
    pub fn drain_unless(&self, keep: impl Fn(&str) -> bool) {
        let mut wakes = Vec::new();
        for (_, entry) in self.0.borrow().iter() {
            if keep(&entry.listener) {
                continue;
            }
            entry.state.draining.set(true);
            if entry.state.idle.get() {
                wakes.push(entry.wake.clone());
            }
        }
        wakes.iter().for_each(WakeHandle::ring);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.borrow_mut().remove(self.key);
    }
}
