//! Connections to endpoints: the settings with which each connection was opened, and endpoints that
//! refuse connections.

use std::net::TcpListener;

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::peers::{Server, curl};
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_listener, free_port};

/// An nginx that stops offering HTTP/2 while it runs. So the next handshake chooses another
/// protocol than the last one.
#[test]
fn each_connection_is_what_its_own_handshake_chose() {
    let pki = Pki::new();
    pki.leaf("web", &Wanted::default());
    let server = Server::nginx_http2(&[("page", "a page".to_owned())], Some((&pki, "web")));
    let service = format!(
        "protocol: auto, tls: {{ca: {}}}, connect_timeout: 20s, endpoints: [\"127.0.0.1:{}\"]",
        pki.path("ca.pem"),
        server.port
    );
    let (proxy, port, _) = Proxy::before(&pki, &service);
    let opened = || proxy.metric("ringway_endpoint_connections_total");
    for http2 in [true, false, true] {
        server.reconfigure(|conf| {
            conf.replace(" http2 ssl;", " ssl;")
                .replace(" ssl;", if http2 { " http2 ssl;" } else { " ssl;" })
        });
        eventually("nginx to choose again", || (server.chooses_http2() == http2).then_some(()));
        let before = opened();
        let mut client = Client::connect(port);
        let mut ask = || {
            let answer = client.get("a", "/page");
            assert_eq!((answer.status, answer.text()), (200, "a page"), "{http2}");
        };
        // The old worker of nginx closes its connections when they are idle.
        eventually("a new connection", || {
            ask();
            (opened() > before).then_some(())
        });
        (0..20).for_each(|_| ask());
    }
}

