//! Changes of the endpoints of a service while the configuration stays the same.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringway::cluster::Endpoint;
use ringway::compile::found_at;
use ringway::compile::registry::Registry;
use ringway::net::Address;
use ringway::runtime::io::Io;
use ringway::runtime::sim::{SimIo, SimStream, Simulation};
use ringway::serve::Worker;
use ringway::snapshot::Snapshot;

use crate::sim::one::{address, commit, compiled, connect, hear_any, hear_or_end, say, worker};

/// The limit of virtual time for one case.
const LIMIT: Duration = Duration::from_secs(60);

const CONFIGURATION: &str = "
listeners:
  web: {bind: '10.0.0.1:80'}
routes:
  shop: [{to: shop}]
  slow: [{to: slow}]
services:
  shop: {balance: round-robin, endpoints: [10.0.1.1:80, 10.0.1.2:80, 10.0.1.3:80]}
  slow: {endpoints: [10.0.2.1:80]}
";

/// An endpoint that answers each request with its own address, after a delay.
#[derive(Default)]
struct Peer {
    accepted: Cell<usize>,
    open: Cell<usize>,
    answered: Cell<usize>,
}

impl Peer {
    /// The number of accepted connections, and of open connections.
    fn connections(&self) -> (usize, usize) {
        (self.accepted.get(), self.open.get())
    }
}

fn peer(io: &SimIo, at: &'static str, delay: Duration) -> Rc<Peer> {
    let peer = Rc::new(Peer::default());
    let (io, known) = (io.clone(), Rc::clone(&peer));
    let accepting = io.listen(&address(at));
    io.clone().spawn(async move {
        loop {
            let stream = accepting.accept().await;
            known.accepted.set(known.accepted.get() + 1);
            known.open.set(known.open.get() + 1);
            let (known, within) = (Rc::clone(&known), io.clone());
            io.spawn(async move {
                let mut request = Vec::new();
                while let Some(part) = hear_or_end(&within, &stream).await {
                    request.extend(part);
                    if !request.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    request.clear();
                    within.sleep(delay).await;
                    let length = at.len();
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                    say(&within, &stream, &format!("{head}{at}")).await;
                    known.answered.set(known.answered.get() + 1);
                }
                known.open.set(known.open.get() - 1);
            });
        }
    });
    peer
}

/// Replaces the endpoints of a service like the control thread.
fn readdress(
    worker: &Worker<SimIo>,
    registry: &mut Registry,
    snapshot: &Snapshot,
    name: &str,
    addresses: &[&str],
) {
    let index = snapshot.services.iter().position(|service| *service.name == *name).unwrap();
    let addresses: Vec<SocketAddr> = addresses.iter().map(|it| it.parse().unwrap()).collect();
    let endpoints = found_at(&snapshot.services[index], &addresses, None, registry);
    let changed = snapshot.replace_endpoints(index, endpoints);
    worker.endpoints_changed(snapshot.version, index, &changed);
}

