//! The limit on the connections of a service: takes a slot for a new connection, or waits for one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::choose::Target;
use crate::error::{Flag, Refusal};
use crate::resilience::{CircuitBreaker, Limit, Slot};
use crate::runtime::io::Io;
use crate::time::Time;

/// The interval in which a worker checks whether another worker has released a slot. If this worker
/// itself releases a slot, the waiting connections are woken at once.
const OTHER_WORKERS_INTERVAL: Duration = Duration::from_millis(25);

/// The connections of one worker that wait for a slot before they are opened, the oldest first.
#[derive(Default)]
pub struct Limited {
    waiting: RefCell<VecDeque<Rc<Turn>>>,
    /// The number of connections that had to wait so far.
    begun: Cell<u64>,
}

/// A waiting connection.
#[derive(Default)]
struct Turn {
    woken: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Limited {
    /// Whether a connection waits for a slot.
    pub fn is_any(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// The number of connections that had to wait for a slot so far.
    pub fn begun(&self) -> u64 {
        self.begun.get()
    }

    fn is_first(&self, turn: &Rc<Turn>) -> bool {
        self.waiting.borrow().front().is_some_and(|first| Rc::ptr_eq(first, turn))
    }

    fn wake_first(&self) {
        let first = self.waiting.borrow().front().cloned();
        if let Some(turn) = first {
            turn.woken.set(true);
            if let Some(waker) = turn.waker.take() {
                waker.wake();
            }
        }
    }
}

/// The slot of an open connection. Dropping it passes the slot to the connection that waits
/// longest.
pub struct ConnectionSlot {
    slot: Option<Slot>,
    breaker: Arc<CircuitBreaker>,
    limited: Rc<Limited>,
    worker: usize,
}

impl ConnectionSlot {
    /// Whether the connection should close instead of becoming idle. This is so if another worker
    /// waits for a slot, or if this connection has the last slot.
    pub fn is_wanted(&self) -> bool {
        self.breaker.is_connection_wanted(self.limited.waiting.borrow().len() as u32)
    }

    /// Whether the slot is owed to a request of another worker, although one of this worker waits
    /// since `since`.
    pub fn is_owed(&self, since: Time) -> bool {
        self.breaker.goes_other_first(self.worker, since)
    }

    /// Wakes the connection that waits longest, because this one is idle. The waiting one closes it
    /// if it still needs the slot.
    pub fn say_idle(&self) {
        self.limited.wake_first();
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        drop(self.slot.take());
        self.limited.wake_first();
    }
}

/// Removes a waiting connection from the queue when its wait ends.
struct Wait<'a> {
    limited: &'a Limited,
    breaker: &'a CircuitBreaker,
    worker: usize,
    turn: Rc<Turn>,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.limited.is_first(&self.turn) {
            self.breaker.tell_waiting(self.worker, None);
        }
        let mut waiting = self.limited.waiting.borrow_mut();
        waiting.retain(|other| !Rc::ptr_eq(other, &self.turn));
        drop(waiting);
        // The slot may still be free, so wake the next connection.
        self.limited.wake_first();
    }
}

