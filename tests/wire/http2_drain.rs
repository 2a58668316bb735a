//! HTTP/2 connections close while requests are running: connections to endpoints, connections of
//! clients, and all connections when the proxy ends. Peers that follow RFC 9113 6.8 lose no
//! request.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use nix::sys::signal::Signal;

use crate::support::frames::{Frame, Frames, frame, kind};
use crate::support::peers::Server;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

/// The number of connections, and of streams that are open on each at a time.
const CONNECTIONS: usize = 4;
const STREAMS: usize = 10;

/// The HPACK static table has `:status: 200` at index 8 (RFC 7541 A).
const STATUS_200: u8 = 0x88;

/// Clients that send requests all the time. After a GOAWAY, a client opens another connection.
struct Load {
    answers: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    /// Each thread returns the number of GOAWAYs that it got.
    threads: Vec<JoinHandle<usize>>,
}

impl Load {
    fn at(port: u16) -> Self {
        let (answers, stopping) = (Arc::default(), Arc::default());
        let client = |_| {
            let (answers, stopping) = (Arc::clone(&answers), Arc::clone(&stopping));
            std::thread::spawn(move || ask_on_and_on(port, &answers, &stopping))
        };
        let threads = (0..CONNECTIONS).map(client).collect();
        let load = Self { answers, stopping, threads };
        load.goes_on(100);
        load
    }

    /// Waits for `more` further answers.
    #[track_caller]
    fn goes_on(&self, more: usize) {
        let wanted = self.answers.load(Ordering::Relaxed) + more;
        eventually("answers", || {
            let failed = self.threads.iter().any(JoinHandle::is_finished);
            assert!(!failed, "a request failed");
            (self.answers.load(Ordering::Relaxed) >= wanted).then_some(())
        });
    }

    /// Stops the proxy; no client connects any more. Returns the number of clients that got GOAWAY.
    #[track_caller]
    fn ends_with(self, proxy: &mut Proxy) -> usize {
        self.stopping.store(true, Ordering::Relaxed);
        proxy.signal(Signal::SIGTERM);
        let ended = self.threads.into_iter().map(|thread| thread.join().expect("no failure"));
        let goodbyes = ended.sum();
        assert!(proxy.wait().success());
        goodbyes
    }
}

/// Sends requests on one connection after the other, until `stopping` is set. Returns the number of
/// GOAWAYs.
fn ask_on_and_on(port: u16, answers: &AtomicUsize, stopping: &AtomicBool) -> usize {
    let mut goodbyes = 0;
    loop {
        let mut frames = Frames::connect(port);
        let mut client = Connection::default();
        while client.open.len() < STREAMS {
            client.ask(&mut frames);
        }
        while client.goodbye.is_none() || !client.open.is_empty() {
            let frame = frames.next().unwrap_or_else(|| panic!("cut off with {:?}", client.open));
            if client.take(&frame) {
                answers.fetch_add(1, Ordering::Relaxed);
                frames.send(kind::WINDOW_UPDATE, 0, 0, &64u32.to_be_bytes());
                if client.goodbye.is_none() {
                    client.ask(&mut frames);
                }
            }
        }
        goodbyes += 1;
        while let Some(frame) = frames.next() {
            client.take(&frame);
        }
        // All requests before GOAWAY were processed.
        assert!(client.goodbye >= Some(client.last), "{:?}, {}", client.goodbye, client.last);
        if stopping.load(Ordering::Relaxed) {
            return goodbyes;
        }
    }
}

/// A connection as its client sees it.
#[derive(Default)]
struct Connection {
    open: BTreeSet<u32>,
    /// The last stream that was opened.
    last: u32,
    /// The last stream that the peer's GOAWAY says it may process.
    goodbye: Option<u32>,
}

impl Connection {
    fn ask(&mut self, frames: &mut Frames) {
        let stream = if self.last == 0 { 1 } else { self.last + 2 };
        let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a")];
        frames.headers(stream, &[&fields[..], &[(":path", "/page")]].concat(), true);
        self.open.insert(stream);
        self.last = stream;
    }

    /// Processes a frame. Returns whether it ended an answer.
    fn take(&mut self, frame: &Frame) -> bool {
        match frame.kind {
            kind::GOAWAY => {
                let word = |at: usize| frame.payload[at..at + 4].try_into().unwrap();
                assert_eq!(u32::from_be_bytes(word(4)), 0, "{frame:?}");
                self.goodbye = Some(u32::from_be_bytes(word(0)));
            }
            kind::RST_STREAM => panic!("{frame:?}"),
            kind::HEADERS => assert_eq!(frame.payload[0], STATUS_200, "{frame:?}"),
            _ => {}
        }
        frame.ends() && self.open.remove(&frame.stream)
    }
}

