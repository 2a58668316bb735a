//! The watch over the bytes of an HTTP/2 connection. It ends the connection at a limit.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::rc::Rc;

use crate::cells::Count;
use crate::http2::{Excess, Flood, Meter, calm_down};
use crate::runtime::core::Core;
use crate::runtime::io::Io;
use crate::time::Time;

/// The meter of a connection, and the limit that the peer exceeded, if any. The adapter updates the
/// meter, and the driver reports the limit.
pub struct Watch {
    meter: RefCell<Meter>,
    excess: Cell<Option<Excess>>,
    lingers: bool,
}

impl Watch {
    /// Watches with `meter`. With `lingers`, a connection that exceeded a limit is still read for a
    /// short time, so that the peer gets our last frame. Connections to endpoints do not linger,
    /// because exchanges wait on them.
    pub fn new(meter: Meter, lingers: bool) -> Rc<Self> {
        Rc::new(Self { meter: RefCell::new(meter), excess: Cell::new(None), lingers })
    }

    /// Whether the connection lingers after it exceeded a limit.
    pub fn lingers(&self) -> bool {
        self.lingers
    }

    /// Meters received bytes. False when the connection must end.
    pub fn received(&self, bytes: &[u8], now: Time) -> bool {
        self.note(self.meter.borrow_mut().received(bytes, now))
    }

    /// Meters sent bytes. False when the connection must end.
    pub fn sent(&self, bytes: &[u8], now: Time) -> bool {
        self.note(self.meter.borrow_mut().sent(bytes, now))
    }

    /// Whether the peer has sent its SETTINGS.
    pub fn greeted(&self) -> bool {
        self.meter.borrow().greeted()
    }

    /// The deadline for the frames that the peer has begun.
    pub fn deadline(&self) -> Option<Time> {
        self.meter.borrow().deadline()
    }

    /// Notes that the peer missed the deadline.
    pub fn late(&self) {
        self.note(Err(self.meter.borrow().unfinished()));
    }

    /// Whether the peer exceeded a limit. Nothing more is read from it.
    pub fn is_over(&self) -> bool {
        self.excess.get().is_some()
    }

    /// The GOAWAY frame, if the position in the sent bytes allows another frame.
    pub fn farewell(&self) -> Option<[u8; 17]> {
        let meter = self.meter.borrow();
        meter.may_send_frame().then(|| calm_down(meter.last_stream()))
    }

    /// The limit that ended the connection, if a limit ended it.
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

/// Counts a connection that a limit has ended in `counts` of its listener or service, and logs it.
/// `owner` is `listener NAME` or `service NAME`.
pub fn report<I: Io>(
    core: &Core<I>,
    counts: &[Count; Flood::ALL.len()],
    excess: Excess,
    owner: &dyn Display,
    peer: &dyn Display,
) {
    counts[excess.flood.index()].increment();
    core.log_limited(|suppressed| {
        let (limit, limit_value) = (excess.flood.label(), excess.limit);
        tracing::warn!(
            %owner,
            %peer,
            limit,
            limit_value,
            suppressed,
            "HTTP/2 connection closed: the peer exceeded a limit"
        );
    });
}
