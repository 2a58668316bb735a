//! Who watches what a peer sends, and says it when that is too much.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::rc::Rc;

use crate::cells::Count;
use crate::http2::{Excess, Flood, Meter, calm_down};
use crate::runtime::core::Core;
use crate::runtime::io::Io;
use crate::time::Time;

/// A connection's meter, and what it has said: the adapter asks it, the driver reports it.
pub struct Watch {
    meter: RefCell<Meter>,
    excess: Cell<Option<Excess>>,
    lingers: bool,
}

impl Watch {
    /// Watches with `meter`. When the peer has gone too far, the connection `lingers`, so that it
    /// sees our last words; who waits for answers on it had rather not wait for that.
    pub fn new(meter: Meter, lingers: bool) -> Rc<Self> {
        Rc::new(Self { meter: RefCell::new(meter), excess: Cell::new(None), lingers })
    }

    /// See [`Watch::new`].
    pub fn lingers(&self) -> bool {
        self.lingers
    }

    /// Takes notice of what has come. Whether it may go on.
    pub fn received(&self, bytes: &[u8], now: Time) -> bool {
        self.note(self.meter.borrow_mut().received(bytes, now))
    }

    /// Takes notice of what goes out. Whether it may go on.
    pub fn sent(&self, bytes: &[u8], now: Time) -> bool {
        self.note(self.meter.borrow_mut().sent(bytes, now))
    }

    /// Whether the peer has said what it allows.
    pub fn greeted(&self) -> bool {
        self.meter.borrow().greeted()
    }

    /// When what the peer has begun has to be complete.
    pub fn deadline(&self) -> Option<Time> {
        self.meter.borrow().deadline()
    }

    /// That moment has passed.
    pub fn late(&self) {
        self.note(Err(self.meter.borrow().unfinished()));
    }

    /// Whether the peer has gone too far: nothing more is read of it.
    pub fn is_over(&self) -> bool {
        self.excess.get().is_some()
    }

    /// The last frame, where one may follow what has been sent.
    pub fn farewell(&self) -> Option<[u8; 17]> {
        let meter = self.meter.borrow();
        meter.may_send_frame().then(|| calm_down(meter.last_stream()))
    }

    /// The limit that has ended the connection, if it was one.
    pub fn excess(&self) -> Option<Excess> {
        self.excess.get().or_else(|| self.meter.borrow().told())
    }

    fn note(&self, result: Result<(), Excess>) -> bool {
        let ok = result.is_ok();
        if self.excess.get().is_none() {
            self.excess.set(result.err());
        }
        ok
    }
}

/// Counts a connection that has ended at a limit, among `counts` of its listener or service, and
/// logs it. `owner` is `listener NAME` or `service NAME`.
pub fn report<I: Io>(
    core: &Core<I>,
    counts: &[Count; Flood::ALL.len()],
    excess: Excess,
    owner: &dyn Display,
    peer: &dyn Display,
) {
    counts[excess.flood.index()].increment();
    core.log_limited(|suppressed| {
        let (limit, value) = (excess.flood.label(), excess.limit);
        tracing::warn!(
            %owner,
            %peer,
            limit,
            value,
            suppressed,
            "HTTP/2 connection ended: its peer went beyond a limit"
        );
    });
}
