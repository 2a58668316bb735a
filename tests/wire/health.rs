//! Health checks: only healthy endpoints get requests.

use std::io::Read;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};

use crate::support::frames::Frames;
use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::peers::Server;
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

/// An origin that answers with its name. On `/healthz` it answers with the status that the test
/// sets.
struct Patient {
    origin: Origin,
    status: Arc<AtomicU16>,
}

impl Patient {
    fn new(name: &'static str) -> Self {
        let status = Arc::new(AtomicU16::new(200));
        let said = Arc::clone(&status);
        let origin = Origin::scripted(move |peer| {
            while let Some(request) = peer.request() {
                let checked = request.contains(" /healthz ");
                let status = if checked { said.load(Ordering::SeqCst) } else { 200 };
                let length = name.len();
                peer.send(format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n\r\n{name}"));
            }
        });
        Self { origin, status }
    }

    fn says(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }
}

/// A configuration with one service that has `endpoints`. `more` are further settings of the
/// service.
fn config(port: u16, endpoints: &[String], more: &str) -> String {
    format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: {endpoints:?}, {more}}}}}\n"
    )
}

fn healthy(proxy: &Proxy) -> f64 {
    proxy.metric("ringway_endpoint_healthy")
}

fn checks(proxy: &Proxy) -> f64 {
    proxy.metric("ringway_health_checks_total")
}

#[track_caller]
fn await_healthy(proxy: &Proxy, count: f64) {
    eventually(&format!("{count} healthy"), || (healthy(proxy) == count).then_some(()));
}

#[track_caller]
fn await_failures(proxy: &Proxy, reason: &str, count: f64) {
    eventually(&format!("{count} failures for {reason}"), || {
        let metrics = proxy.admin("/metrics");
        let lines = metrics.text().lines();
        let failures = lines
            .filter(|line| line.starts_with("ringway_health_check_failures_total"))
            .filter(|line| line.contains(&format!("reason=\"{reason}\"")))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        (failures.sum::<f64>() >= count).then_some(())
    });
}

#[track_caller]
fn await_log(proxy: &Proxy, words: &str) {
    eventually(words, || proxy.log().contains(words).then_some(()));
}

/// The names of the endpoints that answer `count` requests.
#[track_caller]
fn answers(port: u16, count: usize) -> Vec<String> {
    let mut client = Client::connect(port);
    (0..count)
        .map(|_| {
            let response = client.get("a", "/");
            assert_eq!(response.status, 200);
            response.text().to_owned()
        })
        .collect()
}

/// Two healthy origins and a proxy in front of them. Returns also the port of the proxy.
fn two_healthy() -> (Patient, Patient, u16, Proxy) {
    let (one, two) = (Patient::new("one"), Patient::new("two"));
    let port = free_port();
    let endpoints = [one.origin.address(), two.origin.address()];
    let check = "health_check: {http: /healthz, interval: 20ms}, balance: round-robin";
    let proxy = Proxy::start(&config(port, &endpoints, check));
    await_healthy(&proxy, 2.0);
    (one, two, port, proxy)
}

#[test]
fn an_origin_that_says_no_gets_nothing_until_it_says_yes_again() {
    let (one, _two, port, proxy) = two_healthy();
    let request = one.origin.requests().into_iter().next().unwrap();
    assert!(request.starts_with("GET /healthz HTTP/1.1\r\nhost: app\r\n"), "{request}");
    assert!(answers(port, 8).contains(&"one".to_owned()));
    one.says(503);
    await_healthy(&proxy, 1.0);
    assert!(answers(port, 20).iter().all(|name| name == "two"));
    await_failures(&proxy, "status", 10.0);
    let shown = proxy.admin("/services");
    for part in ["\"state\":\"unhealthy\"", "\"state\":\"healthy\"", "status is 503, not 200"] {
        assert!(shown.text().contains(part), "{part}: {}", shown.text());
    }
    one.says(200);
    await_healthy(&proxy, 2.0);
    assert!(answers(port, 8).contains(&"one".to_owned()));
    // The log has one line for each change of health, and none for each check.
    let said = |words: &str| proxy.log().matches(words).count();
    eventually("three lines", || (said("endpoint became healthy") == 3).then_some(()));
    assert_eq!(said("endpoint became unhealthy"), 1, "{}", proxy.log());
}

