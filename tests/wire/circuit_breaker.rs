//! The limits of a circuit breaker, over all workers.

use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::frames::Frames;
use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{free_port, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// The configuration of a proxy in front of `origin`. `service` is more lines of the service.
fn configuration(port: u16, origin: &Origin, service: &str) -> String {
    format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"{}\"]{service}}}}}\n",
        origin.address()
    )
}

fn before(origin: &Origin, service: &str, workers: usize) -> (Proxy, u16) {
    let port = free_port();
    (Proxy::start_with(&configuration(port, origin, service), workers), port)
}

fn overflows(proxy: &Proxy, limit: &str) -> f64 {
    let name = "ringway_service_circuit_breaker_overflows_total";
    proxy.metric(&format!("{name}{{service=\"app\",limit=\"{limit}\"}}"))
}

fn in_use(proxy: &Proxy, limit: &str) -> f64 {
    let name = "ringway_service_circuit_breaker_in_use";
    proxy.metric(&format!("{name}{{service=\"app\",limit=\"{limit}\"}}"))
}

/// An origin whose answers wait until the returned sender is dropped.
fn held() -> (Origin, std::sync::mpsc::Sender<()>) {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::scripted(move |peer| {
        while peer.request().is_some() {
            wait.lock().unwrap().recv().ok();
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    (origin, release)
}

#[test]
fn a_request_beyond_the_limit_is_refused_at_once_and_the_slots_come_back() {
    let (origin, release) = held();
    let (proxy, port) = before(&origin, ", circuit_breaker: {max_requests: 3}", 2);
    // The clients are spread over the workers; the limit is one.
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(port)).collect();
    for client in &mut clients {
        client.send(GET);
    }
    until(|| in_use(&proxy, "max_requests") == 3.0);
    for _ in 0..4 {
        let mut client = Client::connect(port);
        let answer = client.request(GET);
        assert_eq!(answer.status, 503, "{}", proxy.log());
        assert_eq!(answer.field("x-ringway-overloaded"), Some("true"));
        assert_eq!(answer.field("x-envoy-overloaded"), Some("true"));
        // The connection stays open.
        assert_eq!(client.request(GET).status, 503);
    }
    assert_eq!(overflows(&proxy, "max_requests"), 8.0);
    let flags = "ringway_service_response_flags_total{service=\"app\",flag=\"UO\"}";
    assert_eq!(proxy.metric(flags), 8.0);
    drop(release);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    until(|| in_use(&proxy, "max_requests") == 0.0);
    assert_eq!(Client::connect(port).request(GET).status, 200);
}

#[test]
fn a_client_that_leaves_gives_its_slot_back() {
    let (origin, _release) = held();
    let (proxy, port) = before(&origin, ", circuit_breaker: {max_requests: 1}", 1);
    let mut client = Client::connect(port);
    client.send(GET);
    until(|| in_use(&proxy, "max_requests") == 1.0);
    assert_eq!(Client::connect(port).request(GET).status, 503);
    drop(client);
    until(|| in_use(&proxy, "max_requests") == 0.0);
}

#[test]
fn a_reload_keeps_what_is_in_use_and_changes_the_limit() {
    let (origin, _release) = held();
    let (proxy, port) = before(&origin, ", circuit_breaker: {max_requests: 2}", 1);
    let mut clients: Vec<_> = (0..2).map(|_| Client::connect(port)).collect();
    for client in &mut clients {
        client.send(GET);
    }
    until(|| in_use(&proxy, "max_requests") == 2.0);
    proxy.reload(&configuration(port, &origin, ", circuit_breaker: {max_requests: 1}"));
    until(|| Client::connect(port).request(GET).status == 503);
    clients.pop();
    until(|| in_use(&proxy, "max_requests") == 1.0);
    assert_eq!(Client::connect(port).request(GET).status, 503);
}

#[test]
fn a_grpc_call_beyond_the_limit_gets_unavailable() {
    let (origin, _release) = held();
    let (proxy, port) = before(&origin, ", circuit_breaker: {max_requests: 1}", 1);
    let mut first = Client::connect(port);
    first.send(GET);
    until(|| in_use(&proxy, "max_requests") == 1.0);
    let call = "POST /shop.Cart/Add HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\n\
                Content-Length: 0\r\n\r\n";
    let answer = Client::connect(port).request(call);
    assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("14")));
    assert_eq!(answer.field("x-ringway-overloaded"), Some("true"));
}

