//! Circuit breaking: limits on the connections and requests of a service, over all workers.
//!
//! The limits are exact. A worker takes a slot by compare-and-swap, so the number of taken slots
//! never exceeds the limit. Dropping a [`Slot`] gives it back, however the request ended.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::cells::PerWorker;
use crate::time::Time;

/// The default of `max_connections`, which is also Envoy's.
pub const MAX_CONNECTIONS: u32 = 1024;

/// The default of `max_pending_requests`, which is also Envoy's.
pub const MAX_PENDING_REQUESTS: u32 = 1024;

/// The default of `max_requests`, which is also Envoy's.
pub const MAX_REQUESTS: u32 = 1024;

/// The default of `max_retries`, which is also Envoy's.
pub const MAX_RETRIES: u32 = 3;

/// A request that has waited for a connection so much longer than one of another worker goes first.
/// The connection of the other worker closes for it, so this is not done for less.
pub const GOES_FIRST_AFTER: Duration = Duration::from_millis(100);

/// A limit of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Connections to endpoints: open, idle, or being opened.
    Connections,
    /// Requests that wait for a connection.
    Pending,
    /// Requests in progress, from the choice of the service to the end of the response.
    Requests,
    /// Retries in progress.
    Retries,
}

impl Limit {
    /// All limits, in the order of [`Limit::index`].
    pub const ALL: [Self; 4] = [Self::Connections, Self::Pending, Self::Requests, Self::Retries];

    /// The key in the configuration, and the label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "max_connections",
            Self::Pending => "max_pending_requests",
            Self::Requests => "max_requests",
            Self::Retries => "max_retries",
        }
    }

    /// The position in [`Limit::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// The number of taken slots for each limit. The numbers survive reloads.
#[derive(Debug)]
pub struct InUse {
    taken: [Padded; Limit::ALL.len()],
    /// The number of connections that cannot be opened yet, because all connection slots are taken.
    wanting: AtomicU32,
    /// When the oldest request of each worker began to wait for such a connection.
    waiting: PerWorker<Since>,
}

/// A [`Time`] in microseconds, or [`Time::NEVER`].
#[derive(Debug)]
struct Since(AtomicU64);

impl Default for Since {
    fn default() -> Self {
        Self(AtomicU64::new(Time::NEVER.as_micros()))
    }
}

/// A number in a cache line of its own, because all workers write these numbers.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicU32);

impl InUse {
    /// Creates the state of a service, of which nothing is in use, for `workers` workers.
    pub fn new(workers: usize) -> Self {
        let (taken, wanting) = Default::default();
        Self { taken, wanting, waiting: PerWorker::new(workers) }
    }

    fn of(&self, limit: Limit) -> &AtomicU32 {
        &self.taken[limit.index()].0
    }
}

/// The circuit breaker of a service.
#[derive(Debug)]
pub struct CircuitBreaker {
    /// The maximum of each limit, by [`Limit::index`].
    max: [u32; Limit::ALL.len()],
    in_use: Arc<InUse>,
    workers: usize,
}

impl CircuitBreaker {
    /// Creates a circuit breaker for `workers` workers. `max` are the maxima, by [`Limit::index`].
    pub fn new(max: [u32; Limit::ALL.len()], in_use: Arc<InUse>, workers: usize) -> Self {
        Self { max, in_use, workers }
    }

