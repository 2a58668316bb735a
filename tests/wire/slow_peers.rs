//! Peers that do not read: what they cost, and that all arrives once they read.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::support::cgroup::Cgroup;
use crate::support::frames::{Frames, kind};
use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, eventually, free_listener, free_port, read_once, skipped};

/// Connections of a case.
const CONNECTIONS: usize = 4;

/// Blocks of a body: more than all socket buffers on its way hold.
const BLOCKS: usize = 1600;

const BLOCK_BYTES: usize = 16 * 1024;

/// A sender that waits this long has filled all buffers on the way.
const STALL: Duration = Duration::from_millis(500);

/// The bytes of a sender.
#[derive(Clone)]
struct Speech {
    head: String,
    block: Vec<u8>,
    end: &'static str,
}

impl Speech {
    fn plain(head: impl Into<String>) -> Self {
        let block = (0..BLOCK_BYTES).map(|i| (i % 251) as u8).collect();
        Self { head: head.into(), block, end: "" }
    }

    fn chunked(head: &str) -> Self {
        let mut speech = Self::plain(head);
        let data = std::mem::replace(&mut speech.block, format!("{BLOCK_BYTES:x}\r\n").into());
        speech.block.extend(data);
        speech.block.extend(b"\r\n");
        Self { end: "0\r\n\r\n", ..speech }
    }

