//! Deadlines. Each connection has one [`Alarm`]; each worker has one heap of alarms.
//!
//! To move a deadline later, the alarm only stores the new time. The heap has at most one entry for
//! each alarm, and the time of the entry is not later than the deadline. When the time of an entry
//! comes before the deadline, the entry is moved to the deadline. So a kept-alive connection costs
//! one heap operation per timeout, not several per request.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::io::Io;
use crate::time::Time;

/// The maximum delay of an alarm. Alarms that are set close together then share one wake-up.
pub const GRANULARITY: Duration = Duration::from_millis(5);

/// How many states of dropped alarms are kept for new alarms. A state has about 100 bytes.
pub const SPARE_MAX: usize = 4096;

/// All alarms of a worker. A clone is a second handle to the same alarms.
#[derive(Clone, Default)]
pub struct Alarms(Rc<Clockwork>);

#[derive(Default)]
struct Clockwork {
    entries: RefCell<Entries>,
    /// Wakes the task that runs the alarms when an earlier deadline is set.
    runner: RefCell<Option<Waker>>,
    /// States of dropped alarms, with their entries in the heap. Up to ten thousand streams open
    /// and close in a second; they reuse these entries.
    spare: RefCell<Vec<Rc<AlarmState>>>,
}

struct AlarmState {
    /// The time to ring. `Time::NEVER` means that the alarm is off.
    deadline: Cell<Time>,
    /// The time of the entry in the heap. `Time::NEVER` means that there is no entry.
    scheduled: Cell<Time>,
    /// The index of the entry in the heap.
    place: Cell<usize>,
    rang: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// The number of alarms that have used this state before. A [`WakeHandle`] of an earlier alarm
    /// has another number and does not ring this one.
    life: Cell<u64>,
}

impl Alarms {
    /// Creates an alarm that is not set.
    pub fn alarm(&self) -> Alarm {
        let spare = self.0.spare.borrow_mut().pop();
        let state = spare.unwrap_or_else(|| {
            Rc::new(AlarmState {
                deadline: Cell::new(Time::NEVER),
                scheduled: Cell::new(Time::NEVER),
                place: Cell::new(0),
                rang: Cell::new(false),
                waker: RefCell::new(None),
                life: Cell::new(0),
            })
        });
        Alarm { state, alarms: self.clone() }
    }

    /// The number of alarms in use plus the number of other handles to this value.
    pub fn handles(&self) -> usize {
        Rc::strong_count(&self.0)
    }

    /// The time at which [`Alarms::ring_due`] must run next.
    pub fn next(&self) -> Option<Time> {
        self.0.entries.borrow().first().map(|(at, _)| *at)
    }

    /// Rings every alarm whose deadline is `now` or earlier.
    pub fn ring_due(&self, now: Time) {
        loop {
            let mut entries = self.0.entries.borrow_mut();
            let due = entries.first().filter(|(at, _)| *at <= now);
            let Some(state) = due.map(|(_, state)| Rc::clone(state)) else { return };
            let deadline = state.deadline.get();
            entries.schedule(&state, if deadline > now { deadline } else { Time::NEVER });
            drop(entries);
            if deadline <= now {
                state.ring();
            }
        }
    }

    /// Completes when the time of the earliest entry differs from `seen`, so that a sleeping runner
    /// can sleep until the new time instead.
    pub fn poll_rearmed(&self, seen: Option<Time>, context: &mut Context<'_>) -> Poll<()> {
        if self.next() != seen {
            return Poll::Ready(());
        }
        *self.0.runner.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }

    fn schedule(&self, state: &Rc<AlarmState>, at: Time) {
        let earlier = self.next().is_none_or(|next| at < next);
        self.0.entries.borrow_mut().schedule(state, at);
        if earlier && let Some(runner) = self.0.runner.borrow_mut().take() {
            runner.wake();
        }
    }
}

/// A binary heap with the earliest entry first. Each state holds the position of its entry, so the
/// entry can be moved and removed.
#[derive(Default)]
struct Entries(Vec<(Time, Rc<AlarmState>)>);

impl Entries {
    fn first(&self) -> Option<&(Time, Rc<AlarmState>)> {
        self.0.first()
    }

    /// Moves the entry of `state` to the time `at`. Creates the entry if there is none. With
    /// `Time::NEVER`, removes the entry.
    fn schedule(&mut self, state: &Rc<AlarmState>, at: Time) {
        let before = state.scheduled.replace(at);
        let mut place = state.place.get();
        match (before == Time::NEVER, at == Time::NEVER) {
            (true, true) => return,
            (true, false) => {
                place = self.0.len();
                self.0.push((at, Rc::clone(state)));
            }
            (false, false) => self.0[place].0 = at,
            (false, true) => {
                self.0.swap_remove(place);
            }
        }
        if place < self.0.len() {
            self.settle(place);
        }
    }

