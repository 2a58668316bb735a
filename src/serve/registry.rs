//! The open connections of a worker, so that they can be drained.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use slab::Slab;

use crate::runtime::alarm::Bell;

/// All client connections of a worker.
#[derive(Default)]
pub struct Registry(Rc<RefCell<Slab<Entry>>>);

struct Entry {
    listener: Rc<str>,
    state: Rc<ConnectionState>,
    bell: Bell,
}

/// What others may want of a connection.
#[derive(Debug, Default)]
pub struct ConnectionState {
    /// It should close as soon as it has finished what it does.
    pub draining: Cell<bool>,
    /// It waits for its client's next request: a drain wakes it at once.
    pub idle: Cell<bool>,
}

/// Membership in the registry; dropping it ends it.
pub struct Registered {
    registry: Rc<RefCell<Slab<Entry>>>,
    key: usize,
    /// The state that others set.
    pub state: Rc<ConnectionState>,
}

impl Registry {
    /// Enters a connection of the listener called `listener`; `bell` wakes it when it idles.
    pub fn enter(&self, listener: Rc<str>, bell: Bell) -> Registered {
        let state = Rc::new(ConnectionState::default());
        let entry = Entry { listener, state: Rc::clone(&state), bell };
        let key = self.0.borrow_mut().insert(entry);
        Registered { registry: Rc::clone(&self.0), key, state }
    }

    /// Number of open connections.
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Drains the connections of every listener for which `keep` says no.
    pub fn drain_unless(&self, keep: impl Fn(&str) -> bool) {
        let mut bells = Vec::new();
        for (_, entry) in self.0.borrow().iter() {
            if keep(&entry.listener) {
                continue;
            }
            entry.state.draining.set(true);
            if entry.state.idle.get() {
                bells.push(entry.bell.clone());
            }
        }
        bells.iter().for_each(Bell::ring);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.borrow_mut().remove(self.key);
    }
}
