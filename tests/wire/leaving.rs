//! The last connections of a proxy that ends, or of a listener that a reload removes. A connection
//! is served if the kernel or the client had begun it, and is refused otherwise. No connection is
//! reset.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use nix::sys::signal::Signal;

use crate::support::frames::Frames;
use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, eventually, free_port};

/// The number of connections that wait in the accept queue when the proxy gets SIGTERM.
const CONNECTIONS: usize = 300;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A configuration with a listener for each name and port. All requests are answered.
fn config(listeners: &[(&str, u16)]) -> String {
    let line = |(name, port): &(&str, u16)| format!("{name}: {{bind: 127.0.0.1:{port}}}");
    let lines: Vec<String> = listeners.iter().map(line).collect();
    let lines = lines.join(", ");
    format!("listeners: {{{lines}}}\nroutes: {{\"*\": [{{respond: {{body: hello}}}}]}}\n")
}

/// Clients that connect and send a request, one connection after the other, until they are refused.
struct Crowd {
    answers: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn at(port: u16) -> Self {
        let answers = Arc::new(AtomicUsize::new(0));
        let client = |_| {
            let answers = Arc::clone(&answers);
            std::thread::spawn(move || ask_until_refused(port, &answers))
        };
        let threads = (0..8).map(client).collect();
        let crowd = Self { answers, threads };
        crowd.goes_on();
        crowd
    }

    /// Waits for more answers.
    #[track_caller]
    fn goes_on(&self) {
        let wanted = self.answers.load(Ordering::Relaxed) + 100;
        eventually("answers", || {
            let failed = self.threads.iter().any(JoinHandle::is_finished);
            assert!(!failed, "a client was refused or got no answer");
            (self.answers.load(Ordering::Relaxed) >= wanted).then_some(())
        });
    }

    /// Waits until all clients are refused. Fails if one got no answer.
    #[track_caller]
    fn ends_refused(self) {
        let failed = self.threads.into_iter().filter_map(|thread| thread.join().err());
        assert_eq!(failed.count(), 0, "a connection was reset");
    }
}

fn ask_until_refused(port: u16, answers: &AtomicUsize) {
    loop {
        let stream = match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => stream,
            Err(error) => return assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Client::over(stream);
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(client.response().text(), "hello");
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn sigterm_resets_no_connection_that_stands_in_a_queue() {
    for workers in [1, 2] {
        let port = free_port();
        let mut proxy = Proxy::start_with(&config(&[("web", port)]), workers);
        proxy.signal(Signal::SIGSTOP);
        let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| Client::connect(port)).collect();
        clients.iter_mut().for_each(|client| _ = client.send(GET));
        proxy.signal(Signal::SIGTERM);
        proxy.signal(Signal::SIGCONT);
        let served = clients.iter_mut().filter_map(|client| client.try_response(false).ok());
        assert_eq!(served.count(), CONNECTIONS, "with {workers} workers");
        assert!(proxy.wait().success());
    }
}

#[test]
fn sigterm_resets_no_connection_that_comes_meanwhile() {
    for workers in [1, 2, 1, 2] {
        let port = free_port();
        let mut proxy = Proxy::start_with(&config(&[("web", port)]), workers);
        let crowd = Crowd::at(port);
        proxy.signal(Signal::SIGTERM);
        crowd.ends_refused();
        assert!(proxy.wait().success());
    }
}

#[test]
fn sigterm_serves_a_request_that_has_reached_an_idle_connection() {
    let port = free_port();
    let mut proxy = Proxy::start(&config(&[("web", port)]));
    let mut clients: Vec<Client> = (0..50).map(|_| Client::connect(port)).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.get("a", "/").text(), "hello"));
    proxy.signal(Signal::SIGSTOP);
    clients.iter_mut().for_each(|client| _ = client.send(GET));
    proxy.signal(Signal::SIGTERM);
    proxy.signal(Signal::SIGCONT);
    clients.iter_mut().for_each(|client| assert_eq!(client.response().text(), "hello"));
    assert!(proxy.wait().success());
}

