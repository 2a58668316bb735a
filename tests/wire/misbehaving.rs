//! Clients and origins that violate the protocol get one clear answer. Other clients are not
//! affected.

use std::time::Duration;

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

fn config(port: u16, address: &str) -> String {
    format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}, \
         timeouts: {{header: 1s, request_body: 1s, stream_idle: 1s}}}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"{address}\"], connect_timeout: 1s}}}}\n"
    )
}

#[test]
fn ambiguous_requests_are_refused_and_never_reach_the_origin() {
    let origin = Origin::saying("reached");
    let port = free_port();
    let _proxy = Proxy::start(&config(port, &origin.address()));
    let tail = "\r\n\r\n5\r\nGPOST\r\n0\r\n\r\n";
    for (what, request, status) in [
        (
            "CL and TE",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
            400,
        ),
        ("two CLs", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4", 400),
        (
            "two equal CLs",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3",
            400,
        ),
        ("signed CL", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3", 400),
        ("list in CL", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3", 400),
        ("obs-fold", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z", 400),
        ("bare LF", "GET / HTTP/1.1\nHost: a", 400),
        ("bare CR", "GET / HTTP/1.1\r\nHost: a\r\nX: y\rz", 400),
        ("space before colon", "GET / HTTP/1.1\r\nHost : a", 400),
        ("NUL", "GET / HTTP/1.1\r\nHost: a\r\nX: \0", 400),
        ("no Host", "GET / HTTP/1.1\r\nX: y", 400),
        ("empty Host", "GET / HTTP/1.1\r\nHost:", 400),
        ("lower-case method", "delete / HTTP/1.1\r\nHost: a", 400),
        ("unknown coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked", 501),
        ("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a", 400),
        ("absolute form against Host", "GET http://b/ HTTP/1.1\r\nHost: a", 400),
        ("HTTP/1.2 coding", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked", 400),
    ] {
        let mut client = Client::connect(port);
        client.send(request).send(tail);
        let response = client.try_response(false).unwrap_or_else(|got| panic!("{what}: {got:?}"));
        assert_eq!(response.status, status, "{what}");
        assert_eq!(client.rest(), b"", "{what}: nothing after the refusal");
    }
    assert_eq!(origin.requests(), [""; 0]);
}

#[test]
fn bad_chunks_are_refused() {
    let origin = Origin::scripted(|peer| {
        peer.until_closed();
    });
    let port = free_port();
    let _proxy = Proxy::start(&config(port, &origin.address()));
    for chunks in [
        "x\r\n",
        "-1\r\n",
        "0x3\r\nabc\r\n",
        "11111111111111111\r\n",
        "3 \r\nabc",
        "3\nabc",
        "3\r\nabcd\r\n",
        "0\r\nContent-Length: 3\r\n\r\n",
    ] {
        let mut client = Client::connect(port);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(chunks);
        let response =
            client.try_response(false).unwrap_or_else(|got| panic!("{chunks:?}: {got:?}"));
        assert_eq!(response.status, 400, "{chunks:?}");
    }
}

#[test]
fn limits_have_their_status() {
    let origin = Origin::saying("x");
    let port = free_port();
    let _proxy = Proxy::start(&config(port, &origin.address()));
    let long = "x".repeat(70_000);
    let many: String = (0..200).map(|i| format!("X-{i}: y\r\n")).collect();
    for (what, request, status) in [
        ("header bytes", format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}"), 431),
        ("header count", format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        ("target", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", &long[..9000]), 414),
        ("garbage", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned(), 400),
        ("expectation", "GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n".to_owned(), 417),
    ] {
        let mut client = Client::connect(port);
        client.send(request);
        let response = client.try_response(false).unwrap_or_else(|got| panic!("{what}: {got:?}"));
        assert_eq!(response.status, status, "{what}");
    }
    // A head that is larger than one buffer but within the limit is accepted.
    let mut client = Client::connect(port);
    let response =
        client.request(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", &long[..50_000]));
    assert_eq!(response.status, 200);
}

#[test]
fn origins_that_break_the_rules_give_502_and_their_bytes_reach_no_one() {
    for (what, answer) in [
        ("garbage", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        ("two CLs", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
        ("CL and TE", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
        ("fold", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
        (
            "101 unasked",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        ),
        ("status", "HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n"),
        ("half a head", "HTTP/1.1 200 OK\r\nContent-Le"),
        ("nothing", ""),
    ] {
        let origin = Origin::scripted(move |peer| {
            peer.request();
            peer.send(answer);
        });
        let port = free_port();
        let _proxy = Proxy::start(&config(port, &origin.address()));
        let mut client = Client::connect(port);
        let response = client.get("a", "/");
        assert_eq!(response.status, 502, "{what}: {}", response.head);
        assert_eq!(client.get("a", "/").status, 502, "{what}: the connection goes on");
    }
}

#[test]
fn what_an_origin_sends_unasked_is_never_the_next_answer() {
    let origin = Origin::scripted(|peer| {
        peer.request();
        peer.send(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\
             HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong",
        );
        peer.until_closed();
    });
    let port = free_port();
    let _proxy = Proxy::start_with(&config(port, &origin.address()), 1);
    let mut client = Client::connect(port);
    for _ in 0..10 {
        assert_eq!(client.get("a", "/").text(), "ok");
    }
    assert_eq!(origin.accepted(), 10, "no connection was used twice");
}

#[test]
fn a_truncated_response_never_looks_whole() {
    for (what, answer) in [
        ("length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
        ("chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        ("bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n"),
    ] {
        let origin = Origin::scripted(move |peer| {
            peer.request();
            peer.send(answer);
        });
        let port = free_port();
        let _proxy = Proxy::start(&config(port, &origin.address()));
        let mut client = Client::connect(port);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(client.try_response(false).is_err(), "{what}");
    }
}

#[test]
fn nobody_there_is_503_with_its_flag() {
    let port = free_port();
    let nowhere = format!("127.0.0.1:{}", free_port());
    let proxy = Proxy::start(&config(port, &nowhere));
    let mut client = Client::connect(port);
    assert_eq!(client.get("a", "/").status, 503);
    eventually("the flag to be counted", || {
        let series = "ringway_service_response_flags_total{service=\"app\",flag=\"UF\"}";
        (proxy.metric(series) == 1.0).then_some(())
    });
}

#[test]
fn slow_clients_cost_no_one_else_anything() {
    let origin = Origin::saying("x");
    let port = free_port();
    let proxy = Proxy::start_with(&config(port, &origin.address()), 1);
    let mut slow: Vec<_> = (0..200).map(|_| Client::connect(port)).collect();
    for client in &mut slow {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n");
    }
    let mut quick = Client::connect(port);
    for _ in 0..100 {
        assert_eq!(quick.get("a", "/").text(), "x");
    }
    for client in &mut slow {
        assert_eq!(client.response().status, 408);
    }
    drop(slow);
    drop(quick);
    eventually("every connection to be closed", || {
        (proxy.metric("ringway_listener_connections_active") == 0.0).then_some(())
    });
    eventually("every buffer to be back", || {
        (proxy.metric("ringway_worker_buffers_used") == 0.0).then_some(())
    });
}

#[test]
fn resets_at_any_point_leak_nothing() {
    let origin = Origin::scripted(|peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
            peer.send([b'x'; 100_000]);
        }
    });
    let port = free_port();
    let proxy = Proxy::start(&config(port, &origin.address()));
    let request = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    for cut in 0..=request.len() {
        let mut client = Client::connect(port);
        client.send(&request[..cut]);
        socket2::SockRef::from(client.stream()).set_linger(Some(Duration::ZERO)).unwrap();
    }
    eventually("every connection to be closed", || {
        (proxy.metric("ringway_listener_connections_active") == 0.0).then_some(())
    });
    assert_eq!(Client::connect(port).get("a", "/").status, 200);
    assert_eq!(proxy.metric("ringway_worker_panics_total"), 0.0);
}
