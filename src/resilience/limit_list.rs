//! The rate limits of one listener, rule or service. A request passes all of them, or it takes
//! nothing from any.

use std::sync::Arc;

use super::bucket::Taken;
use super::buckets::KeyHash;
use super::rate_limit::{Quota, RateLimit};
use crate::time::Time;

/// The maximum number of limits that a proxy counts for one listener, rule or service.
pub const LIMITS_MAX: usize = 8;

/// The rate limits of one listener, rule or service: at most [`LIMITS_MAX`].
pub type LimitList = Box<[Arc<RateLimit>]>;

/// The keys of a request, by limit.
pub type Keys = [KeyHash; LIMITS_MAX];

/// Decides about a request of `worker` that began at `now`, and counts it. A request that would
/// have to wait at one of `limits` is refused, and takes nothing from the others. Returns the state
/// of the limit with the longest wait, or else of the one with the fewest requests left among those
/// that clients are told. `None`: the request passes, and there is nothing to tell.
///
/// `clock` is read only if another worker takes the last unit of a limit at the same time.
pub fn admit(
    limits: &[Arc<RateLimit>],
    keys: &Keys,
    worker: usize,
    now: Time,
    clock: impl Fn() -> Time,
) -> Option<Quota> {
    let refused = |(limit, taken): (usize, Taken)| {
        limits[limit].stats.worker(worker).limited.increment();
        Some(Quota::refused(limit, taken))
    };
    let looks = limits.iter().zip(keys).map(|(limit, &key)| look(limit, key, now, limits.len()));
    let waits = looks.enumerate().filter_map(|(index, taken)| Some((index, taken?)));
    if let Some(longest) = waits.max_by_key(|(_, taken)| taken.wait()) {
        return refused(longest);
    }
    let mut spent = [None; LIMITS_MAX];
    let mut tightest: Option<Quota> = None;
    for (index, (limit, &key)) in limits.iter().zip(keys).enumerate() {
        let Some(requests) = &limit.requests else { continue };
        let taken = requests.buckets.take(key, requests.rate, now);
        if !taken.passes() {
            give_back(&limits[..index], keys, &spent, (now, clock()));
            return refused((index, taken));
        }
        spent[index] = Some(taken);
        if !limit.fields.is_silent() {
            let quota = Quota::of(index, taken, requests.rate);
            if tightest.is_none_or(|other| quota.left < other.left) {
                tightest = Some(quota);
            }
        }
    }
    let counting = limits.iter().filter(|limit| limit.requests.is_some());
    counting.for_each(|limit| limit.stats.worker(worker).passed.increment());
    tightest
}

/// The decision of `limit` if it refuses a request. A limit on requests that is alone decides when
/// it takes a unit.
fn look(limit: &RateLimit, key: KeyHash, now: Time, limits: usize) -> Option<Taken> {
    limit.indebted(key, now).or_else(|| {
        let requests = limit.requests.as_ref().filter(|_| limits > 1)?;
        Some(requests.buckets.look(key, requests.rate, now)).filter(|taken| !taken.passes())
    })
}

