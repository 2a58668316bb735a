//! `ringway tap` and `ringway why`: what a running proxy tells about single requests.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_listener, free_port};

/// An origin that answers 503 to its first `failures` requests, and 200 to the others.
fn fails_first(failures: usize) -> Origin {
    let seen = AtomicUsize::new(0);
    Origin::scripted(move |peer| {
        while peer.request().is_some() {
            let failed = seen.fetch_add(1, Ordering::SeqCst) < failures;
            let status = if failed { "503 Sad" } else { "200 OK" };
            peer.send(format!("HTTP/1.1 {status}\r\nX-Own: hid\r\nContent-Length: 2\r\n\r\nok"));
        }
    })
}

fn config(port: u16, app: &Origin) -> String {
    let dead = free_listener().local_addr().unwrap();
    format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes:\n  app: [{{name: all, to: app, retries: {{attempts: 2, on: [5xx], backoff: \
         {{base: 1ms}}}}}}]\n  dead: [{{name: none, to: dead}}]\n\
         services:\n  app: {{endpoints: [\"{}\"]}}\n  dead: {{endpoints: [\"{dead}\"]}}\n\
         authorization: [{{name: secret, action: deny, to: {{service: app, paths: [/denied]}}}}]\n",
        app.address()
    )
}

fn ringway(proxy: &Proxy, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.args(arguments).arg("-c").arg(proxy.directory());
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn ask(port: u16, host: &str, target: &str, id: &str) -> u16 {
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nX-Request-Id: {id}\r\n\r\n");
    Client::connect(port).send(request).response().status
}

#[test]
fn why_tells_the_story_of_a_request() {
    let app = fails_first(1);
    let port = free_port();
    let proxy = Proxy::start(&config(port, &app));
    let told = |id: &str| {
        eventually("the story", || {
            let (found, text) = ringway(&proxy, &["why", id]);
            found.then_some(text)
        })
    };
    assert_eq!(ask(port, "app", "/cart?x=1", "id-1"), 200);
    let story = told("id-1");
    for part in [
        "GET app/cart?x=1 HTTP/1.1: 200 after ",
        "  id         id-1\n",
        "  listener   web\n",
        "  rule       all (",
        "ringway.yaml:",
        "  service    app\n",
        "  policy     sent again 1 times\n",
        "503: its response was not used\n",
        "  attempt 2 ",
        ": response 200, its head at ",
        "  bytes      0 from the client, 2 to the client\n",
        "  end        the response was complete\n",
    ] {
        assert!(story.contains(part), "{part:?} in {story}");
    }
    assert_eq!(ask(port, "app", "/denied", "id-2"), 403);
    let story = told("id-2");
    assert!(story.contains("  policy     refused by ") && story.contains("secret"), "{story}");
    assert!(story.contains("  end        the proxy refused the request (UAEX: "), "{story}");
    assert_eq!(ask(port, "dead", "/", "id-3"), 503);
    let story = told("id-3");
    assert!(story.contains("the proxy: no endpoint accepted a connection (UF: "), "{story}");
    assert_eq!(ask(port, "nobody", "/", "id-4"), 404);
    assert!(told("id-4").contains("  rule       none matched\n"));
    let answer = Client::connect(port).get("app", "/made");
    assert_eq!(answer.status, 200);
    let last = eventually("the story", || {
        let stories = proxy.admin("/requests?limit=1").body;
        let stories: Value = serde_json::from_slice(&stories).unwrap();
        (stories[0]["target"] == "/made").then(|| stories[0].clone())
    });
    let made = last["request_id"].as_str().unwrap();
    assert_eq!(made.len(), 36);
    assert!(told(made).contains("GET app/made"));
    let (found, text) = ringway(&proxy, &["why", "absent"]);
    assert!(!found && text.contains("no request with this id"), "{text}");
    let failed = proxy.admin("/requests?failed=true").body;
    let failed: Value = serde_json::from_slice(&failed).unwrap();
    let ids: Vec<_> = failed.as_array().unwrap().iter().map(|it| &it["request_id"]).collect();
    assert_eq!(ids, ["id-4", "id-3", "id-2"]);
    assert_eq!(proxy.admin("/requests?failde=true").status, 400);
}

/// A running `ringway tap`.
struct Tap(Child, BufReader<std::process::ChildStdout>);

impl Tap {
    fn start(proxy: &Proxy, arguments: &[&str]) -> Self {
        let before = proxy.metric("ringway_taps_active");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        command.arg("tap").args(arguments).arg("-c").arg(proxy.directory());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        eventually("the tap", || (proxy.metric("ringway_taps_active") > before).then_some(()));
        Self(child, lines)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn tap_shows_requests_as_they_end_without_secrets() {
    let app = fails_first(0);
    let port = free_port();
    let proxy = Proxy::start(&config(port, &app));
    let send = |target: &str, fields: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: app\r\n{fields}\r\n");
        Client::connect(port).send(request).response().status
    };
    let mut people = Tap::start(&proxy, &["-H", "x-tenant", "path starts_with '/seen'"]);
    let mut json = Tap::start(&proxy, &["--json", "-n", "1", "request.headers.x-tenant == 'blue'"]);
    assert_eq!(send("/other", ""), 200);
    let fields = "X-Tenant: blue\r\nAuthorization: s3cret\r\nX-Own: s3cret\r\nAccept: */*\r\n";
    assert_eq!(send("/seen/\x1b", fields), 400);
    assert_eq!(send("/seen/one", fields), 200);
    let line = people.line();
    let address = app.address();
    assert!(line.contains(&format!(" web app {address} GET app/seen/one 200 ")), "{line}");
    assert_eq!(people.line(), "    > x-tenant: blue\n");
    let line = json.line();
    assert!(!line.contains("s3cret") && !line.contains("hid"), "{line}");
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&event["target"], &event["status"]), (&"/seen/one".into(), &200.into()));
    let fields = event["request_headers"].as_array().unwrap();
    assert!(fields.contains(&serde_json::json!(["accept", "*/*"])), "{line}");
    assert!(fields.contains(&serde_json::json!(["authorization", "[redacted]"])), "{line}");
    let response = event["response_headers"].as_array().unwrap();
    assert!(response.contains(&serde_json::json!(["x-own", "[redacted]"])), "{line}");
    assert_eq!(json.line(), "", "one request was wanted");
    drop(people);
    assert_eq!(send("/more", ""), 200);
    eventually("the end of the taps", || {
        (proxy.metric("ringway_taps_active") == 0.0).then_some(())
    });
    let (known, text) = ringway(&proxy, &["tap", "response.code > 1"]);
    assert!(!known && text.contains("= help: write `status`"), "{text}");
}

/// A tap whose reader stops costs counted lines, and nobody waits.
#[test]
fn a_tap_that_nobody_reads_loses_lines_and_is_limited_in_number() {
    let app = fails_first(0);
    let port = free_port();
    let proxy = Proxy::start(&config(port, &app));
    let admin = proxy.admin_port();
    let open = || {
        let mut stream = TcpStream::connect(("127.0.0.1", admin)).unwrap();
        stream.write_all(b"GET /tap HTTP/1.0\r\n\r\n").unwrap();
        stream
    };
    let taps: Vec<_> = (0..8).map(|_| open()).collect();
    eventually("the taps", || (proxy.metric("ringway_taps_active") == 8.0).then_some(()));
    let mut refused = String::new();
    open().read_to_string(&mut refused).unwrap();
    assert!(refused.starts_with("HTTP/1.0 429 ") || refused.starts_with("HTTP/1.1 429 "));
    let pad = "x".repeat(4000);
    let request = format!("GET /{pad} HTTP/1.1\r\nHost: app\r\n\r\n");
    let mut client = Client::connect(port);
    eventually("lost lines", || {
        for _ in 0..200 {
            assert_eq!(client.request(&request).status, 200);
        }
        (proxy.metric("ringway_tap_dropped_lines_total") > 0.0).then_some(())
    });
    drop(taps);
    assert_eq!(Client::connect(port).get("app", "/").status, 200);
    eventually("the end", || (proxy.metric("ringway_taps_active") == 0.0).then_some(()));
}

/// Bodies are shown only to a tap that asks for them, in whatever framing they come.
#[test]
fn a_tap_shows_the_beginnings_of_bodies_if_it_asks_for_them() {
    let origin = Origin::scripted(|peer| {
        while peer.request().is_some() {
            let body = "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
            peer.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
        }
    });
    let port = free_port();
    let proxy = Proxy::start(&config(port, &origin));
    let posts = |framing: &str, body: &str| {
        let head = format!("POST /p HTTP/1.1\r\nHost: app\r\n{framing}\r\n\r\n");
        Client::connect(port).request(format!("{head}{body}"))
    };
    let lines = |arguments: &[&str], framing: &str, body: &str| -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        command.args(["tap", "--json", "-n", "1"]).args(arguments).arg("-c").arg(proxy.directory());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        eventually("a tapped request", || {
            assert_eq!(posts(framing, body).text(), "hello world");
            child.try_wait().unwrap()
        });
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let (length, chunked) = ("Content-Length: 6", "Transfer-Encoding: chunked");
    // Everybody on this machine can connect to the port, so there bodies are not shown.
    assert_eq!(proxy.admin("/tap?bodies=100").status, 403);
    let base = proxy.directory().join("base.yaml");
    let bind = |to: &str| {
        std::fs::write(&base, format!("admin: {{bind: '{to}'}}\nruntime: {{workers: 2}}\n"))
            .unwrap();
    };
    let before = std::fs::read_to_string(&base).unwrap();
    let socket = proxy.directory().join("admin.sock");
    bind(&format!("unix:{}", socket.display()));
    eventually("the socket", || socket.exists().then_some(()));
    let none = lines(&[], length, "secret");
    assert!(none["request_body"].is_null() && none["response_body"].is_null(), "{none}");
    let whole = lines(&["--bodies", "100"], length, "secret");
    assert_eq!(
        (&whole["request_body"], &whole["response_body"]),
        (&"secret".into(), &"hello world".into())
    );
    let begun = lines(&["--bodies", "7"], chunked, "3\r\nabc\r\n6\r\ndefghi\r\n0\r\n\r\n");
    assert_eq!(
        (&begun["request_body"], &begun["response_body"]),
        (&"abcdefg".into(), &"hello w".into())
    );
    let (found, text) = ringway(&proxy, &["tap", "--bodies", "1000000"]);
    assert!(!found && text.contains("up to 65536"), "{text}");
    // Nothing is left of the copies.
    std::fs::write(&base, before).unwrap();
    eventually("the port", || TcpStream::connect(("127.0.0.1", proxy.admin_port())).ok());
    eventually("no tap", || (proxy.metric("ringway_taps_active") == 0.0).then_some(()));
}
