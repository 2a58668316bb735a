//! Gradual releases: the proxy moves the traffic of a rule to a new version, and back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::frames::{Frames, kind};
use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

/// A version that answers with its name, with the status and after the delay that the test sets.
struct Version {
    origin: Origin,
    status: Arc<AtomicU16>,
    delay_ms: Arc<AtomicU64>,
}

impl Version {
    fn new(name: &'static str) -> Self {
        let (status, delay_ms) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU64::new(0)));
        let (said, waits) = (Arc::clone(&status), Arc::clone(&delay_ms));
        let origin = Origin::scripted(move |peer| {
            while peer.request().is_some() {
                let delay = Duration::from_millis(waits.load(Ordering::SeqCst));
                if !delay.is_zero() {
                    std::thread::park_timeout(delay);
                }
                let (status, length) = (said.load(Ordering::SeqCst), name.len());
                peer.send(format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n\r\n{name}"));
            }
        });
        Self { origin, status, delay_ms }
    }

    fn says(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }
}

/// A configuration with the versions `v1` and `v2` of the service `app`, and with this shift.
fn config(port: u16, [v1, v2]: [&str; 2], shift: &str) -> String {
    format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes:\n  \"*\":\n    - to: {{app/v1: 100, app/v2: 0}}\n\
         \x20     shift: {{from: v1, to: v2, {shift}}}\n\
         services: {{app: {{versions: {{v1: [\"{v1}\"], v2: [\"{v2}\"]}}}}}}\n\
         telemetry: {{access_log: {{path: stderr, filter: none}}}}\n"
    )
}

fn before(versions: [&Version; 2], shift: &str) -> (Proxy, u16) {
    let port = free_port();
    let addresses = versions.map(|version| version.origin.address());
    let config = config(port, addresses.each_ref().map(|address| &**address), shift);
    (Proxy::start(&config), port)
}

fn percent(proxy: &Proxy) -> f64 {
    proxy.metric("ringway_shift_percent")
}

/// Sends requests until `condition` holds. Returns the bodies.
fn send_until(port: u16, mut condition: impl FnMut() -> bool) -> Vec<String> {
    let (mut client, mut bodies) = (Client::connect(port), Vec::new());
    eventually("the shift", || {
        bodies.extend((0..10).map(|_| client.get("a", "/").text().to_owned()));
        condition().then_some(())
    });
    bodies
}

/// The next bodies.
fn bodies(port: u16, count: usize) -> Vec<String> {
    let mut client = Client::connect(port);
    (0..count).map(|_| client.get("a", "/").text().to_owned()).collect()
}

/// The only shift on the page of services.
fn shown(proxy: &Proxy) -> serde_json::Value {
    let page = proxy.admin("/services");
    let services: serde_json::Value = serde_json::from_str(page.text()).unwrap();
    services[0]["shifts"][0].clone()
}

const FAST: &str = "every: 500ms, step: 25%, abort_if: {error_rate: 2%, p99: 5s, min_requests: 5}";

#[test]
fn a_good_version_gets_all_requests_in_the_end() {
    let (old, new) = (Version::new("v1"), Version::new("v2"));
    let (proxy, port) = before([&old, &new], FAST);
    let bodies = send_until(port, || proxy.metric("ringway_shift_done") == 1.0);
    let share = bodies.iter().filter(|body| *body == "v2").count();
    assert!(share > 0 && share < bodies.len(), "{share} of {}", bodies.len());
    assert!(self::bodies(port, 50).iter().all(|body| body == "v2"));
    assert_eq!((percent(&proxy), proxy.metric("ringway_shift_aborted")), (100.0, 0.0));
    let log = proxy.log();
    for step in [
        "shift: 25% to app/v2 (step 1 of 4)",
        "shift: 50% to app/v2 (step 2 of 4)",
        "shift: 75% to app/v2 (step 3 of 4)",
        "shift: 100% to app/v2 (step 4 of 4)",
        "shift: the shift to app/v2 is complete",
    ] {
        assert!(log.contains(step), "{step}: {log}");
    }
    let shift = shown(&proxy);
    assert_eq!(shift["state"], "done", "{shift}");
    assert_eq!(shift["next_unix_seconds"], serde_json::Value::Null, "{shift}");
}

