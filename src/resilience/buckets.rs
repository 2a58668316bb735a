//! The buckets of a rate limit that counts by key: one bucket for each header value, identity or
//! address.
//!
//! The table has a maximum number of keys, and each key needs the same memory, whatever its length
//! is. All workers share the table. A lookup of a known key takes the lock of its shard for
//! reading, so workers do not block each other. A new key takes this lock for writing.

use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{LazyLock, PoisonError, RwLock};
use std::time::Duration;

use super::bucket::{Bucket, Rate, Taken, nanos};
use crate::time::Time;

/// The default of `limits.rate_limit_keys`, the maximum number of keys of one rate limit.
pub const RATE_LIMIT_KEYS: usize = 100_000;

/// The number of shards of a table with many keys.
const SHARDS: usize = 64;

/// A table for fewer keys than this has only one shard.
const SHARDED_MIN: usize = 1024;

/// How many buckets are examined in a full table. The one that would be full first is replaced by
/// the new key.
const LOOKED_AT: usize = 16;

/// The minimum number of slots of a shard that has a key.
const SLOTS_MIN: usize = 8;

/// The buckets of a rate limit.
#[derive(Debug)]
pub enum Buckets {
    /// One bucket for all requests.
    One(Bucket),
    /// One bucket for each key.
    Keyed(Keyed),
}

impl Buckets {
    /// One bucket for all requests.
    pub fn one() -> Self {
        Self::One(Bucket::default())
    }

    /// Creates a table with one bucket for each key, for at most `keys_max` keys.
    pub fn keyed(keys_max: usize) -> Self {
        Self::Keyed(Keyed::new(keys_max))
    }

    /// Takes one unit from the bucket of `key`, if the bucket has one.
    pub fn take(&self, key: KeyHash, rate: Rate, now: Time) -> Taken {
        match self {
            Self::One(bucket) => bucket.take(rate, now),
            Self::Keyed(keyed) => keyed.with(key.0.get(), now, |bucket| bucket.take(rate, now)),
        }
    }

    /// The decision about a request with `key`, which takes nothing. Does not add the key.
    pub fn look(&self, key: KeyHash, rate: Rate, now: Time) -> Taken {
        match self {
            Self::One(bucket) => bucket.look(rate, now),
            Self::Keyed(keyed) => keyed.look(key.0.get(), rate, now),
        }
    }

    /// Gives the unit of `key` back that was `taken` at the time `then`.
    pub fn give_back(&self, key: KeyHash, rate: Rate, taken: Taken, (then, now): (Time, Time)) {
        let give_back = |bucket: &Bucket| bucket.give_back(rate, taken, then, now);
        match self {
            Self::One(bucket) => give_back(bucket),
            Self::Keyed(keyed) => keyed.with(key.0.get(), now, give_back),
        }
    }

    /// Takes `units` from the bucket of `key`, even if the bucket does not have them. Returns how
    /// long to wait before the next units.
    pub fn owe(&self, key: KeyHash, rate: Rate, units: u64, now: Time) -> Duration {
        match self {
            Self::One(bucket) => bucket.owe(rate, units, now),
            Self::Keyed(keyed) => {
                keyed.with(key.0.get(), now, |bucket| bucket.owe(rate, units, now))
            }
        }
    }

    /// Gives `units` back to the bucket of `key`.
    pub fn forgive(&self, key: KeyHash, rate: Rate, units: u64, now: Time) {
        match self {
            Self::One(bucket) => bucket.forgive(rate, units, now),
            Self::Keyed(keyed) => {
                keyed.with(key.0.get(), now, |bucket| bucket.forgive(rate, units, now))
            }
        }
    }

    /// The time until the bucket of `key` owes nothing.
    pub fn debt(&self, key: KeyHash, rate: Rate, now: Time) -> Duration {
        match self {
            Self::One(bucket) => bucket.debt(rate, now),
            Self::Keyed(keyed) => keyed.with(key.0.get(), now, |bucket| bucket.debt(rate, now)),
        }
    }

    /// The number of keys in the table, for the metric.
    pub fn keys(&self) -> u64 {
        match self {
            Self::One(_) => 0,
            Self::Keyed(keyed) => keyed.count.load(Ordering::Relaxed) as u64,
        }
    }

    /// The number of keys that were removed before their bucket was full again.
    pub fn evicted(&self) -> u64 {
        match self {
            Self::One(_) => 0,
            Self::Keyed(keyed) => keyed.evicted.load(Ordering::Relaxed),
        }
    }
}

