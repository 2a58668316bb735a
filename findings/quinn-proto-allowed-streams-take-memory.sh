#!/usr/bin/env bash
# The Rust crate quinn-proto takes memory for each stream that a peer may open, before it opens one.
#
# Version: quinn-proto 0.11.19. A client and a server of the crate complete a handshake in memory.
# No stream is opened. The server allows 16, 100 or 1000 bidirectional streams; nothing else
# differs.
#
# Result: the server keeps a place in two hash maps for each allowed stream, from the first datagram
# on: 42 bytes, and the maps grow by doubling. Output: the growth of the heap against 16 streams:
#   100 streams: 4 KB
#   1000 streams: 85 KB
#
# Workaround: allow few streams at first, and raise the limit with
# Connection::set_max_concurrent_streams when the peer uses them.
#
# Needs cargo, a C compiler and a package registry. Fails if the behaviour changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir src
cat > Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"
[dependencies]
bytes = "=1.12.2"
quinn-proto = { version = "=0.11.19", default-features = false, features = ["rustls-ring"] }
rcgen = { version = "=0.14.5", default-features = false, features = ["ring"] }
rustls = { version = "=0.23.46", default-features = false, features = ["ring", "std"] }
TOML
cat > src/main.rs <<'RUST'
use std::alloc::{GlobalAlloc, Layout, System};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig,
    ServerConfig, TransportConfig,
};

/// Counts the bytes in use.
struct Counted;

static IN_USE: AtomicI64 = AtomicI64::new(0);

unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size() as i64, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static COUNTED: Counted = Counted;

fn configs(streams: u32) -> (ServerConfig, ClientConfig) {
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (own.cert.der().clone(), own.signing_key.serialize_der());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = || Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.try_into().unwrap())
        .unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut transport = TransportConfig::default();
    transport.max_concurrent_bidi_streams(streams.into()).max_concurrent_uni_streams(3_u32.into());
    let server = QuicServerConfig::try_from(server).unwrap();
    let mut server = ServerConfig::with_crypto(Arc::new(server));
    server.transport_config(Arc::new(transport));
    (server, ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).unwrap())))
}

fn sent(connection: &mut Connection, now: Instant) -> Vec<BytesMut> {
    let (mut bytes, mut all) = (Vec::new(), Vec::new());
    while let Some(transmit) = connection.poll_transmit(now, 1, &mut bytes) {
        all.push(BytesMut::from(&bytes[..transmit.size]));
        bytes.clear();
    }
    all
}

fn events(endpoint: &mut Endpoint, handle: ConnectionHandle, connection: &mut Connection) {
    while let Some(event) = connection.poll_endpoint_events() {
        if let Some(answer) = endpoint.handle_event(handle, event) {
            connection.handle_event(answer);
        }
    }
    while connection.poll().is_some() {}
}

/// The bytes that the server has allocated for a connection that is open and idle.
fn of_idle(streams: u32) -> i64 {
    let (server, client) = configs(streams);
    let addresses: [SocketAddr; 2] = ["127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()];
    let endpoint = |server| Endpoint::new(Arc::new(EndpointConfig::default()), server, true, None);
    let (mut near, mut far) = (endpoint(None), endpoint(Some(Arc::new(server))));
    let mut now = Instant::now();
    let (near_handle, mut ours) = near.connect(now, client, addresses[1], "localhost").unwrap();
    let mut accepted: Option<(ConnectionHandle, Connection)> = None;
    let mut taken = 0;
    for _ in 0..100 {
        now += Duration::from_millis(20);
        ours.handle_timeout(now);
        events(&mut near, near_handle, &mut ours);
        let datagrams = sent(&mut ours, now);
        let before = IN_USE.load(Ordering::Relaxed) - datagrams.iter().map(|it| it.len() as i64).sum::<i64>();
        let mut out = Vec::new();
        for datagram in datagrams {
            match far.handle(now, addresses[0], None, None, datagram, &mut out) {
                Some(DatagramEvent::NewConnection(new)) => {
                    accepted = far.accept(new, now, &mut out, None).ok();
                }
                Some(DatagramEvent::ConnectionEvent(_, event)) => {
                    accepted.as_mut().unwrap().1.handle_event(event);
                }
                _ => {}
            }
        }
        let Some((handle, theirs)) = &mut accepted else { continue };
        theirs.handle_timeout(now);
        events(&mut far, *handle, theirs);
        let answers = sent(theirs, now);
        drop(out);
        let answered: i64 = answers.iter().map(|it| it.len() as i64).sum();
        taken += IN_USE.load(Ordering::Relaxed) - before - answered;
        for answer in answers {
            let mut out = Vec::new();
            let event = near.handle(now, addresses[1], None, None, answer, &mut out);
            if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
                ours.handle_event(event);
            }
        }
    }
    assert!(!accepted.unwrap().1.is_handshaking());
    taken
}

fn main() {
    of_idle(16);
    let few = of_idle(16);
    for streams in [100, 1000] {
        // Some bytes depend on random connection ids.
        println!("{streams} streams: {} KB", (of_idle(streams) - few + 500) / 1000);
    }
}
RUST
seen=$(cargo run --quiet 2> build.log) || { cat build.log; exit 1; }
echo "$seen"
expected='100 streams: 4 KB
1000 streams: 85 KB'
[ "$seen" = "$expected" ] || { echo "the behaviour has changed"; exit 1; }
