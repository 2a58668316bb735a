//! The series of the process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::facts::read_facts;
use super::{Fact, HttpCells, Key, Party, RequestFacts, Spoken, Target, TargetFacts, TcpCells};
use crate::cells::PerWorker;

/// The maximum number of series, by default.
pub const SERIES_MAX: usize = 2000;

/// The number of an unknown client or service.
const UNKNOWN: u32 = 0;

/// The number of the client and the service of the series that count the excess.
const OTHER: u32 = 1;

/// The first number of a client or service with a name.
const FIRST: u32 = 2;

/// The name of the client and the service of the series that count the excess.
const OTHER_NAME: &str = "other";

/// A series: its labels and its counters.
#[derive(Debug)]
pub struct Known {
    /// The labels that are not names.
    pub key: Key,
    /// The client.
    pub source: Arc<Party>,
    /// The service.
    pub target: Arc<Target>,
    /// The facts about the requests. `None` if no override shows any.
    pub facts: Option<Arc<RequestFacts>>,
    /// The counters of requests.
    pub http: PerWorker<HttpCells>,
    /// The counters of connections.
    pub tcp: PerWorker<TcpCells>,
}

impl Known {
    /// The number of events so far, to detect a series without traffic.
    fn events(&self) -> u64 {
        let requests =
            (0..crate::cells::LATENCY_BUCKETS_MS.len() + 1).fold(0, |sum: u64, bucket| {
                sum.wrapping_add(self.http.sum(|cells| &cells.duration.buckets[bucket]))
            });
        let tcp = [
            self.tcp.sum(|cells| &cells.opened),
            self.tcp.sum(|cells| &cells.closed),
            self.tcp.sum(|cells| &cells.sent_bytes),
            self.tcp.sum(|cells| &cells.received_bytes),
        ];
        tcp.into_iter().fold(requests, u64::wrapping_add)
    }

    fn is_held(&self) -> bool {
        self.tcp.sum(|cells| &cells.active) > 0
    }

    /// Whether the series counts the requests beyond the limit on series.
    pub fn is_other(&self) -> bool {
        self.key.target == OTHER
    }
}

/// A series, and the time of its last event.
#[derive(Debug)]
struct Entry {
    /// One element. A second one was dropped as unused, but a worker has still counted into it.
    series: Vec<Arc<Known>>,
    events: u64,
    changed: Duration,
}

impl Entry {
    fn new(series: Arc<Known>, now: Duration) -> Self {
        Self { series: vec![series], events: 0, changed: now }
    }
}

/// All series of the process. Workers take its lock only for a series that they have not used yet.
#[derive(Debug)]
pub struct Store {
    workers: usize,
    max: AtomicUsize,
    /// A number that changes when series were dropped.
    generation: AtomicU64,
    dropped: AtomicU64,
    inner: Mutex<Inner>,
    unknown: (Arc<Party>, Arc<Target>),
    other: (Arc<Party>, Arc<Target>),
    other_facts: Arc<RequestFacts>,
}

#[derive(Debug)]
struct Inner {
    series: FxHashMap<Key, Entry>,
    /// Series that were dropped in the last sweep, with their numbers of events at that time.
    retired: Vec<(Arc<Known>, u64)>,
    parties: HashMap<Box<str>, Weak<Party>>,
    targets: HashMap<TargetFacts, Weak<Target>>,
    facts: HashMap<Box<[u8]>, Weak<RequestFacts>>,
    next: u32,
    /// The time of the last sweep.
    now: Duration,
}

impl Store {
    /// Creates a store without series, for `workers` workers.
    pub fn new(workers: usize) -> Self {
        let party = |id, principal: Option<&str>| {
            Arc::new(Party { id, principal: principal.map(Into::into) })
        };
        let target = |id, service: Option<&str>| {
            let facts = TargetFacts { service: service.map(Into::into), ..TargetFacts::default() };
            Arc::new(Target { id, facts })
        };
        Self {
            workers,
            max: AtomicUsize::new(SERIES_MAX),
            generation: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            unknown: (party(UNKNOWN, None), target(UNKNOWN, None)),
            other: (party(OTHER, Some(OTHER_NAME)), target(OTHER, Some(OTHER_NAME))),
            other_facts: Arc::new(RequestFacts {
                id: OTHER,
                values: Fact::ALL.map(|_| OTHER_NAME.into()),
            }),
            inner: Mutex::new(Inner {
                series: FxHashMap::default(),
                retired: Vec::new(),
                parties: HashMap::new(),
                targets: HashMap::new(),
                facts: HashMap::new(),
                next: FIRST,
                now: Duration::ZERO,
            }),
        }
    }

    /// Sets the maximum number of series. Series that exist stay.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// The maximum number of series.
    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    /// A number that changes when series were dropped. A cache of an older number must not be used.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// How many series were dropped because they had no traffic.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The client without an identity.
    pub fn unknown_party(&self) -> &Arc<Party> {
        &self.unknown.0
    }

    /// The service of requests that no service got.
    pub fn unknown_target(&self) -> &Arc<Target> {
        &self.unknown.1
    }

