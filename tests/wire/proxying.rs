//! Proxying between a well-behaved client and a well-behaved origin.

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, free_port};

fn one_service(port: u16, origin: &Origin) -> String {
    format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"{}\"]}}}}\n",
        origin.address()
    )
}

#[test]
fn a_request_and_its_response_pass_with_their_fields() {
    let origin = Origin::scripted(|peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 201 Made\r\nX-Mixed-Case: Yes\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let port = free_port();
    let _proxy = Proxy::start(&one_service(port, &origin));
    let mut client = Client::connect(port);
    let response = client.request(
        "POST /a/b?c=d HTTP/1.1\r\nHost: Example.COM\r\nX-Custom: 1\r\nContent-Length: 3\r\n\
         Connection: keep-alive, x-hop\r\nX-Hop: gone\r\n\r\nabc",
    );
    assert_eq!(response.status, 201);
    assert_eq!(response.text(), "ok");
    assert!(response.head.contains("X-Mixed-Case: Yes"), "{}", response.head);
    let request = &origin.requests()[0];
    assert!(request.starts_with("POST /a/b?c=d HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("Host: Example.COM\r\n"), "{request}");
    assert!(request.contains("X-Custom: 1\r\n"), "{request}");
    assert!(!request.to_lowercase().contains("x-hop"), "{request}");
    assert!(request.to_lowercase().contains("x-forwarded-for: 127.0.0.1\r\n"), "{request}");
    assert!(request.to_lowercase().contains("x-request-id: "), "{request}");
    assert!(request.ends_with("\r\n\r\nabc"), "{request}");
}

#[test]
fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let origin = Origin::scripted(|peer| {
        while let Some(request) = peer.request() {
            let target = request.split(' ').nth(1).unwrap().to_owned();
            peer.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}",
                target.len()
            ));
        }
    });
    let port = free_port();
    let _proxy = Proxy::start(&one_service(port, &origin));
    let mut client = Client::connect(port);
    client.send(
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\
         \r\nxyzGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    for target in ["/1", "/2", "/3"] {
        assert_eq!(client.response().text(), target);
    }
    assert_eq!(origin.accepted(), 1, "one connection to the origin carried all three");
}

#[test]
fn chunked_bodies_and_trailers_pass_both_ways() {
    let origin = Origin::scripted(|peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n");
            peer.send("5\r\nhello\r\n");
            peer.send("6;ext=1\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n");
        }
    });
    let port = free_port();
    let _proxy = Proxy::start(&one_service(port, &origin));
    let mut client = Client::connect(port);
    let response = client.request(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Check: 1\r\n\r\n",
    );
    assert_eq!(response.text(), "hello world");
    assert_eq!(response.trailers, "X-Sum: 11\r\n");
    let request = &origin.requests()[0];
    assert!(request.ends_with("3\r\nabc\r\n0\r\nX-Check: 1\r\n\r\n"), "{request}");
}

#[test]
fn head_204_and_304_have_no_body_whatever_their_fields_say() {
    let origin = Origin::scripted(|peer| {
        while let Some(request) = peer.request() {
            peer.send(match request.split(' ').next() {
                Some("HEAD") => "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
                _ if request.contains("/204") => "HTTP/1.1 204 No Content\r\n\r\n",
                _ if request.contains("/304") => {
                    "HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n"
                }
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!",
            });
        }
    });
    let port = free_port();
    let _proxy = Proxy::start(&one_service(port, &origin));
    let mut client = Client::connect(port);
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head_response().field("content-length"), Some("1000"));
    assert_eq!(client.get("a", "/204").status, 204);
    assert_eq!(client.get("a", "/304").status, 304);
    assert_eq!(client.get("a", "/").text(), "!");
}

#[test]
fn expect_100_continue_goes_end_to_end() {
    let origin = Origin::scripted(|peer| {
        // The strictest order: the origin asks for the body only after it has read the head.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            std::io::Read::read_exact(&mut peer.stream, &mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(String::from_utf8(head).unwrap().contains("Expect: 100-continue"));
        peer.send("HTTP/1.1 100 Continue\r\n\r\n");
        let mut body = [0; 4];
        std::io::Read::read_exact(&mut peer.stream, &mut body).unwrap();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
        peer.send(body);
    });
    let port = free_port();
    let _proxy = Proxy::start(&one_service(port, &origin));
    let mut client = Client::connect(port);
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.response().status, 100);
    assert_eq!(client.request("body").text(), "body");
}

