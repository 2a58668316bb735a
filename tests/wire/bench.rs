//! `ringway bench` over HTTP/2 and HTTP/3.

use std::process::Command;

use serde_json::Value;

use crate::support::free_port;
use crate::support::origin::Origin;
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;

/// Runs `ringway bench`. Returns its exit code and its output.
fn bench(line: &str) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    let output = command.arg("bench").args(line.split_whitespace()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// A proxy that responds itself, by all versions of HTTP. On another port it offers none of them.
fn server(pki: &Pki, origin: &Origin) -> (Proxy, u16, u16) {
    pki.leaf("web", &Wanted::default());
    let (all, old) = (free_port(), free_port());
    let tls = format!("tls: {{cert: {}, key: {}}}", pki.path("web.pem"), pki.path("web.key"));
    let proxy = Proxy::start(&format!(
        "listeners:\n  all: {{bind: 127.0.0.1:{all}, {tls}, http3: true}}\n  \
         old: {{bind: 127.0.0.1:{old}, {tls}, protocol: tcp, service: none}}\n\
         routes:\n  \"*\":\n    \
         - {{match: {{headers: {{x-no: '1'}}}}, respond: {{status: 403}}}}\n    \
         - {{match: {{headers: {{x-slow: '1'}}}}, to: app, \
         fault: {{delay: {{duration: 100ms}}}}}}\n    \
         - {{respond: {{status: 200, body: hello}}}}\n\
         services:\n  none: {{protocol: tcp, endpoints: [\"127.0.0.1:9\"]}}\n  \
         app: {{endpoints: [\"{}\"]}}\n",
        origin.address()
    ));
    (proxy, all, old)
}

#[test]
fn requests_go_over_many_streams_of_each_connection() {
    let (pki, origin) = (Pki::new(), Origin::saying("hello"));
    let (_proxy, port, _) = server(&pki, &origin);
    for (flags, connections) in [
        ("--http2 -c 3 -m 7", 3),
        ("--http3 -c 3 -m 7", 3),
        ("--http2 -c 2 -m 2 --rate 200", 2),
        ("--http3 -c 2 -m 2 --rate 200", 2),
        ("--http2 -c 2 --close", 2),
        ("--http3 -c 2 --close", 2),
    ] {
        let (code, text) = bench(&format!("https://127.0.0.1:{port}/x {flags} -d 500ms --json"));
        let report: Value =
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("{flags}: {text}"));
        let requests = report["requests"].as_u64().unwrap();
        assert_eq!(code, Some(0), "{flags}: {text}");
        assert!(requests > 0, "{flags}: {text}");
        assert_eq!(report["statuses"]["200"], requests, "{flags}: {text}");
        assert_eq!(report["bytes"], requests * 5, "{flags}: {text}");
        assert_eq!(report["connections"], connections, "{flags}: {text}");
        if flags.contains("--rate") {
            assert_eq!((requests, &report["mode"]), (100, &Value::from("open")), "{flags}: {text}");
        }
    }
}

#[test]
fn the_streams_of_a_connection_do_not_wait_for_each_other() {
    let (pki, origin) = (Pki::new(), Origin::saying("hello"));
    let (_proxy, port, _) = server(&pki, &origin);
    for version in ["--http2", "--http3"] {
        let line =
            format!("https://127.0.0.1:{port}/ {version} -H x-slow:1 -c 1 -m 20 -d 1s --json");
        let (_, text) = bench(&line);
        let report: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
        // One after the other, there is time for ten.
        assert!(report["requests"].as_u64().unwrap() > 20, "{version}: {text}");
    }
}

#[test]
fn failures_of_streams_are_counted_or_named() {
    let (pki, origin) = (Pki::new(), Origin::saying("hello"));
    let (_proxy, port, old) = server(&pki, &origin);
    let closed = free_port();
    for (line, code, said) in [
        (format!("https://127.0.0.1:{port}/ --http3 -H x-no:1 -d 100ms"), 1, "403:"),
        (format!("https://127.0.0.1:{old}/ --http2"), 1, "it does not offer HTTP/2"),
        (format!("https://127.0.0.1:{old}/ --http3 --timeout 200ms"), 1, "it does not answer"),
        (format!("https://127.0.0.1:{closed}/ --http2"), 1, "Connection refused"),
        (format!("http://127.0.0.1:{port}/ --http3"), 2, "HTTP/3 always uses TLS: write https://"),
        (format!("http://127.0.0.1:{port}/ -m 3"), 2, "add --http2 or --http3"),
    ] {
        let (found, text) = bench(&line);
        assert!(found == Some(code) && text.contains(said), "{line}: {found:?} {text}");
    }
}