fn give_back(limits: &[Arc<RateLimit>], keys: &Keys, spent: &[Option<Taken>], times: (Time, Time)) {
    for ((limit, &key), taken) in limits.iter().zip(keys).zip(spent) {
        if let (Some(requests), Some(taken)) = (&limit.requests, taken) {
            requests.buckets.give_back(key, requests.rate, *taken, times);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cells::PerWorker;
    use crate::resilience::{
        Buckets, ByteLimit, LimitBy, LimitFields, Rate, RequestLimit, Scope, Way, quoted,
    };
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn at_us(us: u64) -> Time {
        Time::from_micros(us)
    }

    fn limit(by: LimitBy) -> RateLimit {
        RateLimit {
            scope: Scope::Route,
            host: "*".into(),
            name: "*#1".into(),
            which: "".into(),
            place: "a.yaml:1".into(),
            by,
            requests: None,
            bytes: None,
            label: quoted("*#1"),
            fields: LimitFields { standard: true, envoy: false },
            stats: Arc::new(PerWorker::new(4)),
        }
    }

    /// A limit of `units` in each `per`, of which `1 + burst` may come at once.
    fn requests(units: u64, per: Duration, burst: u64, by: LimitBy) -> RateLimit {
        let buckets = match by {
            LimitBy::All => Buckets::one(),
            _ => Buckets::keyed(10),
        };
        let rate = Rate::new(units, per, burst).unwrap();
        let requests = Some(RequestLimit { rate, burst, buckets: Arc::new(buckets) });
        RateLimit { requests, ..limit(by) }
    }

    fn ask(limits: &[Arc<RateLimit>], keys: &[&[u8]], now: Time) -> Option<Quota> {
        let mut hashes = Keys::default();
        for ((hash, limit), key) in hashes.iter_mut().zip(limits).zip(keys) {
            *hash = limit.hash(key);
        }
        admit(limits, &hashes, 0, now, || now)
    }

    fn counts(limit: &RateLimit) -> (u64, u64) {
        (limit.stats.sum(|c| &c.passed), limit.stats.sum(|c| &c.limited))
    }

    #[test]
    fn a_refused_request_is_counted_and_waits_whole_seconds() {
        let by = LimitBy::Header("x-user".into());
        let limits = [Arc::new(requests(2, 3 * SECOND, 0, by))];
        let check = |key: &[u8]| ask(&limits, &[key], at_us(1));
        let quota = |full_in_s, wait_s| Some(Quota { limit: 0, left: 0, full_in_s, wait_s });
        assert_eq!(check(b"ada"), quota(2, 0));
        assert_eq!(check(b"ada"), quota(2, 2));
        assert_eq!(check(b"bob"), quota(2, 0));
        assert_eq!(counts(&limits[0]), (2, 1));
        assert_eq!(limits[0].to_string(), "2 requests per 3s, burst 0, by header x-user");
    }

    #[test]
    fn a_limit_on_bytes_refuses_requests_while_it_owes_too_much() {
        let buckets = || Arc::new(Buckets::keyed(10));
        let rate = Rate::of_bytes(1000, SECOND, 1000).unwrap();
        let bytes = Some(ByteLimit { rate, buckets: [buckets(), buckets()] });
        let limits = [Arc::new(RateLimit { bytes, ..limit(LimitBy::Header("x-user".into())) })];
        let limit = &limits[0];
        let (ada, at) = (limit.hash(b"ada"), |s: u64| at_us(s * 1_000_000));
        let indebted = |key: &[u8], s| ask(&limits, &[key], at(s));
        limit.owe(ada, Way::Down, 61_000, 0, at(1));
        assert_eq!(indebted(b"ada", 1), None, "the limit itself is allowed");
        limit.owe(ada, Way::Down, 5_000, 0, at(1));
        let quota = Quota { limit: 0, left: 0, full_in_s: 65, wait_s: 5 };
        assert_eq!(indebted(b"ada", 1), Some(quota));
        assert_eq!((indebted(b"bob", 1), indebted(b"ada", 6)), (None, None));
        assert_eq!(counts(limit), (0, 1));
        limit.forgive(ada, Way::Down, 5_000, at(1));
        assert_eq!(indebted(b"ada", 1), None);
        limit.owe(ada, Way::Up, 90_000, 0, at(1));
        assert!(indebted(b"ada", 1).is_some(), "each direction owes for itself");
    }

    #[test]
    fn a_request_passes_all_limits_or_takes_nothing() {
        let each = requests(100, 60 * SECOND, 2, LimitBy::Source);
        let limits = [each, requests(1, 10 * SECOND, 3, LimitBy::All)].map(Arc::new);
        let check = |source: &[u8]| {
            let quota = ask(&limits, &[source, b""], at_us(1)).unwrap();
            (quota.limit, quota.left, quota.wait_s)
        };
        // The first limit is the tighter one, then the second one.
        assert_eq!([check(b"a"), check(b"a")], [(0, 2, 0), (0, 1, 0)]);
        assert_eq!([check(b"b"), check(b"b")], [(1, 1, 0), (1, 0, 0)]);
        // The second limit refuses, and the first one does not lose its last unit by it.
        assert_eq!([check(b"a"), check(b"a"), check(b"c")], [(1, 0, 10); 3]);
        let left = |limit: usize, key: &[u8]| {
            let (limit, key) = (&limits[limit], limits[limit].hash(key));
            let requests = limit.requests.as_ref().unwrap();
            requests.buckets.look(key, requests.rate, at_us(1)).left(requests.rate)
        };
        assert_eq!([left(0, b"a"), left(0, b"b"), left(0, b"c"), left(1, b"")], [1, 1, 3, 0]);
        // A refused request does not even add its key.
        assert_eq!(limits[0].keys(), 2);
        assert_eq!((counts(&limits[0]), counts(&limits[1])), ((4, 0), (4, 3)));
    }

    #[test]
    fn the_longest_wait_and_the_limit_that_has_fields_speak() {
        let silent = LimitFields::default();
        let slow = requests(1, 100 * SECOND, 0, LimitBy::All);
        let limits = [
            requests(1, 5 * SECOND, 0, LimitBy::All),
            RateLimit { fields: silent, ..slow },
            requests(1, 7 * SECOND, 9, LimitBy::All),
        ]
        .map(Arc::new);
        let check =
            || ask(&limits, &[&b""[..]; 3], at_us(1)).map(|quota| (quota.limit, quota.wait_s));
        assert_eq!([check(), check()], [Some((0, 0)), Some((1, 100))]);
    }

    /// Two workers take units one after the other, in any order of single steps. The worker that
    /// is refused late gives its unit back. The rate is never exceeded.
    #[test]
    fn a_unit_that_is_given_back_lets_no_more_than_the_rate_pass() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (units, burst) = (random.u64(1..2000), random.u64(0..20));
            let rate = Rate::new(units, SECOND, burst).unwrap();
            let (bucket, plain) = (Buckets::one(), Buckets::one());
            let (key, mut now) = (KeyHash::default(), 1);
            for _ in 0..300 {
                now += random.u64(..2_000_000 / units);
                let given_back = bucket.take(key, rate, at_us(now));
                let others = random.usize(..4);
                let mut latest = now;
                for _ in 0..others {
                    latest += random.u64(..50);
                    let passes = bucket.take(key, rate, at_us(latest)).passes();
                    // The other bucket never sees the unit that is given back.
                    let would = plain.take(key, rate, at_us(latest)).passes();
                    assert!(would || !passes, "seed {seed}: more than the rate");
                    if would && !passes {
                        // It was refused because the unit was out. Both buckets agree again.
                        bucket.owe(key, rate, 1, at_us(latest));
                    }
                }
                if given_back.passes() {
                    let times = (at_us(now), at_us(latest + random.u64(..5)));
                    bucket.give_back(key, rate, given_back, times);
                }
                let debts = [&bucket, &plain].map(|b| b.look(key, rate, at_us(latest)).full_in());
                assert!(debts[0] >= debts[1], "seed {seed}: {debts:?}");
                now = latest;
            }
        }
    }

    #[test]
    fn workers_that_ask_at_once_exceed_no_limit_and_lose_nothing() {
        let limits = [
            requests(1000, SECOND, 199_999, LimitBy::All),
            requests(1000, SECOND, 49_999, LimitBy::All),
        ]
        .map(Arc::new);
        let passed = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (limits, passed) = (&limits, &passed);
                scope.spawn(move || {
                    for _ in 0..40_000 {
                        let now = at_us(7);
                        let quota = admit(limits, &Keys::default(), worker, now, || now);
                        let passes = quota.is_some_and(|quota| quota.wait_s == 0);
                        passed.fetch_add(u64::from(passes), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), 50_000);
        let first = limits[0].requests.as_ref().unwrap();
        let left = first.buckets.look(KeyHash::default(), first.rate, at_us(7)).left(first.rate);
        assert_eq!(left, 150_000, "each refused request gave its unit back");
        assert_eq!((counts(&limits[0]).0, counts(&limits[1]).0), (50_000, 50_000));
    }
}