#[test]
fn a_tunnel_is_a_request_in_progress() {
    let origin = Origin::scripted(|peer| {
        if peer.request().is_some() {
            peer.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            );
            peer.until_closed();
        }
    });
    let (proxy, port) = before(&origin, ", circuit_breaker: {max_requests: 1}", 1);
    let mut tunnel = Client::connect(port);
    tunnel.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    until(|| in_use(&proxy, "max_requests") == 1.0 && origin.requests().len() == 1);
    assert_eq!(Client::connect(port).request(GET).status, 503);
    drop(tunnel);
    until(|| in_use(&proxy, "max_requests") == 0.0);
}

#[test]
fn a_request_is_not_retried_beyond_the_limit_on_retries() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let seen = AtomicUsize::new(0);
    let origin = Origin::scripted(move |peer| {
        while peer.request().is_some() {
            // The second request is the retry of the first one.
            if seen.fetch_add(1, Ordering::SeqCst) == 1 {
                wait.lock().unwrap().recv().ok();
            }
            peer.send("HTTP/1.1 503 Sad\r\nContent-Length: 3\r\n\r\nsad");
        }
    });
    let service = ", retries: {attempts: 1, on: 5xx, backoff: {base: 1ms}}, \
                   circuit_breaker: {max_retries: 1}";
    let (proxy, port) = before(&origin, service, 1);
    let mut first = Client::connect(port);
    first.send(GET);
    until(|| in_use(&proxy, "max_retries") == 1.0 && origin.requests().len() == 2);
    let answer = Client::connect(port).request(GET);
    assert_eq!((answer.status, answer.text()), (503, "sad"));
    assert_eq!((origin.requests().len(), overflows(&proxy, "max_retries")), (3, 1.0));
    drop(release);
    assert_eq!(first.response().status, 503);
    until(|| in_use(&proxy, "max_retries") == 0.0);
}

#[test]
fn a_response_of_a_circuit_breaker_is_not_retried() {
    let origin = Origin::scripted(|peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 503 Sad\r\nX-Envoy-Overloaded: true\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let (_proxy, port) = before(&origin, ", retries: {on: 5xx}", 1);
    assert_eq!(Client::connect(port).request(GET).status, 503);
    assert_eq!(origin.requests().len(), 1);
}

/// An origin that counts the most requests that it has had at one time. Over HTTP/1.1, each has its
/// own connection.
fn counting() -> (Origin, Arc<AtomicUsize>) {
    let (now, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let origin = Origin::scripted(move |peer| {
        while peer.request().is_some() {
            seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::yield_now();
            now.fetch_sub(1, Ordering::SeqCst);
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    (origin, most)
}

#[test]
fn requests_at_the_limit_on_connections_wait_for_one_that_is_given_back() {
    let (origin, most) = counting();
    for workers in [1, 3] {
        let (proxy, port) = before(&origin, ", circuit_breaker: {max_connections: 2}", workers);
        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    let mut client = Client::connect(port);
                    for _ in 0..20 {
                        assert_eq!(client.request(GET).status, 200, "{}", proxy.log());
                    }
                });
            }
        });
        assert_eq!(most.swap(0, Ordering::SeqCst), 2, "with {workers} workers");
        assert!(overflows(&proxy, "max_connections") > 0.0);
        assert_eq!(in_use(&proxy, "max_pending_requests"), 0.0);
        assert!(in_use(&proxy, "max_connections") <= 2.0);
        assert_eq!(proxy.metric("ringway_service_requests_pending"), 0.0);
    }
}

