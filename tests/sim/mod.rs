//! The proxy on a simulated network that splits, delays, stalls and resets connections, while the
//! configuration changes.
//!
//! Each seed is one world. A failure prints its seed. `SIM_SEED=n cargo test --test all sim` runs
//! only this seed, and `SIM_SEEDS=n` sets the number of seeds. With `SIM_TRACE=1` the test prints
//! all events: the HTTP/2 frames as peers see them, and the results of requests.

mod client;
mod endpoint;
mod http2;
pub mod one;
mod plan;
mod stream;
mod wire;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::LazyLock;

use world::{Tally, simulate};

/// The number of seeds that `cargo test` runs.
const SEEDS: u64 = 400;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn no_seed_breaks_a_promise() {
    let files = &*CONFIGURATIONS;
    let seeds = match from_environment("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..from_environment("SIM_SEEDS").unwrap_or(SEEDS),
    };
    let mut total = Tally::default();
    for seed in seeds.clone() {
        let run = AssertUnwindSafe(|| simulate(seed, files));
        match catch_unwind(run) {
            Ok((tally, _)) => total += tally,
            Err(_) => {
                panic!("seed {seed} failed; replay: SIM_SEED={seed} cargo test --test all sim")
            }
        }
    }
    println!("seeds {}..{}: {total:?}", seeds.start, seeds.end);
    if seeds.end - seeds.start >= 100 {
        let Tally { answered, lost, farewells, unprocessed, .. } = total;
        let Tally { refused, broken, streams, greeted, reloads, changes, .. } = total;
        let Tally { mirrored, overflows, hedged, .. } = total;
        for (what, count) in [
            ("answers from HTTP/1.1 to HTTP/1.1", answered[0][0]),
            ("answers from HTTP/2 to HTTP/1.1", answered[0][1]),
            ("answers from HTTP/1.1 to HTTP/2", answered[1][0]),
            ("answers from HTTP/2 to HTTP/2", answered[1][1]),
            ("streams without an answer", lost),
            ("GOAWAY of endpoints", farewells),
            ("requests that an endpoint has not looked at", unprocessed),
            ("refused requests", refused),
            ("broken exchanges", broken),
            ("streams", streams),
            ("streams that the endpoint began", greeted),
            ("reloads", reloads),
            ("changes of endpoints", changes),
            ("limits of circuit breakers that are reached", overflows),
            ("requests that a second endpoint answered", hedged),
            ("copies of requests", mirrored),
        ] {
            assert!(count > 0, "the simulation does not reach what it is for: no {what}");
        }
    }
}

#[test]
fn a_seed_runs_the_same_way_each_time() {
    for seed in [3, 7, 11] {
        let [once, again] = [(), ()].map(|()| simulate(seed, &CONFIGURATIONS));
        assert_eq!(once, again, "seed {seed}");
    }
}

/// The configurations that a world changes between. Endpoints, weights, timeouts and routes differ;
/// the guarantees for clients are the same. The tests of one run share the files.
static CONFIGURATIONS: LazyLock<Vec<PathBuf>> = LazyLock::new(configurations);

fn configurations() -> Vec<PathBuf> {
    let common = "
limits: {mirrored_requests: 8}
listeners:
  web:
    bind: 10.0.0.1:80
    timeouts: {header: 5s, request_body: 8s, stream_idle: 8s, keep_alive: 20s}
    http2: {max_concurrent_streams: 5, stream_window: 20KiB, connection_window: 64KiB, \
            stream_buffer: 8KiB}
  bytes:
    bind: 10.0.0.1:90
    protocol: tcp
    service: stream
    timeouts: {tcp_idle: 60s}
mesh:
  outbound: {bind: 10.0.0.1:15001, unknown: deny, timeouts: {header: 5s, request_body: 8s, \
                  stream_idle: 8s, keep_alive: 20s, tcp_idle: 60s}}
";
    let first = "
routes:
  '*':
    - {match: {path: /2/*}, to: two, timeout: 60s, mirror: {to: shadow, timeout: 3s}}
    - {to: {web/v1: 90, web/v2: 10}, timeout: 60s, mirror: {to: shadow2, timeout: 3s}}
services:
  web:
    addresses: 10.0.8.1:80
    versions: {v1: [10.0.1.1:80, 10.0.1.2:80], v2: [10.0.1.3:80]}
    connect_timeout: 2s
    circuit_breaker: {max_connections: 8}
    retries: {attempts: 0, hedge: {after: 20ms}, budget: {percent: 50%}}
  two:
    protocol: http2
    addresses: 10.0.8.4:80
    endpoints: [10.0.3.1:80, 10.0.3.2:80]
    retries: {attempts: 0, hedge: {after: 10ms}, budget: {percent: 50%}}
    connect_timeout: 2s
    http2: {max_concurrent_streams: 6, stream_window: 20KiB, connection_window: 64KiB, \
            stream_buffer: 8KiB}
  stream: {protocol: tcp, endpoints: [10.0.2.1:90], connect_timeout: 2s}
  mystery: {addresses: 10.0.8.2:90, endpoints: [10.0.2.2:90], connect_timeout: 2s}
  greeter: {addresses: 10.0.8.3:90, endpoints: [10.0.2.3:90], connect_timeout: 2s}
  shadow: {endpoints: [10.0.4.1:80], connect_timeout: 2s}
  shadow2:
    protocol: http2
    endpoints: [10.0.4.2:80]
    connect_timeout: 2s
    http2: {max_concurrent_streams: 3, stream_window: 20KiB, connection_window: 64KiB, \
            stream_buffer: 8KiB}
";
    let second = "
routes:
  '*':
    - {match: {path: /2/*}, to: two, timeout: 25s, mirror: {to: shadow2, timeout: 3s}}
    - match: {method: POST}
      to: web/v2
      timeout: 25s
      mirror: {to: shadow, percent: 50, mirror_bytes: 4KiB, timeout: 3s}
    - {to: {web/v1: 50, web/v2: 50}, timeout: 30s}
services:
  web:
    addresses: 10.0.8.1:80
    versions: {v1: [10.0.1.2:80], v2: [10.0.1.3:80, 10.0.1.4:80]}
    balance: round-robin
    retries: {attempts: 0, hedge: {after: 5ms}}
    connect_timeout: 2s
    max_idle_connections: 1
  two:
    protocol: http2
    addresses: 10.0.8.4:80
    endpoints: [10.0.3.2:80]
    connect_timeout: 2s
    circuit_breaker: {max_connections: 3}
    http2: {max_concurrent_streams: 3, stream_window: 20KiB, connection_window: 64KiB, \
            stream_buffer: 8KiB}
  stream: {protocol: tcp, endpoints: [10.0.2.1:90, 10.0.2.2:90], connect_timeout: 2s}
  mystery: {addresses: 10.0.8.2:90, endpoints: [10.0.2.1:90], connect_timeout: 2s}
  greeter: {addresses: 10.0.8.3:90, endpoints: [10.0.2.3:90], connect_timeout: 2s}
  shadow: {endpoints: [10.0.4.1:80], connect_timeout: 2s}
  shadow2:
    protocol: http2
    endpoints: [10.0.4.2:80]
    connect_timeout: 2s
    http2: {max_concurrent_streams: 3, stream_window: 20KiB, connection_window: 64KiB, \
            stream_buffer: 8KiB}
";
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("sim");
    std::fs::create_dir_all(&directory).unwrap();
    [("first.yaml", first), ("second.yaml", second)]
        .map(|(name, text)| {
            let path = directory.join(name);
            std::fs::write(&path, format!("{common}{text}")).unwrap();
            path
        })
        .to_vec()
}
