//! Early data over QUIC (0-RTT): safe requests are served before the handshake is complete, others
//! wait for it. A relay holds back the end of the handshake.
#![allow(clippy::large_futures)] // each of them runs once

use std::future::poll_fn;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, Bytes};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint};
use quinn_proto::NoneTokenStore;
use ringway::tls::{Expected, PeerVerifier, Trust};

use crate::support::PATIENCE;
use crate::support::free_port;
use crate::support::origin::Origin;
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;

/// A relay of datagrams between one client and the server.
struct Relay {
    address: SocketAddr,
    /// Whether the server's datagrams reach the client.
    answers: Arc<AtomicBool>,
    /// Whether the end of the client's handshake, and packets after it, reach the server.
    completes: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

/// Whether a datagram of the client has more than Initial packets and early data (RFC 9000 17.2).
fn completes(datagram: &[u8]) -> bool {
    let integer = |bytes: &[u8]| {
        let len = 1 << (bytes[0] >> 6);
        let first = usize::from(bytes[0] & 0x3f);
        (bytes[1..len].iter().fold(first, |value, byte| value << 8 | usize::from(*byte)), len)
    };
    let mut rest = datagram;
    while let Some(&first) = rest.first() {
        if first & 0x80 == 0 || first & 0x30 == 0x20 {
            return true;
        }
        let mut at = 5;
        for _ in 0..2 {
            at += 1 + usize::from(rest[at]);
        }
        if first & 0x30 == 0 {
            let (token, len) = integer(&rest[at..]);
            at += len + token;
        }
        let (length, len) = integer(&rest[at..]);
        rest = &rest[at + len + length..];
    }
    false
}

/// Passes datagrams from one socket to another one, once they may pass.
fn pass(
    relay: &Relay,
    receive: impl Fn(&mut [u8]) -> std::io::Result<usize> + Send + 'static,
    send: impl Fn(&[u8]) -> bool + Send + 'static,
) {
    let ended = relay.ended.clone();
    std::thread::spawn(move || {
        let (mut block, mut held) = ([0; 2048], Vec::new());
        while !ended.load(Ordering::SeqCst) {
            if let Ok(bytes) = receive(&mut block) {
                held.push(block[..bytes].to_vec());
            }
            held.retain(|bytes: &Vec<u8>| !send(bytes));
        }
    });
}

impl Relay {
    fn to(server: u16) -> Self {
        let near = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let far = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        far.connect(("127.0.0.1", server)).unwrap();
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        }
        let relay = Self {
            address: near.local_addr().unwrap(),
            answers: Arc::default(),
            completes: Arc::default(),
            ended: Arc::default(),
        };
        let client = Arc::new(Mutex::new(None));
        let (from, (in_near, out_far)) = (client.clone(), (near.clone(), far.clone()));
        let may_complete = relay.completes.clone();
        pass(
            &relay,
            move |block| {
                let (bytes, address) = in_near.recv_from(block)?;
                *from.lock().unwrap() = Some(address);
                Ok(bytes)
            },
            move |bytes| {
                let passes = may_complete.load(Ordering::SeqCst) || !completes(bytes);
                passes && out_far.send(bytes).is_ok()
            },
        );
        let may_answer = relay.answers.clone();
        pass(
            &relay,
            move |block| far.recv(block),
            move |bytes| {
                let to = client.lock().unwrap().filter(|_| may_answer.load(Ordering::SeqCst));
                to.is_some_and(|to| near.send_to(bytes, to).is_ok())
            },
        );
        relay
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

/// The settings of a client that resumes its sessions.
fn client() -> ClientConfig {
    let any = PeerVerifier::new(Arc::new(Trust::default()), Expected::Unverified, false);
    let builder = rustls::ClientConfig::builder().dangerous();
    let builder = builder.with_custom_certificate_verifier(Arc::new(any));
    let mut tls = builder.with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    tls.enable_early_data = true;
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

type Opener = h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>;

async fn http3(connection: Connection) -> Opener {
    let opened = h3::client::new(h3_quinn::Connection::new(connection));
    let (mut driver, opener) = opened.await.unwrap();
    tokio::task::spawn_local(async move { poll_fn(|context| driver.poll_close(context)).await });
    opener
}

/// Sends a request. The returned future reads the response: its status and body.
async fn send(
    opener: &mut Opener,
    method: &str,
    path: &str,
) -> impl Future<Output = (u16, String)> + use<> {
    let uri = format!("https://web.example{path}");
    let request = http::Request::builder().method(method).uri(uri).body(()).unwrap();
    let mut stream = opener.send_request(request).await.unwrap();
    stream.finish().await.unwrap();
    async move {
        let response = stream.recv_response().await.unwrap();
        let mut body = Vec::new();
        while let Some(mut part) = stream.recv_data().await.unwrap() {
            body.extend_from_slice(&part.copy_to_bytes(part.remaining()));
        }
        (response.status().as_u16(), String::from_utf8(body).unwrap())
    }
}

async fn ask(opener: &mut Opener, method: &str, path: &str) -> (u16, String) {
    let response = send(opener, method, path).await;
    tokio::time::timeout(PATIENCE, response).await.expect("a response")
}

/// A new connection whose early data may be sent.
fn early(
    endpoint: &Endpoint,
    config: &ClientConfig,
    to: SocketAddr,
) -> (Connection, quinn::ZeroRttAccepted) {
    let connecting = endpoint.connect_with(config.clone(), to, "web.example").unwrap();
    connecting.into_0rtt().expect("a session for early data")
}

/// Gets a session and a token by a whole handshake.
async fn introduce(endpoint: &Endpoint, config: &ClientConfig, to: SocketAddr) {
    let connecting = endpoint.connect_with(config.clone(), to, "web.example").unwrap();
    let mut opener = http3(connecting.await.unwrap()).await;
    for _ in 0..2 {
        assert_eq!(ask(&mut opener, "GET", "/first").await.0, 200);
    }
}

/// Lets the tasks of a connection send their datagrams.
async fn let_send() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// Waits until a metric has a value.
async fn until(proxy: &Proxy, name: &str, expected: f64) {
    let counted = async {
        while proxy.metric(name) != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.expect(name);
}

async fn metric(proxy: &Proxy, result: &str, expected: f64) {
    let name = "ringway_listener_early_requests_total";
    until(proxy, &format!("{name}{{listener=\"web\",result=\"{result}\"}}"), expected).await;
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

/// A proxy at a port, with these settings of HTTP/3. The origin says 425 for /later.
fn before(more: &str) -> (Proxy, Origin, u16, String) {
    let pki = Pki::new();
    pki.leaf("web", &Wanted { names: &["web.example"], ..Wanted::default() });
    let origin = Origin::scripted(|peer| {
        while let Some(request) = peer.request() {
            let status = if request.contains(" /later ") { "425 Too Early" } else { "200 OK" };
            peer.send(format!("HTTP/1.1 {status}\r\ncontent-length: 5\r\n\r\nhello"));
        }
    });
    let port = free_port();
    let config = format!(
        "listeners: {{web: {{bind: \"127.0.0.1:{port}\", protocol: http3, {more}, \
         tls: {{cert: {}, key: {}}}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"{}\"]}}}}\n",
        pki.path("web.pem"),
        pki.path("web.key"),
        origin.address()
    );
    let proxy = Proxy::start(&config);
    // The files of the certificate stay until the end of the test.
    std::mem::forget(pki);
    (proxy, origin, port, config)
}

/// The requests of the origin for `path`.
fn requests(origin: &Origin, path: &str) -> Vec<String> {
    let is_for = |request: &String| request.contains(&format!(" {path} "));
    origin.requests().into_iter().filter(is_for).map(|it| it.to_ascii_lowercase()).collect()
}

#[test]
fn safe_requests_are_served_before_the_handshake_is_complete() {
    let (proxy, origin, port, _) = before("http3: {early_data: true}");
    let server = SocketAddr::from(([127, 0, 0, 1], port));
    run(async {
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let config = client();
        introduce(&endpoint, &config, server).await;
        assert!(!requests(&origin, "/first")[0].contains("early-data"));

        let relay = Relay::to(port);
        let (connection, _) = early(&endpoint, &config, relay.address);
        let mut opener = http3(connection.clone()).await;
        let safe = send(&mut opener, "GET", "/safe").await;
        let later = send(&mut opener, "GET", "/later").await;
        let unsafe_one = send(&mut opener, "POST", "/unsafe").await;
        let_send().await;
        relay.answers.store(true, Ordering::SeqCst);
        let hello = |status| (status, "hello".to_owned());
        assert_eq!(tokio::time::timeout(PATIENCE, safe).await.expect("/safe"), hello(200));
        assert_eq!(tokio::time::timeout(PATIENCE, later).await.expect("/later"), hello(425));
        for path in ["/safe", "/later"] {
            assert!(requests(&origin, path)[0].contains("\r\nearly-data: 1\r\n"), "{path}");
        }
        metric(&proxy, "served", 2.0).await;
        metric(&proxy, "held", 1.0).await;
        assert!(requests(&origin, "/unsafe").is_empty(), "before the end of the handshake");
        relay.completes.store(true, Ordering::SeqCst);
        assert_eq!(tokio::time::timeout(PATIENCE, unsafe_one).await.expect("/unsafe"), hello(200));
        assert_eq!(ask(&mut opener, "GET", "/after").await, hello(200));
        for path in ["/unsafe", "/after"] {
            assert!(!requests(&origin, path)[0].contains("early-data"), "{path}");
        }

        // Without a token, the address may be that of somebody else.
        let mut stranger = config.clone();
        stranger.token_store(Arc::new(NoneTokenStore));
        let relay = Relay::to(port);
        let (connection, _) = early(&endpoint, &stranger, relay.address);
        let mut opener = http3(connection).await;
        let held = send(&mut opener, "GET", "/stranger").await;
        let_send().await;
        relay.answers.store(true, Ordering::SeqCst);
        metric(&proxy, "held", 2.0).await;
        assert!(requests(&origin, "/stranger").is_empty());
        relay.completes.store(true, Ordering::SeqCst);
        assert_eq!(tokio::time::timeout(PATIENCE, held).await.expect("/stranger"), hello(200));
        assert!(!requests(&origin, "/stranger")[0].contains("early-data"));
    });
}

#[test]
fn without_early_data_the_handshake_goes_on() {
    let (proxy, _origin, port, config) = before("http3: {early_data: true}");
    let server = SocketAddr::from(([127, 0, 0, 1], port));
    run(async {
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = client();
        introduce(&endpoint, &client, server).await;
        let reloaded = config.replace("early_data: true", "early_data: false");
        proxy.reload(&reloaded);
        let (connection, accepted) = early(&endpoint, &client, server);
        assert!(!accepted.await, "the session holds no longer");
        let mut opener = http3(connection).await;
        assert_eq!(ask(&mut opener, "GET", "/again").await.0, 200);
        // The sessions from now on are for no early data.
        introduce(&endpoint, &client, server).await;
        let connecting = endpoint.connect_with(client.clone(), server, "web.example").unwrap();
        assert!(connecting.into_0rtt().is_err());
    });
}

#[test]
fn early_data_is_accepted_once() {
    let (proxy, origin, port, _) =
        before("http3: {early_data: true}, timeouts: {handshake: 300ms}");
    let server = SocketAddr::from(([127, 0, 0, 1], port));
    run(async {
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let config = client();
        introduce(&endpoint, &config, server).await;
        // Somebody copies the first datagrams, and sends them again later.
        let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let (connection, _) = early(&endpoint, &config, to);
        let mut opener = http3(connection.clone()).await;
        let response = send(&mut opener, "GET", "/replayed").await;
        let_send().await;
        drop(response);
        listener.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let (mut block, mut copied) = ([0; 2048], Vec::new());
        while let Ok(bytes) = listener.recv(&mut block) {
            copied.push(block[..bytes].to_vec());
        }
        connection.close(0_u8.into(), b"");
        // Each time, the handshake is never completed.
        let name = "ringway_listener_tls_failures_total{listener=\"web\",reason=\"timeout\"}";
        for failures in [1.0, 2.0] {
            let attacker = UdpSocket::bind("127.0.0.1:0").unwrap();
            for bytes in &copied {
                attacker.send_to(bytes, server).unwrap();
            }
            until(&proxy, name, failures).await;
        }
        metric(&proxy, "served", 1.0).await;
        assert_eq!(requests(&origin, "/replayed").len(), 1);
    });
}
