//! Adaptive concurrency: a limit on the requests in flight to a service. The limit follows the
//! latency of the service.
//!
//! All workers share the limit, and it is exact at each moment: a worker takes a slot by
//! compare-and-swap. The limit is updated when requests begin, so an unused service costs nothing.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use super::gradient::{ConcurrencyTerms, Gradient, Latencies, Update, Window};
use crate::cells::PerWorker;
use crate::time::Time;

/// The requests in flight to a service, and the measured latencies. They survive reloads.
#[derive(Debug)]
pub struct InFlight {
    taken: Padded,
    /// The maximum number of slots that were taken at the same time since the last update.
    most: Padded,
    /// The current limit. 0 until the first request.
    limit: AtomicU32,
    /// The time of the next update, in microseconds.
    due: AtomicU64,
    /// The time of the last probe, in microseconds. Requests that were sent before it do not count.
    epoch: AtomicU64,
    /// The latency without load, in microseconds. 0 means that it is not known yet.
    unloaded_us: AtomicU64,
    probes: AtomicU64,
    latencies: PerWorker<Latencies>,
    controller: Mutex<Controller>,
}

/// A number in a cache line of its own, because all workers write these numbers.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicU32);

#[derive(Debug, Default)]
struct Controller {
    gradient: Gradient,
    window: Window,
}

impl InFlight {
    /// Creates the state of a service without requests and without known latencies.
    pub fn new(workers: usize) -> Self {
        Self {
            taken: Padded::default(),
            most: Padded::default(),
            limit: AtomicU32::default(),
            due: AtomicU64::default(),
            epoch: AtomicU64::default(),
            unloaded_us: AtomicU64::default(),
            probes: AtomicU64::default(),
            latencies: PerWorker::new(workers),
            controller: Mutex::default(),
        }
    }
}

/// The adaptive concurrency limit of a service.
#[derive(Debug)]
pub struct Concurrency {
    terms: ConcurrencyTerms,
    in_flight: Arc<InFlight>,
}

impl Concurrency {
    /// Creates a limit with these settings.
    pub fn new(terms: ConcurrencyTerms, in_flight: Arc<InFlight>) -> Self {
        Self { terms, in_flight }
    }

    /// Takes the slot of a request at the time `now`. Returns `None` if the limit is reached.
    /// `jitter` returns a random number from 0 to 1.
    pub fn take(self: &Arc<Self>, now: Time, jitter: impl FnOnce() -> f64) -> Option<Flight> {
        self.update_if_due(now, jitter);
        let (taken, limit) = (&self.in_flight.taken.0, self.limit());
        // The number protects no other data, so the order of other memory accesses does not matter.
        let more = |taken| (taken < limit).then(|| taken + 1);
        let before = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok();
        let now = before.map_or(limit, |before| before + 1);
        let most = &self.in_flight.most.0;
        if most.load(Ordering::Relaxed) < now {
            most.fetch_max(now, Ordering::Relaxed);
        }
        before.map(|_| Flight { limit: Arc::clone(self) })
    }

    fn update_if_due(&self, now: Time, jitter: impl FnOnce() -> f64) {
        if now.as_micros() < self.in_flight.due.load(Ordering::Relaxed) {
            return;
        }
        match self.in_flight.controller.try_lock() {
            Ok(mut controller) => self.update(&mut controller, now, jitter()),
            // The state of the controller is valid at any point, so a panic of another worker does
            // no harm.
            Err(TryLockError::Poisoned(lock)) => {
                self.update(&mut lock.into_inner(), now, jitter());
            }
            // Another worker is updating the limit.
            Err(TryLockError::WouldBlock) => {}
        }
    }

