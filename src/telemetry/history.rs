//! The traffic of the last hour, for the dashboard: who calls whom, how often and how fast. It
//! needs no worker: the control thread reads the counters from time to time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::cells::{Durations, LATENCY_BUCKETS_MS};
use crate::cluster::{Protocol, Service};
use crate::error::Flag;
use crate::snapshot::Snapshot;
use crate::standard::{Known, Reporter, Spoken, Standard};

/// The time between two readings of the counters.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// The number of readings in a minute.
const IN_MINUTE: usize = 6;

/// The number of minutes that are kept.
pub const MINUTES: usize = 60;

/// The maximum number of clients and services that are kept. Each needs at most 13 KiB, and a
/// service in addition about 10 KiB for the durations of the last minute.
pub const EDGES_MAX: usize = 256;

/// The number of buckets of a latency histogram, with that of `+Inf`.
const BUCKETS: usize = LATENCY_BUCKETS_MS.len() + 1;

/// The traffic of the last hour.
#[derive(Debug, Default)]
pub struct History {
    edges: BTreeMap<Edge, Track>,
    /// The number of readings.
    readings: usize,
    /// How many clients and services had no room.
    left_out: usize,
}

/// One end of traffic; the other end is this proxy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edge {
    /// From the client with this SPIFFE ID. Empty if it has proved none.
    Client(Box<str>),
    /// To this service.
    Service(Box<str>),
}

/// The traffic of an edge in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The number of requests and connections.
    pub requests: u64,
    /// How many of them failed: a status of 5xx, a TCP connection with a response flag, or, of a
    /// client, a gRPC status of a server error.
    pub errors: u64,
    /// The numbers of requests by duration, for each bucket.
    buckets: [u64; BUCKETS],
}

/// The traffic of an edge in the last minute.
#[derive(Clone, Debug, Default)]
pub struct Minute {
    /// The traffic.
    pub traffic: Traffic,
    /// The durations of the requests to a service. Empty for a client.
    pub durations: Durations,
}

impl Minute {
    /// The duration, in milliseconds, that this share of the requests does not exceed. It is
    /// interpolated for a client. `None` without requests.
    pub fn quantile_ms(&self, share: f64) -> Option<f64> {
        match self.durations.quantiles_ms([share]) {
            Some([exact]) => Some(exact),
            None => self.traffic.quantile_ms(share),
        }
    }
}

/// The traffic of one edge in the last hour.
#[derive(Debug, Default)]
struct Track {
    /// The counters at the last reading.
    last: Traffic,
    /// The last minute, by readings. An interval without traffic needs no memory.
    recent: VecDeque<Option<Box<Traffic>>>,
    /// The last hour, by minutes.
    minutes: VecDeque<Option<Box<Traffic>>>,
    /// Whether the edge exists in the configuration in use.
    exists: bool,
    /// The durations at the last reading, and those of the last minute by readings.
    last_durations: Durations,
    durations: VecDeque<Durations>,
}

impl Traffic {
    /// The duration, in milliseconds, that this share of the requests does not exceed. It is
    /// interpolated within its bucket, as Prometheus does it. `None` without requests.
    pub fn quantile_ms(&self, share: f64) -> Option<f64> {
        let total: u64 = self.buckets.iter().sum();
        let wanted = share * total as f64;
        let (mut below, mut lower) = (0, 0.0);
        for (count, upper) in self.buckets.iter().zip(LATENCY_BUCKETS_MS) {
            if *count > 0 && (below + count) as f64 >= wanted {
                let part = (wanted - below as f64) / *count as f64;
                return Some(lower + (upper - lower) * part.clamp(0.0, 1.0));
            }
            below += count;
            lower = upper;
        }
        (total > 0).then_some(lower)
    }

    /// Adds other traffic.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        for (count, more) in self.buckets.iter_mut().zip(other.buckets) {
            *count += more;
        }
    }

    /// The traffic since `earlier`. Counters that went back have begun anew if `restarts`. If not,
    /// they are a sum of which a part was dropped.
    fn since(&self, earlier: &Self, restarts: bool) -> Self {
        let delta = |now: u64, before: u64| match now.checked_sub(before) {
            Some(more) => more,
            None if restarts => now,
            None => 0,
        };
        let mut buckets = self.buckets;
        for (count, before) in buckets.iter_mut().zip(earlier.buckets) {
            *count = delta(*count, before);
        }
        Self {
            requests: delta(self.requests, earlier.requests),
            errors: delta(self.errors, earlier.errors),
            buckets,
        }
    }
}