    /// Takes a slot. Returns `None` if the limit is reached. After a reload with a lower limit,
    /// slots that are already taken stay taken.
    pub fn take(&self, limit: Limit) -> Option<Slot> {
        let (taken, max) = (self.in_use.of(limit), self.max(limit));
        // The number protects no other data, so the order of other memory accesses does not matter.
        let more = |taken| (taken < max).then(|| taken + 1);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Slot { in_use: Arc::clone(&self.in_use), limit })
    }

    /// Announces to all workers that a connection slot is needed, until the result is dropped.
    pub fn want_connection(&self) -> Wanting {
        self.in_use.wanting.fetch_add(1, Ordering::Relaxed);
        Wanting(Arc::clone(&self.in_use))
    }

    /// Whether an idle connection should close, to give its slot to another worker. This is so if
    /// another worker waits for a slot, or if the idle connection has the last slot. `own` is the
    /// number of connections for which this worker itself waits.
    pub fn is_connection_wanted(&self, own: u32) -> bool {
        let is_last = || self.taken(Limit::Connections) >= self.max(Limit::Connections);
        self.workers > 1 && (self.in_use.wanting.load(Ordering::Relaxed) > own || is_last())
    }

    /// Tells the other workers when the oldest request of `worker` began to wait for a connection
    /// slot. `None` means that no request waits.
    pub fn tell_waiting(&self, worker: usize, since: Option<Time>) {
        let since = since.unwrap_or(Time::NEVER);
        self.in_use.waiting.worker(worker).0.store(since.as_micros(), Ordering::Relaxed);
    }

    /// Whether a request of another worker gets the next connection slot before one of `worker`
    /// that began to wait at `since`. Without this rule, a worker with enough requests would pass
    /// each connection on to its own requests, and those of the others would wait in vain.
    pub fn goes_other_first(&self, worker: usize, since: Time) -> bool {
        if self.in_use.wanting.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let others = self.in_use.waiting.iter().enumerate().filter(|(other, _)| *other != worker);
        let mut waiting = others.map(|(_, other)| other.0.load(Ordering::Relaxed));
        waiting.any(|other| since.since(Time::from_micros(other)) >= GOES_FIRST_AFTER)
    }

    /// The number of slots that are taken.
    pub fn taken(&self, limit: Limit) -> u32 {
        self.in_use.of(limit).load(Ordering::Relaxed)
    }

    /// The maximum number of slots.
    pub fn max(&self, limit: Limit) -> u32 {
        self.max[limit.index()]
    }
}

impl fmt::Display for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for limit in Limit::ALL {
            let separator = if limit.index() == 0 { "" } else { ", " };
            write!(f, "{separator}{} {}", limit.name(), self.max(limit))?;
        }
        Ok(())
    }
}

/// A taken slot. Dropping it gives the slot back.
#[derive(Debug)]
pub struct Slot {
    in_use: Arc<InUse>,
    limit: Limit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.in_use.of(self.limit).fetch_sub(1, Ordering::Relaxed);
    }
}

/// The announcement that a connection waits for a slot. It ends when this value is dropped.
#[derive(Debug)]
pub struct Wanting(Arc<InUse>);

