//! A long connection keeps no part of the snapshot with which it began.

use std::sync::Arc;
use std::time::Duration;

use ringway::compile::registry::Registry;
use ringway::runtime::io::Io;
use ringway::runtime::sim::Simulation;

use crate::sim::one::{address, commit, connect, hear_any, say, worker};

/// The limit of virtual time for one case.
const LIMIT: Duration = Duration::from_secs(60);

const CONFIGURATION: &str = "
listeners:
  db: {bind: '10.0.0.1:3306', protocol: tcp, service: raw}
  web: {bind: '10.0.0.1:80'}
routes:
  '*': [{to: web}]
services:
  raw: {protocol: tcp, endpoints: [10.0.1.1:80]}
  web: {endpoints: [10.0.1.1:80]}
";

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_long_connection_keeps_no_snapshot() {
    let stream = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    let whole = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let switch = "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello";
    for (name, listener, request, answer) in [
        ("a tunnel", "db", "hello", "welcome"),
        ("an upgraded connection", "web", UPGRADE, switch),
        ("a response that goes on", "web", GET, stream),
        ("an idle connection", "web", GET, whole),
    ] {
        let simulation = Simulation::new(1);
        let (client, endpoint, io) = (simulation.io(), simulation.io(), simulation.io());
        let worker = worker(io);
        let mut registry = Registry::new(1);
        let first = Arc::downgrade(&commit(&worker, &mut registry, 1, CONFIGURATION));
        let main = async move {
            let accepting = endpoint.listen(&address("10.0.1.1:80"));
            let serving = endpoint.clone();
            let begun = endpoint.clone();
            endpoint.spawn(async move {
                let stream = accepting.accept().await;
                hear_any(&serving, &stream).await;
                say(&serving, &stream, answer).await;
                serving.sleep(LIMIT).await; // the connection stays open
            });
            let stream = connect(&client, &worker, listener, None).await;
            say(&client, &stream, request).await;
            hear_any(&client, &stream).await;
            begun.sleep(Duration::from_secs(2)).await;
            assert_eq!(worker.registry.len(), 1, "{name}: it is open");
            commit(&worker, &mut registry, 2, CONFIGURATION);
            begun.sleep(Duration::from_secs(2)).await;
            assert_eq!(worker.registry.len(), 1, "{name}: it stays open");
            assert!(first.upgrade().is_none(), "{name} keeps the snapshot");
        };
        assert_eq!(simulation.run(LIMIT, main), Ok(()), "{name}");
    }
}

#[test]
fn a_removed_listener_keeps_its_snapshot_for_its_connections_but_not_beyond_the_drain_time() {
    let without_db = CONFIGURATION.replace("  db: {", "  other: {");
    for (name, open) in [("no connection", false), ("a tunnel", true)] {
        let simulation = Simulation::new(1);
        let (client, endpoint, io) = (simulation.io(), simulation.io(), simulation.io());
        let worker = worker(io);
        let mut registry = Registry::new(1);
        let first = Arc::downgrade(&commit(&worker, &mut registry, 1, CONFIGURATION));
        let after = without_db.clone();
        let main = async move {
            let accepting = endpoint.listen(&address("10.0.1.1:80"));
            let serving = endpoint.clone();
            endpoint.spawn(async move {
                let stream = accepting.accept().await;
                say(&serving, &stream, "welcome").await;
                serving.sleep(LIMIT).await; // the connection stays open
            });
            let stream = connect(&client, &worker, "db", None).await;
            hear_any(&client, &stream).await;
            let stream = open.then_some(stream);
            commit(&worker, &mut registry, 2, &after);
            // After 1 s, 11 s and 31 s.
            for (pause_seconds, kept) in [(1, true), (10, open), (20, false)] {
                client.sleep(Duration::from_secs(pause_seconds)).await;
                worker.sweep();
                assert_eq!(first.upgrade().is_some(), kept, "{name}, {pause_seconds} s later");
            }
            drop(stream);
        };
        assert_eq!(simulation.run(LIMIT, main), Ok(()), "{name}");
    }
}