    /// Moves the entry at `place` up or down to its sorted place.
    fn settle(&mut self, mut place: usize) {
        let entries = &mut self.0;
        loop {
            let parent = place.saturating_sub(1) / 2;
            let children = 2 * place + 1..entries.len().min(2 * place + 3);
            let child = children.min_by_key(|child| entries[*child].0).unwrap_or(place);
            let to = match entries[place].0 {
                at if at < entries[parent].0 => parent,
                at if entries[child].0 < at => child,
                _ => break,
            };
            entries.swap(place, to);
            entries[place].1.place.set(place);
            place = to;
        }
        entries[place].1.place.set(place);
    }
}

/// Rings the alarms of the worker that owns `io`. Sleeps until each next deadline with
/// `sleep_until`, and drops its future if an earlier one is set. Never returns.
pub async fn run<I: Io>(io: I, sleep_until: impl AsyncFn(Time)) {
    loop {
        let next = io.alarms().next();
        let mut rearmed = pin!(poll_fn(|context| io.alarms().poll_rearmed(next, context)));
        match next {
            None => rearmed.await,
            Some(at) => {
                let mut sleep = pin!(sleep_until(at + GRANULARITY));
                poll_fn(|context| match sleep.as_mut().poll(context) {
                    Poll::Ready(()) => Poll::Ready(()),
                    Poll::Pending => rearmed.as_mut().poll(context),
                })
                .await;
            }
        }
        io.alarms().ring_due(io.now());
    }
}

/// A timer with one deadline. Dropping the alarm cancels the deadline.
pub struct Alarm {
    state: Rc<AlarmState>,
    alarms: Alarms,
}

/// The alarm rang before the guarded operation completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Woken;

impl Alarm {
    /// Sets the deadline to `at`, replaces the previous deadline and clears `rang`. `Time::NEVER`
    /// turns the alarm off.
    pub fn set(&self, at: Time) {
        self.state.rang.set(false);
        self.state.deadline.set(at);
        if at < self.state.scheduled.get() {
            self.alarms.schedule(&self.state, at);
        }
    }

    /// Turns the alarm off.
    pub fn clear(&self) {
        self.set(Time::NEVER);
    }

    /// Whether the alarm has rung since it was last set.
    pub fn rang(&self) -> bool {
        self.state.rang.get()
    }

    /// Returns a handle that rings the alarm at once, for a drain or a removal.
    pub fn wake(&self) -> WakeHandle {
        WakeHandle(Rc::downgrade(&self.state), self.state.life.get())
    }

    /// Runs `operation` until it completes or the alarm rings. If the alarm rings first, the
    /// operation is dropped, and bytes that it has read are lost. So `guard` may be used only to
    /// wait for readiness, or where the connection is closed after a timeout.
    pub fn guard<F: Future>(&self, operation: F) -> Guard<'_, F> {
        Guard { alarm: self, operation }
    }

    /// Completes when the alarm has rung.
    pub fn poll_woken(&self, context: &mut Context<'_>) -> Poll<Woken> {
        if self.state.rang.get() {
            return Poll::Ready(Woken);
        }
        let mut waker = self.state.waker.borrow_mut();
        match waker.as_ref() {
            Some(known) if known.will_wake(context.waker()) => {}
            _ => *waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

pin_project! {
    /// The future of [`Alarm::guard`]. It is not an async function, because that would hold the
    /// operation twice: as its argument and pinned.
    pub struct Guard<'a, F> {
        alarm: &'a Alarm,
        #[pin]
        operation: F,
    }
}

impl<F: Future> Future for Guard<'_, F> {
    type Output = Result<F::Output, Woken>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let guard = self.project();
        if let Poll::Ready(output) = guard.operation.poll(context) {
            return Poll::Ready(Ok(output));
        }
        guard.alarm.poll_woken(context).map(Err)
    }
}

/// Rings an [`Alarm`] from another task.
#[derive(Clone)]
pub struct WakeHandle(Weak<AlarmState>, u64);