impl Drop for Wanting {
    fn drop(&mut self) {
        self.0.wanting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    fn breaker(max: u32, in_use: &Arc<InUse>) -> CircuitBreaker {
        CircuitBreaker::new([max; Limit::ALL.len()], Arc::clone(in_use), 4)
    }

    fn in_use() -> Arc<InUse> {
        Arc::new(InUse::new(4))
    }

    #[test]
    fn a_slot_is_given_back_when_it_is_dropped() {
        let breaker = breaker(2, &in_use());
        let [first, second] = [(), ()].map(|()| breaker.take(Limit::Requests));
        assert!(first.is_some() && second.is_some());
        assert!(breaker.take(Limit::Requests).is_none());
        assert_eq!((breaker.taken(Limit::Requests), breaker.taken(Limit::Retries)), (2, 0));
        drop(first);
        assert_eq!(breaker.taken(Limit::Requests), 1);
        assert!(breaker.take(Limit::Requests).is_some(), "the slot is dropped at once");
        assert!(breaker.take(Limit::Requests).is_some());
    }

    #[test]
    fn a_reload_keeps_the_slots_and_changes_the_limit() {
        let in_use = in_use();
        let (before, lower, higher) =
            (breaker(3, &in_use), breaker(1, &in_use), breaker(4, &in_use));
        let mut slots: Vec<_> = (0..3).filter_map(|_| before.take(Limit::Requests)).collect();
        assert!(lower.take(Limit::Requests).is_none());
        slots.extend(higher.take(Limit::Requests));
        assert_eq!((slots.len(), higher.taken(Limit::Requests)), (4, 4));
        slots.truncate(1);
        assert!(lower.take(Limit::Requests).is_none());
        slots.clear();
        assert!(lower.take(Limit::Requests).is_some());
        assert_eq!(before.taken(Limit::Requests), 0);
    }

    #[test]
    fn an_idle_connection_closes_for_another_worker() {
        let in_use = in_use();
        let (one, many) = (
            CircuitBreaker::new([2; Limit::ALL.len()], Arc::clone(&in_use), 1),
            CircuitBreaker::new([2; Limit::ALL.len()], in_use, 4),
        );
        let first = one.take(Limit::Connections);
        assert!(!one.is_connection_wanted(0) && !many.is_connection_wanted(0));
        let second = one.take(Limit::Connections);
        assert!(first.is_some() && second.is_some());
        assert!(!one.is_connection_wanted(0), "the only worker can use the connection again");
        assert!(many.is_connection_wanted(0));
        drop(second);
        assert!(!many.is_connection_wanted(0));
        let wanting = many.want_connection();
        assert!(many.is_connection_wanted(0), "another worker waits");
        assert!(!many.is_connection_wanted(1), "only this worker waits");
        drop(wanting);
        assert!(!many.is_connection_wanted(0));
    }

    #[test]
    fn a_request_goes_first_that_has_waited_much_longer_in_another_worker() {
        let ms = |ms: u64| Time::from_micros(ms * 1_000);
        let breaker = breaker(1, &in_use());
        breaker.tell_waiting(1, Some(ms(1_000)));
        assert!(!breaker.goes_other_first(0, ms(2_000)), "no connection is wanted");
        let _wanting = breaker.want_connection();
        for (worker, since, goes_first) in [
            (0, 900, false),
            (0, 1_000, false),
            (0, 1_099, false),
            (0, 1_100, true),
            (3, 1_100, true),
            (1, 5_000, false),
        ] {
            assert_eq!(breaker.goes_other_first(worker, ms(since)), goes_first, "{worker} {since}");
        }
        breaker.tell_waiting(2, Some(ms(4_000)));
        assert!(breaker.goes_other_first(1, ms(5_000)));
        breaker.tell_waiting(1, None);
        assert!(!breaker.goes_other_first(0, ms(3_000)));
        assert!(breaker.goes_other_first(0, ms(5_000)));
    }

    #[test]
    fn no_sequence_exceeds_a_limit_or_loses_a_slot() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let in_use = in_use();
            let mut max = random.u32(0..5);
            let mut held: [Vec<Slot>; Limit::ALL.len()] = Default::default();
            for _ in 0..500 {
                let limit = Limit::ALL[random.usize(..Limit::ALL.len())];
                let of_limit = &mut held[limit.index()];
                if random.u8(..20) == 0 {
                    max = random.u32(0..5);
                }
                let breaker = breaker(max, &in_use);
                if random.bool() {
                    let is_full = of_limit.len() >= max as usize;
                    let slot = breaker.take(limit);
                    assert_eq!(slot.is_none(), is_full, "seed {seed}");
                    of_limit.extend(slot);
                } else if !of_limit.is_empty() {
                    of_limit.swap_remove(random.usize(..of_limit.len()));
                }
                for limit in Limit::ALL {
                    let expected = held[limit.index()].len();
                    assert_eq!(breaker.taken(limit) as usize, expected, "seed {seed}");
                }
            }
        }
    }

    #[test]
    fn workers_that_take_at_once_never_exceed_a_limit() {
        const WORKERS: usize = 4;
        const MAX: u32 = 3;
        let in_use = in_use();
        // Count the slots independently: add after a slot is taken, and subtract before it is
        // dropped.
        let (inside, most) = (AtomicU32::new(0), AtomicU32::new(0));
        let start = Barrier::new(WORKERS);
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (in_use, inside, most, start) = (&in_use, &inside, &most, &start);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(worker as u64);
                    let (breaker, mut held) = (breaker(MAX, in_use), Vec::new());
                    start.wait();
                    for _ in 0..20_000 {
                        if random.bool() {
                            if let Some(slot) = breaker.take(Limit::Requests) {
                                let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                                most.fetch_max(now, Ordering::SeqCst);
                                held.push(slot);
                            }
                        } else if let Some(slot) = held.pop() {
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(slot);
                        }
                    }
                    inside.fetch_sub(held.len() as u32, Ordering::SeqCst);
                });
            }
        });
        assert!((1..=MAX).contains(&most.into_inner()));
        assert_eq!(breaker(MAX, &in_use).taken(Limit::Requests), 0, "all slots are given back");
    }
}