/// The secret hash key of the process. Without it, a client cannot find keys with the same hash, or
/// keys of the same shard.
static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The hash of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(NonZeroU64);

impl Default for KeyHash {
    fn default() -> Self {
        Self(NonZeroU64::MIN)
    }
}

impl KeyHash {
    /// The hash of `key`.
    pub fn of(key: &[u8]) -> Self {
        // 0 marks a free slot.
        Self(NonZeroU64::new(SECRET.hash_one(key)).unwrap_or(NonZeroU64::MIN))
    }
}

/// A table of buckets, by the hash of their key.
#[derive(Debug)]
pub struct Keyed {
    shards: Box<[RwLock<Shard>]>,
    count: AtomicUsize,
    keys_max: usize,
    evicted: AtomicU64,
}

/// A part of the table. It uses open addressing with linear probing, so that a lookup of a known
/// key reads about one cache line.
#[derive(Debug, Default)]
struct Shard {
    /// The slots. Their number is 0 or a power of two, and at most 7 of 8 are used.
    slots: Vec<Slot>,
    used: usize,
    /// The slot from which the next new key examines buckets to replace.
    hand: usize,
}

/// The bucket of a key. Keys with the same 64-bit hash would share it, which does not happen in
/// practice.
#[derive(Debug, Default)]
struct Slot {
    /// The hash of the key. 0 means that the slot is free.
    hash: u64,
    bucket: Bucket,
}

impl Keyed {
    fn new(keys_max: usize) -> Self {
        let shards = if keys_max < SHARDED_MIN { 1 } else { SHARDS };
        Self {
            shards: (0..shards).map(|_| RwLock::default()).collect(),
            count: AtomicUsize::new(0),
            keys_max: keys_max.max(1),
            evicted: AtomicU64::new(0),
        }
    }

    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        &self.shards[(hash >> 48) as usize % self.shards.len()]
    }

    fn look(&self, hash: u64, rate: Rate, now: Time) -> Taken {
        let shard = self.shard(hash).read().unwrap_or_else(PoisonError::into_inner);
        match shard.find(hash) {
            Some(slot) => shard.slots[slot].bucket.look(rate, now),
            None => Bucket::default().look(rate, now),
        }
    }

    fn with<T>(&self, hash: u64, now: Time, use_it: impl FnOnce(&Bucket) -> T) -> T {
        let shard = self.shard(hash);
        // The data is valid at any point, so a panic of another thread does no harm.
        let known = shard.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = known.find(hash) {
            return use_it(&known.slots[slot].bucket);
        }
        drop(known);
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        let slot = match shard.find(hash) {
            Some(slot) => slot, // another worker has added the key
            None => self.insert(&mut shard, hash, now),
        };
        use_it(&shard.slots[slot].bucket)
    }

    /// Adds a key. In a full table, it replaces another key.
    fn insert(&self, shard: &mut Shard, hash: u64, now: Time) -> usize {
        if self.count.load(Ordering::Relaxed) < self.keys_max || shard.used == 0 {
            self.count.fetch_add(1, Ordering::Relaxed);
        } else if shard.remove_oldest().full_at_ns() > nanos(now) {
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
        shard.insert(Slot { hash, bucket: Bucket::default() })
    }
}

impl Shard {
    fn find(&self, hash: u64) -> Option<usize> {
        let mut slot = self.home(hash)?;
        loop {
            match self.slots[slot].hash {
                found if found == hash => return Some(slot),
                0 => return None,
                _ => slot = self.after(slot),
            }
        }
    }

    /// The slot where the search for a hash begins. Returns `None` in an empty shard.
    fn home(&self, hash: u64) -> Option<usize> {
        Some(hash as usize & self.slots.len().checked_sub(1)?)
    }

    fn after(&self, slot: usize) -> usize {
        (slot + 1) & (self.slots.len() - 1)
    }

    /// Adds a hash that is not in the shard. Returns its slot.
    fn insert(&mut self, new: Slot) -> usize {
        if (self.used + 1) * 8 > self.slots.len() * 7 {
            let doubled = (self.slots.len() * 2).max(SLOTS_MIN);
            let empty = (0..doubled).map(|_| Slot::default()).collect();
            let old = std::mem::replace(&mut self.slots, empty);
            self.used = 0;
            old.into_iter().filter(|slot| slot.hash != 0).for_each(|slot| {
                self.insert(slot);
            });
        }
        let mut slot = self.home(new.hash).unwrap_or_default();
        while self.slots[slot].hash != 0 {
            slot = self.after(slot);
        }
        self.slots[slot] = new;
        self.used += 1;
        slot
    }