impl WakeHandle {
    /// Rings the alarm now, unless it was dropped.
    pub fn ring(&self) {
        if let Some(state) = self.0.upgrade()
            && state.life.get() == self.1
        {
            state.ring();
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let state = &self.state;
        state.deadline.set(Time::NEVER);
        state.rang.set(false);
        drop(state.waker.take());
        state.life.set(state.life.get() + 1);
        let mut spare = self.alarms.0.spare.borrow_mut();
        if spare.len() < SPARE_MAX {
            return spare.push(Rc::clone(state));
        }
        drop(spare);
        self.alarms.0.entries.borrow_mut().schedule(state, Time::NEVER);
    }
}

impl AlarmState {
    fn ring(&self) {
        self.rang.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Time {
        Time::from_micros(us)
    }

    #[test]
    fn rings_at_its_deadline_and_not_before() {
        let alarms = Alarms::default();
        let alarm = alarms.alarm();
        alarm.set(at(100));
        alarms.ring_due(at(99));
        assert!(!alarm.rang());
        alarms.ring_due(at(100));
        assert!(alarm.rang());
        assert_eq!(alarms.next(), None);
    }

    #[test]
    fn a_later_deadline_costs_no_new_entry_and_an_earlier_one_takes_over() {
        let alarms = Alarms::default();
        let alarm = alarms.alarm();
        alarm.set(at(100));
        alarm.set(at(300));
        assert_eq!(alarms.next(), Some(at(100)));
        alarms.ring_due(at(150));
        assert!(!alarm.rang());
        assert_eq!(alarms.next(), Some(at(300)));
        alarm.set(at(200));
        alarms.ring_due(at(200));
        assert!(alarm.rang());
    }

    #[test]
    fn cleared_or_dropped_alarms_never_ring() {
        let alarms = Alarms::default();
        let (kept, dropped) = (alarms.alarm(), alarms.alarm());
        kept.set(at(1));
        dropped.set(at(1));
        kept.clear();
        drop(dropped);
        alarms.ring_due(at(9));
        assert!(!kept.rang());
    }

    #[test]
    fn alarms_that_come_and_go_leave_no_entries_behind() {
        let alarms = Alarms::default();
        let first = alarms.alarm();
        let wake = first.wake();
        drop(first);
        for number in 0..1000 {
            let alarm = alarms.alarm();
            alarm.set(at(60_000_000 + number));
            wake.ring(); // the handle of a dropped alarm
            assert!(!alarm.rang());
        }
        assert_eq!(alarms.0.entries.borrow().0.len(), 1);
        let last = alarms.alarm();
        last.set(at(60_001_000));
        alarms.ring_due(at(60_000_999));
        assert!(!last.rang());
        alarms.ring_due(at(60_001_000));
        assert!(last.rang());
    }

    #[test]
    fn an_alarm_that_swings_between_near_and_far_has_one_entry() {
        // A tunnel does this with each message: first the short buffer grace, then the long idle
        // timeout.
        let alarms = Alarms::default();
        let alarm = alarms.alarm();
        for second in 0..1000 {
            let now = second * 1_000_000;
            alarm.set(at(now + 200_000));
            alarms.ring_due(at(now + 200_000));
            alarm.set(at(now + 3_600_000_000));
            alarms.ring_due(at(now + 300_000));
        }
        assert_eq!(alarms.0.entries.borrow().0.len(), 1);
    }

    #[test]
    fn more_alarms_than_are_kept_leave_no_entries_behind() {
        let alarms = Alarms::default();
        let many: Vec<_> = (0..SPARE_MAX + 100).map(|_| alarms.alarm()).collect();
        many.iter().for_each(|alarm| alarm.set(at(60_000_000)));
        drop(many);
        assert_eq!(alarms.0.entries.borrow().0.len(), SPARE_MAX);
    }

    #[test]
    fn many_alarms_ring_in_order_however_they_were_moved() {
        let alarms = Alarms::default();
        let mut random = fastrand::Rng::with_seed(1);
        let mut many: Vec<_> = (0..300).map(|_| (alarms.alarm(), 0)).collect();
        for _ in 0..3000 {
            let index = random.usize(..many.len());
            many[index].1 = random.u64(1..1000);
            many[index].0.set(at(many[index].1));
            if random.u8(..) < 20 {
                many.swap_remove(random.usize(..many.len()));
                many.push((alarms.alarm(), 0));
            }
        }
        for now in 0..1000 {
            alarms.ring_due(at(now));
            for (alarm, deadline) in &many {
                assert_eq!(alarm.rang(), *deadline > 0 && *deadline <= now, "{deadline} at {now}");
            }
        }
        assert_eq!(alarms.next(), None);
    }

    #[test]
    fn a_wake_handle_rings_at_once() {
        let alarm = Alarms::default().alarm();
        let wake = alarm.wake();
        wake.ring();
        assert!(alarm.rang());
        alarm.set(at(5));
        assert!(!alarm.rang());
    }
}