impl Track {
    fn read(&mut self, now: Traffic, restarts: bool, ends_minute: bool) {
        let traffic = now.since(&self.last, restarts);
        self.last = now;
        let some = |traffic: Traffic| (traffic.requests > 0).then(|| Box::new(traffic));
        keep(&mut self.recent, some(traffic), IN_MINUTE);
        if ends_minute {
            keep(&mut self.minutes, some(sum(&self.recent)), MINUTES);
        }
    }

    fn read_durations(&mut self, now: Durations) {
        if self.durations.len() >= IN_MINUTE {
            self.durations.pop_front();
        }
        self.durations.push_back(now.since(&self.last_durations));
        self.last_durations = now;
    }

    fn minute(&self) -> Minute {
        let mut durations = Durations::default();
        self.durations.iter().for_each(|some| durations.add(some));
        Minute { traffic: sum(&self.recent), durations }
    }

    fn is_idle(&self) -> bool {
        self.recent.iter().chain(&self.minutes).all(Option::is_none)
    }
}

fn keep(list: &mut VecDeque<Option<Box<Traffic>>>, new: Option<Box<Traffic>>, max: usize) {
    if list.len() >= max {
        list.pop_front();
    }
    list.push_back(new);
}

fn sum(list: &VecDeque<Option<Box<Traffic>>>) -> Traffic {
    let mut total = Traffic::default();
    list.iter().flatten().for_each(|traffic| total.add(traffic));
    total
}

impl History {
    /// Reads the counters. To be called every [`INTERVAL`].
    pub fn read(&mut self, snapshot: &Snapshot) {
        let mut now: BTreeMap<Edge, Traffic> = BTreeMap::new();
        let mut durations: BTreeMap<&str, Durations> = BTreeMap::new();
        for service in snapshot.all_services() {
            if let Some(traffic) = of_service(service) {
                now.entry(Edge::Service(service.name.clone())).or_default().add(&traffic);
                let fine = Durations::of(&service.stats, |cells| &cells.latency);
                durations.entry(&service.name).or_default().add(&fine);
            }
        }
        for (client, traffic) in snapshot.standard.iter().flat_map(|it| of_clients(it)) {
            now.entry(Edge::Client(client)).or_default().add(&traffic);
        }
        self.readings += 1;
        let ends_minute = self.readings.is_multiple_of(IN_MINUTE);
        for track in self.edges.values_mut() {
            track.exists = false;
        }
        self.left_out = 0;
        for (edge, traffic) in now {
            let full = self.edges.len() >= EDGES_MAX;
            let restarts = matches!(edge, Edge::Service(_));
            match self.edges.get_mut(&edge) {
                None if full => self.left_out += 1,
                None => {
                    let mut track = Track { exists: true, ..Track::default() };
                    track.read(traffic, restarts, ends_minute);
                    self.edges.insert(edge, track);
                }
                Some(track) => {
                    track.exists = true;
                    track.read(traffic, restarts, ends_minute);
                }
            }
        }
        for track in self.edges.values_mut().filter(|track| !track.exists) {
            track.read(track.last, true, ends_minute);
        }
        for (edge, track) in &mut self.edges {
            if let Edge::Service(name) = edge {
                // Without counters, there is nothing new.
                let now = durations.remove(&**name);
                track.read_durations(now.unwrap_or_else(|| track.last_durations.clone()));
            }
        }
        self.edges.retain(|_, track| track.exists || !track.is_idle());
    }

    /// All edges with their traffic of the last minute, and of each of the last minutes, the oldest
    /// first.
    pub fn edges(&self) -> impl Iterator<Item = (&Edge, Minute, Vec<Traffic>)> {
        self.edges.iter().map(|(edge, track)| {
            let minutes = track.minutes.iter();
            let minutes = minutes.map(|it| it.as_deref().copied().unwrap_or_default());
            (edge, track.minute(), minutes.collect())
        })
    }

    /// The time that the traffic of the last minute covers: less than a minute after the start.
    pub fn recent(&self) -> Duration {
        INTERVAL * self.readings.min(IN_MINUTE) as u32
    }

    /// How many clients and services are not kept, because there are more than [`EDGES_MAX`].
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}