#[test]
fn a_version_that_fails_loses_all_requests_and_stays_without() {
    let (old, new) = (Version::new("v1"), Version::new("v2"));
    new.says(500);
    let (proxy, port) = before([&old, &new], FAST);
    send_until(port, || proxy.metric("ringway_shift_aborted") == 1.0);
    assert!(bodies(port, 50).iter().all(|body| body == "v1"));
    assert_eq!((percent(&proxy), proxy.metric("ringway_shift_done")), (0.0, 0.0));
    let shift = shown(&proxy);
    assert_eq!(
        (&shift["state"], &shift["aborted"]["reason"]),
        (&"aborted".into(), &"error_rate".into())
    );
    let why = shift["aborted"]["why"].as_str().unwrap();
    assert!(why.ends_with("(100.0%) in this step failed; the limit is 2%"), "{why}");
    assert!(proxy.log().contains(&format!("shift aborted: all back to app/v1: {why}")));
    // A reload of the same plan changes nothing.
    let addresses = [old.origin.address(), new.origin.address()];
    let with = |shift| config(port, addresses.each_ref().map(|address| &**address), shift);
    proxy.reload(&format!("# again\n{}", with(FAST)));
    assert_eq!(proxy.metric("ringway_shift_aborted"), 1.0);
    assert!(bodies(port, 50).iter().all(|body| body == "v1"));
    // A changed plan begins anew.
    new.says(200);
    proxy.reload(&with("every: 500ms, step: 100%"));
    assert_eq!(proxy.metric("ringway_shift_aborted"), 0.0);
    send_until(port, || proxy.metric("ringway_shift_done") == 1.0);
}

#[test]
fn a_slow_version_loses_all_requests() {
    let (old, new) = (Version::new("v1"), Version::new("v2"));
    new.delay_ms.store(200, Ordering::SeqCst);
    let shift = "every: 1s, step: 50%, abort_if: {p99: 100ms, min_requests: 3}";
    let (proxy, port) = before([&old, &new], shift);
    send_until(port, || proxy.metric("ringway_shift_aborted") == 1.0);
    let shift = shown(&proxy);
    assert_eq!(shift["aborted"]["reason"], "p99", "{shift}");
    assert_eq!(shift["aborted"]["percent"], 50.0, "{shift}");
    let why = shift["aborted"]["why"].as_str().unwrap();
    assert!(why.contains("took longer than 100ms"), "{why}");
}

#[test]
fn a_version_that_is_gone_loses_all_requests() {
    let old = Version::new("v1");
    let (port, nobody) = (free_port(), format!("127.0.0.1:{}", free_port()));
    let proxy = Proxy::start(&config(port, [&old.origin.address(), &nobody], FAST));
    send_until(port, || proxy.metric("ringway_shift_aborted") == 1.0);
    assert!(bodies(port, 20).iter().all(|body| body == "v1"));
}