#[test]
fn a_removed_listener_resets_no_connection_and_can_come_back_at_once() {
    let (port, extra) = (free_port(), free_port());
    let proxy = Proxy::start(&config(&[("web", port), ("more", extra)]));
    for _ in 0..4 {
        let crowd = Crowd::at(extra);
        proxy.reload(&config(&[("web", port)]));
        proxy.reload(&config(&[("web", port), ("more", extra)]));
        proxy.reload(&config(&[("web", port)]));
        crowd.ends_refused();
        proxy.reload(&config(&[("web", port), ("more", extra)]));
    }
}

#[test]
fn a_listener_that_gets_another_name_serves_all_the_time() {
    let port = free_port();
    let proxy = Proxy::start(&config(&[("web", port)]));
    let crowd = Crowd::at(port);
    for name in ["one", "two", "web", "one"] {
        proxy.reload(&config(&[(name, port)]));
        crowd.goes_on();
    }
    drop(proxy);
}

#[test]
fn a_request_that_is_half_read_is_answered_when_its_listener_is_removed_or_renamed() {
    let (port, extra) = (free_port(), free_port());
    let before = config(&[("web", port), ("more", extra)]);
    let proxy = Proxy::start(&before);
    for after in [config(&[("web", port)]), config(&[("web", port), ("other", extra)])] {
        let [mut fresh, mut kept] = [extra; 2].map(Client::connect);
        assert_eq!(kept.get("a", "/").text(), "hello");
        for client in [&mut fresh, &mut kept] {
            client.send("GET / HTTP/1.1\r\nHo");
        }
        let silent = Client::connect(extra);
        let open = "ringway_listener_connections_active{listener=\"more\"";
        eventually("the connections", || (proxy.metric(open) == 3.0).then_some(()));
        proxy.reload(&after);
        let mut silent = silent;
        silent.send("GET / HTTP/1.1\r\nHo");
        for client in [&mut fresh, &mut kept, &mut silent] {
            let response = client.request("st: a\r\n\r\n");
            assert_eq!(response.text(), "hello");
            assert_eq!(response.field("connection"), Some("close"));
        }
        proxy.reload(&before);
    }
}

/// A sidecar with plain listeners: `in` forwards to the workload, and the workload reaches `other`
/// through `out`.
fn sidecar(inbound: u16, outbound: u16, workload: &Origin, other: &Origin, drain: &str) -> String {
    format!(
        "listeners:\n  in: {{bind: 127.0.0.1:{inbound}, hosts: shop}}\n\
         \x20 out: {{bind: 127.0.0.1:{outbound}, hosts: other, direction: outbound}}\n\
         routes: {{shop: [{{to: workload}}], other: [{{to: other}}]}}\n\
         services:\n  workload: {{endpoints: [\"{}\"]}}\n  other: {{endpoints: [\"{}\"]}}\n\
         drain: {drain}\n",
        workload.address(),
        other.address()
    )
}

/// A workload that answers its request with `body` when the test uses the sender.
fn held_workload(body: impl Fn() -> String + Send + Sync + 'static) -> (Origin, Sender<()>) {
    let (release, released) = std::sync::mpsc::channel();
    let released = std::sync::Mutex::new(released);
    let workload = Origin::scripted(move |peer| {
        peer.request();
        released.lock().unwrap().recv().ok();
        let body = body();
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    });
    (workload, release)
}

/// A client whose request waits at `workload`. Then the proxy drains.
fn held_client(proxy: &Proxy, inbound: u16, workload: &Origin) -> Client {
    let mut client = Client::connect(inbound);
    client.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n");
    eventually("the request to arrive", || (!workload.requests().is_empty()).then_some(()));
    proxy.signal(Signal::SIGTERM);
    client
}

fn is_refused(port: u16) -> Option<()> {
    TcpStream::connect(("127.0.0.1", port)).is_err().then_some(())
}

#[test]
fn outbound_listeners_serve_until_the_inbound_requests_are_over() {
    let (inbound, outbound) = (free_port(), free_port());
    let other = Origin::saying("from other");
    let last_call = move || Client::connect(outbound).get("other", "/").text().to_owned();
    let (workload, release) = held_workload(last_call);
    let config = sidecar(inbound, outbound, &workload, &other, "{inbound: 30s, outbound: after}");
    let mut proxy = Proxy::start(&config);
    let mut client = held_client(&proxy, inbound, &workload);
    eventually("the inbound listener to refuse", || is_refused(inbound));
    release.send(()).unwrap();
    assert_eq!(client.response().text(), "from other");
    assert!(proxy.wait().success());
}