/// The counters of a service. `None` if it had no requests.
fn of_service(service: &Service) -> Option<Traffic> {
    let stats = &service.stats;
    let requests = (0..6).map(|class| stats.sum(|cells| &cells.status_class[class])).sum();
    // Most services of a large configuration are idle. They cost no more than this.
    if requests == 0 {
        return None;
    }
    let errors = match service.protocol {
        // A TCP connection has no status. It has failed if it has a flag.
        Protocol::Tcp => {
            let flags = 0..Flag::ALL.len();
            let flagged: u64 = flags.map(|flag| stats.sum(|cells| &cells.flags[flag])).sum();
            flagged.min(requests)
        }
        // A request without a status is one that its client has left.
        _ => stats.sum(|cells| &cells.status_class[4]),
    };
    let buckets = std::array::from_fn(|bucket| stats.sum(|cells| &cells.duration.buckets[bucket]));
    Some(Traffic { requests, errors, buckets })
}

/// The counters of the clients of inbound listeners.
fn of_clients(standard: &Standard) -> Vec<(Box<str>, Traffic)> {
    let all = standard.store.all();
    let inbound = all.iter().filter(|it| it.key.reporter == Reporter::Destination);
    inbound
        .map(|series| (series.source.principal.clone().unwrap_or_default(), of_series(series)))
        .collect()
}

fn of_series(series: &Known) -> Traffic {
    if series.key.spoken == Spoken::Tcp {
        let requests = series.tcp.sum(|cells| &cells.closed);
        let errors = if series.key.flag.is_some() { requests } else { 0 };
        return Traffic { requests, errors, ..Traffic::default() };
    }
    let buckets: [u64; BUCKETS] =
        std::array::from_fn(|bucket| series.http.sum(|cells| &cells.duration.buckets[bucket]));
    let requests = buckets.iter().sum();
    // The gRPC statuses of server errors: unknown, deadline exceeded, unimplemented, internal,
    // unavailable and data loss.
    let of_server = matches!(series.key.grpc, Some(2 | 4 | 12 | 13 | 14 | 15));
    let failed = series.key.status >= 500 || series.key.status == 0 || of_server;
    Traffic { requests, errors: if failed { requests } else { 0 }, buckets }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(requests: u64, errors: u64, bucket: usize) -> Traffic {
        let mut traffic = Traffic { requests, errors, ..Traffic::default() };
        traffic.buckets[bucket] = requests;
        traffic
    }

    #[test]
    fn quantiles_are_interpolated_within_their_bucket() {
        let mut mixed = traffic(99, 0, 2);
        mixed.buckets[9] = 1;
        for (of, share, expected) in [
            (Traffic::default(), 0.5, None),
            (traffic(100, 0, 0), 0.5, Some(0.25)),
            (traffic(100, 0, 2), 0.5, Some(3.0)),
            (mixed, 0.99, Some(5.0)),
            (mixed, 1.0, Some(1000.0)),
            // No upper bound is known for the last bucket.
            (traffic(1, 0, BUCKETS - 1), 0.99, Some(3_600_000.0)),
        ] {
            assert_eq!(of.quantile_ms(share), expected);
        }
    }

    #[test]
    fn a_minute_is_the_sum_of_its_readings_and_an_hour_is_kept() {
        let mut track = Track::default();
        for reading in 1..=(MINUTES + 5) * IN_MINUTE {
            let now = traffic(2 * reading as u64, reading as u64, 3);
            track.read(now, true, reading % IN_MINUTE == 0);
        }
        assert_eq!((track.recent.len(), track.minutes.len()), (IN_MINUTE, MINUTES));
        assert!(track.minutes.iter().flatten().all(|it| **it == traffic(12, 6, 3)));
        assert_eq!(sum(&track.recent), traffic(12, 6, 3));
        // A counter that begins anew.
        track.read(traffic(1, 0, 3), true, false);
        assert_eq!(track.recent.back().unwrap().as_deref(), Some(&traffic(1, 0, 3)));
        // A sum of which a part was dropped.
        track.read(traffic(9, 0, 3), true, false);
        track.read(traffic(5, 0, 3), false, false);
        assert_eq!(track.recent.back().unwrap().as_deref(), None);
        for reading in 1..=MINUTES * IN_MINUTE {
            track.read(traffic(5, 0, 3), true, reading % IN_MINUTE == 0);
        }
        assert!(track.is_idle());
    }
}
