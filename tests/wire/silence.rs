//! `stream_idle_timeout` on real sockets, for clients and endpoints of both HTTP versions. The
//! defaults are minutes, so `tests/silence.rs` has them in virtual time.

use crate::support::frames::{Frames, kind};
use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

const NO_BYTE: &str = "no byte passed in either direction for stream_idle_timeout";

/// An HTTP/1.1 endpoint that never ends its answer. It begins it only for `/begins`.
fn silent() -> Origin {
    Origin::scripted(|peer| {
        while let Some(request) = peer.request() {
            if request.starts_with("GET /begins") {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart");
            }
        }
    })
}

/// An endpoint for gRPC that never ends a call. It sends a message only for the first call.
fn silent_grpc() -> Origin {
    Origin::scripted(|peer| {
        let Some(mut frames) = Frames::accept(peer, &[]) else { return };
        while let Some((stream, _)) = frames.request() {
            if stream == 1 {
                let head = [(":status", "200"), ("content-type", "application/grpc")];
                frames.headers(stream, &head, false);
                frames.data(stream, b"\0\0\0\0\0", false);
            }
        }
    })
}

/// A proxy in front of `origin`, its port, and further settings of the service.
fn before(origin: &Origin, service: &str) -> (Proxy, u16) {
    let port = free_port();
    let config = format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"{}\"], {service}}}}}\n",
        origin.address()
    );
    (Proxy::start_with(&config, 1), port)
}

/// The last lines of the access log: status, flag, detail and gRPC status.
fn logged(proxy: &Proxy, count: usize) -> Vec<(u64, String, String, Option<u64>)> {
    eventually("the lines", || {
        let log = proxy.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        let lines: Vec<serde_json::Value> =
            lines.filter(|line: &serde_json::Value| line["response_flags"].is_string()).collect();
        (lines.len() == count).then_some(lines)
    })
    .iter()
    .map(|line| {
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let status = line["status"].as_u64().unwrap();
        (status, text("response_flags"), text("detail"), line["grpc_status"].as_u64())
    })
    .collect()
}

#[test]
fn a_silent_exchange_is_cut_and_says_so() {
    let origin = silent();
    let (proxy, port) = before(&origin, "stream_idle_timeout: 300ms");
    let refusal = Client::connect(port).get("a", "/never");
    assert_eq!(refusal.status, 504);
    assert!(refusal.text().contains(NO_BYTE), "{}", refusal.text());
    let mut client = Client::connect(port);
    let got = client.send("GET /begins HTTP/1.1\r\nHost: a\r\n\r\n").rest();
    assert!(got.ends_with(b"\r\n\r\npart"), "{}", String::from_utf8_lossy(&got));
    let line = |status| (status, "SI".to_owned(), NO_BYTE.to_owned(), None);
    assert_eq!(logged(&proxy, 2), [line(504), line(200)]);
    let flags = "ringway_service_response_flags_total{service=\"app\",flag=\"SI\"}";
    assert_eq!(proxy.metric(flags), 2.0);
}

#[test]
fn a_silent_call_ends_as_unavailable() {
    let origin = silent_grpc();
    let (proxy, port) = before(&origin, "protocol: grpc, stream_idle_timeout: 300ms");
    let mut client = Frames::connect(port);
    for stream in [1, 3] {
        client.call(stream, &[("grpc-timeout", "1H")]);
        client.data(stream, b"\0\0\0\0\0", true);
        let end = std::iter::from_fn(|| client.next()).find(|frame| frame.ends()).unwrap();
        assert_eq!((end.kind, end.stream), (kind::HEADERS, stream));
    }
    let line = || (200, "SI".to_owned(), NO_BYTE.to_owned(), Some(14));
    assert_eq!(logged(&proxy, 2), [line(), line()]);
}

#[test]
fn a_reload_changes_the_limit_for_the_next_request() {
    let origin = silent();
    let (proxy, port) = before(&origin, "stream_idle_timeout: none");
    let mut waiting = Client::connect(port);
    waiting.send("GET /begins HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(waiting.head().is_some());
    let config = std::fs::read_to_string(proxy.config_file()).unwrap();
    proxy.reload(&config.replace("timeout: none", "timeout: 300ms"));
    let limited = || (Client::connect(port).get("a", "/never").status == 504).then_some(());
    eventually("the new limit", limited);
    assert_eq!(waiting.exactly(4).unwrap(), b"part", "the old exchange has no limit");
    assert!(!waiting.closes_within(std::time::Duration::from_millis(600)));
}