#[test]
fn calls_over_http2_count_by_their_grpc_status() {
    let origin = |code: &'static str| {
        Origin::scripted(move |peer| {
            let Some(mut frames) = Frames::accept(peer, &[]) else { return };
            while let Some((stream, _)) = frames.request() {
                let fields = [(":status", "200"), ("content-type", "application/grpc")];
                frames.headers(stream, &fields, false);
                frames.data(stream, b"\0\0\0\0\0", false);
                frames.headers(stream, &[("grpc-status", code)], true);
            }
        })
    };
    // NOT_FOUND is the client's own mistake, UNAVAILABLE the version's.
    let (old, new) = (origin("5"), origin("14"));
    let port = free_port();
    let config = config(port, [&old.address(), &new.address()], FAST);
    let proxy = Proxy::start(&config.replace("versions:", "protocol: grpc, versions:"));
    let (mut client, mut stream) = (Frames::connect(port), 1);
    eventually("the end of the shift", || {
        for _ in 0..5 {
            client.call(stream, &[]);
            client.data(stream, b"\0\0\0\0\0", true);
            client.next_of(kind::HEADERS).unwrap();
            client.next_of(kind::HEADERS).unwrap();
            stream += 2;
        }
        (proxy.metric("ringway_shift_aborted") == 1.0).then_some(())
    });
    let errors = |version| {
        proxy.metric(&format!(
            "ringway_shift_errors_total{{host=\"*\",name=\"*#1\",version=\"app/{version}\"}}"
        ))
    };
    assert_eq!(errors("v1"), 0.0);
    assert!(errors("v2") >= 5.0);
}

