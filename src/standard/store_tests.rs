use super::*;
use crate::standard::{Cache, Reporter};

const MINUTE: Duration = Duration::from_secs(60);

fn key(status: u16) -> Key {
    Key {
        source: UNKNOWN,
        target: UNKNOWN,
        reporter: Reporter::Destination,
        spoken: Spoken::Http,
        mutual: false,
        status,
        flag: None,
        delayed: false,
        grpc: None,
        facts: 0,
    }
}

fn count(store: &Store, cache: &Cache, worker: usize, status: u16) {
    let (party, target) = (store.unknown_party(), store.unknown_target());
    cache.with(store, key(status), party, target, None, |series| {
        series.http.worker(worker).duration.observe_us(1);
    });
}

fn total(store: &Store) -> u64 {
    store.all().iter().map(|series| series.events()).sum()
}

#[test]
fn the_excess_counts_as_other_and_no_request_is_lost() {
    let (store, cache) = (Store::new(1), Cache::default());
    store.set_max(10);
    for status in 0..1000 {
        count(&store, &cache, 0, status);
        count(&store, &cache, 0, status);
    }
    assert_eq!(store.all().len(), 11);
    assert_eq!(total(&store), 2000);
    let other: u64 = store.all().iter().filter(|it| it.is_other()).map(|it| it.events()).sum();
    assert_eq!(other, 2 * 990);
    assert!(cache.known.borrow().len() <= 20);
}

#[test]
fn clients_beyond_the_limit_are_other_until_some_have_left() {
    let store = Store::new(1);
    store.set_max(2);
    let first = store.party("spiffe://a/1");
    let second = store.party("spiffe://a/2");
    assert_eq!(store.party("spiffe://a/3").id, OTHER);
    assert_eq!(store.party("spiffe://a/1").id, first.id);
    drop(second);
    assert!(store.party("spiffe://a/3").id >= FIRST);
}

#[test]
fn a_series_without_traffic_is_dropped_and_begins_anew() {
    let (store, cache) = (Store::new(1), Cache::default());
    count(&store, &cache, 0, 200);
    count(&store, &cache, 0, 404);
    store.sweep(MINUTE, Some(2 * MINUTE));
    count(&store, &cache, 0, 200);
    store.sweep(3 * MINUTE, Some(2 * MINUTE));
    let left = store.all();
    assert_eq!((left.len(), left[0].key.status, store.dropped()), (1, 200, 1));
    count(&store, &cache, 0, 404);
    assert_eq!(total(&store), 3);
    store.sweep(100 * MINUTE, None);
    assert_eq!(store.all().len(), 2);
}

#[test]
fn a_count_at_the_moment_of_a_drop_is_not_lost() {
    let (store, cache) = (Store::new(2), Cache::default());
    count(&store, &cache, 0, 200);
    let held = store.all().remove(0);
    store.sweep(Duration::ZERO, Some(MINUTE));
    store.sweep(MINUTE, Some(MINUTE));
    assert_eq!(store.all().len(), 0);
    // This worker has found the series just before it was dropped. Another one has made it anew.
    held.http.worker(1).duration.observe_us(1);
    count(&store, &cache, 0, 200);
    store.sweep(MINUTE, Some(MINUTE));
    assert_eq!((store.all().len(), total(&store)), (2, 3));
}

#[test]
fn a_series_with_an_open_connection_is_kept() {
    let (store, cache) = (Store::new(1), Cache::default());
    let (party, target) = (store.unknown_party(), store.unknown_target());
    let tcp = Key { spoken: Spoken::Tcp, ..key(0) };
    let series = cache.with(&store, tcp, party, target, None, Arc::clone);
    series.tcp.worker(0).active.increment();
    store.sweep(100 * MINUTE, Some(MINUTE));
    assert_eq!(store.all().len(), 1);
    series.tcp.worker(0).active.decrement();
    store.sweep(200 * MINUTE, Some(MINUTE));
    assert_eq!(store.all().len(), 0);
}

/// In every order of counts and sweeps, each event is in exactly one series until its series is
/// dropped for good.
#[test]
fn no_order_of_counts_and_sweeps_loses_an_event() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (store, caches) = (Store::new(2), [Cache::default(), Cache::default()]);
        store.set_max(random.usize(1..6));
        let (mut counted, mut now) = (0, Duration::ZERO);
        for _ in 0..300 {
            match random.u8(..10) {
                0 => {
                    now += MINUTE;
                    store.sweep(now, None);
                }
                _ => {
                    let worker = random.usize(..2);
                    count(&store, &caches[worker], worker, random.u16(..12));
                    counted += 1;
                }
            }
            assert_eq!(total(&store), counted, "seed {seed}");
            assert!(store.all().len() <= store.max() + 4, "seed {seed}");
        }
    }
}