/// The address of the endpoint that answers a request for `host`.
async fn ask(io: &SimIo, stream: &SimStream, host: &str) -> String {
    say(io, stream, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    let mut answer = String::new();
    while !answer.contains(":80") {
        answer += &String::from_utf8_lossy(&hear_any(io, stream).await);
    }
    answer.rsplit("\r\n").next().unwrap_or_default().to_owned()
}

#[test]
fn endpoints_that_stay_keep_their_state_and_those_that_left_are_drained() {
    let simulation = Simulation::new(1);
    let (client, io) = (simulation.io(), simulation.io());
    let far = simulation.io();
    let worker = worker(io);
    let main = async move {
        let names = ["10.0.1.1:80", "10.0.1.2:80", "10.0.1.3:80"];
        let peers = names.map(|at| peer(&far, at, Duration::ZERO));
        let slow = peer(&far, "10.0.2.1:80", Duration::ZERO);
        let [one, two, three] = &peers;
        let mut registry = Registry::new(1);
        let snapshot = commit(&worker, &mut registry, 1, CONFIGURATION);
        let stream = connect(&client, &worker, "web", None).await;
        ask(&client, &stream, "slow").await;
        for _ in 0..6 {
            ask(&client, &stream, "shop").await;
        }
        assert_eq!(peers.each_ref().map(|peer| peer.connections()), [(1, 1); 3]);
        readdress(&worker, &mut registry, &snapshot, "shop", &["10.0.1.3:80", "10.0.1.1:80"]);
        far.sleep(Duration::from_secs(1)).await;
        assert_eq!(two.connections(), (1, 0), "the one that left is closed without a request");
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(ask(&client, &stream, "shop").await);
        }
        assert_eq!(seen, ["10.0.1.3:80", "10.0.1.1:80", "10.0.1.3:80", "10.0.1.1:80"]);
        assert_eq!([one, three].map(|peer| peer.connections()), [(1, 1); 2], "no new connection");
        let shop = &snapshot.services[0];
        let requests = |at: &str| {
            let list = &shop.endpoints.load().list;
            let found = list.iter().find(|it| it.address == address(at)).unwrap();
            found.stats.sum(|cells| &cells.requests)
        };
        assert_eq!((requests("10.0.1.1:80"), requests("10.0.1.3:80")), (4, 4), "counters go on");
        assert_eq!(slow.connections(), (1, 1), "other services keep their connections");
        readdress(&worker, &mut registry, &snapshot, "shop", &["10.0.1.2:80"]);
        assert_eq!(ask(&client, &stream, "shop").await, "10.0.1.2:80", "one may come back");
        assert_eq!(two.connections(), (2, 1));
        readdress(&worker, &mut registry, &snapshot, "shop", &[]);
        say(&client, &stream, "GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
        assert!(hear_any(&client, &stream).await.starts_with(b"HTTP/1.1 503"), "there is none");
    };
    assert_eq!(simulation.run(LIMIT, main), Ok(()));
}

#[test]
fn a_request_under_way_ends_at_the_endpoint_that_left() {
    let simulation = Simulation::new(1);
    let (client, far, io) = (simulation.io(), simulation.io(), simulation.io());
    let worker = worker(io);
    let main = async move {
        let old = peer(&far, "10.0.2.1:80", Duration::from_secs(5));
        let new = peer(&far, "10.0.2.2:80", Duration::ZERO);
        let mut registry = Registry::new(1);
        let snapshot = commit(&worker, &mut registry, 1, CONFIGURATION);
        let stream = connect(&client, &worker, "web", None).await;
        let (asking, within) = (client.clone(), Rc::new(stream));
        let (stream, answer) = (Rc::clone(&within), Rc::new(Cell::new(None)));
        let heard = Rc::clone(&answer);
        client.spawn(async move {
            heard.set(Some(ask(&asking, &within, "slow").await));
        });
        far.sleep(Duration::from_secs(2)).await;
        readdress(&worker, &mut registry, &snapshot, "slow", &["10.0.2.2:80"]);
        far.sleep(Duration::from_secs(2)).await;
        assert_eq!(old.connections(), (1, 1), "it is not cut");
        far.sleep(Duration::from_secs(2)).await;
        assert_eq!(answer.take().as_deref(), Some("10.0.2.1:80"));
        assert_eq!(old.connections(), (1, 0), "it is closed when its exchange is over");
        assert_eq!(ask(&client, &stream, "slow").await, "10.0.2.2:80");
        assert_eq!((old.answered.get(), new.answered.get()), (1, 1));
    };
    assert_eq!(simulation.run(LIMIT, main), Ok(()));
}

#[test]
fn a_worker_that_is_not_told_notices_with_its_next_request() {
    let simulation = Simulation::new(1);
    let (client, far, io) = (simulation.io(), simulation.io(), simulation.io());
    let worker = worker(io);
    let main = async move {
        let old = peer(&far, "10.0.2.1:80", Duration::ZERO);
        let _new = peer(&far, "10.0.2.2:80", Duration::ZERO);
        let mut registry = Registry::new(1);
        let snapshot = commit(&worker, &mut registry, 1, CONFIGURATION);
        let stream = connect(&client, &worker, "web", None).await;
        assert_eq!(ask(&client, &stream, "slow").await, "10.0.2.1:80");
        let index = snapshot.services.iter().position(|service| &*service.name == "slow").unwrap();
        let new: SocketAddr = "10.0.2.2:80".parse().unwrap();
        let endpoints = found_at(&snapshot.services[index], &[new], None, &mut registry);
        assert_eq!(endpoints.list[0].address, Address::Tcp(new));
        snapshot.replace_endpoints(index, endpoints);
        assert_eq!(ask(&client, &stream, "slow").await, "10.0.2.2:80");
        far.sleep(Duration::from_secs(1)).await;
        assert_eq!(old.connections(), (1, 0));
    };
    assert_eq!(simulation.run(LIMIT, main), Ok(()));
}

#[test]
fn an_endpoint_used_between_prepare_and_commit_keeps_its_state() {
    let simulation = Simulation::new(1);
    let (client, far, io) = (simulation.io(), simulation.io(), simulation.io());
    let worker = worker(io);
    let main = async move {
        let slow = peer(&far, "10.0.2.1:80", Duration::ZERO);
        let mut registry = Registry::new(1);
        commit(&worker, &mut registry, 1, CONFIGURATION);
        worker.prepare(compiled(&mut registry, 2, CONFIGURATION));
        let stream = connect(&client, &worker, "web", None).await;
        ask(&client, &stream, "slow").await;
        assert!(worker.commit(2));
        far.sleep(Duration::from_secs(1)).await;
        assert_eq!(slow.connections(), (1, 1), "its connection stays");
        ask(&client, &stream, "slow").await;
        assert_eq!(slow.connections(), (1, 1), "and is used again");
    };
    assert_eq!(simulation.run(LIMIT, main), Ok(()));
}

#[test]
fn an_endpoint_in_two_versions_has_one_health_and_one_count() {
    let service = |more: &str| {
        format!(
            "services: {{shop: {{versions: {{v1: [10.0.1.1:80], v2: [10.0.1.1:80]}}{more}}}}}\n\
             listeners: {{web: {{bind: '10.0.0.1:80'}}}}\nroutes: {{'*': [{{to: shop}}]}}\n"
        )
    };
    let mut registry = Registry::new(1);
    // The reload adds the health check, so no endpoint has a health state before.
    let before = compiled(&mut registry, 1, &service(""));
    let after = compiled(&mut registry, 2, &service(", health_check: {http: /}"));
    let again = compiled(&mut registry, 3, &service(", health_check: {http: /}"));
    let lists = [&before, &after, &again].map(|it| it.services[0].endpoints.load());
    let [_, after, again] = lists.each_ref().map(|it| &it.list);
    let health = |endpoint: &Arc<Endpoint>| endpoint.health.as_ref().map(Arc::as_ptr);
    assert!(health(&after[0]).is_some() && health(&after[0]) == health(&after[1]));
    assert!(Arc::ptr_eq(&after[0].stats, &after[1].stats));
    assert!(Arc::ptr_eq(&lists[0].list[0].stats, &after[0].stats), "the counters go on");
    assert!(Arc::ptr_eq(&after[0], &again[0]) && Arc::ptr_eq(&lists[1], &lists[2]), "used again");
}
