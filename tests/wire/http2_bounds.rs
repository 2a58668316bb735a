//! HTTP/2 messages and streams that exceed a bound. They end with an error, and do not affect other
//! streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::frames::{END_HEADERS, END_STREAM, Frames, block, code, kind, setting};
use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::peers::Server;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

/// A request with GET for `path`.
fn get(path: &str) -> [(&str, &str); 4] {
    [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)]
}

/// Trailers with a field that is larger than `limits.header_bytes` of [`before`].
fn large_trailers() -> Vec<u8> {
    block(&[("grpc-status", "0"), ("x-large", &"y".repeat(9000)), ("x-last", "1")])
}

/// A proxy with one worker in front of an HTTP/2 endpoint. Returns the proxy and its port.
fn before(endpoint: &str) -> (Proxy, u16) {
    let port = free_port();
    let config = format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes: {{\"*\": [{{match: {{path: /fixed}}, respond: {{body: fixed}}}}, {{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"{endpoint}\"], protocol: http2}}}}\n\
         limits: {{header_bytes: 8KiB}}\n"
    );
    (Proxy::start_with(&config, 1), port)
}

#[test]
fn trailers_that_are_too_large_reset_their_stream() {
    let origin = Origin::scripted(|peer| {
        let Some(mut frames) = Frames::accept(peer, &[]) else { return };
        while let Some((stream, _)) = frames.request() {
            frames.headers(stream, &[(":status", "200")], false);
            frames.data(stream, b"body", false);
            frames.send(kind::HEADERS, END_HEADERS | END_STREAM, stream, &large_trailers());
        }
    });
    let (proxy, port) = before(&origin.address());
    let mut client = Frames::connect(port);
    client.headers(1, &get("/"), true);
    let end = std::iter::from_fn(|| client.next())
        .find(|frame| frame.stream == 1 && (frame.kind == kind::RST_STREAM || frame.ends()))
        .expect("an end of the stream");
    assert_eq!(end.kind, kind::RST_STREAM, "it looks whole");
    let flag = "ringway_service_response_flags_total{service=\"app\",flag=\"UPE\"}";
    eventually("the flag", || (proxy.metric(flag) == 1.0).then_some(()));
    // The connection stays open.
    client.headers(3, &get("/fixed"), true);
    assert_eq!(client.next_of(kind::DATA).expect("an answer").payload, b"fixed");
    let mut client = Client::connect(port);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head().expect("a head");
    let body = client.rest();
    assert!(body.starts_with(b"4\r\nbody\r\n") && !body.ends_with(b"0\r\n\r\n"), "{body:?}");
}

#[test]
fn request_trailers_that_are_too_large_reset_their_stream() {
    let origin = Origin::scripted(|peer| {
        let Some(mut frames) = Frames::accept(peer, &[]) else { return };
        while let Some(frame) = frames.next() {
            assert!(!frame.ends(), "the request looks whole");
        }
    });
    let (_proxy, port) = before(&origin.address());
    let mut client = Frames::connect(port);
    client.headers(1, &[&[(":method", "POST")], &get("/")[1..]].concat(), false);
    client.data(1, b"body", false);
    client.send(kind::HEADERS, END_HEADERS | END_STREAM, 1, &large_trailers());
    let reset = client.next_of(kind::RST_STREAM).expect("a reset");
    assert_eq!((reset.stream, reset.payload), (1, code::INTERNAL_ERROR.to_be_bytes().to_vec()));
    client.headers(3, &get("/fixed"), true);
    assert_eq!(client.next_of(kind::DATA).expect("an answer").payload, b"fixed");
}

#[test]
fn a_body_that_is_too_long_costs_its_stream_alone() {
    let origin = Origin::scripted(|peer| drop(peer.until_closed()));
    let (_proxy, port) = before(&origin.address());
    let mut client = Frames::connect(port);
    let head = [&[(":method", "POST")], &get("/")[1..], &[("content-length", "4")]].concat();
    client.headers(1, &head, false);
    // All of these are on their way when the first one is too long.
    for _ in 0..5 {
        client.data(1, b"too long", false);
    }
    client.send(kind::HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("x-last", "1")]));
    client.headers(3, &get("/fixed"), true);
    let reset = client.next_of(kind::RST_STREAM).expect("a reset");
    assert_eq!((reset.stream, reset.payload), (1, code::PROTOCOL_ERROR.to_be_bytes().to_vec()));
    assert_eq!(client.next_of(kind::DATA).expect("an answer").payload, b"fixed");
}

#[test]
fn a_request_head_that_is_too_large_gets_431() {
    let origin = Origin::scripted(|peer| drop(peer.until_closed()));
    let (_proxy, port) = before(&origin.address());
    let mut client = Frames::connect(port);
    let large = "y".repeat(9000);
    client.headers(1, &[&get("/fixed")[..], &[("x-large", &large)]].concat(), true);
    let answer = client.next_of(kind::HEADERS).expect("an answer");
    // The value of `:status` is a literal that is not Huffman coded.
    assert!(answer.payload.windows(3).any(|part| part == b"431"), "{:?}", answer.payload);
    client.headers(3, &get("/fixed"), true);
    assert_eq!(client.next_of(kind::DATA).expect("an answer").stream, 1);
}

#[test]
fn streams_that_nobody_reads_stop_no_other_stream() {
    let files = [("large", "n".repeat(3_000_000)), ("page", "a page\n".to_owned())];
    let server = Server::nghttpd(&files, None);
    let (_proxy, port) = before(&format!("127.0.0.1:{}", server.port));
    let mut stalled = Frames::connect(port);
    stalled.settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
    let streams = 40;
    for number in 0..streams {
        stalled.headers(2 * number + 1, &get("/large"), true);
    }
    for _ in 0..streams {
        stalled.next_of(kind::HEADERS).expect("an answer");
    }
    // One worker has one connection to the endpoint. All its streams share a window.
    for _ in 0..20 {
        assert_eq!(Client::connect(port).get("a", "/page").text(), "a page\n");
    }
}

#[test]
fn an_upload_that_fills_the_first_window_continues_in_a_smaller_one() {
    let received = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&received);
    let origin = Origin::scripted(move |peer| {
        while let Some(bytes) = peer.portion() {
            count.fetch_add(bytes.len(), Ordering::SeqCst);
        }
    });
    let port = free_port();
    let config = format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}, http2: {{stream_window: 20KiB}}}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\nservices: {{app: {{endpoints: [\"{}\"]}}}}\n",
        origin.address()
    );
    let _proxy = Proxy::start_with(&config, 1);
    let mut client = Frames::connect(port);
    let post = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
    client.headers(1, &post, false);
    // The first window of a stream has 65 535 bytes, until the client knows the proxy's SETTINGS.
    for part in [16_384, 16_384, 16_384, 16_383] {
        client.data(1, &vec![b'x'; part], false);
    }
    eventually("the endpoint has it all", || {
        (received.load(Ordering::SeqCst) >= 65_535).then_some(())
    });
    // Now the client reads the SETTINGS and acknowledges them. Its window becomes negative.
    let mut window = 20_480 - 65_535;
    while window <= 0 {
        let update = client.next_of(kind::WINDOW_UPDATE).expect("the window opens again");
        if update.stream == 1 {
            window += i64::from(u32::from_be_bytes(update.payload[..4].try_into().unwrap()));
        }
    }
}
