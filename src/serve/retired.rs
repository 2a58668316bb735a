//! Listeners that a reload has removed or renamed. Requests on their open connections are still
//! served for the time of a drain.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::runtime::io::Io;
use crate::time::Time;
use crate::upstream::Local;

/// The minimum time for which a removed listener is kept, even without connections. During this
/// time another worker may accept a connection of the listener and hand it over to this worker.
const KEPT_MIN: Duration = Duration::from_secs(10);

/// The removed listeners of a worker, each with the last snapshot that contains it.
pub struct RetiredListeners<I: Io>(RefCell<Vec<Retired<I>>>);

struct Retired<I: Io> {
    names: Vec<Box<str>>,
    local: Rc<Local<I>>,
    /// After this time, the entry is dropped when its listeners have no connections.
    unused_until: Time,
    /// After this time, the entry is dropped in any case. Requests on connections that are still
    /// open get no response.
    until: Time,
}

impl<I: Io> Default for RetiredListeners<I> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<I: Io> RetiredListeners<I> {
    /// Keeps `old` for the time of a drain, if `new` does not contain one of its listeners.
    pub fn add(&self, old: &Rc<Local<I>>, new: &Local<I>, now: Time) {
        let is_gone = |name: &str| new.snapshot.listener(name).is_none();
        let names = old.snapshot.listeners.iter().map(|listener| &listener.name);
        let names: Vec<Box<str>> = names.filter(|name| is_gone(name)).cloned().collect();
        if names.is_empty() {
            return;
        }
        let (unused_until, until) = (now + KEPT_MIN, now + old.snapshot.drain.limit);
        let retired = Retired { names, local: Rc::clone(old), unused_until, until };
        self.0.borrow_mut().push(retired);
    }

    /// The last snapshot that contains the removed listener called `name`.
    pub fn find(&self, name: &str) -> Option<Rc<Local<I>>> {
        let retired = self.0.borrow();
        let found = retired.iter().rev().find(|retired| retired.has(name));
        found.map(|found| Rc::clone(&found.local))
    }

    /// Drops the listeners that are no longer needed. `is_used` returns whether the listener with
    /// this name has connections.
    pub fn sweep(&self, now: Time, is_used: impl Fn(&str) -> bool) {
        self.0.borrow_mut().retain(|retired| {
            let kept = now < retired.unused_until || retired.names.iter().any(|name| is_used(name));
            let kept = kept && now < retired.until;
            if kept {
                retired.local.sweep(now);
            }
            kept
        });
    }
}

impl<I: Io> Retired<I> {
    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| **known == *name)
    }
}