    /// The client with this SPIFFE ID, or the client `other` if there are too many.
    pub fn party(&self, principal: &str) -> Arc<Party> {
        let (mut inner, max) = (self.lock(), self.max());
        if let Some(known) = inner.parties.get(principal).and_then(Weak::upgrade) {
            return known;
        }
        if inner.parties.len() >= max {
            inner.parties.retain(|_, party| party.strong_count() > 0);
            if inner.parties.len() >= max {
                return Arc::clone(&self.other.0);
            }
        }
        let new = Arc::new(Party { id: inner.take_id(), principal: Some(principal.into()) });
        inner.parties.insert(principal.into(), Arc::downgrade(&new));
        new
    }

    /// The service with these facts. Services come from the configuration, so their number is
    /// bounded by it.
    pub fn target(&self, facts: &TargetFacts) -> Arc<Target> {
        let mut inner = self.lock();
        if let Some(known) = inner.targets.get(facts).and_then(Weak::upgrade) {
            return known;
        }
        inner.targets.retain(|_, target| target.strong_count() > 0);
        let new = Arc::new(Target { id: inner.take_id(), facts: facts.clone() });
        inner.targets.insert(facts.clone(), Arc::downgrade(&new));
        new
    }

    /// The facts in `text`, which `put_facts` has written, or the facts `other` if there are too
    /// many.
    pub fn facts(&self, text: &[u8]) -> Arc<RequestFacts> {
        let (mut inner, max) = (self.lock(), self.max());
        if let Some(known) = inner.facts.get(text).and_then(Weak::upgrade) {
            return known;
        }
        // A full store stays full until the next sweep: to look for unused facts here would cost
        // each request.
        if inner.facts.len() >= max {
            return Arc::clone(&self.other_facts);
        }
        let new = Arc::new(RequestFacts { id: inner.take_id(), values: read_facts(text) });
        inner.facts.insert(text.into(), Arc::downgrade(&new));
        new
    }

    /// The series of `key`. If there are too many series, returns the one that counts the excess.
    pub fn find(
        &self,
        key: Key,
        source: &Arc<Party>,
        target: &Arc<Target>,
        facts: Option<&Arc<RequestFacts>>,
    ) -> Arc<Known> {
        let mut inner = self.lock();
        let full = inner.series.len() >= self.max();
        if full && !inner.series.contains_key(&key) {
            let key = of_excess(key);
            let facts = facts.map(|_| &self.other_facts);
            return inner.found(key, self.workers, (&self.other.0, &self.other.1, facts));
        }
        inner.found(key, self.workers, (source, target, facts))
    }

    /// All series, in no order.
    pub fn all(&self) -> Vec<Arc<Known>> {
        let inner = self.lock();
        inner.series.values().flat_map(|entry| entry.series.iter().cloned()).collect()
    }

    /// Drops the series that had no event for `unused_after`. `now` is the time since a fixed
    /// moment. A worker may count into a series at the moment at which it is dropped; the next
    /// sweep then brings the series back.
    pub fn sweep(&self, now: Duration, unused_after: Option<Duration>) {
        let mut inner = self.lock();
        inner.now = now;
        inner.facts.retain(|_, facts| facts.strong_count() > 0);
        for (series, events) in std::mem::take(&mut inner.retired) {
            if series.events() != events || series.is_held() {
                let key = series.key;
                match inner.series.get_mut(&key) {
                    Some(entry) => entry.series.push(series),
                    None => drop(inner.series.insert(key, Entry::new(series, now))),
                }
            }
        }
        let Some(unused_after) = unused_after else { return };
        let mut retired = Vec::new();
        inner.series.retain(|_, entry| {
            let all = entry.series.iter().map(|series| series.events());
            let events = all.fold(0, u64::wrapping_add);
            if events != entry.events {
                (entry.events, entry.changed) = (events, now);
            }
            let idle = now.saturating_sub(entry.changed) >= unused_after;
            let keep = !idle || entry.series.iter().any(|series| series.is_held());
            if !keep {
                let gone = entry.series.drain(..);
                retired.extend(gone.map(|series| (Arc::clone(&series), series.events())));
            }
            keep
        });
        if !retired.is_empty() {
            self.dropped.fetch_add(retired.len() as u64, Ordering::Relaxed);
            inner.retired = retired;
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The names behind the numbers of a key.
type Names<'a> = (&'a Arc<Party>, &'a Arc<Target>, Option<&'a Arc<RequestFacts>>);

impl Inner {
    fn take_id(&mut self) -> u32 {
        let id = self.next;
        self.next = self.next.wrapping_add(1).max(FIRST);
        id
    }

    fn found(
        &mut self,
        key: Key,
        workers: usize,
        (source, target, facts): Names<'_>,
    ) -> Arc<Known> {
        let now = self.now;
        let new = || {
            let (source, target) = (Arc::clone(source), Arc::clone(target));
            let facts = facts.cloned();
            let (http, tcp) = (PerWorker::new(workers), PerWorker::new(workers));
            Entry::new(Arc::new(Known { key, source, target, facts, http, tcp }), now)
        };
        Arc::clone(&self.series.entry(key).or_insert_with(new).series[0])
    }
}

/// The series that counts the excess: it keeps only the side and the kind of protocol.
fn of_excess(key: Key) -> Key {
    let spoken = if key.spoken == Spoken::Tcp { Spoken::Tcp } else { Spoken::Http };
    Key {
        source: OTHER,
        target: OTHER,
        reporter: key.reporter,
        spoken,
        mutual: false,
        status: 0,
        flag: None,
        delayed: false,
        grpc: None,
        facts: if key.facts == 0 { 0 } else { OTHER },
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
