//! A request that waits for a connection takes whichever is free first.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::frames::Frames;
use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{free_port, read_once, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn before(address: SocketAddr, service: &str) -> (Proxy, u16) {
    let port = free_port();
    let proxy = Proxy::start_with(
        &format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
             services: {{app: {{endpoints: [\"{address}\"]{service}}}}}\n"
        ),
        1,
    );
    (proxy, port)
}

/// A listener with a short queue of connections.
fn short_queue(backlog: i32) -> (TcpListener, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    socket.bind(&any.into()).unwrap();
    socket.listen(backlog).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Fills the queue of a listener, so that the kernel drops each new SYN.
fn filled(address: SocketAddr) -> Vec<TcpStream> {
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
    std::iter::from_fn(connect).collect()
}

/// Answers the requests of each connection that is accepted, one connection after another.
fn accept_slowly(listener: TcpListener, pause: Duration) -> Arc<AtomicUsize> {
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while read_once(&mut stream, &mut bytes).is_ok_and(|n| n > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    std::io::Write::write_all(&mut stream, answer).ok();
                }
            });
            std::thread::park_timeout(pause);
        }
    });
    accepted
}

#[test]
fn an_origin_that_accepts_slowly_costs_no_request_its_answer() {
    let (listener, address) = short_queue(5);
    accept_slowly(listener, Duration::from_millis(20));
    let (proxy, port) = before(address, ", connect_timeout: 1s");
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| assert_eq!(Client::connect(port).request(GET).status, 200));
        }
    });
    assert_eq!(proxy.metric("ringway_service_requests_pending"), 0.0);
}

#[test]
fn a_waiting_request_takes_the_connection_that_is_given_back() {
    // The listener accepts one connection. The kernel drops all others when its queue is full.
    let (listener, address) = short_queue(0);
    let accepted = accept_slowly(listener, Duration::from_secs(3600));
    let (proxy, port) = before(address, ", connect_timeout: 1h");
    let mut first = Client::connect(port);
    assert_eq!(first.request(GET).status, 200);
    let _queued = filled(address);
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                let mut client = Client::connect(port);
                for _ in 0..10 {
                    assert_eq!(client.request(GET).status, 200, "{}", proxy.log());
                }
            });
        }
    });
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}

#[test]
fn a_connection_that_nobody_waits_for_any_more_stays_in_the_pool() {
    let (listener, address) = short_queue(0);
    let queued = filled(address);
    let (proxy, port) = before(address, ", timeout: 50ms, connect_timeout: 1h");
    let answer = Client::connect(port).request(GET);
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(answer.text().contains("no endpoint accepted a connection"), "{}", answer.text());
    // The endpoint accepts now. The kernel sends the lost SYN again.
    drop(queued);
    accept_slowly(listener, Duration::ZERO);
    until(|| proxy.metric("ringway_endpoint_connections_idle") == 1.0);
    assert_eq!(Client::connect(port).request(GET).status, 200);
    assert_eq!(proxy.metric("ringway_endpoint_connections_total"), 1.0);
}

#[test]
fn a_client_that_leaves_does_not_wait_any_more() {
    let (_listener, address) = short_queue(0);
    let _queued = filled(address);
    let (proxy, port) = before(address, ", connect_timeout: 1h");
    let mut client = Client::connect(port);
    client.send(GET);
    let mut stream = Frames::connect(port);
    let get = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
    stream.headers(1, &get, true);
    until(|| proxy.metric("ringway_service_requests_pending") == 2.0);
    stream.reset(1, 8);
    until(|| proxy.metric("ringway_service_requests_pending") == 1.0);
    drop(client);
    until(|| proxy.metric("ringway_service_requests_pending") == 0.0);
    let flags = "ringway_service_response_flags_total{service=\"app\",flag=\"DC\"}";
    assert_eq!(proxy.metric(flags), 2.0);
}

/// A call with this timeout, over HTTP/1.1.
fn call(timeout: &str) -> String {
    format!(
        "POST /shop.Cart/Add HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\n\
         grpc-timeout: {timeout}\r\nContent-Length: 0\r\n\r\n"
    )
}

#[test]
fn the_deadline_of_one_call_ends_no_connection_attempt_of_others() {
    // Nothing is accepted until the first call has ended.
    let (listener, address) = short_queue(0);
    let queued = filled(address);
    let (proxy, port) = before(address, ", protocol: grpc, connect_timeout: 1h");
    let answer = Client::connect(port).request(call("1m"));
    assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("4")), "its own deadline");
    let mut clients: Vec<_> = (0..10).map(|_| Client::connect(port)).collect();
    for client in &mut clients {
        client.send(call("1M"));
    }
    until(|| proxy.metric("ringway_service_requests_pending") == 10.0);
    // The calls wait for the attempt that the first one has begun. It succeeds now.
    drop(queued);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut frames = Frames::serve(stream, &[]).unwrap();
                while let Some((stream, _)) = frames.request() {
                    let fields = [
                        (":status", "200"),
                        ("content-type", "application/grpc"),
                        ("grpc-status", "0"),
                    ];
                    frames.headers(stream, &fields, true);
                }
            });
        }
    });
    for client in &mut clients {
        let answer = client.response();
        assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("0")));
    }
    assert_eq!(proxy.metric("ringway_endpoint_connections_total"), 1.0);
}

#[test]
fn a_request_that_waits_for_an_endpoint_that_is_removed_is_answered_by_it() {
    let (listener, address) = short_queue(0);
    let queued = filled(address);
    let (proxy, port) = before(address, ", protocol: http2, connect_timeout: 1h");
    let mut client = Client::connect(port);
    client.send(GET);
    until(|| proxy.metric("ringway_service_requests_pending") == 1.0);
    proxy.reload(&format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [127.0.0.1:{}], protocol: http2}}}}\n",
        free_port()
    ));
    drop(queued);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Some(mut frames) = Frames::serve(stream, &[]) else { continue };
            while let Some((stream, _)) = frames.request() {
                frames.respond(stream, "ok");
            }
        }
    });
    assert_eq!(client.response().status, 200, "{}", proxy.log());
}

#[test]
fn the_connection_that_loses_a_race_stays_in_the_pool() {
    let (listener, address) = short_queue(0);
    let queued = filled(address);
    let good = Origin::saying("good");
    let port = free_port();
    let proxy = Proxy::start_with(
        &format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
             services: {{app: {{endpoints: [\"{address}\", \"{}\"], balance: round-robin, \
             connect_timeout: 1h, connect_hedge: 50ms}}}}\n",
            good.address()
        ),
        1,
    );
    for _ in 0..2 {
        assert_eq!(Client::connect(port).get("a", "/").text(), "good");
    }
    drop(queued);
    accept_slowly(listener, Duration::ZERO);
    let idle =
        format!("ringway_endpoint_connections_idle{{service=\"app\",endpoint=\"{address}\"}}");
    until(|| proxy.metric(&idle) == 1.0);
}