#[test]
fn a_pooled_connection_belongs_to_the_terms_that_it_was_opened_under() {
    let origin = Origin::scripted(|peer| {
        // A PROXY header comes once for each connection, before the first request.
        while let Some(request) = peer.request() {
            let announced = request.starts_with("PROXY ");
            let body = if announced { "announced" } else { "not" };
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        }
    });
    let port = free_port();
    let config = |more: &str| {
        format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
             routes: {{\"*\": [{{to: app}}]}}\n\
             services: {{app: {{endpoints: [\"{}\"]{more}}}}}\n",
            origin.address()
        )
    };
    let proxy = Proxy::start(&config(""));
    let mut client = Client::connect(port);
    for _ in 0..3 {
        assert_eq!(client.get("a", "/").text(), "not");
    }
    proxy.reload(&config(", send_proxy_protocol: v1"));
    for _ in 0..3 {
        assert_eq!(client.get("a", "/").text(), "announced");
    }
    proxy.reload(&config(""));
    for _ in 0..3 {
        assert_eq!(client.get("a", "/").text(), "not");
    }
    // Without TLS, the configuration alone decides whether a connection uses HTTP/2.
    proxy.reload(&config(", protocol: http2"));
    assert_eq!(client.get("a", "/").status, 502);
    proxy.reload(&config(""));
    assert_eq!(client.get("a", "/").text(), "not");
}

#[test]
fn no_request_fails_while_half_of_the_endpoints_are_down() {
    let (one, two) = (Origin::saying("x"), Origin::saying("x"));
    // The sockets stay bound, so no other process takes the ports. They do not listen.
    let down: Vec<_> = (0..2).map(|_| bound_but_closed()).collect();
    let endpoints = [one.address(), down[0].1.clone(), two.address(), down[1].1.clone()];
    for balance in ["round-robin", "random", "least-request", "peak-ewma", "{hash: {header: x}}"] {
        let port = free_port();
        let proxy = Proxy::start(&format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
             routes: {{\"*\": [{{to: app}}]}}\n\
             services: {{app: {{balance: {balance}, endpoints: {endpoints:?}}}}}\n"
        ));
        for number in 0..200 {
            let mut client = Client::connect(port);
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {number}\r\n\r\n");
            assert_eq!(client.request(request).status, 200, "{balance}, {number}");
        }
        if balance == "peak-ewma" {
            let failures = proxy.metric("ringway_endpoint_connect_failures_total");
            // If two endpoints are drawn at random, both are down in a sixth of all cases.
            assert!(failures < 80.0, "a failure looks like a fast answer: {failures} of 200");
        }
    }
}

/// A socket that is bound to a port but does not listen, so connections to the port are refused.
fn bound_but_closed() -> (socket2::Socket, String) {
    let listener: TcpListener = free_listener();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    eventually("the port", || socket.bind(&address.into()).ok());
    (socket, address.to_string())
}

#[test]
fn the_reason_why_there_is_no_connection_is_the_right_one() {
    let gone = tempfile::tempdir().unwrap();
    let refused = bound_but_closed();
    for (endpoint, detail) in [
        (refused.1.clone(), "the endpoint refused the connection"),
        (format!("unix:{}/none", gone.path().display()), "the endpoint's socket does not exist"),
    ] {
        let port = free_port();
        let _proxy = Proxy::start(&format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
             routes: {{\"*\": [{{to: app}}]}}\n\
             services: {{app: {{endpoints: [\"{endpoint}\"]}}}}\n"
        ));
        let answer = Client::connect(port).get("a", "/");
        assert_eq!((answer.status, answer.text()), (503, detail));
    }
}

/// An origin with NTLM. It authenticates a connection, not a request.
fn ntlm_origin() -> Origin {
    Origin::scripted(|peer| {
        let mut user = "nobody";
        while let Some(request) = peer.request() {
            let message = request.split("Authorization: NTLM ").nth(1).unwrap_or_default();
            let challenge = match message {
                // The first three bytes after the signature give the type of the message (MS-NLMP
                // 2.2.1).
                message if message.starts_with("TlRMTVNTUAAB") => Some(format!(" {CHALLENGE}")),
                message if message.starts_with("TlRMTVNTUAAD") => {
                    user = "alice";
                    None
                }
                _ if user == "nobody" && request.contains("/secret") => Some(String::new()),
                _ => None,
            };
            match challenge {
                Some(challenge) => peer.send(format!(
                    "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\
                     WWW-Authenticate: NTLM{challenge}\r\n\r\n"
                )),
                None => peer.send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{user}",
                    user.len()
                )),
            }
        }
    })
}

const CHALLENGE: &str = "TlRMTVNTUAACAAAAAAAAADAAAAABggAAASNFZ4mrze8AAAAAAAAAAAAAAAAwAAAA";

#[test]
fn a_connection_that_a_client_has_authenticated_serves_that_client_alone() {
    let (origin, elsewhere) = (ntlm_origin(), Origin::saying("elsewhere"));
    let port = free_port();
    let proxy = Proxy::start(&format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes: {{other: [{{to: other}}], \"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"{}\"]}}, other: {{endpoints: [\"{}\"]}}}}\n",
        origin.address(),
        elsewhere.address()
    ));
    // This client stays connected, like a browser.
    let mut other = Client::connect(port);
    assert_eq!(other.get("a", "/").text(), "nobody");
    let url = format!("http://127.0.0.1:{port}/secret");
    assert_eq!(curl(&["--ntlm", "-u", "alice:secret", &url, &url]), "alicealice");
    let mut alice = Client::connect(port);
    let last = "GET /secret HTTP/1.1\r\nHost: a\r\nAuthorization: NTLM TlRMTVNTUAADAAAA\r\n\r\n";
    assert_eq!(alice.request(last).text(), "alice");
    for _ in 0..5 {
        assert_eq!(alice.get("other", "/").text(), "elsewhere");
        assert_eq!(alice.get("a", "/").text(), "alice", "her connection waits for her");
        assert_eq!(other.get("a", "/").text(), "nobody");
        assert_eq!(Client::connect(port).get("a", "/").text(), "nobody");
    }
    assert_eq!(other.get("a", "/secret").status, 401);
    drop((alice, other));
    eventually("the connections of clients that left to close", || {
        let idle = proxy.metric("ringway_endpoint_connections_idle");
        (proxy.metric("ringway_endpoint_connections_active") == idle).then_some(())
    });
}

#[test]
fn a_reload_leaves_what_did_not_change() {
    let pki = Pki::new();
    pki.leaf("web", &Wanted::default());
    let server = Server::nginx_http2(&[], Some((&pki, "web")));
    server.reconfigure(|conf| {
        conf.replace(
            " gzip off;",
            " gzip off; location /reused { return 200 $ssl_session_reused; }",
        )
    });
    let (one, two) = (Origin::saying("one"), Origin::saying("two"));
    let (port, secure) = (free_port(), free_port());
    let config = |unrelated: &str| {
        format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}, secure: {{bind: 127.0.0.1:{secure}}}}}\n\
             routes: {{secure: [{{to: secure}}], \"*\": [{{to: app}}]}}\n\
             services:\n  app: {{balance: round-robin, endpoints: [\"{}\", \"{}\"]}}\n  \
             {unrelated}\n  \
             secure: {{protocol: http1, max_idle_connections: 0, connect_timeout: 20s, \
             tls: {{ca: {}}}, endpoints: [\"127.0.0.1:{}\"]}}\n",
            one.address(),
            two.address(),
            pki.path("ca.pem"),
            server.port
        )
    };
    let proxy = Proxy::start(&config("more: {endpoints: [127.0.0.1:1]}"));
    let (mut plain, mut tls) = (Client::connect(port), Client::connect(secure));
    eventually("nginx to resume a session", || {
        (tls.get("secure", "/reused").text() == "r").then_some(())
    });
    let mut last = plain.get("a", "/").text().to_owned();
    for number in 2..6 {
        proxy.reload(&config(&format!("more: {{endpoints: [127.0.0.1:{number}]}}")));
        assert_eq!(tls.get("secure", "/reused").text(), "r", "the session with the endpoint");
        let next = plain.get("a", "/").text().to_owned();
        assert_ne!(last, next, "the turn");
        last = next;
    }
}