#[test]
fn outbound_listeners_serve_for_a_time_although_nothing_comes_in() {
    let (inbound, outbound) = (free_port(), free_port());
    let (workload, other) = (Origin::saying("unused"), Origin::saying("from other"));
    let config = sidecar(inbound, outbound, &workload, &other, "{outbound: 25s}");
    let mut proxy = Proxy::start(&config);
    proxy.signal(Signal::SIGTERM);
    eventually("the inbound listener to refuse", || is_refused(inbound));
    assert_eq!(Client::connect(outbound).get("other", "/").text(), "from other");
    proxy.signal(Signal::SIGTERM); // the second SIGTERM ends the proxy at once
    assert!(proxy.wait().success());
}

#[test]
fn outbound_listeners_may_drain_with_the_inbound_ones() {
    let (inbound, outbound) = (free_port(), free_port());
    let other = Origin::saying("from other");
    let (workload, release) = held_workload(|| "ok".to_owned());
    let config = sidecar(inbound, outbound, &workload, &other, "{outbound: with}");
    let mut proxy = Proxy::start(&config);
    let mut client = held_client(&proxy, inbound, &workload);
    eventually("both listeners to refuse", || {
        is_refused(inbound).and_then(|()| is_refused(outbound))
    });
    release.send(()).unwrap();
    assert_eq!(client.response().text(), "ok");
    assert!(proxy.wait().success());
}

/// An endpoint that speaks HTTP/2.
fn http2_origin() -> Origin {
    Origin::scripted(|peer| {
        if let Some(mut frames) = Frames::accept(peer, &[]) {
            while let Some((stream, _)) = frames.request() {
                frames.respond(stream, "two");
            }
        }
        peer.stream.shutdown(std::net::Shutdown::Both).ok();
    })
}

/// Connections to endpoints that no listener needs close when the drain begins, and not only at its
/// end.
#[test]
fn idle_connections_to_endpoints_close_when_the_drain_begins() {
    for (direction, drain, other_stays) in
        [("outbound", "after", true), ("outbound", "with", false), ("inbound", "after", false)]
    {
        let (inbound, outbound) = (free_port(), free_port());
        let (one, two, other) = (Origin::saying("one"), http2_origin(), Origin::saying("other"));
        let (workload, release) = held_workload(|| "late".to_owned());
        let config =
            sidecar(inbound, outbound, &workload, &other, &format!("{{outbound: {drain}}}"));
        let config = config
            .replace("direction: outbound", &format!("direction: {direction}"))
            .replace(
                "shop: [",
                "shop: [{match: {path: /1}, to: one}, {match: {path: /2}, to: two}, ",
            )
            .replace(
                "services:\n",
                &format!(
                    "services:\n  one: {{endpoints: [\"{}\"]}}\n\
                     \x20 two: {{endpoints: [\"{}\"], protocol: http2}}\n",
                    one.address(),
                    two.address()
                ),
            );
        let mut proxy = Proxy::start_with(&config, 1);
        let open = |service: &str| {
            proxy.metric(&format!("ringway_endpoint_connections_active{{service=\"{service}\""))
        };
        assert_eq!(Client::connect(inbound).get("shop", "/1").text(), "one");
        assert_eq!(Client::connect(inbound).get("shop", "/2").text(), "two");
        assert_eq!(Client::connect(outbound).get("other", "/").text(), "other");
        assert_eq!(["one", "two", "other"].map(open), [1.0; 3]);
        let mut client = held_client(&proxy, inbound, &workload);
        let expected = [0.0, 0.0, f64::from(u8::from(other_stays)), 1.0];
        eventually("the pools", || {
            (["one", "two", "other", "workload"].map(open) == expected).then_some(())
        });
        if other_stays {
            assert_eq!(Client::connect(outbound).get("other", "/").text(), "other");
            assert_eq!(other.accepted(), 1, "its connection is still used");
        }
        release.send(()).unwrap();
        assert_eq!(client.response().text(), "late");
        assert!(proxy.wait().success());
    }
}
