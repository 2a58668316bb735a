//! CONNECT is forwarded only if a route names it. Some origins answer it like an ordinary request,
//! and then no rule would see the requests in its tunnel.

use crate::support::frames::{Frames, kind};
use crate::support::http::Client;
use crate::support::origin::{Origin, Peer};
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

const CONNECT: &str = "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n";

/// A request inside the tunnel that no rule allows.
const ADMIN: &str = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";

const DETAIL: &str = "no route names the method CONNECT";

/// An ordinary origin. It answers every request with 200.
fn ordinary(version: u8) -> Origin {
    Origin::scripted(move |peer: &mut Peer| match version {
        1 => {
            while peer.request().is_some() {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        }
        _ => {
            let Some(mut frames) = Frames::accept(peer, &[]) else { return };
            while let Some(frame) = frames.next() {
                if frame.kind == kind::HEADERS {
                    frames.respond(frame.stream, "ok");
                }
            }
        }
    })
}

/// A proxy in front of `origin` with these rules and the rest of its configuration. Returns the
/// proxy and its port.
fn before(origin: &Origin, version: u8, rules: &str, rest: &str) -> (Proxy, u16) {
    let port = free_port();
    let address = origin.address();
    let proxy = Proxy::start_with(
        &format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{rules}]}}\n\
             services: {{app: {{endpoints: [\"{address}\"], protocol: http{version}}}}}\n\
             telemetry: {{access_log: {{path: stdout}}}}\n{rest}"
        ),
        1,
    );
    (proxy, port)
}

/// The access log line of the CONNECT.
#[track_caller]
fn line_of(proxy: &Proxy) -> serde_json::Value {
    eventually("the line of the CONNECT", || {
        let log = proxy.log();
        let line = log.lines().find(|line| line.contains("\"method\":\"CONNECT\""))?;
        serde_json::from_str(line).ok()
    })
}

const RULES: &str = "{match: {path: /admin}, respond: {status: 403}}, \
    {match: {method: [GET, POST]}, to: app}, {to: app}";

#[test]
fn a_route_that_does_not_name_connect_opens_no_tunnel() {
    for version in [1, 2] {
        let origin = ordinary(version);
        let (proxy, port) = before(&origin, version, RULES, "");
        let mut client = Client::connect(port);
        client.send(CONNECT).send(ADMIN);
        let answer = client.response();
        assert_eq!((answer.status, answer.text()), (405, DETAIL));
        assert!(answer.field("allow").unwrap().starts_with("GET, HEAD, "), "{}", answer.head);
        assert_eq!(answer.field("connection"), Some("close"));
        assert_eq!(client.rest(), b"", "the bytes of the tunnel are no request");
        let line = line_of(&proxy);
        assert_eq!((&line["response_flags"], &line["detail"]), (&"NR".into(), &DETAIL.into()));
        assert_eq!(line["tunnel"], serde_json::Value::Null);

        let mut frames = Frames::connect(port);
        frames.headers(1, &[(":method", "CONNECT"), (":authority", "a:80")], false);
        frames.data(1, ADMIN.as_bytes(), false);
        let answer = frames.next_of(kind::DATA).expect("an answer");
        assert_eq!(answer.payload, DETAIL.as_bytes());
        assert!(answer.ends());
        assert_eq!(origin.requests(), [""; 0], "HTTP/{version}");
        assert_eq!(proxy.metric("ringway_response_flags_total{flag=\"NR\"}"), 2.0);
    }
}

#[test]
fn a_tunnel_is_logged_as_one() {
    for version in [1, 2] {
        let origin = ordinary(version);
        let rules = format!("{{match: {{method: [CONNECT, PUT]}}, to: app}}, {RULES}");
        let (proxy, port) = before(&origin, version, &rules, "");
        let mut client = Client::connect(port);
        client.send(CONNECT);
        assert!(client.head().unwrap().starts_with("HTTP/1.1 200 "));
        client.send("bytes").finish();
        client.rest();
        let line = line_of(&proxy);
        assert_eq!((&line["tunnel"], &line["status"]), (&true.into(), &200.into()), "{line}");
        assert_eq!((&line["authority"], &line["received_bytes"]), (&"a:80".into(), &5.into()));
    }
}

#[test]
fn authorization_knows_that_a_tunnel_may_carry_any_path() {
    let origin = ordinary(1);
    let rules = "{match: {method: CONNECT}, to: app}, {to: app}";
    for (policy, status) in [
        ("{action: allow, to: {paths: '*'}}", 403),
        ("{action: allow, to: {not_paths: /admin}}", 403),
        ("{action: deny, to: {paths: /admin}}", 403),
        ("{action: deny, to: {not_paths: /public/*}}", 403),
        ("{action: allow, to: {methods: GET}}", 403),
        ("{action: allow, to: {methods: CONNECT, hosts: a}}", 200),
        ("{action: deny, to: {methods: DELETE}}", 200),
    ] {
        let (_proxy, port) = before(&origin, 1, rules, &format!("authorization: [{policy}]\n"));
        let head = Client::connect(port).send(CONNECT).head().unwrap();
        assert_eq!(head[9..12].parse(), Ok(status), "{policy}: {head}");
    }
}