    /// Sends it, and counts itself in `stalled` when it has waited.
    fn send(&self, stream: &mut TcpStream, stalled: &AtomicUsize) {
        stream.set_write_timeout(Some(STALL)).unwrap();
        let mut has_stalled = false;
        let blocks = std::iter::repeat_n(&self.block[..], BLOCKS);
        for part in [self.head.as_bytes()].into_iter().chain(blocks).chain([self.end.as_bytes()]) {
            let mut left = part;
            while !left.is_empty() {
                match stream.write(left) {
                    Ok(n) => left = &left[n..],
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        if !std::mem::replace(&mut has_stalled, true) {
                            stalled.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => panic!("a sender: {error}"),
                }
            }
        }
    }

    /// Reads it, and checks each byte of it.
    fn hear(&self, stream: &mut TcpStream) {
        if !self.head.is_empty() {
            read_head(stream);
        }
        let mut block = vec![0; self.block.len()];
        for _ in 0..BLOCKS {
            stream.read_exact(&mut block).unwrap();
            assert!(block == self.block, "the bytes arrive in order");
        }
        let mut end = vec![0; self.end.len()];
        stream.read_exact(&mut end).unwrap();
        assert_eq!(end, self.end.as_bytes());
    }
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(read_once(stream, &mut byte).unwrap(), 1, "the end in a head");
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// A client with a small receive buffer.
fn connect(port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

/// The direction of the bytes.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Up,
    Down,
}

/// Two proxies in a row. The first speaks TLS to the second. Both have a listener for HTTP and one
/// for opaque bytes.
struct Chain {
    proxies: [Proxy; 2],
    _pki: Pki,
    /// The ports of the first proxy, which leads to the second, and of the second: HTTP and bytes.
    ports: [[u16; 2]; 2],
}

impl Chain {
    fn before(origin: &Origin, limits: &str) -> Self {
        let pki = Pki::new();
        pki.leaf("web", &Wanted::default());
        let [plain, secure, begin] = [(); 3].map(|()| [free_port(), free_port()]);
        let tls = format!("tls: {{cert: {}, key: {}}}", pki.path("web.pem"), pki.path("web.key"));
        let second = Proxy::start(&format!(
            "{limits}\
             listeners:\n  web: {{bind: 127.0.0.1:{}}}\n  web-tls: {{bind: 127.0.0.1:{}, {tls}}}\n\
             \x20 raw: {{bind: 127.0.0.1:{}, protocol: tcp, service: raw}}\n\
             \x20 raw-tls: {{bind: 127.0.0.1:{}, protocol: tcp, service: raw, {tls}}}\n\
             routes: {{\"*\": [{{to: app}}]}}\n\
             services:\n  app: {{protocol: http1, endpoints: [\"{at}\"]}}\n\
             \x20 raw: {{protocol: tcp, endpoints: [\"{at}\"]}}\n",
            plain[0],
            secure[0],
            plain[1],
            secure[1],
            at = origin.address(),
        ));
        // A handshake may take long on a busy machine.
        let trust = format!("connect_timeout: 30s, tls: {{ca: {}}}", pki.path("ca.pem"));
        let first = Proxy::start(&format!(
            "{limits}\
             listeners:\n  web: {{bind: 127.0.0.1:{}}}\n\
             \x20 raw: {{bind: 127.0.0.1:{}, protocol: tcp, service: raw}}\n\
             routes: {{\"*\": [{{to: app}}]}}\n\
             services:\n  app: {{protocol: http1, {trust}, endpoints: [\"127.0.0.1:{}\"]}}\n\
             \x20 raw: {{protocol: tcp, {trust}, endpoints: [\"127.0.0.1:{}\"]}}\n",
            begin[0], begin[1], secure[0], secure[1],
        ));
        Self { proxies: [first, second], ports: [begin, plain], _pki: pki }
    }

    fn buffers_used(&self) -> f64 {
        self.proxies.iter().map(|proxy| proxy.metric("ringway_worker_buffers_used")).sum()
    }
}

/// Lets the readers read when it is dropped.
struct Release(Arc<AtomicBool>);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn wait(may_read: &AtomicBool) {
    while !may_read.load(Ordering::SeqCst) {
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Runs a case in which nobody reads until `while_stalled` is over.
fn stall(way: Way, is_http: bool, speech: Speech, limits: &str, while_stalled: impl Fn(&Chain)) {
    for through_tls in [false, true] {
        let stalled = Arc::new(AtomicUsize::new(0));
        let may_read = Arc::new(AtomicBool::new(false));
        // Also when the case fails: no thread may wait for ever.
        let release = Release(may_read.clone());
        let origin = Origin::scripted({
            let (speech, stalled) = (speech.clone(), stalled.clone());
            let may_read = may_read.clone();
            move |peer| match way {
                Way::Up => {
                    wait(&may_read);
                    speech.hear(&mut peer.stream);
                    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                }
                Way::Down => {
                    read_head(&mut peer.stream);
                    speech.send(&mut peer.stream, &stalled);
                }
            }
        });
        let chain = Chain::before(&origin, limits);
        let port = chain.ports[usize::from(!through_tls)][usize::from(!is_http)];
        std::thread::scope(|scope| {
            for _ in 0..CONNECTIONS {
                scope.spawn(|| {
                    let mut client = connect(port);
                    match way {
                        Way::Up => {
                            speech.send(&mut client, &stalled);
                            assert!(read_head(&mut client).starts_with("HTTP/1.1 200"));
                        }
                        Way::Down => {
                            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
                            wait(&may_read);
                            speech.hear(&mut client);
                        }
                    }
                });
            }
            let release = release;
            for n in 1..=CONNECTIONS {
                let are_stalled = || (stalled.load(Ordering::SeqCst) >= n).then_some(());
                eventually("a further sender to stall", are_stalled);
            }
            while_stalled(&chain);
            drop(release);
        });
    }
}

/// Waits until hardly any buffer is in use. The kernel may count very small packets with more than
/// twice their bytes; then a write stalls after all, and its buffer is held.
fn no_buffers(chain: &Chain) {
    let few = CONNECTIONS as f64 / 2.0;
    eventually("the buffers to come back", || (chain.buffers_used() <= few).then_some(()));
}

const LENGTH: usize = BLOCKS * BLOCK_BYTES;

#[test]
fn an_endpoint_that_does_not_read_an_upload_costs_no_buffer() {
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n");
    stall(Way::Up, true, Speech::plain(head), "", no_buffers);
}

#[test]
fn a_client_that_does_not_read_a_chunked_body_costs_no_buffer() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    stall(Way::Down, true, Speech::chunked(head), "", no_buffers);
}

#[test]
fn a_client_that_does_not_read_a_body_with_a_length_costs_no_buffer() {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
    stall(Way::Down, true, Speech::plain(head), "", no_buffers);
}

#[test]
fn a_tunnel_whose_sink_does_not_read_costs_no_buffer() {
    for way in [Way::Up, Way::Down] {
        stall(way, false, Speech::plain(""), "", no_buffers);
    }
}

/// Requests without complete heads. Each holds a buffer: together more than 1 MiB.
const HEADS: usize = 40;

#[test]
fn at_the_limit_of_all_buffers_slow_peers_wait_and_fast_ones_go_on() {
    let speech = Speech::chunked("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    let origin = Origin::scripted({
        let speech = speech.clone();
        move |peer| {
            read_head(&mut peer.stream);
            speech.send(&mut peer.stream, &AtomicUsize::new(0));
        }
    });
    let (port, raw, at) = (free_port(), free_port(), origin.address());
    let config = format!(
        "limits: {{buffer_bytes: 1MiB}}\n\
         listeners:\n  web: {{bind: 127.0.0.1:{port}}}\n\
         \x20 raw: {{bind: 127.0.0.1:{raw}, protocol: tcp, service: raw}}\n\
         routes: {{\"*\": [{{to: app}}]}}\n\
         services:\n  app: {{protocol: http1, endpoints: [\"{at}\"]}}\n\
         \x20 raw: {{protocol: tcp, endpoints: [\"{at}\"]}}\n"
    );
    let proxy = Proxy::start_with(&config, 1);
    let metric = |name: &str| proxy.metric(&format!("ringway_worker_buffer{name}{{"));
    let begin = |port, head: &str| {
        let mut client = connect(port);
        client.write_all(head.as_bytes()).unwrap();
        client
    };
    let heads = [(); HEADS].map(|()| begin(port, "GET / HTTP/1.1\r\n"));
    eventually("the share", || (metric("_bytes_max") == 1_048_576.0).then_some(()));
    eventually("the limit", || (metric("_bytes") >= 1_048_576.0).then_some(()));
    let ask = |port| begin(port, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let slow = [port, port, port, raw, raw].map(ask);
    eventually("the slow ones to wait", || (metric("_pauses_total") >= 3.0).then_some(()));
    [port, raw].into_iter().for_each(|port| speech.hear(&mut ask(port)));
    let most = HEADS + slow.len() / 2;
    eventually("few buffers", || (metric("s_used") <= most as f64).then_some(()));
    std::thread::scope(|scope| {
        for mut client in slow {
            let speech = &speech;
            scope.spawn(move || speech.hear(&mut client));
        }
    });
    drop(heads);
}

/// A message of two blocks, whose sender pauses between them.
#[derive(Clone)]
struct Pausing {
    head: &'static str,
    heard: Arc<AtomicUsize>,
    may_go_on: Arc<AtomicBool>,
}

impl Pausing {
    fn send(&self, stream: &mut TcpStream) {
        let head = format!("{}Content-Length: {}\r\n\r\n", self.head, 2 * BLOCK_BYTES);
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&[b'a'; BLOCK_BYTES]).unwrap();
        wait(&self.may_go_on);
        stream.write_all(&[b'b'; BLOCK_BYTES]).unwrap();
    }

    fn hear(&self, stream: &mut TcpStream) {
        read_head(stream);
        let mut block = [0; BLOCK_BYTES];
        stream.read_exact(&mut block).unwrap();
        self.heard.fetch_add(1, Ordering::SeqCst);
        assert!(block == [b'a'; BLOCK_BYTES], "the first block");
        stream.read_exact(&mut block).unwrap();
        assert!(block == [b'b'; BLOCK_BYTES], "the second block");
    }
}

/// Runs messages that pause until hardly any buffer is in use.
fn pause(way: Way, head: &'static str) {
    let (heard, may_go_on) = (Arc::default(), Arc::default());
    let message = Pausing { head, heard, may_go_on };
    let release = Release(message.may_go_on.clone());
    let origin = Origin::scripted({
        let message = message.clone();
        move |peer| match way {
            Way::Up => {
                message.hear(&mut peer.stream);
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
            Way::Down => {
                read_head(&mut peer.stream);
                message.send(&mut peer.stream);
            }
        }
    });
    let chain = Chain::before(&origin, "");
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut client = connect(chain.ports[0][0]);
                match way {
                    Way::Up => {
                        message.send(&mut client);
                        assert!(read_head(&mut client).starts_with("HTTP/1.1 200"));
                    }
                    Way::Down => {
                        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
                        message.hear(&mut client);
                    }
                }
            });
        }
        let release = release;
        let have_begun = || (message.heard.load(Ordering::SeqCst) == CONNECTIONS).then_some(());
        eventually("the first block of each message", have_begun);
        no_buffers(&chain);
        drop(release);
    });
}