#[test]
fn an_early_answer_reaches_the_client_and_ends_the_connection() {
    let origin = Origin::scripted(|peer| {
        let mut portion = [0; 1024];
        std::io::Read::read(&mut peer.stream, &mut portion).unwrap();
        peer.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig");
    });
    let port = free_port();
    let _proxy = Proxy::start(&one_service(port, &origin));
    let mut client = Client::connect(port);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\nsome of it");
    let response = client.response();
    assert_eq!((response.status, response.text()), (413, "big"));
    assert_eq!(response.field("connection"), Some("close"));
    assert_eq!(client.rest(), b"");
}

#[test]
fn http_1_0_clients_get_what_they_understand() {
    let origin = Origin::scripted(|peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
        }
    });
    let port = free_port();
    let _proxy = Proxy::start(&one_service(port, &origin));
    let mut client = Client::connect(port);
    client.send("GET / HTTP/1.0\r\n\r\n");
    let answer = String::from_utf8(client.rest()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(!answer.to_lowercase().contains("transfer-encoding"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nhi"), "{answer}");
}

#[test]
fn an_upgrade_becomes_a_tunnel() {
    let origin = Origin::scripted(|peer| {
        let request = peer.request().unwrap();
        assert!(request.to_lowercase().contains("upgrade: echo"), "{request}");
        peer.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello",
        );
        let said = peer.until_closed();
        peer.send(said);
    });
    let port = free_port();
    let _proxy = Proxy::start(&one_service(port, &origin));
    let mut client = Client::connect(port);
    client.send(
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly ",
    );
    let response = client.response();
    assert_eq!(response.status, 101);
    assert_eq!(response.field("upgrade"), Some("echo"));
    client.send("and late").finish();
    assert_eq!(client.rest(), b"helloearly and late");
}

#[test]
fn connect_becomes_a_tunnel() {
    let origin = Origin::scripted(|peer| {
        let request = peer.request().unwrap();
        assert!(request.starts_with("CONNECT db.internal:5432 HTTP/1.1\r\n"), "{request}");
        peer.send("HTTP/1.1 200 OK\r\n\r\n");
        let said = peer.until_closed();
        peer.send(said);
    });
    let port = free_port();
    let config = one_service(port, &origin).replace("[{to", "[{match: {method: CONNECT}, to");
    let _proxy = Proxy::start(&config);
    let mut client = Client::connect(port);
    client.send("CONNECT db.internal:5432 HTTP/1.1\r\nHost: db.internal:5432\r\n\r\n");
    let head = client.exactly(b"HTTP/1.1 200 OK\r\n".len()).unwrap();
    assert_eq!(head, b"HTTP/1.1 200 OK\r\n");
    client.send("bytes").finish();
    assert!(client.rest().ends_with(b"\r\nbytes"));
}

#[test]
fn large_bodies_arrive_whole() {
    let body = "0123456789abcdef".repeat(4 * 65536);
    let expected = body.clone();
    let origin = Origin::scripted(move |peer| {
        while let Some(request) = peer.request() {
            let sent = request.split_once("\r\n\r\n").unwrap().1.len();
            peer.send(format!(
                "HTTP/1.1 200 OK\r\nX-Sent: {sent}\r\nContent-Length: {}\r\n\r\n",
                body.len()
            ));
            peer.send(&body);
        }
    });
    let port = free_port();
    let _proxy = Proxy::start(&one_service(port, &origin));
    let mut client = Client::connect(port);
    for _ in 0..3 {
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            expected.len()
        ));
        let response = client.request(&expected);
        assert_eq!(response.field("x-sent"), Some(expected.len().to_string().as_str()));
        assert!(response.text() == expected, "the body is the same");
    }
}

/// A body may end exactly when a splice lets other tasks run. The splice must not wait there for
/// more bytes: it would wait until the origin closes the connection.
#[test]
fn bodies_that_end_with_a_step_of_a_splice_leave_the_connection_ready() {
    const REQUESTS: usize = 150;
    const SIZE: usize = 1200 * 1024;
    let body = "x".repeat(SIZE);
    let origin = Origin::scripted(move |peer| {
        socket2::SockRef::from(&peer.stream).set_send_buffer_size(2 * SIZE).ok();
        let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n{body}");
        while peer.request().is_some() {
            peer.send(&whole);
        }
    });
    let port = free_port();
    let proxy = Proxy::start(&one_service(port, &origin));
    let mut client = Client::connect(port);
    // This timeout is shorter than the timeout of the origin, which would end such a wait.
    client.stream().set_read_timeout(Some(PATIENCE / 2)).unwrap();
    for number in 0..REQUESTS {
        assert_eq!(client.get("a", "/").body.len(), SIZE, "{number}");
    }
    assert_eq!(origin.accepted(), 1);
    assert_eq!(proxy.metric("ringway_response_flags_total"), 0.0);
}
