//! Counters for destinations that belong to no known service. The number of counters is limited.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use rustc_hash::FxHashMap;

/// How many destinations one worker counts by address. All others count together as `other`.
pub const DESTINATIONS_MAX: usize = 256;

/// The numbers of connections and requests to one destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Allowed connections and requests.
    pub allowed: u64,
    /// Refused connections and requests.
    pub denied: u64,
}

impl Seen {
    fn count(&mut self, allowed: bool) {
        if allowed {
            self.allowed += 1;
        } else {
            self.denied += 1;
        }
    }
}

/// The counters of one worker for unknown destinations. The lock is contended only while the
/// metrics are read.
#[derive(Debug, Default)]
pub struct Destinations(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    known: FxHashMap<SocketAddr, Seen>,
    other: Seen,
}

impl Destinations {
    /// Counts one connection or flow to `destination`.
    pub fn count(&self, destination: SocketAddr, allowed: bool) {
        let mut inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = inside.known.len() >= DESTINATIONS_MAX;
        match inside.known.get_mut(&destination) {
            Some(seen) => seen.count(allowed),
            None if full => inside.other.count(allowed),
            None => inside.known.entry(destination).or_default().count(allowed),
        }
    }

    /// Adds the counters of this worker: those of single destinations to `known`, the rest to
    /// `other`.
    pub fn add_to(&self, known: &mut Vec<(SocketAddr, Seen)>, other: &mut Seen) {
        let inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(inside.known.iter().map(|(destination, seen)| (*destination, *seen)));
        other.allowed += inside.other.allowed;
        other.denied += inside.other.denied;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_have_a_count_of_their_own() {
        let destinations = Destinations::default();
        for port in 0..=DESTINATIONS_MAX as u16 {
            destinations.count(SocketAddr::from(([10, 0, 0, 1], port)), true);
        }
        destinations.count(SocketAddr::from(([10, 0, 0, 1], 0)), false);
        let (mut known, mut other) = (Vec::new(), Seen::default());
        destinations.add_to(&mut known, &mut other);
        assert_eq!(known.len(), DESTINATIONS_MAX);
        assert_eq!(other, Seen { allowed: 1, denied: 0 });
        let first = known.iter().find(|(destination, _)| destination.port() == 0);
        assert_eq!(first.map(|(_, seen)| *seen), Some(Seen { allowed: 1, denied: 1 }));
    }
}
