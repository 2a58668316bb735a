//! Counts the open connections of each client address.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The number of shards. Opening or closing a connection locks one of them.
const SHARDS: usize = 64;

/// The number of open connections of a listener, by client address and over all workers. An address
/// without open connections has no entry, so the limits on connections also limit the size of the
/// table.
#[derive(Debug)]
pub struct Sources {
    hasher: RandomState,
    shards: Box<[Mutex<HashMap<IpAddr, u32>>]>,
}

impl Default for Sources {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { hasher: RandomState::new(), shards }
    }
}

/// A counted connection. Dropping it ends the count.
#[derive(Debug)]
pub struct Counted {
    sources: Arc<Sources>,
    ip: IpAddr,
}

impl Sources {
    /// Counts a connection from `ip`. Returns `None` if `ip` already has `max` connections.
    pub fn enter(self: &Arc<Self>, ip: IpAddr, max: u32) -> Option<Counted> {
        let ip = ip.to_canonical();
        let mut shard = self.shard(ip);
        let open = shard.get(&ip).copied().unwrap_or_default();
        if open >= max {
            return None;
        }
        shard.insert(ip, open + 1);
        Some(Counted { sources: Arc::clone(self), ip })
    }

    fn shard(&self, ip: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        let shard = self.hasher.hash_one(ip) as usize % SHARDS;
        // The counts are valid at any point, so a panic of another thread does no harm.
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut shard = self.sources.shard(self.ip);
        match shard.get_mut(&self.ip) {
            Some(open) if *open > 1 => *open -= 1,
            _ => drop(shard.remove(&self.ip)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_number_of_connections_and_is_then_forgotten() {
        let sources = Arc::new(Sources::default());
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let enter = |text: &str| sources.enter(ip(text), 2);
        let (one, two) = (enter("10.0.0.1"), enter("::ffff:10.0.0.1"));
        assert!(one.is_some() && two.is_some() && enter("10.0.0.1").is_none());
        let other = enter("10.0.0.2");
        assert!(other.is_some());
        drop(one);
        let again = enter("10.0.0.1");
        assert!(again.is_some() && enter("10.0.0.1").is_none());
        drop((two, again, other));
        assert!(sources.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn workers_that_accept_at_once_share_the_count() {
        let sources = Arc::new(Sources::default());
        let ip = "::1".parse().unwrap();
        let entered: Vec<Counted> = std::thread::scope(|scope| {
            let worker = || (0..1000).filter_map(|_| sources.enter(ip, 1500)).collect::<Vec<_>>();
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        assert_eq!(entered.len(), 1500);
    }
}