#[test]
fn a_client_that_pauses_in_its_upload_costs_no_buffer() {
    pause(Way::Up, "POST / HTTP/1.1\r\nHost: a\r\n");
}

#[test]
fn an_endpoint_that_pauses_in_its_response_costs_no_buffer() {
    pause(Way::Down, "HTTP/1.1 200 OK\r\n");
}

/// Streams of a connection of HTTP/2.
const STREAMS: u32 = 10;

/// Bytes of the body of a stream.
const STREAM_BYTES: usize = 256 * 1024;

/// The window of a connection until it is opened (RFC 9113 6.9.2).
const WINDOW_BYTES: usize = 65_535;

/// Opens the windows of the connection and of its first `streams` streams for all bodies.
fn open_windows(frames: &mut Frames, streams: u32) {
    for stream in [0].into_iter().chain((0..streams).map(|n| 2 * n + 1)) {
        let bytes = streams * STREAM_BYTES as u32;
        frames.send(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
    }
}

/// Reads frames until `bytes` bytes of bodies have come.
fn read_data(frames: &mut Frames, bytes: usize) {
    let mut read = 0;
    while read < bytes {
        read += frames.next_of(kind::DATA).expect("more data").payload.len();
    }
    assert_eq!(read, bytes);
}

/// Requests whose heads are not complete. Each holds a buffer.
const MARKS: usize = 3;

/// Waits until hardly any buffer is in use but those of the marks. The count is renewed once a
/// second, so that the marks are in it shows that it is new.
fn only_the_marks_hold_buffers(proxy: &Proxy, port: u16) {
    let marks = [(); MARKS].map(|()| {
        let mut client = connect(port);
        client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        client
    });
    let used = || proxy.metric("ringway_worker_buffers_used") as usize;
    eventually("a new count", || (used() >= MARKS).then_some(()));
    eventually("the buffers to come back", || (used() <= MARKS + 2).then_some(()));
    drop(marks);
}

#[test]
fn streams_whose_client_opens_no_window_cost_no_buffer() {
    let origin = Origin::scripted(|peer| {
        read_head(&mut peer.stream);
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {STREAM_BYTES}\r\n\r\n"));
        peer.send(vec![b'x'; STREAM_BYTES]);
    });
    let port = free_port();
    let config = format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{protocol: http1, endpoints: [\"{}\"]}}}}\n",
        origin.address()
    );
    let proxy = Proxy::start_with(&config, 1);
    let get = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
    let mut clients = [(); 2].map(|()| {
        let mut client = Frames::connect(port);
        (0..STREAMS).for_each(|n| client.headers(2 * n + 1, &get, true));
        client
    });
    clients.iter_mut().for_each(|client| read_data(client, WINDOW_BYTES));
    only_the_marks_hold_buffers(&proxy, port);
    for client in &mut clients {
        open_windows(client, STREAMS);
        read_data(client, STREAMS as usize * STREAM_BYTES - WINDOW_BYTES);
    }
}

#[test]
fn short_responses_whose_client_opens_no_window_cost_no_buffer() {
    let origin = Origin::saying("short");
    let port = free_port();
    let config = format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{protocol: http1, endpoints: [\"{}\"]}}}}\n",
        origin.address()
    );
    let proxy = Proxy::start_with(&config, 1);
    let get = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
    let initial_window = (4, 0);
    let mut client = Frames::over(connect(port), &[initial_window]);
    (0..STREAMS).for_each(|n| client.headers(2 * n + 1, &get, true));
    for _ in 0..STREAMS {
        client.next_of(kind::HEADERS).expect("the head of a response");
    }
    only_the_marks_hold_buffers(&proxy, port);
    open_windows(&mut client, STREAMS);
    read_data(&mut client, STREAMS as usize * "short".len());
}

#[test]
fn uploads_to_an_endpoint_that_opens_no_window_cost_no_buffer() {
    let may_read = Arc::new(AtomicBool::new(false));
    let [has_heads, is_full] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let release = Release(may_read.clone());
    let origin = Origin::scripted({
        let (has_heads, is_full) = (has_heads.clone(), is_full.clone());
        move |peer| {
            let Some(mut frames) = Frames::accept(peer, &[]) else { return };
            for _ in 0..CONNECTIONS {
                frames.next_of(kind::HEADERS).expect("a request");
            }
            has_heads.store(true, Ordering::SeqCst);
            read_data(&mut frames, WINDOW_BYTES);
            is_full.store(true, Ordering::SeqCst);
            wait(&may_read);
            open_windows(&mut frames, CONNECTIONS as u32);
            while let Some((stream, body)) = frames.request() {
                assert_eq!(body.len(), STREAM_BYTES);
                frames.respond(stream, "ok");
            }
        }
    });
    let port = free_port();
    let config = format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{protocol: http2, endpoints: [\"{}\"]}}}}\n",
        origin.address()
    );
    let proxy = Proxy::start_with(&config, 1);
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut client = connect(port);
                let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {STREAM_BYTES}");
                client.write_all(format!("{head}\r\n\r\n").as_bytes()).unwrap();
                // What comes with a head is held until the request cannot be sent again.
                wait(&has_heads);
                client.write_all(&vec![b'x'; STREAM_BYTES]).unwrap();
                assert!(read_head(&mut client).starts_with("HTTP/1.1 200"));
            });
        }
        let release = release;
        eventually("the window to be full", || is_full.load(Ordering::SeqCst).then_some(()));
        only_the_marks_hold_buffers(&proxy, port);
        drop(release);
    });
}

