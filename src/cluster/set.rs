//! The endpoints of a service, in a cell with a version. They may change without a reload.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Endpoint, Service};
use crate::balance::{Candidates, Level, Locality, Maglev, Member, Policy};
use crate::health::{Changes, SlowStart, State};
use crate::time::Time;

/// The endpoints that a destination selects: all endpoints of a service, or those of one version.
#[derive(Debug)]
pub struct Subset {
    /// The version. Empty means all endpoints of the service.
    pub version: Box<str>,
    /// Indices into [`Endpoints::list`].
    pub members: Vec<u32>,
    /// The lookup table of the hash policy. `None` with any other policy.
    pub maglev: Option<Maglev>,
}

/// The endpoints of a service at one time. The value is immutable.
#[derive(Debug, Default)]
pub struct Endpoints {
    /// All endpoints, of all versions.
    pub list: Vec<Arc<Endpoint>>,
    /// Subset 0 has all endpoints. It is followed by one subset for each version, sorted by name.
    pub subsets: Vec<Subset>,
}

/// The current endpoints of a service. The control thread replaces them. A worker compares the
/// version before each choice of an endpoint, and reads the endpoints only after a change.
#[derive(Debug, Default)]
pub struct EndpointSet {
    version: AtomicU64,
    current: Mutex<Arc<Endpoints>>,
}

/// A service with its endpoints at one time, as input of its balancers.
pub struct ServiceCandidates<'a> {
    /// The settings of the service.
    pub service: &'a Service,
    /// The endpoints at that time.
    pub endpoints: &'a Endpoints,
}

impl Endpoints {
    /// Creates the endpoints in `list`, with the subset of all of them and one for each of
    /// `versions`. Builds the lookup tables of the hash policy.
    pub fn new(
        list: Vec<Arc<Endpoint>>,
        mut versions: Vec<(&str, Vec<u32>)>,
        policy: &Policy,
    ) -> Self {
        versions.sort_by_key(|(version, _)| *version);
        let all = ("", (0..list.len() as u32).collect());
        let subsets = std::iter::once(all).chain(versions);
        let subsets = subsets.map(|(version, members)| subset(version, members, &list, policy));
        Self { subsets: subsets.collect(), list }
    }

    /// Returns the endpoints of a subset. Empty if the subset does not exist.
    pub fn members(&self, subset: usize) -> impl Iterator<Item = &Arc<Endpoint>> {
        let members = self.subsets.get(subset).map_or(&[][..], |subset| &subset.members);
        members.iter().map(|&index| &self.list[index as usize])
    }
}

impl EndpointSet {
    /// Creates a cell with its first endpoints.
    pub fn new(endpoints: Arc<Endpoints>) -> Self {
        Self { version: AtomicU64::new(0), current: Mutex::new(endpoints) }
    }

    /// The number of replacements so far.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The current endpoints.
    pub fn load(&self) -> Arc<Endpoints> {
        self.load_versioned().1
    }

    /// The current endpoints and their version.
    pub fn load_versioned(&self) -> (u64, Arc<Endpoints>) {
        let current = self.lock();
        (self.version(), Arc::clone(&current))
    }