#[test]
fn each_endpoint_is_asked_once_however_many_workers_there_are() {
    let origin = Patient::new("one");
    let check = "health_check: {http: /healthz, timeout: 20s, interval: 1h}";
    let config = config(free_port(), &[origin.origin.address()], check);
    let proxy = Proxy::start_with(&config, 4);
    await_healthy(&proxy, 1.0);
    assert_eq!((checks(&proxy), origin.origin.requests().len()), (1.0, 1));
}

#[test]
fn a_port_without_a_listener_gets_nothing_and_without_panic_there_is_503() {
    let (port, endpoint) = (free_port(), free_port());
    let address = format!("127.0.0.1:{endpoint}");
    let check = "health_check: {tcp: true, interval: 20ms, panic_threshold: 0%}";
    let proxy = Proxy::start(&config(port, &[address], check));
    await_failures(&proxy, "connect", 3.0);
    let response = Client::connect(port).get("a", "/");
    assert_eq!(response.status, 503);
    let flagged = "ringway_service_response_flags_total{service=\"app\",flag=\"UH\"}";
    eventually("the flag", || (proxy.metric(flagged) == 1.0).then_some(()));
    let listener = TcpListener::bind(("127.0.0.1", endpoint)).unwrap();
    await_healthy(&proxy, 1.0);
    drop(listener);
    await_healthy(&proxy, 0.0);
    assert_eq!(proxy.metric("ringway_service_health_panic"), 0.0);
}

#[test]
fn when_all_are_unhealthy_all_are_used() {
    let (one, two, port, proxy) = two_healthy();
    one.says(500);
    two.says(404);
    await_healthy(&proxy, 0.0);
    let names = answers(port, 8);
    assert!(names.contains(&"one".to_owned()) && names.contains(&"two".to_owned()), "{names:?}");
    assert_eq!(proxy.metric("ringway_service_health_panic"), 1.0);
}

#[test]
fn silence_counts_when_it_has_come_often_enough() {
    let silent = Arc::new(AtomicBool::new(false));
    let is_silent = Arc::clone(&silent);
    let origin = Origin::scripted(move |peer| {
        peer.request();
        match is_silent.load(Ordering::SeqCst) {
            true => drop(peer.until_closed()),
            false => peer.send("HTTP/1.1 204 x\r\n\r\n"),
        }
    });
    let check = "health_check: {http: {path: /, status: 200-299}, interval: 20ms, timeout: 100ms, \
                 unhealthy: 4}";
    let proxy = Proxy::start(&config(free_port(), &[origin.address()], check));
    await_healthy(&proxy, 1.0);
    silent.store(true, Ordering::SeqCst);
    await_healthy(&proxy, 0.0);
    await_failures(&proxy, "timeout", 4.0);
    await_log(&proxy, "no answer within 100ms");
}

#[test]
fn a_request_under_way_goes_on() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let fit = Arc::new(AtomicBool::new(true));
    let is_fit = Arc::clone(&fit);
    let origin = Origin::scripted(move |peer| {
        let Some(request) = peer.request() else { return };
        if request.contains(" /healthz ") {
            let status = if is_fit.load(Ordering::SeqCst) { 200 } else { 500 };
            return peer.send(format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n"));
        }
        released.lock().unwrap().recv().ok();
        peer.send("HTTP/1.1 200 x\r\nContent-Length: 4\r\n\r\nlate");
    });
    let port = free_port();
    let check = "health_check: {http: /healthz, interval: 20ms, panic_threshold: 0%}";
    let proxy = Proxy::start(&config(port, &[origin.address()], check));
    await_healthy(&proxy, 1.0);
    let mut client = Client::connect(port);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request to be there", || {
        origin.requests().iter().any(|request| request.starts_with("GET / ")).then_some(())
    });
    fit.store(false, Ordering::SeqCst);
    await_healthy(&proxy, 0.0);
    assert_eq!(Client::connect(port).get("a", "/").status, 503);
    release.send(()).unwrap();
    assert_eq!(client.response().text(), "late");
}