    #[cold]
    fn update(&self, controller: &mut Controller, now: Time, jitter: f64) {
        let in_flight = &*self.in_flight;
        if now.as_micros() < in_flight.due.load(Ordering::Relaxed) {
            return; // another worker has already updated the limit
        }
        let due = now + self.terms.interval;
        in_flight.due.store(due.as_micros(), Ordering::Relaxed);
        let Controller { gradient, window } = controller;
        window.look(&in_flight.latencies);
        let most = in_flight.most.0.load(Ordering::Relaxed);
        let limit = match gradient.update(&self.terms, now, window, most, jitter) {
            Update::Wait => return,
            Update::Probe => {
                in_flight.epoch.store(now.as_micros(), Ordering::Relaxed);
                in_flight.probes.fetch_add(1, Ordering::Relaxed);
                self.terms.min
            }
            Update::Limit(limit) => limit,
        };
        window.end();
        let taken = in_flight.taken.0.load(Ordering::Relaxed);
        in_flight.most.0.store(taken, Ordering::Relaxed);
        in_flight.limit.store(limit, Ordering::Relaxed);
        let unloaded = gradient.unloaded().unwrap_or_default();
        in_flight.unloaded_us.store(unloaded.as_micros() as u64, Ordering::Relaxed);
    }

    /// The number of requests in flight.
    pub fn taken(&self) -> u32 {
        self.in_flight.taken.0.load(Ordering::Relaxed)
    }

    /// The current limit on requests in flight.
    pub fn limit(&self) -> u32 {
        // After a reload with other settings, the limit may be out of range until its next update.
        self.in_flight.limit.load(Ordering::Relaxed).clamp(self.terms.min, self.terms.max)
    }

    /// The latency without load. `None` if it is not known yet.
    pub fn unloaded(&self) -> Option<Duration> {
        match self.in_flight.unloaded_us.load(Ordering::Relaxed) {
            0 => None,
            us => Some(Duration::from_micros(us)),
        }
    }

    /// The number of probes so far.
    pub fn probes(&self) -> u64 {
        self.in_flight.probes.load(Ordering::Relaxed)
    }
}

impl fmt::Display for Concurrency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConcurrencyTerms { min, max, percentile, probe_interval, probe_requests, .. } =
            self.terms;
        write!(f, "adaptive, from {min} to {max}, by percentile {percentile} of the latency, ")?;
        write!(f, "probed each {probe_interval:?} by {probe_requests} requests")
    }
}

/// The slot of a request in flight. Dropping it gives the slot back.
#[derive(Debug)]
pub struct Flight {
    limit: Arc<Concurrency>,
}