    /// Replaces the endpoints and returns the old ones. The version changes last, so a worker that
    /// reads the new version also reads the new endpoints.
    pub fn replace(&self, endpoints: Arc<Endpoints>) -> Arc<Endpoints> {
        let mut current = self.lock();
        let old = std::mem::replace(&mut *current, endpoints);
        self.version.fetch_add(1, Ordering::Release);
        old
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Endpoints>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Candidates for ServiceCandidates<'_> {
    fn policy(&self) -> &Policy {
        &self.service.policy
    }

    fn changes(&self) -> Option<&Changes> {
        self.service.changes.as_deref()
    }

    fn panic_percent(&self) -> u8 {
        self.service.panic_percent
    }

    fn members(&self, subset: usize) -> &[u32] {
        self.endpoints.subsets.get(subset).map_or(&[], |subset| &subset.members)
    }

    fn weight(&self, index: u32) -> u32 {
        self.endpoints.list[index as usize].weight
    }

    fn state(&self, index: u32) -> Option<State> {
        self.endpoints.list[index as usize].state()
    }

    fn locality(&self) -> Option<&Locality> {
        self.service.locality.as_ref()
    }

    fn level(&self, index: u32) -> Level {
        self.endpoints.list[index as usize].level
    }

    fn slow_start(&self) -> Option<&SlowStart> {
        self.service.slow_start.as_ref()
    }

    fn age(&self, index: u32, now: Time) -> Duration {
        let warmup = self.endpoints.list[index as usize].warmup.as_ref();
        warmup.map_or(Duration::MAX, |warmup| warmup.age(now))
    }

    fn maglev(&self, subset: usize) -> Option<&Maglev> {
        self.endpoints.subsets.get(subset)?.maglev.as_ref()
    }
}

fn subset(version: &str, members: Vec<u32>, list: &[Arc<Endpoint>], policy: &Policy) -> Subset {
    let maglev = matches!(policy, Policy::Hash(_)).then(|| {
        let endpoint = |&index: &u32| &list[index as usize];
        let keys: Vec<String> = members.iter().map(|m| endpoint(m).address.to_string()).collect();
        let pairs = members.iter().zip(&keys);
        let member = pairs.map(|(index, key)| Member {
            index: *index,
            key: key.as_bytes(),
            weight: endpoint(index).weight,
        });
        Maglev::build(&member.collect::<Vec<_>>())
    });
    Subset { version: version.into(), members, maglev }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::HashKey;
    use crate::cells::PerWorker;
    use crate::net::Address;

    fn endpoint(last: u8) -> Arc<Endpoint> {
        Arc::new(Endpoint {
            address: Address::Tcp(([10, 0, 0, last], 80).into()),
            weight: 1,
            zone: None,
            level: Level::default(),
            zone_stats: None,
            version: None,
            health: None,
            outlier: None,
            warmup: None,
            stats: Arc::new(PerWorker::new(1)),
        })
    }

    #[test]
    fn a_change_moves_the_version_and_leaves_readers_their_endpoints() {
        let list = vec![endpoint(1), endpoint(2)];
        let set =
            EndpointSet::new(Endpoints::new(list.clone(), Vec::new(), &Policy::Random).into());
        let (version, before) = set.load_versioned();
        assert_eq!((version, before.list.len()), (0, 2));
        let old =
            set.replace(Endpoints::new(list[..1].to_vec(), Vec::new(), &Policy::Random).into());
        assert!(Arc::ptr_eq(&old, &before));
        let (version, after) = set.load_versioned();
        assert_eq!((version, set.version(), after.list.len(), before.list.len()), (1, 1, 1, 2));
    }

    #[test]
    fn subsets_are_in_order_of_version_and_have_tables_for_the_hash_policy() {
        let list = vec![endpoint(1), endpoint(2), endpoint(3)];
        let versions = vec![("v2", vec![0]), ("v1", vec![1, 2])];
        let hash = Policy::Hash(HashKey::SourceIp);
        let endpoints = Endpoints::new(list, versions, &hash);
        let subset = |subset: &Subset| (subset.version.to_string(), subset.members.clone());
        let subsets: Vec<_> = endpoints.subsets.iter().map(subset).collect();
        let expected = [("", vec![0, 1, 2]), ("v1", vec![1, 2]), ("v2", vec![0])];
        assert_eq!(subsets, expected.map(|(version, members)| (version.to_owned(), members)));
        assert!(endpoints.subsets.iter().all(|subset| subset.maglev.is_some()));
        assert_eq!(endpoints.members(1).count(), 2);
        assert_eq!(endpoints.members(3).count(), 0);
    }
}