/// An endpoint that answers each connection with `bytes` bytes at once. Socket buffers hold them,
/// so one thread is enough.
fn generous_endpoint(bytes: usize) -> SocketAddr {
    let listener = free_listener();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
        let answer = [answer.into_bytes(), vec![b'x'; bytes]].concat();
        while let Ok((mut stream, _)) = listener.accept() {
            read_head(&mut stream);
            stream.write_all(&answer).ok();
        }
    });
    address
}

#[test]
fn a_proxy_with_64_mib_serves_while_2000_streams_do_not_read() {
    const BYTES: usize = 64 * 1024;
    let Some(group) = Cgroup::with_memory("ringway-slow", 64 << 20) else {
        return skipped("no control group with a limit of memory can be made");
    };
    let (port, endpoint) = (free_port(), generous_endpoint(BYTES));
    let config = format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{protocol: http1, endpoints: [\"{endpoint}\"]}}}}\n"
    );
    let enter = group.enter();
    let proxy = Proxy::start_under(&["sh", "-c", &enter, "sh"], "workers: 2", &config);
    let get = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
    let _clients: Vec<Frames> = (0..192)
        .map(|_| {
            let mut client = Frames::connect(port);
            (0..STREAMS).for_each(|n| client.headers(2 * n + 1, &get, true));
            read_data(&mut client, WINDOW_BYTES);
            client
        })
        .collect();
    let mut other = Client::connect(port);
    let response = other.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response();
    assert_eq!((response.status, response.text().len()), (200, BYTES));
    assert!(proxy.metric("ringway_worker_requests_total") > 0.0, "the admin interface answers");
}
