//! Peers that reset a connection: the other side gets all bytes that were sent before, in order,
//! and then a reset.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

use pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection, Stream};
use socket2::{Domain, Socket, Type};

use crate::support::frames::{Frames, kind, setting};
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::tls;
use crate::support::{PATIENCE, eventually, free_listener, free_port};

const BYTES: usize = 1_000_000;

/// A small receive buffer, so that most bytes wait at the sender.
const RECEIVE_BYTES: usize = 4096;

fn body() -> Vec<u8> {
    (0..BYTES).map(|at| (at / 7) as u8).collect()
}

/// A connection to a loopback port, with a small receive buffer.
fn slow_client(port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(RECEIVE_BYTES).unwrap();
    socket.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

/// A listener whose connections have small receive buffers.
fn slow_listener() -> TcpListener {
    let listener = free_listener();
    socket2::SockRef::from(&listener).set_recv_buffer_size(RECEIVE_BYTES).unwrap();
    listener
}

/// Reads to the end. Returns the bytes, and the error that ended the read.
fn read_all(mut stream: TcpStream) -> (Vec<u8>, Option<io::ErrorKind>) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut read = Vec::new();
    let error = stream.read_to_end(&mut read).err();
    (read, error.map(|error| error.kind()))
}

#[track_caller]
fn assert_whole_and_reset(read: &[u8], error: Option<io::ErrorKind>) {
    assert_eq!(read.len(), BYTES, "bytes have arrived");
    assert!(read == body(), "in order");
    assert_eq!(error, Some(io::ErrorKind::ConnectionReset));
}

/// A TLS endpoint that reads once, sends `answer`, and ends without close_notify. It keeps its
/// socket open until the peer has closed.
fn tls_endpoint(pki: &Pki, answer: Vec<u8>) -> u16 {
    let (listener, config) = (free_listener(), tls::server(pki, "web"));
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((mut socket, _)) = listener.accept() {
            let mut session = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = Stream::new(&mut session, &mut socket);
            if stream.read(&mut [0; 4096]).is_ok() && stream.write_all(&answer).is_ok() {
                stream.flush().unwrap();
                socket.shutdown(Shutdown::Write).unwrap();
                socket.read_to_end(&mut Vec::new()).ok();
            }
        }
    });
    port
}