#[test]
fn a_request_beyond_the_limit_on_waiting_requests_is_refused_at_once() {
    let (origin, release) = held();
    let service = ", circuit_breaker: {max_connections: 1, max_pending_requests: 1}";
    let (proxy, port) = before(&origin, service, 1);
    let (mut first, mut second) = (Client::connect(port), Client::connect(port));
    first.send(GET);
    until(|| in_use(&proxy, "max_connections") == 1.0 && origin.requests().len() == 1);
    second.send(GET);
    until(|| in_use(&proxy, "max_pending_requests") == 1.0);
    assert_eq!(proxy.metric("ringway_service_requests_pending{service=\"app\"}"), 1.0);
    let answer = Client::connect(port).request(GET);
    assert_eq!((answer.status, answer.field("x-ringway-overloaded")), (503, Some("true")));
    assert_eq!(overflows(&proxy, "max_pending_requests"), 1.0);
    drop(release);
    assert_eq!((first.response().status, second.response().status), (200, 200));
    assert_eq!(origin.accepted(), 1, "the second request took the connection of the first one");
    assert_eq!(in_use(&proxy, "max_pending_requests"), 0.0);
}

#[test]
fn a_wait_at_the_limit_ends_with_the_timeout_of_the_request() {
    let (origin, _release) = held();
    for (service, status) in [
        (", timeout: 100ms, circuit_breaker: {max_connections: 1}", 504),
        (", connect_timeout: 100ms, circuit_breaker: {max_connections: 1}", 503),
    ] {
        let (proxy, port) = before(&origin, service, 1);
        let mut first = Client::connect(port);
        first.send(GET);
        until(|| in_use(&proxy, "max_connections") == 1.0);
        assert_eq!(Client::connect(port).request(GET).status, status, "{service}");
        until(|| in_use(&proxy, "max_pending_requests") == 0.0);
    }
}

#[test]
fn a_wait_at_the_limit_tries_no_other_endpoint() {
    let ((one, _hold), (other, _hold_other)) = (held(), held());
    let port = free_port();
    let proxy = Proxy::start_with(
        &format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
             routes: {{long: [{{to: app, timeout: none}}], \"*\": [{{to: app}}]}}\n\
             services: {{app: {{endpoints: [\"{}\", \"{}\"], timeout: 1s, \
             connect_hedge: 20ms, circuit_breaker: {{max_connections: 1}}}}}}\n",
            one.address(),
            other.address()
        ),
        1,
    );
    // The second request has to begin to wait before its deadline, also on a busy machine.
    let mut first = Client::connect(port);
    first.send("GET / HTTP/1.1\r\nHost: long\r\n\r\n");
    until(|| one.requests().len() + other.requests().len() == 1);
    let answer = Client::connect(port).request(GET);
    assert_eq!(answer.status, 504);
    assert!(answer.text().contains("max_connections"), "{}", answer.text());
    assert_eq!(proxy.metric("ringway_endpoint_requests_total"), 2.0);
}

#[test]
fn an_idle_connection_to_another_endpoint_makes_room() {
    let (one, other) = (Origin::saying("one"), Origin::saying("other"));
    let port = free_port();
    let proxy = Proxy::start_with(
        &format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
             routes: {{\"*\": [{{to: app}}]}}\n\
             services: {{app: {{endpoints: [\"{}\", \"{}\"], balance: round-robin, \
             circuit_breaker: {{max_connections: 1}}}}}}\n",
            one.address(),
            other.address()
        ),
        1,
    );
    let mut client = Client::connect(port);
    for _ in 0..4 {
        assert_eq!(client.request(GET).status, 200, "{}", proxy.log());
        assert_eq!(in_use(&proxy, "max_connections"), 1.0);
    }
    assert_eq!((one.requests().len(), other.requests().len()), (2, 2));
}

#[test]
fn a_connection_of_bytes_beyond_the_limit_is_closed_at_once() {
    let origin = Origin::scripted(|peer| {
        peer.send("hello");
        peer.until_closed();
    });
    let port = free_port();
    let proxy = Proxy::start_with(
        &format!(
            "listeners: {{raw: {{bind: 127.0.0.1:{port}, protocol: tcp, service: app}}}}\n\
             services: {{app: {{protocol: tcp, endpoints: [\"{}\"], \
             circuit_breaker: {{max_connections: 1}}}}}}\n",
            origin.address()
        ),
        2,
    );
    let read = |client: &mut TcpStream| {
        let mut bytes = [0; 5];
        client.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        client.read_exact(&mut bytes).is_ok()
    };
    let mut first = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert!(read(&mut first));
    let mut second = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert!(!read(&mut second), "the limit is reached");
    assert_eq!(overflows(&proxy, "max_connections"), 1.0);
    drop(first);
    until(|| in_use(&proxy, "max_connections") == 0.0);
    let mut third = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert!(read(&mut third));
}

#[test]
fn requests_at_the_limit_wait_for_a_stream_that_ends() {
    let origin = Origin::scripted(|peer| {
        let Some(mut frames) = Frames::accept(peer, &[(3, 1)]) else { return };
        while let Some((stream, _)) = frames.request() {
            frames.respond(stream, "ok");
        }
    });
    let service = ", protocol: http2, circuit_breaker: {max_connections: 1}";
    let (proxy, port) = before(&origin, service, 1);
    assert_eq!(Client::connect(port).request(GET).status, 200);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::connect(port);
                for _ in 0..20 {
                    assert_eq!(client.request(GET).status, 200, "{}", proxy.log());
                }
            });
        }
    });
    assert_eq!(origin.accepted(), 1, "{}", proxy.log());
    assert_eq!(proxy.metric("ringway_service_requests_pending"), 0.0);
}