#[test]
fn a_client_that_leaves_is_no_error_of_the_version() {
    let (old, new) = (Version::new("v1"), Version::new("v2"));
    let shift = format!("start: {}, every: 10m, step: 100%, {LIMIT}", long_ago(5));
    let (proxy, port) = before([&old, &new], &shift);
    new.delay_ms.store(5000, Ordering::SeqCst);
    for _ in 0..5 {
        Client::connect(port).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let left = "ringway_service_response_flags_total{service=\"app\",flag=\"DC\"}";
    eventually("the clients to be gone", || (proxy.metric(left) >= 5.0).then_some(()));
    assert_eq!(proxy.metric("ringway_shift_requests_total"), 0.0);
    new.delay_ms.store(0, Ordering::SeqCst);
    assert_eq!(bodies(port, 3), ["v2", "v2", "v2"]);
    assert_eq!(proxy.metric("ringway_shift_errors_total"), 0.0);
}

const LIMIT: &str = "abort_if: {error_rate: 2%, min_requests: 3}";

/// The time `minutes` ago, as the file has it.
pub(super) fn long_ago(minutes: u64) -> String {
    let time = SystemTime::now() - Duration::from_secs(60 * minutes);
    let seconds = time.duration_since(UNIX_EPOCH).unwrap().as_secs();
    ringway::resilience::UnixTime(1000 * seconds).to_string()
}

#[test]
fn proxies_of_one_file_are_at_the_same_place_and_divide_exactly() {
    let (old, new) = (Version::new("v1"), Version::new("v2"));
    // Two steps were due before these proxies started, and the third comes in five minutes.
    let shift = format!("start: {}, every: 10m, step: 10%", long_ago(15));
    for _ in 0..2 {
        let (proxy, port) = before([&old, &new], &shift);
        assert_eq!(percent(&proxy), 20.0);
        let to_new = bodies(port, 50).iter().filter(|body| *body == "v2").count();
        assert_eq!(to_new, 10);
    }
}

/// A proxy that keeps its state in `directory`.
fn keeping(directory: &tempfile::TempDir, config: &str) -> Proxy {
    let runtime = format!("workers: 1, state_dir: {}", directory.path().display());
    Proxy::start_under(&[], &runtime, config)
}

#[test]
fn a_killed_proxy_goes_on_where_it_was() {
    let (old, new) = (Version::new("v1"), Version::new("v2"));
    let addresses = [old.origin.address(), new.origin.address()];
    let state = tempfile::tempdir().unwrap();
    let config = |shift: &str| {
        let addresses = addresses.each_ref().map(|address| &**address);
        config(free_port(), addresses, shift)
    };
    let slow = "every: 1s, step: 10%";
    let mut first = keeping(&state, &config(slow));
    let reached = eventually("two steps", || Some(percent(&first)).filter(|it| *it >= 20.0));
    first.signal(nix::sys::signal::Signal::SIGKILL);
    first.wait();
    let second = keeping(&state, &config(slow));
    assert!(percent(&second) >= reached, "{} < {reached}", percent(&second));
    assert!(second.log().contains("shift goes on after a restart"), "{}", second.log());
    eventually("the end", || (second.metric("ringway_shift_done") == 1.0).then_some(()));
    drop(second);
    let third = keeping(&state, &config(slow));
    assert_eq!((percent(&third), third.metric("ringway_shift_done")), (100.0, 1.0));
    drop(third);
    // Another plan begins anew.
    let fourth = keeping(&state, &config("every: 10h, step: 10%"));
    assert_eq!((percent(&fourth), fourth.metric("ringway_shift_done")), (0.0, 0.0));
}

#[test]
fn a_version_that_failed_stays_without_requests_after_a_restart() {
    let (old, new) = (Version::new("v1"), Version::new("v2"));
    let addresses = [old.origin.address(), new.origin.address()];
    let state = tempfile::tempdir().unwrap();
    let start = format!("start: {}, every: 10m, step: 50%, {LIMIT}", long_ago(5));
    let run = || {
        let port = free_port();
        let config = config(port, addresses.each_ref().map(|address| &**address), &start);
        let wrapper = format!("STATE_DIRECTORY={}", state.path().display());
        (Proxy::start_under(&["env", &wrapper], "workers: 1", &config), port)
    };
    new.says(503);
    let (mut first, port) = run();
    send_until(port, || first.metric("ringway_shift_aborted") == 1.0);
    first.signal(nix::sys::signal::Signal::SIGKILL);
    first.wait();
    let (second, port) = run();
    assert_eq!(second.metric("ringway_shift_aborted"), 1.0);
    assert!(bodies(port, 20).iter().all(|body| body == "v1"));
    assert!(!second.log().contains("no directory for state"), "{}", second.log());
}

#[test]
fn a_damaged_state_file_and_no_directory_are_warnings() {
    let (old, new) = (Version::new("v1"), Version::new("v2"));
    let (proxy, _) = before([&old, &new], "every: 10h, step: 10%");
    assert!(proxy.log().contains("no directory for state"), "{}", proxy.log());
    let state = tempfile::tempdir().unwrap();
    std::fs::write(state.path().join("shifts.json"), "{\"shifts\": {\"a\": ").unwrap();
    let config = std::fs::read_to_string(proxy.config_file()).unwrap();
    drop(proxy);
    let port = free_port();
    let bind = config.lines().next().unwrap();
    let bind_now = format!("listeners: {{web: {{bind: 127.0.0.1:{port}}}}}");
    let proxy = keeping(&state, &config.replace(bind, &bind_now));
    assert!(proxy.log().contains("shifts.json is damaged; shifts begin anew"), "{}", proxy.log());
    assert_eq!(bodies(port, 3), ["v1", "v1", "v1"]);
    let text = std::fs::read_to_string(state.path().join("shifts.json")).unwrap();
    assert!(text.contains("\"running\""), "{text}");
}

#[test]
fn a_slow_upload_is_no_slow_version() {
    let (old, new) = (Version::new("v1"), Version::new("v2"));
    let limit = "abort_if: {p99: 100ms, min_requests: 1000}";
    let shift = format!("start: {}, every: 10m, step: 100%, {limit}", long_ago(5));
    let (proxy, port) = before([&old, &new], &shift);
    let mut client = Client::connect(port);
    for _ in 0..3 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n");
        std::thread::park_timeout(Duration::from_millis(200)); // the upload is slow
        assert_eq!(client.send("ab").response().text(), "v2");
    }
    let of_new = "{host=\"*\",name=\"*#1\",version=\"app/v2\"}";
    eventually("the requests", || {
        let requests = proxy.metric(&format!("ringway_shift_requests_total{of_new}"));
        (requests == 3.0).then_some(())
    });
    assert_eq!(proxy.metric(&format!("ringway_shift_slow_total{of_new}")), 0.0);
}