/// Takes the slot of a new connection, or waits for one. `waits_since` returns when the oldest
/// request that needs the connection began to wait. `None` from it means that none needs it any
/// more. `Ok(None)` means that the service has no limit.
///
/// # Errors
/// If the limit is reached, for a connection of opaque bytes, which does not wait. If the
/// connection is no longer needed.
pub async fn take<I: Io>(
    target: &Target<'_, I>,
    waits_since: impl Fn() -> Option<Time>,
) -> Result<Option<ConnectionSlot>, Refusal> {
    let service = target.service;
    let Some(breaker) = &service.config.breaker else { return Ok(None) };
    let (limited, worker) = (&service.limited, target.core.index);
    let goes_other_first =
        || waits_since().is_some_and(|since| breaker.goes_other_first(worker, since));
    let slot = || {
        if goes_other_first() {
            return None;
        }
        let slot = Some(breaker.take(Limit::Connections)?);
        let (breaker, limited) = (Arc::clone(breaker), Rc::clone(limited));
        Some(Some(ConnectionSlot { slot, breaker, limited, worker }))
    };
    if !limited.is_any()
        && let Some(taken) = slot()
    {
        return Ok(taken);
    }
    // The requests may already have other connections. Then no idle connection must close.
    if waits_since().is_none() {
        return Err(NOT_NEEDED);
    }
    let cells = service.config.stats.worker(worker);
    cells.overflows[Limit::Connections.index()].increment();
    // The slot of a closed shared connection becomes free a moment later. Until then, no further
    // connection is closed for this request.
    let closing = Cell::new(false);
    let slot_of_idle = || {
        if closing.get() || goes_other_first() || !service.close_idle() {
            return None;
        }
        let taken = slot();
        closing.set(taken.is_none());
        taken
    };
    if !limited.is_any()
        && let Some(taken) = slot_of_idle()
    {
        return Ok(taken);
    }
    if target.bytes {
        return Err(TOO_MANY_CONNECTIONS);
    }
    let _wants = breaker.want_connection();
    let turn = Rc::new(Turn::default());
    limited.waiting.borrow_mut().push_back(Rc::clone(&turn));
    limited.begun.set(limited.begun.get() + 1);
    let wait = Wait { limited, breaker, worker, turn };
    let io = &target.core.io;
    let alarm = io.alarms().alarm();
    loop {
        let first = limited.is_first(&wait.turn);
        let Some(since) = waits_since() else { return Err(NOT_NEEDED) };
        if first {
            breaker.tell_waiting(worker, Some(since));
        }
        if first && let Some(taken) = slot().or_else(slot_of_idle) {
            return Ok(taken);
        }
        alarm.set(if first { io.now() + OTHER_WORKERS_INTERVAL } else { Time::NEVER });
        let woken = poll_fn(|context| {
            if wait.turn.woken.take() {
                return Poll::Ready(());
            }
            *wait.turn.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        });
        // The wait ends when the alarm expires, or when a slot is released.
        let _woken = alarm.guard(woken).await;
        closing.set(false);
    }
}

/// Takes the slot of a connection that is open already, if one is free or an idle connection has
/// one. `Some(None)` means that the service has no limit.
pub fn take_free<I: Io>(target: &Target<'_, I>) -> Option<Option<ConnectionSlot>> {
    let service = target.service;
    let Some(breaker) = &service.config.breaker else { return Some(None) };
    let (limited, worker) = (&service.limited, target.core.index);
    if limited.is_any() {
        return None;
    }
    let slot = || breaker.take(Limit::Connections);
    let slot_of_idle = || if service.close_idle() { slot() } else { None };
    let slot = Some(slot().or_else(slot_of_idle)?);
    let (breaker, limited) = (Arc::clone(breaker), Rc::clone(limited));
    Some(Some(ConnectionSlot { slot, breaker, limited, worker }))
}

const TOO_MANY_CONNECTIONS: Refusal = Refusal {
    status: 503,
    flag: Flag::UpstreamOverflow,
    detail: "too many connections to the service are open",
};

/// A refusal that is not sent to a client.
const NOT_NEEDED: Refusal =
    Refusal { detail: "the request got another connection", ..TOO_MANY_CONNECTIONS };

/// The refusal of a request that has waited for a slot for too long.
pub const NOT_FREED: Refusal = Refusal {
    detail: "no connection to the service became free within connect_timeout",
    ..TOO_MANY_CONNECTIONS
};

/// The refusal of a request whose deadline has passed while it waited for a slot.
pub const NOT_FREED_IN_TIME: Refusal = Refusal {
    status: 504,
    flag: Flag::UpstreamTimeout,
    detail: "no connection to the service became free within the timeout: max_connections is \
             reached",
};

/// The refusal of a request when too many requests already wait.
pub const TOO_MANY_PENDING: Refusal = Refusal {
    detail: "too many requests wait for a connection to the service",
    ..TOO_MANY_CONNECTIONS
};

/// A request that waits for a connection. It is counted in the metric and in the circuit breaker.
pub struct Pending<'a, I: Io> {
    target: &'a Target<'a, I>,
    _slot: Option<Slot>,
}

impl<'a, I: Io> Pending<'a, I> {
    /// Counts a waiting request. An L4 connection is not counted, because it does not wait for a
    /// slot.
    ///
    /// # Errors
    /// If too many requests already wait.
    pub fn begin(target: &'a Target<'a, I>) -> Result<Option<Self>, Refusal> {
        if target.bytes {
            return Ok(None);
        }
        let cells = target.service.config.stats.worker(target.core.index);
        let slot = target.service.config.breaker.as_ref().map(|it| it.take(Limit::Pending));
        if let Some(None) = slot {
            cells.overflows[Limit::Pending.index()].increment();
            return Err(TOO_MANY_PENDING);
        }
        cells.pending.increment();
        Ok(Some(Self { target, _slot: slot.flatten() }))
    }
}

impl<I: Io> Drop for Pending<'_, I> {
    fn drop(&mut self) {
        self.target.service.config.stats.worker(self.target.core.index).pending.decrement();
    }
}