    /// Removes one of the next few buckets: the one that will be full first. Removing a full bucket
    /// has no effect, because a new bucket is full, too.
    fn remove_oldest(&mut self) -> Bucket {
        let len = self.slots.len();
        let slots = (0..len).map(|step| (self.hand + step) % len);
        let looked = slots.filter(|&slot| self.slots[slot].hash != 0).take(LOOKED_AT);
        let oldest = looked.min_by_key(|&slot| self.slots[slot].bucket.full_at_ns());
        let oldest = oldest.unwrap_or_default();
        self.hand = (oldest + 1) % len;
        self.remove(oldest)
    }

    /// Empties a slot. The slots after it move up, so that a search still finds them.
    fn remove(&mut self, slot: usize) -> Bucket {
        let removed = std::mem::take(&mut self.slots[slot]);
        self.used -= 1;
        let (mut hole, mut next) = (slot, self.after(slot));
        while self.slots[next].hash != 0 {
            let home = self.home(self.slots[next].hash).unwrap_or_default();
            let distance = |from: usize| next.wrapping_sub(from) & (self.slots.len() - 1);
            if distance(home) >= distance(hole) {
                self.slots[hole] = std::mem::take(&mut self.slots[next]);
                hole = next;
            }
            next = self.after(next);
        }
        removed.bucket
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn rate(units: u64, burst: u64) -> Rate {
        Rate::new(units, Duration::from_secs(1), burst).unwrap()
    }

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn each_key_has_its_own_bucket() {
        let (buckets, rate) = (Buckets::keyed(100), rate(1, 1));
        let passes = |key: &str| buckets.take(KeyHash::of(key.as_bytes()), rate, at(9)).passes();
        for key in ["ada", "bob", ""] {
            assert_eq!([passes(key), passes(key), passes(key)], [true, true, false], "{key}");
        }
        assert_eq!((buckets.keys(), buckets.evicted()), (3, 0));
    }

    #[test]
    fn a_full_table_drops_full_buckets_first_and_then_the_oldest() {
        let (buckets, rate) = (Buckets::keyed(10), rate(1, 99));
        let take =
            |key: u32, now| buckets.take(KeyHash::of(&key.to_ne_bytes()), rate, at(now)).left(rate);
        (0..10).for_each(|key| assert_eq!(take(key, 100), 99));
        for _ in 0..3 {
            (5..10).for_each(|key| assert!(take(key, 101) < 100));
        }
        // The buckets of 0 to 4 are full again at 101; those of 5 to 9 are not.
        (20..25).for_each(|key| assert_eq!(take(key, 102), 99));
        assert_eq!((buckets.keys(), buckets.evicted()), (10, 0));
        (5..10).for_each(|key| assert!(take(key, 102) < 98));
        // Now the buckets of the keys 20 to 24 are those that will be full first.
        (30..35).for_each(|key| assert_eq!(take(key, 102), 99));
        (5..10).for_each(|key| assert!(take(key, 102) < 97));
        assert_eq!((buckets.keys(), buckets.evicted()), (10, 5));
    }

    #[test]
    fn a_flood_of_keys_does_not_exceed_the_limit() {
        for keys_max in [1, 7, 5000] {
            let (buckets, rate) = (Buckets::keyed(keys_max), rate(1, 0));
            for key in 0..30_000_u32 {
                buckets.take(KeyHash::of(&key.to_ne_bytes()), rate, at(1));
            }
            assert_eq!(buckets.keys(), keys_max as u64);
            assert_eq!(buckets.evicted(), 30_000 - keys_max as u64);
            let Buckets::Keyed(keyed) = &buckets else { unreachable!() };
            for shard in &keyed.shards {
                let shard = shard.read().unwrap();
                let hashes = shard.slots.iter().map(|slot| slot.hash).filter(|&hash| hash != 0);
                let hashes: Vec<u64> = hashes.collect();
                assert_eq!(hashes.len(), shard.used);
                assert!(hashes.iter().all(|&hash| shard.find(hash).is_some()));
            }
        }
    }

    #[test]
    fn a_shard_finds_what_it_has_after_any_changes() {
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut shard, mut known) = (Shard::default(), Vec::new());
            // The hashes have few different low bits, so that many of them have the same home slot.
            let hashes: Vec<u64> = (0..200).map(|n| (n << 32 | random.u64(..4)) + 1).collect();
            for change in 0..2000 {
                let hash = hashes[random.usize(..hashes.len())];
                match shard.find(hash) {
                    Some(slot) if random.bool() => {
                        shard.remove(slot);
                        known.retain(|&other| other != hash);
                    }
                    Some(_) => {}
                    None => {
                        shard.insert(Slot { hash, bucket: Bucket::default() });
                        known.push(hash);
                    }
                }
                if change % 50 != 0 {
                    continue;
                }
                let found = hashes.iter().filter(|&&hash| shard.find(hash).is_some()).count();
                assert_eq!((found, shard.used), (known.len(), known.len()), "seed {seed}");
            }
        }
    }

    #[test]
    fn workers_that_meet_a_new_key_at_once_share_its_bucket() {
        const KEYS: usize = 20_000;
        let (buckets, rate) = (Buckets::keyed(2 * KEYS), rate(1, 0));
        let (passed, arrived) = (AtomicU64::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for key in 0..KEYS {
                        // Both workers take each new key at the same time.
                        arrived.fetch_add(1, Ordering::SeqCst);
                        while arrived.load(Ordering::SeqCst) < 2 * (key + 1) {
                            std::thread::yield_now();
                        }
                        let key = KeyHash::of(&key.to_ne_bytes());
                        let passes = buckets.take(key, rate, at(3)).passes();
                        passed.fetch_add(u64::from(passes), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), KEYS as u64);
    }

    /// The memory that the table has allocated, in bytes.
    fn bytes_of(buckets: &Buckets) -> usize {
        let Buckets::Keyed(keyed) = buckets else { return 0 };
        let shard = |shard: &RwLock<Shard>| {
            let shard = shard.read().unwrap();
            shard.slots.capacity() * size_of::<Slot>() + size_of::<RwLock<Shard>>()
        };
        keyed.shards.iter().map(shard).sum()
    }

    #[test]
    fn a_hundred_thousand_keys_need_less_than_16_mb() {
        let (buckets, rate) = (Buckets::keyed(RATE_LIMIT_KEYS), rate(1, 0));
        for key in 0..RATE_LIMIT_KEYS as u32 {
            assert!(buckets.take(KeyHash::of(&key.to_ne_bytes()), rate, at(1)).passes());
        }
        // The table contains each of the keys.
        for key in 0..RATE_LIMIT_KEYS as u32 {
            assert!(!buckets.take(KeyHash::of(&key.to_ne_bytes()), rate, at(1)).passes());
        }
        assert_eq!((buckets.keys(), buckets.evicted()), (RATE_LIMIT_KEYS as u64, 0));
        let bytes = bytes_of(&buckets);
        assert!(bytes < 16_000_000, "{bytes} bytes");
        eprintln!("{bytes} bytes for {RATE_LIMIT_KEYS} keys");
    }

    /// `DECISIONS=4000000 cargo test --release --lib decision -- --nocapture` prints the time of
    /// one decision.
    #[test]
    fn the_time_of_a_decision_is_measured() {
        let decisions = std::env::var("DECISIONS").map_or(1000, |text| text.parse().unwrap());
        let buckets = Buckets::keyed(RATE_LIMIT_KEYS);
        let rate = rate(1_000_000, 1_000_000);
        let mut random = fastrand::Rng::with_seed(1);
        let order: Vec<usize> = (0..decisions).map(|_| random.usize(..RATE_LIMIT_KEYS)).collect();
        for (name, workers) in [("new and known keys", 1), ("one worker", 1), ("two workers", 2)] {
            let began = Instant::now();
            std::thread::scope(|scope| {
                for worker in 0..workers {
                    let (order, buckets) = (&order, &buckets);
                    scope.spawn(move || {
                        for (n, &key) in order.iter().skip(worker).step_by(workers).enumerate() {
                            let now = Time::from_micros(n as u64);
                            // A key of 16 bytes, as it would be in the head of a request.
                            let key = (key as u128).to_ne_bytes();
                            buckets.take(KeyHash::of(&key), rate, now);
                        }
                    });
                }
            });
            let ns = began.elapsed().as_nanos() as usize * workers / order.len();
            eprintln!("{name}: {ns} ns for each of {} decisions", order.len());
        }
        let one = Buckets::one();
        let began = Instant::now();
        for n in 0..decisions as u64 {
            one.take(KeyHash::default(), rate, Time::from_micros(n));
        }
        eprintln!("without keys: {} ns", began.elapsed().as_nanos() / decisions as u128);
    }
}