/// Two endpoints that send GOAWAY after every hundred requests, and a proxy in front of them.
fn before_nginx() -> ([Server; 2], Proxy, u16) {
    let files = [("page", "a page\n".to_owned())];
    let endpoints = [(); 2].map(|()| Server::nginx_http2(&files, None));
    let port = free_port();
    let proxy = Proxy::start(&configuration(port, &endpoints, 0));
    (endpoints, proxy, port)
}

/// A different configuration for each number.
fn configuration(port: u16, endpoints: &[Server; 2], number: usize) -> String {
    let [one, two] = [0, 1].map(|n| format!("\"127.0.0.1:{}\"", endpoints[n].port));
    let list = [format!("{one}, {two}"), one, two][number % 3].clone();
    let rule = |n| format!("{{match: {{path: /x{n}}}, to: app}}, ");
    let rules: String = (0..number % 4).map(rule).collect();
    let age = ["", ", http2: {max_connection_age: 200ms}"][number % 2];
    format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}{age}}}}}\n\
         routes: {{\"*\": [{rules}{{to: app}}]}}\n\
         services: {{app: {{protocol: http2, endpoints: [{list}]}}}}\n"
    )
}

#[test]
fn no_request_fails_while_configurations_and_endpoints_change_and_in_the_end_the_proxy_goes() {
    let (endpoints, mut proxy, port) = before_nginx();
    let load = Load::at(port);
    for number in 1..=12 {
        // The old worker of nginx finishes its streams and sends GOAWAY. A new worker accepts
        // connections.
        endpoints[number % 2].signal(Signal::SIGHUP);
        load.goes_on(200);
        proxy.reload(&configuration(port, &endpoints, number));
        load.goes_on(200);
    }
    assert_eq!(proxy.metric("ringway_service_response_flags_total"), 0.0);
    assert_eq!(proxy.metric("ringway_worker_panics_total"), 0.0);
    load.ends_with(&mut proxy);
}

#[test]
fn rfc9113_6_8_a_proxy_that_goes_answers_what_was_asked_before() {
    for _ in 0..10 {
        let (_endpoints, mut proxy, port) = before_nginx();
        assert_eq!(Load::at(port).ends_with(&mut proxy), CONNECTIONS);
    }
}

/// gRPC's C++ core writes its answer to a PING before requests that it began earlier.
#[test]
fn a_request_right_after_the_answer_to_the_ping_is_served() {
    let (_endpoints, mut proxy, port) = before_nginx();
    let mut frames = Frames::connect(port);
    let mut client = Connection::default();
    client.ask(&mut frames);
    frames.next_of(kind::HEADERS).expect("an answer");
    proxy.signal(Signal::SIGTERM);
    client.take(&frames.next_of(kind::GOAWAY).expect("a goodbye"));
    assert_eq!(client.goodbye, Some(0x7fff_ffff));
    // This answers the first PING that follows GOAWAY.
    frames.next_of(kind::PING).expect("a PING");
    client.ask(&mut frames);
    let answer = frames.next_of(kind::HEADERS).expect("an answer");
    assert_eq!(answer.stream, client.last);
    client.take(&frames.next_of(kind::GOAWAY).expect("the last goodbye"));
    assert_eq!(client.goodbye, Some(client.last));
    drop(frames);
    assert!(proxy.wait().success());
}

#[test]
fn a_client_that_sends_after_the_end_is_not_reset() {
    let (_endpoints, mut proxy, port) = before_nginx();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut frames = Frames::over(stream.try_clone().unwrap(), &[]);
    Connection::default().ask(&mut frames);
    frames.next_of(kind::HEADERS).expect("an answer");
    proxy.signal(Signal::SIGTERM);
    frames.next_of(kind::GOAWAY).expect("a goodbye");
    frames.until_closed();
    // A write to a closed socket makes its kernel reset the connection, and later writes fail.
    let mut left = 10;
    eventually("some writes", || {
        stream.write_all(&frame(kind::PING, 0, 0, &[0; 8])).expect("no reset");
        left -= 1;
        (left == 0).then_some(())
    });
    assert_eq!(stream.read(&mut [0; 64]).expect("no reset"), 0);
    drop((stream, frames));
    assert!(proxy.wait().success());
}