/// A proxy in front of a TLS endpoint that sends a part of a response without a length and then
/// ends without close_notify. Returns the proxy, the keys and the proxy's port.
fn before_a_breaking_origin() -> (Proxy, Pki, u16) {
    let pki = Pki::new();
    pki.leaf("web", &Wanted::default());
    let head = b"HTTP/1.0 200 OK\r\n\r\n".to_vec();
    let endpoint = tls_endpoint(&pki, [head, body()].concat());
    let port = free_port();
    let proxy = Proxy::start(&format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{tls: {{ca: {}}}, endpoints: [\"127.0.0.1:{endpoint}\"]}}}}\n\
         telemetry: {{access_log: {{path: stdout}}}}\n",
        pki.path("ca.pem"),
    ));
    (proxy, pki, port)
}

#[test]
fn all_that_a_tls_client_sent_before_it_broke_off_reaches_the_endpoint() {
    let pki = Pki::new();
    pki.leaf("web", &Wanted::default());
    let listener = slow_listener();
    let endpoint = listener.local_addr().unwrap();
    let reading = std::thread::spawn(move || read_all(listener.accept().unwrap().0));
    let port = free_port();
    let proxy = Proxy::start(&format!(
        "listeners: {{raw: {{bind: 127.0.0.1:{port}, protocol: tcp, service: app, \
         tls: {{cert: {}, key: {}}}}}}}\n\
         services: {{app: {{protocol: tcp, endpoints: [\"{endpoint}\"]}}}}\n\
         telemetry: {{access_log: {{path: stdout}}}}\n",
        pki.path("web.pem"),
        pki.path("web.key"),
    ));
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut session = ClientConnection::new(tls::client(&pki, None), name).unwrap();
    Stream::new(&mut session, &mut socket).write_all(&body()).unwrap();
    socket.shutdown(Shutdown::Write).unwrap(); // without close_notify
    let (read, error) = reading.join().unwrap();
    assert_whole_and_reset(&read, error);
    eventually("the log", || proxy.log().contains("\"response_flags\":\"DC\"").then_some(()));
}

#[test]
fn all_that_a_tls_endpoint_sent_before_it_broke_off_reaches_the_client() {
    let pki = Pki::new();
    pki.leaf("web", &Wanted::default());
    let endpoint = tls_endpoint(&pki, body());
    let port = free_port();
    let proxy = Proxy::start(&format!(
        "listeners: {{raw: {{bind: 127.0.0.1:{port}, protocol: tcp, service: app}}}}\n\
         services: {{app: {{protocol: tcp, tls: {{ca: {}}}, \
         endpoints: [\"127.0.0.1:{endpoint}\"]}}}}\n\
         telemetry: {{access_log: {{path: stdout}}}}\n",
        pki.path("ca.pem"),
    ));
    let mut client = slow_client(port);
    client.write_all(b"hello").unwrap();
    let (read, error) = read_all(client);
    assert_whole_and_reset(&read, error);
    eventually("the log", || proxy.log().contains("\"response_flags\":\"UC\"").then_some(()));
}

#[test]
fn a_client_of_http2_gets_the_frames_before_the_reset_of_its_stream() {
    let (_proxy, _pki, port) = before_a_breaking_origin();
    // The HTTP/2 windows of this client are larger than the response, but its socket buffer is
    // small.
    let windows = [(setting::INITIAL_WINDOW_SIZE, 2 * BYTES as u32)];
    let mut client = Frames::over(slow_client(port), &windows);
    client.send(kind::WINDOW_UPDATE, 0, 0, &(2 * BYTES as u32).to_be_bytes());
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    client.headers(1, &fields, true);
    let mut read = Vec::new();
    let last = loop {
        let frame = client.next().expect("a frame of the stream");
        match frame.kind {
            kind::DATA => read.extend(frame.payload),
            kind::RST_STREAM => break frame,
            _ => {}
        }
    };
    assert_eq!((read.len(), last.stream), (BYTES, 1));
    assert!(read == body(), "in order");
}

#[test]
fn a_response_without_a_length_that_breaks_off_is_delivered_and_marked() {
    let (proxy, _pki, port) = before_a_breaking_origin();
    let mut client = slow_client(port);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let (read, error) = read_all(client);
    let head_end = read.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8_lossy(&read[..head_end]).to_ascii_lowercase();
    assert!(head.contains("connection: close") && !head.contains("content-length"), "{head}");
    assert_whole_and_reset(&read[head_end..], error);
    eventually("the log", || proxy.log().contains("\"response_flags\":\"UC\"").then_some(()));
}

/// The kernel reports a reset only once. Here a write to the endpoint gets the error, and the later
/// reads end like after an orderly close.
#[test]
fn a_reset_that_a_write_finds_first_stays_a_reset() {
    let (listener, port) = (free_listener(), free_port());
    let endpoint = listener.local_addr().unwrap();
    let _proxy = Proxy::start(&format!(
        "listeners: {{raw: {{bind: 127.0.0.1:{port}, protocol: tcp, service: app}}}}\n\
         services: {{app: {{protocol: tcp, endpoints: [\"{endpoint}\"]}}}}\n"
    ));
    let mut client = slow_client(port);
    let (mut peer, _) = listener.accept().unwrap();
    // Fill all buffers, so that the proxy waits for the client and reads nothing from the endpoint.
    socket2::SockRef::from(&peer).set_nonblocking(true).unwrap();
    let mut sent = 0;
    eventually("the buffers to be full", || match peer.write(&body()) {
        Ok(n) => {
            sent += n;
            None
        }
        Err(_) => Some(()),
    });
    socket2::SockRef::from(&peer).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(peer);
    client.write_all(b"x").unwrap();
    let (read, error) = read_all(client);
    assert!(!read.is_empty() && read.len() <= sent);
    assert_eq!(error, Some(io::ErrorKind::ConnectionReset));
}