impl Flight {
    /// Records the latency of a response. The request was sent at `sent`, and the response begins
    /// at `now`. `worker` must be the index of the calling worker.
    pub fn answered(&self, worker: usize, sent: Time, now: Time) {
        let in_flight = &self.limit.in_flight;
        if sent.as_micros() >= in_flight.epoch.load(Ordering::Relaxed) {
            in_flight.latencies.worker(worker).add(now.since(sent));
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.limit.in_flight.taken.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;
    use std::sync::Barrier;

    use super::super::gradient::{
        CONCURRENCY_MAX, CONCURRENCY_MIN, PERCENTILE, PROBE_REQUESTS, UPDATE_INTERVAL,
    };
    use super::*;

    const TERMS: ConcurrencyTerms = ConcurrencyTerms {
        min: CONCURRENCY_MIN,
        max: CONCURRENCY_MAX,
        percentile: PERCENTILE,
        interval: UPDATE_INTERVAL,
        probe_interval: Duration::from_secs(10),
        probe_requests: PROBE_REQUESTS,
    };

    fn limit(workers: usize) -> Arc<Concurrency> {
        Arc::new(Concurrency::new(TERMS, Arc::new(InFlight::new(workers))))
    }

    /// A simulated server with `cores` and one queue, behind the limit.
    struct World {
        limit: Arc<Concurrency>,
        random: fastrand::Rng,
        now: Time,
        cores: BinaryHeap<Reverse<u64>>,
        /// The requests in progress: the time at which each one ends, when it was sent, and its
        /// slot.
        running: BinaryHeap<Reverse<(u64, u64, usize)>>,
        flights: slab::Slab<Flight>,
    }

    /// The results of one phase of a simulation.
    #[derive(Debug, Default)]
    struct Result {
        asked: u64,
        answered: u64,
        refused: u64,
        latencies: Vec<u64>,
    }

    impl Result {
        fn percentile(&mut self, percent: usize) -> f64 {
            self.latencies.sort_unstable();
            self.latencies[(self.latencies.len() - 1) * percent / 100] as f64 / 1000.0
        }
    }

    impl World {
        fn new(seed: u64, cores: usize) -> Self {
            Self {
                limit: limit(2),
                random: fastrand::Rng::with_seed(seed),
                now: Time::from_micros(1000),
                cores: (0..cores).map(|_| Reverse(0)).collect(),
                running: BinaryHeap::new(),
                flights: slab::Slab::new(),
            }
        }

        /// Sends `rate` requests per second for `seconds`, at random times. The server needs about
        /// `work_ms` for each.
        fn run(&mut self, seconds: f64, rate: f64, work_ms: f64) -> Result {
            let mut result = Result::default();
            let end = self.now + Duration::from_secs_f64(seconds);
            loop {
                let wait = -(1.0 - self.random.f64()).ln() / rate;
                self.now = self.now + Duration::from_secs_f64(wait);
                if self.now >= end {
                    return result;
                }
                self.answer(&mut result);
                result.asked += 1;
                let (now, random) = (self.now, &mut self.random);
                let Some(flight) = self.limit.take(now, || random.f64()) else {
                    result.refused += 1;
                    continue;
                };
                assert!(self.limit.taken() <= self.limit.limit(), "over the limit");
                let Reverse(free) = self.cores.pop().unwrap();
                let work = work_ms * 1000.0 * (0.8 + 0.4 * self.random.f64());
                let done = free.max(now.as_micros()) + work as u64;
                self.cores.push(Reverse(done));
                let flight = self.flights.insert(flight);
                self.running.push(Reverse((done, now.as_micros(), flight)));
            }
        }

        fn answer(&mut self, result: &mut Result) {
            while let Some(&Reverse((done, sent, flight))) = self.running.peek()
                && done <= self.now.as_micros()
            {
                self.running.pop();
                let worker = self.random.usize(..2);
                let flight = self.flights.remove(flight);
                flight.answered(worker, Time::from_micros(sent), Time::from_micros(done));
                result.answered += 1;
                result.latencies.push(done - sent);
            }
        }
    }

    /// The goodput in requests per second, and the 90th percentile of the latency in milliseconds.
    fn figures(result: &mut Result, seconds: f64) -> (f64, f64) {
        (result.answered as f64 / seconds, result.percentile(90))
    }

    #[test]
    fn under_overload_the_latency_stays_and_the_goodput_too() {
        for seed in 0..3 {
            for (cores, work_ms) in [(8, 10.0), (2, 5.0), (32, 20.0), (100, 50.0)] {
                let mut world = World::new(seed, cores);
                let capacity = cores as f64 * 1000.0 / work_ms;
                world.run(5.0, capacity * 4.0, work_ms);
                let mut result = world.run(15.0, capacity * 4.0, work_ms);
                let (goodput, p90) = figures(&mut result, 15.0);
                let context = format!("seed {seed}, {cores} cores: {goodput} of {capacity}, {p90}");
                assert!(goodput > 0.9 * capacity, "{context}");
                assert!(p90 < 3.5 * work_ms, "{context}");
                assert!(world.limit.probes() >= 2, "{context}");
            }
        }
    }

    #[test]
    fn the_limit_follows_a_server_that_becomes_slower_and_recovers() {
        for seed in 0..3 {
            let mut world = World::new(seed, 8);
            for (phase, work_ms) in [10.0, 50.0, 10.0, 5.0, 10.0].into_iter().enumerate() {
                let capacity = 8.0 * 1000.0 / work_ms;
                world.run(25.0, capacity * 3.0, work_ms);
                let mut result = world.run(10.0, capacity * 3.0, work_ms);
                let (goodput, p90) = figures(&mut result, 10.0);
                let context = format!("seed {seed}, phase {phase}: {goodput} of {capacity}, {p90}");
                assert!(goodput > 0.85 * capacity && p90 < 4.0 * work_ms, "{context}");
            }
        }
    }

    #[test]
    fn a_server_that_is_not_busy_refuses_nothing() {
        for seed in 0..3 {
            let mut world = World::new(seed, 8);
            // Usually there is one request at a time. Sometimes more than the minimum limit arrive
            // together.
            let result = world.run(300.0, 20.0, 10.0);
            assert!(result.refused * 1000 < result.asked, "seed {seed}: {}", result.refused);
        }
    }

    #[test]
    fn a_server_that_stops_does_not_starve_its_clients_when_it_works_again() {
        for seed in 0..3 {
            let mut world = World::new(seed, 4);
            world.run(15.0, 1000.0, 10.0);
            // In this phase, each request takes five seconds.
            let stopped = world.run(10.0, 1000.0, 5000.0);
            assert!(stopped.asked > stopped.refused, "seed {seed}: some are let through");
            world.run(40.0, 1000.0, 10.0);
            let mut again = world.run(10.0, 1000.0, 10.0);
            let (goodput, p90) = figures(&mut again, 10.0);
            assert!(goodput > 340.0 && p90 < 40.0, "seed {seed}: {goodput} {p90}");
        }
    }

    #[test]
    fn a_reload_keeps_the_requests_in_flight_and_holds_the_new_terms() {
        let in_flight = Arc::new(InFlight::new(1));
        let with = |min, max| {
            let terms = ConcurrencyTerms { min, max, ..TERMS };
            Arc::new(Concurrency::new(terms, Arc::clone(&in_flight)))
        };
        let (before, after) = (with(3, 1000), with(5, 5));
        let now = Time::from_micros(1);
        let flights: Vec<_> = (0..10).filter_map(|_| before.take(now, || 0.0)).collect();
        assert_eq!((flights.len(), before.limit()), (3, 3));
        let more: Vec<_> = (0..10).filter_map(|_| after.take(now, || 0.0)).collect();
        assert_eq!((more.len(), after.limit(), after.taken()), (2, 5, 5));
        drop((flights, more));
        assert_eq!(before.taken(), 0);
    }

    #[test]
    fn workers_that_take_at_once_never_exceed_the_largest_limit() {
        const WORKERS: usize = 4;
        const MAX: u32 = 7;
        let terms = ConcurrencyTerms { max: MAX, probe_requests: 1, ..TERMS };
        let limit = Arc::new(Concurrency::new(terms, Arc::new(InFlight::new(WORKERS))));
        let (inside, most) = (AtomicU32::new(0), AtomicU32::new(0));
        let start = Barrier::new(WORKERS);
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (limit, inside, most, start) = (&limit, &inside, &most, &start);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(worker as u64);
                    let mut held = Vec::new();
                    start.wait();
                    for step in 0..20_000 {
                        let now = Time::from_micros(step * 1000);
                        if random.bool() {
                            if let Some(flight) = limit.take(now, || 0.5) {
                                let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                                most.fetch_max(now, Ordering::SeqCst);
                                held.push((flight, now));
                            }
                        } else if let Some((flight, _)) = held.pop() {
                            inside.fetch_sub(1, Ordering::SeqCst);
                            let sent = now;
                            flight.answered(worker, sent, sent + Duration::from_millis(1));
                        }
                    }
                    inside.fetch_sub(held.len() as u32, Ordering::SeqCst);
                });
            }
        });
        assert!((1..=MAX).contains(&most.into_inner()));
        assert_eq!(limit.taken(), 0, "all places are given back");
    }
}