#[test]
fn a_shared_connection_without_streams_makes_room() {
    let endpoint = || {
        Origin::scripted(|peer| {
            let Some(mut frames) = Frames::accept(peer, &[]) else { return };
            while let Some((stream, _)) = frames.request() {
                frames.respond(stream, "ok");
            }
        })
    };
    let (one, other) = (endpoint(), endpoint());
    let port = free_port();
    let proxy = Proxy::start_with(
        &format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
             routes: {{\"*\": [{{to: app}}]}}\n\
             services: {{app: {{endpoints: [\"{}\", \"{}\"], balance: round-robin, \
             protocol: http2, circuit_breaker: {{max_connections: 1}}}}}}\n",
            one.address(),
            other.address()
        ),
        1,
    );
    let mut client = Client::connect(port);
    for _ in 0..4 {
        assert_eq!(client.request(GET).status, 200, "{}", proxy.log());
        assert!(in_use(&proxy, "max_connections") <= 1.0);
    }
    assert!(one.accepted() > 0 && other.accepted() > 0);
}

#[test]
fn one_shared_connection_closes_for_a_new_one() {
    let endpoints: [Origin; 3] = std::array::from_fn(|_| {
        Origin::scripted(|peer| {
            let Some(mut frames) = Frames::accept(peer, &[]) else { return };
            while let Some((stream, _)) = frames.request() {
                frames.respond(stream, "ok");
            }
        })
    });
    let addresses: Vec<String> = endpoints.iter().map(Origin::address).collect();
    let port = free_port();
    let proxy = Proxy::start_with(
        &format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
             routes: {{\"*\": [{{to: app}}]}}\n\
             services: {{app: {{endpoints: {addresses:?}, balance: round-robin, \
             protocol: http2, circuit_breaker: {{max_connections: 2}}}}}}\n",
        ),
        1,
    );
    let mut client = Client::connect(port);
    for expected in [1.0, 2.0, 2.0, 2.0] {
        assert_eq!(client.request(GET).status, 200, "{}", proxy.log());
        assert_eq!(in_use(&proxy, "max_connections"), expected);
    }
}

#[test]
fn an_idle_connection_of_one_worker_makes_room_for_another() {
    for protocol in ["http1", "http2"] {
        let origin = match protocol {
            "http1" => Origin::saying("ok"),
            _ => Origin::scripted(|peer| {
                let Some(mut frames) = Frames::accept(peer, &[]) else { return };
                while let Some((stream, _)) = frames.request() {
                    frames.respond(stream, "ok");
                }
            }),
        };
        let service = format!(
            ", protocol: {protocol}, timeout: 30s, circuit_breaker: {{max_connections: 2}}"
        );
        let (proxy, port) = before(&origin, &service, 4);
        // Each connection is served by one of four workers; two of them hold all slots.
        let mut clients: Vec<_> = (0..8).map(|_| Client::connect(port)).collect();
        for _ in 0..3 {
            for client in &mut clients {
                assert_eq!(client.request(GET).status, 200, "{protocol}: {}", proxy.log());
            }
        }
    }
}