#[test]
fn a_reload_keeps_what_is_known() {
    let (one, two) = (Patient::new("one"), Patient::new("two"));
    one.says(503);
    let port = free_port();
    let endpoints = [one.origin.address(), two.origin.address()];
    let check = "health_check: {http: /healthz, timeout: 20s, interval: 1h}";
    let proxy = Proxy::start(&config(port, &endpoints, check));
    await_healthy(&proxy, 1.0);
    eventually("both to be checked", || (checks(&proxy) == 2.0).then_some(()));
    // A change of a threshold does not change the probe.
    let config = config(port, &endpoints, check).replace("1h", "1h, healthy: 3");
    proxy.reload(&format!("{config}drain: 5s\n"));
    assert!(answers(port, 20).iter().all(|name| name == "two"));
    assert_eq!((checks(&proxy), healthy(&proxy)), (2.0, 1.0), "nobody is asked again");
    // A check with another interval probes at once. Until the result arrives, the known state
    // stays.
    one.says(200);
    proxy.reload(&config.replace("1h", "30ms"));
    await_healthy(&proxy, 2.0);
    // Without checks the state is unknown, and all endpoints are used.
    two.says(503);
    await_healthy(&proxy, 1.0);
    proxy.reload(
        &config.replace(
            ", health_check: {http: /healthz, timeout: 20s, interval: 1h, healthy: 3}",
            "",
        ),
    );
    let names = answers(port, 100);
    assert!(names.contains(&"one".to_owned()) && names.contains(&"two".to_owned()));
    assert_eq!(proxy.metric("ringway_health_checks_total"), 0.0);
}

#[test]
fn a_newcomer_waits_for_its_first_check() {
    let (one, two) = (Patient::new("one"), Patient::new("two"));
    let asked = Arc::new(AtomicUsize::new(0));
    let (asks, (release, released)) = (Arc::clone(&asked), std::sync::mpsc::channel::<()>());
    let released = std::sync::Mutex::new(released);
    let late = Origin::scripted(move |peer| {
        while let Some(request) = peer.request() {
            if request.contains(" /healthz ") {
                asks.fetch_add(1, Ordering::SeqCst);
                released.lock().unwrap().recv().ok();
            }
            peer.send("HTTP/1.1 200 x\r\nContent-Length: 4\r\n\r\nlate");
        }
    });
    let port = free_port();
    let mut endpoints = vec![one.origin.address(), two.origin.address()];
    let check = "balance: round-robin, health_check: {http: /healthz, interval: 1h, timeout: 20s}";
    let proxy = Proxy::start(&config(port, &endpoints, check));
    await_healthy(&proxy, 2.0);
    endpoints.push(late.address());
    proxy.reload(&config(port, &endpoints, check));
    eventually("it to be asked", || (asked.load(Ordering::SeqCst) == 1).then_some(()));
    assert!(!answers(port, 12).contains(&"late".to_owned()));
    release.send(()).unwrap();
    await_healthy(&proxy, 3.0);
    assert!(answers(port, 12).contains(&"late".to_owned()));
}

#[test]
fn the_check_goes_the_way_that_requests_go() {
    // Over HTTP/2, after a PROXY header without addresses.
    let origin = Origin::scripted(|peer| {
        let mut header = [0; "PROXY UNKNOWN\r\n".len()];
        peer.stream.read_exact(&mut header).unwrap();
        assert_eq!(&header, b"PROXY UNKNOWN\r\n");
        let Some(mut frames) = Frames::accept(peer, &[]) else { return };
        while let Some((stream, _)) = frames.request() {
            frames.respond(stream, "fine");
        }
    });
    let more =
        "protocol: http2, send_proxy_protocol: v1, health_check: {http: {path: /, method: HEAD}}";
    let proxy = Proxy::start(&config(free_port(), &[origin.address()], more));
    await_healthy(&proxy, 1.0);
    // Over a Unix-domain socket.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let endpoint = format!("unix:{}", path.display());
    let proxy = Proxy::start(&config(free_port(), &[endpoint], "health_check: {tcp: true}"));
    await_healthy(&proxy, 1.0);
}

#[test]
fn through_tls_it_is_proven_who_answers() {
    let pki = Pki::new();
    pki.leaf("server", &Wanted::default());
    pki.leaf("client", &Wanted::default());
    let peer = Server::nginx_tls(&pki, "server");
    let endpoint = [format!("127.0.0.1:{}", peer.port)];
    let files = |sni: &str| {
        format!(
            "tls: {{ca: {}, cert: {}, key: {}, sni: {sni}}}, \
             health_check: {{http: /page, interval: 20ms}}",
            pki.path("ca.pem"),
            pki.path("client.pem"),
            pki.path("client.key")
        )
    };
    let proxy = Proxy::start(&config(free_port(), &endpoint, &files("localhost")));
    await_healthy(&proxy, 1.0);
    // The certificate has another name, so the endpoint is not this service.
    proxy.reload(&config(free_port(), &endpoint, &files("other.test")));
    await_healthy(&proxy, 0.0);
    await_failures(&proxy, "tls", 3.0);
    await_log(&proxy, "it is for localhost, 127.0.0.1, not for other.test");
}
