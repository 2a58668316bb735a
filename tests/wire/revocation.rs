//! A revocation list that names an endpoint's certificate: exchanges with the endpoint end at once,
//! in both HTTP versions.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::{ServerConnection, StreamOwned};

use crate::support::frames::{Frames, kind};
use crate::support::http::Client;
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::tls;
use crate::support::{eventually, free_listener, free_port};

/// The serial number of the endpoint's certificate.
const SERIAL: u64 = 77;

/// A response whose end never comes.
const BEGUN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\npart";

/// An endpoint that begins a response and waits. Counts the connections that its peer has ended.
fn endpoint(pki: &Pki) -> (u16, Arc<AtomicUsize>) {
    let listener: TcpListener = free_listener();
    let (port, config) = (listener.local_addr().unwrap().port(), tls::server(pki, "web"));
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    std::thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            let (config, count) = (Arc::clone(&config), Arc::clone(&count));
            std::thread::spawn(move || {
                let session = ServerConnection::new(config).unwrap();
                let mut stream = StreamOwned::new(session, socket);
                let mut block = [0; 4096];
                if matches!(stream.read(&mut block), Ok(1..)) {
                    stream.write_all(BEGUN).unwrap();
                    while matches!(stream.read(&mut block), Ok(1..)) {}
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    (port, ended)
}

#[test]
fn an_endpoint_that_is_revoked_serves_no_client_any_more() {
    let pki = Pki::new();
    pki.revocation_list("crl.pem", &[]);
    pki.leaf("web", &Wanted { serial: SERIAL, ..Wanted::default() });
    let (endpoint, ended) = endpoint(&pki);
    let port = free_port();
    let proxy = Proxy::start_with(
        &format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
             routes: {{a: [{{to: app}}], b: [{{respond: {{status: 200, body: here}}}}]}}\n\
             services: {{app: {{protocol: http1, tls: {{ca: {}, crl: {}}}, \
             endpoints: [\"127.0.0.1:{endpoint}\"]}}}}\n\
             telemetry: {{access_log: {{path: stdout}}}}\n",
            pki.path("ca.pem"),
            pki.path("crl.pem"),
        ),
        1,
    );
    let mut http1 = Client::connect(port);
    http1.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(http1.head().unwrap().starts_with("HTTP/1.1 200"));
    let mut http2 = Frames::connect(port);
    let ask = |frames: &mut Frames, stream, host| {
        let fields =
            [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", host)];
        frames.headers(stream, &fields, true);
    };
    ask(&mut http2, 1, "a");
    assert_eq!(http2.next_of(kind::DATA).unwrap().payload, b"part");
    pki.revocation_list("crl.pem", &[SERIAL]);
    let reset = http2.next_of(kind::RST_STREAM).expect("a reset of the stream");
    assert_eq!(reset.stream, 1);
    assert_eq!(http1.rest(), b"part", "and no more");
    eventually("both connections to the endpoint to end", || {
        (ended.load(Ordering::SeqCst) == 2).then_some(())
    });
    // The client's connection stays open.
    ask(&mut http2, 3, "b");
    assert_eq!(http2.next_of(kind::DATA).unwrap().payload, b"here");
    ask(&mut http2, 5, "a");
    let refused = http2.next_of(kind::DATA).unwrap();
    assert!(String::from_utf8_lossy(&refused.payload).contains("certificate was refused"));
    for (says, times) in [
        ("connection closed: the peer's certificate is revoked", 1),
        ("HTTP/2 stream reset: the peer's certificate is revoked", 1),
        ("a revocation list names the certificate", 2),
    ] {
        eventually(says, || (proxy.log().matches(says).count() == times).then_some(()));
    }
    assert_eq!(proxy.metric("ringway_listener_revoked_connections_total"), 2.0);
}
