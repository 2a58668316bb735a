//! Adaptive concurrency, with a server that really queues.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{free_port, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// The number of requests that the server works on at a time. More requests queue.
const CORES: u32 = 4;

/// How long it works on one.
const WORK: Duration = Duration::from_millis(20);

/// Passes the time of one request. This is the load of the test, and not a wait for a condition.
fn work() {
    std::thread::park_timeout(WORK);
}

/// The number of clients that ask at the same time. Without a limit, a request takes ten times as
/// long as alone.
const CLIENTS: u32 = 10 * CORES;

/// A server with one queue, and the number of requests in it.
fn server() -> (Origin, Arc<AtomicU32>) {
    let (free, inside) = (Arc::new((Mutex::new(CORES), Condvar::new())), Arc::default());
    let counted: Arc<AtomicU32> = Arc::clone(&inside);
    let origin = Origin::scripted(move |peer| {
        while peer.request().is_some() {
            counted.fetch_add(1, Ordering::SeqCst);
            let (cores, freed) = &*free;
            let mut taken = freed.wait_while(cores.lock().unwrap(), |cores| *cores == 0).unwrap();
            *taken -= 1;
            drop(taken);
            work();
            *cores.lock().unwrap() += 1;
            freed.notify_one();
            counted.fetch_sub(1, Ordering::SeqCst);
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    (origin, inside)
}

fn before(origin: &Origin, concurrency: &str) -> (Proxy, u16) {
    let port = free_port();
    let config = format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"{}\"], concurrency: {concurrency}}}}}\n",
        origin.address()
    );
    (Proxy::start_with(&config, 2), port)
}

fn metric(proxy: &Proxy, name: &str) -> f64 {
    proxy.metric(&format!("ringway_service_concurrency_{name}{{service=\"app\"}}"))
}

/// Asks until a request is answered by the server. Returns how long this request took. Checks the
/// answers of the others.
fn answered(client: &mut Client) -> Duration {
    loop {
        let began = Instant::now();
        let answer = client.request(GET);
        if answer.status == 200 {
            return began.elapsed();
        }
        assert_eq!(answer.status, 503);
        assert_eq!(answer.field("x-ringway-overloaded"), Some("true"));
        assert!(answer.text().starts_with("more requests to the service"), "{}", answer.text());
        work(); // a client that is refused does not spin
    }
}

fn median(mut of: Vec<Duration>) -> Duration {
    of.sort_unstable();
    of[of.len() / 2]
}

#[test]
fn under_fourfold_overload_accepted_requests_are_fast_and_the_server_stays_busy() {
    let (origin, inside) = server();
    let (proxy, port) = before(&origin, "adaptive");
    let mut client = Client::connect(port);
    let alone = median((0..15).map(|_| answered(&mut client)).collect());
    let stop = AtomicBool::new(false);
    let (taken, most) = (Mutex::new(Vec::new()), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Client::connect(port);
                while !stop.load(Ordering::SeqCst) {
                    let time = answered(&mut client);
                    taken.lock().unwrap().push(time);
                    most.fetch_max(inside.load(Ordering::SeqCst), Ordering::SeqCst);
                }
            });
        }
        let answered = || taken.lock().unwrap().len();
        // The limit finds its place first.
        until(|| answered() >= 400);
        taken.lock().unwrap().clear();
        most.store(0, Ordering::SeqCst);
        let began = Instant::now();
        until(|| answered() >= 400);
        let busy = WORK * answered() as u32 / CORES;
        let elapsed = began.elapsed();
        stop.store(true, Ordering::SeqCst);
        assert!(busy > elapsed / 2, "{busy:?} of work in {elapsed:?}");
    });
    let loaded = median(taken.into_inner().unwrap());
    assert!(loaded < alone * 4, "{loaded:?} under load, {alone:?} alone");
    let most = most.into_inner();
    assert!((CORES - 1..CLIENTS * 3 / 4).contains(&most), "{most} in the server");
    let overflows = "ringway_service_circuit_breaker_overflows_total\
                     {service=\"app\",limit=\"concurrency\"}";
    assert!(proxy.metric(overflows) > 0.0);
    assert!(metric(&proxy, "probes_total") >= 1.0);
    assert!(metric(&proxy, "unloaded_seconds") > WORK.as_secs_f64() * 0.9);
    until(|| metric(&proxy, "in_flight") == 0.0);
}

#[test]
fn a_place_is_free_when_the_response_begins() {
    let origin = Origin::scripted(|peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
            peer.until_closed();
        }
    });
    let (proxy, port) = before(&origin, "{min: 1, max: 1}");
    // The response of each request stays incomplete.
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(port)).collect();
    for client in &mut clients {
        let head = client.send(GET).head().unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    }
    assert_eq!(metric(&proxy, "in_flight"), 0.0);
    assert_eq!(metric(&proxy, "limit"), 1.0);
}

#[test]
fn a_client_without_patience_says_nothing_about_the_latency() {
    let origin = Origin::scripted(|peer| {
        while peer.request().is_some() {
            peer.until_closed();
        }
    });
    let (proxy, port) = before(&origin, "{probe_requests: 5}");
    let hurried = "GET / HTTP/1.1\r\nHost: a\r\nx-envoy-upstream-rq-timeout-ms: 20\r\n\r\n";
    let mut client = Client::connect(port);
    for _ in 0..15 {
        assert_eq!(client.request(hurried).status, 504);
    }
    assert_eq!(metric(&proxy, "unloaded_seconds"), 0.0);
}
