//! HTTP/2 to endpoints, with an endpoint that sends each frame as the test's script says. Most test
//! names contain the tested section of RFC 9113.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::eventually;
use crate::support::frames::{ACK, END_HEADERS, END_STREAM, Frames, block, code, kind, setting};
use crate::support::free_port;
use crate::support::http::{Client, Response};
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;

/// An HTTP/2 endpoint. `serve` gets each connection and its number, from 0.
fn endpoint(
    settings: &'static [(u16, u32)],
    serve: impl Fn(&mut Frames, usize) + Send + Sync + 'static,
) -> Origin {
    let connections = AtomicUsize::new(0);
    Origin::scripted(move |peer| {
        let number = connections.fetch_add(1, Ordering::SeqCst);
        if let Some(mut frames) = Frames::accept(peer, settings) {
            serve(&mut frames, number);
        }
        peer.stream.shutdown(std::net::Shutdown::Both).ok();
    })
}

/// An endpoint that sends a part of a response to a request with a body, and then calls `then` with
/// the stream. It answers other requests completely.
fn breaks_off(then: impl Fn(&mut Frames, u32) + Send + Sync + 'static) -> Origin {
    endpoint(&[], move |frames, _| {
        while let Some((stream, body)) = frames.request() {
            if body.is_empty() {
                frames.respond(stream, "fine");
                continue;
            }
            frames.headers(stream, &[(":status", "200")], false);
            frames.data(stream, b"a part", false);
            then(frames, stream);
        }
    })
}

/// Answers all requests with `body`.
fn answer_all(frames: &mut Frames, body: &str) {
    while let Some((stream, _)) = frames.request() {
        frames.respond(stream, body);
    }
}

/// A proxy with one worker in front of `origin`. `more` are further settings of the service.
/// Returns the proxy and its port.
fn before(origin: &Origin, more: &str) -> (Proxy, u16) {
    let port = free_port();
    let proxy = Proxy::start_with(
        &format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
             services: {{app: {{endpoints: [\"{}\"], protocol: http2{more}}}}}\n",
            origin.address()
        ),
        1,
    );
    (proxy, port)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";

#[track_caller]
fn ask(port: u16, request: &str) -> Response {
    Client::connect(port).request(request)
}

#[track_caller]
fn flagged(proxy: &Proxy, flag: &str, times: f64) {
    let series = format!("ringway_service_response_flags_total{{service=\"app\",flag=\"{flag}\"}}");
    eventually(&format!("{times} of {flag}"), || (proxy.metric(&series) == times).then_some(()));
    assert_eq!(proxy.metric("ringway_worker_panics_total"), 0.0);
}

fn repeated(proxy: &Proxy) -> f64 {
    proxy.metric("ringway_service_requests_repeated_total")
}

#[test]
fn rfc9113_6_8_streams_beyond_the_last_of_goaway_go_elsewhere() {
    let origin = endpoint(&[], |frames, number| match number {
        0 => {
            frames.request();
            frames.go_away(0, code::NO_ERROR);
            frames.until_closed();
        }
        _ => answer_all(frames, "second"),
    });
    let (proxy, port) = before(&origin, "");
    // The endpoint did not process the request, so the proxy repeats even a POST.
    assert_eq!(ask(port, POST).text(), "second");
    assert_eq!((origin.accepted(), repeated(&proxy)), (2, 1.0));
}

#[test]
fn rfc9113_6_8_streams_up_to_the_last_of_goaway_are_finished() {
    let origin = endpoint(&[], |frames, number| match number {
        0 => {
            let Some((stream, _)) = frames.request() else { return };
            frames.go_away(stream, code::NO_ERROR);
            frames.respond(stream, "first");
            frames.until_closed();
        }
        _ => answer_all(frames, "second"),
    });
    let (proxy, port) = before(&origin, "");
    assert_eq!(ask(port, POST).text(), "first");
    assert_eq!(ask(port, POST).text(), "second");
    assert_eq!((origin.accepted(), repeated(&proxy)), (2, 0.0));
}

#[test]
fn rfc9113_6_8_what_may_have_been_processed_is_not_repeated() {
    let origin = endpoint(&[], |frames, _| {
        let Some((stream, _)) = frames.request() else { return };
        frames.go_away(stream, code::INTERNAL_ERROR);
    });
    let (proxy, port) = before(&origin, "");
    assert_eq!(ask(port, POST).status, 502);
    assert_eq!((origin.accepted(), repeated(&proxy)), (1, 0.0));
    flagged(&proxy, "UC", 1.0);
}

#[test]
fn rfc9113_8_7_a_refused_stream_is_sent_again() {
    let origin = endpoint(&[], |frames, _| {
        let Some((stream, _)) = frames.request() else { return };
        frames.reset(stream, code::REFUSED_STREAM);
        answer_all(frames, "again");
    });
    let (proxy, port) = before(&origin, "");
    assert_eq!(ask(port, POST).text(), "again");
    assert_eq!(repeated(&proxy), 1.0);
}

#[test]
fn rfc9113_8_7_streams_refused_for_ever_are_given_up() {
    let origin = endpoint(&[], |frames, _| {
        while let Some((stream, _)) = frames.request() {
            frames.reset(stream, code::REFUSED_STREAM);
        }
    });
    let (proxy, port) = before(&origin, "");
    assert_eq!(ask(port, POST).status, 503);
    assert_eq!(repeated(&proxy), 2.0);
    flagged(&proxy, "UC", 1.0);
}

#[test]
fn rfc9113_5_4_2_a_reset_instead_of_an_answer_is_502() {
    let origin = endpoint(&[], |frames, _| {
        while let Some((stream, body)) = frames.request() {
            match body.is_empty() {
                true => frames.respond(stream, "fine"),
                false => frames.reset(stream, code::INTERNAL_ERROR),
            }
        }
    });
    let (proxy, port) = before(&origin, "");
    assert_eq!(ask(port, POST).status, 502);
    assert_eq!(ask(port, GET).text(), "fine");
    assert_eq!((origin.accepted(), repeated(&proxy)), (1, 0.0));
    flagged(&proxy, "UC", 1.0);
}

#[test]
fn rfc9113_5_4_2_a_body_that_is_reset_is_not_taken_for_whole() {
    let origin = breaks_off(|frames, stream| frames.reset(stream, code::CANCEL));
    let (proxy, port) = before(&origin, "");
    let cut = Client::connect(port).send(POST).try_response(false);
    assert!(cut.is_err(), "{cut:?}");
    assert_eq!(ask(port, GET).text(), "fine");
    assert_eq!(origin.accepted(), 1);
    flagged(&proxy, "UC", 1.0);
}

#[test]
fn rfc9113_5_4_1_a_connection_that_is_cut_in_a_body_leaves_no_whole_answer() {
    let origin = endpoint(&[], |frames, number| match number {
        0 => {
            let Some((stream, _)) = frames.request() else { return };
            frames.headers(stream, &[(":status", "200")], false);
            frames.data(stream, b"a part", false);
        }
        _ => answer_all(frames, "fine"),
    });
    let (proxy, port) = before(&origin, "");
    let cut = Client::connect(port).send(GET).try_response(false);
    assert!(cut.is_err(), "{cut:?}");
    assert_eq!(ask(port, GET).text(), "fine");
    flagged(&proxy, "UC", 1.0);
}

/// Whether `answer` shows that the response was not complete: it is cut off, or the proxy sent 502
/// instead.
fn is_refused(answer: &Result<Response, Vec<u8>>) -> bool {
    answer.as_ref().map_or(true, |response| response.status == 502)
}

#[test]
fn rfc9113_8_1_1_data_beyond_or_short_of_content_length_is_no_whole_answer() {
    for (length, data) in [("0", "12345"), ("3", "12345"), ("7", "12345")] {
        let origin = endpoint(&[], move |frames, _| {
            while let Some((stream, body)) = frames.request() {
                if body.is_empty() {
                    frames.respond(stream, "fine");
                    continue;
                }
                let fields = [(":status", "200"), ("content-length", length)];
                frames.headers(stream, &fields, false);
                frames.data(stream, data.as_bytes(), true);
            }
        });
        let (proxy, port) = before(&origin, "");
        let answer = Client::connect(port).send(POST).try_response(false);
        assert!(is_refused(&answer), "{length}: {answer:?}");
        assert_eq!(ask(port, GET).text(), "fine");
        assert_eq!(origin.accepted(), 1, "only the stream was at fault");
        flagged(&proxy, "UPE", 1.0);
    }
}

#[test]
fn rfc9113_6_a_breach_in_the_middle_of_a_body_is_told_from_a_connection_that_ends() {
    let long = vec![0; 16_385];
    let trailer = block(&[("transfer-encoding", "chunked")]);
    for (kind, flags, payload) in [
        (kind::DATA, 0, &long[..]),
        (kind::WINDOW_UPDATE, 0, b"\0\0\0\0"),
        (kind::HEADERS, END_HEADERS | END_STREAM, &trailer),
        (kind::HEADERS, END_HEADERS, b"\xff\xff\xff\xff\xff\xff\xff"),
    ] {
        let (shown, payload) = (payload.len(), payload.to_vec());
        let origin = breaks_off(move |frames, stream| frames.send(kind, flags, stream, &payload));
        let (proxy, port) = before(&origin, "");
        let cut = Client::connect(port).send(POST).try_response(false);
        assert!(is_refused(&cut), "{kind}, {shown} bytes: {cut:?}");
        assert_eq!(ask(port, GET).text(), "fine");
        flagged(&proxy, "UPE", 1.0);
    }
}

#[test]
fn rfc9113_8_1_an_answer_that_ends_with_its_head_is_whole_in_http1() {
    let origin = endpoint(&[], |frames, _| {
        while let Some((stream, body)) = frames.request() {
            let status = if body.is_empty() { "204" } else { "302" };
            frames.headers(stream, &[(":status", status), ("location", "/there")], true);
        }
    });
    let (_proxy, port) = before(&origin, "");
    let mut client = Client::connect(port);
    for _ in 0..2 {
        let answer = client.request(POST);
        assert_eq!((answer.status, answer.field("content-length")), (302, Some("0")));
        let none = client.request(GET);
        assert_eq!((none.status, none.field("content-length")), (204, None));
    }
    let head = client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").head_response();
    assert_eq!((head.status, head.field("content-length")), (204, None));
    let old = Client::connect(port).request(POST.replace("1.1", "1.0"));
    assert_eq!((old.status, old.field("content-length")), (302, Some("0")));
}

/// A head with one more field than `limits.headers` allows.
const TOO_MANY: [(&str, &str); 102] = {
    let mut fields = [("x-a", "1"); 102];
    fields[0] = (":status", "200");
    fields
};

#[test]
fn rfc9113_8_3_2_and_8_2_heads_that_are_none_or_too_many_fields_are_502() {
    for fields in [
        &[("x-no", "status")][..],
        &[(":status", "200"), (":status", "200")],
        &[(":status", "2000")],
        &[(":status", "abc")],
        &[(":status", "101")],
        &[("x-before", "1"), (":status", "200")],
        &[(":status", "200"), ("X-Upper", "1")],
        &[(":status", "200"), ("x y", "1")],
        &[(":status", "200"), ("x:y", "1")],
        &[(":status", "200"), ("x-a", "1\r\nx-b: 2")],
        &[(":status", "200"), ("x-a", "1\0")],
        &[(":status", "200"), ("connection", "close")],
        &[(":status", "200"), ("transfer-encoding", "chunked")],
        &[(":status", "200"), ("content-length", "1"), ("content-length", "2")],
        &[(":status", "200"), ("content-length", "+1")],
        &TOO_MANY,
    ] {
        let origin = endpoint(&[], move |frames, _| {
            while let Some((stream, body)) = frames.request() {
                match body.is_empty() {
                    true => frames.respond(stream, "fine"),
                    false => {
                        frames.headers(stream, fields, false);
                        frames.data(stream, b"1", true);
                    }
                }
            }
        });
        let (proxy, port) = before(&origin, "");
        assert_eq!(ask(port, POST).status, 502, "{fields:?}");
        assert_eq!(ask(port, GET).text(), "fine", "{fields:?}");
        flagged(&proxy, "UPE", 1.0);
    }
}

#[test]
fn rfc9113_4_2_and_6_frames_that_are_forbidden_end_their_connection_alone() {
    let long = vec![0; 16_385];
    for (kind, flags, stream, payload) in [
        (kind::DATA, 0, 0, &b"x"[..]),
        (kind::HEADERS, END_HEADERS, 2, &block(&[(":status", "200")])),
        (kind::HEADERS, END_HEADERS, 1, &b"\xff\xff\xff\xff\xff\xff\xff"[..]),
        (kind::DATA, 0, 1, &long),
        (kind::SETTINGS, 0, 0, b"12345"),
        (kind::SETTINGS, 0, 1, b""),
        (kind::SETTINGS, ACK, 0, b"123456"),
        (kind::PING, 0, 0, b"1234567"),
        (kind::RST_STREAM, 0, 0, b"\0\0\0\0"),
        (kind::RST_STREAM, 0, 7, b"\0\0\0\0"),
        (kind::WINDOW_UPDATE, 0, 0, b"\0\0\0\0"),
        (kind::WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"),
        (kind::GOAWAY, 0, 1, b"\0\0\0\0\0\0\0\0"),
    ] {
        let payload = payload.to_vec();
        let (shown, what) = (payload.len(), (kind, flags, stream));
        let origin = endpoint(&[], move |frames, number| {
            if number == 0 {
                frames.request();
                frames.send(kind, flags, stream, &payload);
                return frames.until_closed();
            }
            answer_all(frames, "fine");
        });
        let (proxy, port) = before(&origin, "");
        assert_eq!(ask(port, POST).status, 502, "{what:?}, {shown} bytes");
        assert_eq!(ask(port, GET).text(), "fine", "{what:?}, {shown} bytes");
        flagged(&proxy, "UPE", 1.0);
    }
}

#[test]
fn rfc9113_5_5_frames_and_settings_that_nobody_knows_are_passed_over() {
    let origin = endpoint(&[(0xfe, 7)], |frames, _| {
        while let Some((stream, _)) = frames.request() {
            frames.send(0xbe, 0xff, stream, b"who knows");
            frames.send(0xbe, 0xff, 0, b"");
            frames.respond(stream, "fine");
        }
    });
    let (_proxy, port) = before(&origin, "");
    assert_eq!(ask(port, POST).text(), "fine");
}

#[test]
fn rfc9113_5_1_2_beyond_the_streams_that_the_endpoint_allows_a_connection_is_opened() {
    for (allowed, connections) in [(&[(setting::MAX_CONCURRENT_STREAMS, 1)][..], 2), (&[][..], 1)] {
        let came = AtomicUsize::new(0);
        let origin = endpoint(allowed, move |frames, _| {
            let mut waiting = Vec::new();
            while let Some((stream, body)) = frames.request() {
                if body.is_empty() {
                    frames.respond(stream, "now it knows");
                    continue;
                }
                waiting.push(stream);
                came.fetch_add(1, Ordering::SeqCst);
                if connections == 1 && waiting.len() < 2 {
                    continue;
                }
                let all = || (came.load(Ordering::SeqCst) == 2).then_some(());
                eventually("both requests", all);
                waiting.drain(..).for_each(|stream| frames.respond(stream, "together"));
            }
        });
        let (_proxy, port) = before(&origin, "");
        assert_eq!(ask(port, GET).text(), "now it knows");
        let asking = [0, 1].map(|_| std::thread::spawn(move || ask(port, POST)));
        for answer in asking {
            assert_eq!(answer.join().unwrap().text(), "together");
        }
        assert_eq!(origin.accepted(), connections);
    }
}

#[test]
fn rfc9113_6_5_3_streams_that_the_endpoint_no_longer_allows_open_a_connection() {
    let second = AtomicUsize::new(0);
    let origin = endpoint(&[], move |frames, number| {
        if number > 0 {
            second.fetch_add(1, Ordering::SeqCst);
            return answer_all(frames, "elsewhere");
        }
        let Some((stream, _)) = frames.request() else { return };
        frames.respond(stream, "allowed");
        let Some((stream, _)) = frames.request() else { return };
        frames.settings(&[(setting::MAX_CONCURRENT_STREAMS, 1)]);
        // The proxy has applied the setting when the client gets this response.
        frames.headers(stream, &[(":status", "200")], false);
        frames.data(stream, b"begun ", false);
        eventually("another connection", || (second.load(Ordering::SeqCst) > 0).then_some(()));
        frames.data(stream, b"and ended", true);
        frames.until_closed();
    });
    let (_proxy, port) = before(&origin, "");
    assert_eq!(ask(port, GET).text(), "allowed");
    let mut client = Client::connect(port);
    client.send(POST);
    let begun = client.exactly(17).unwrap();
    assert_eq!(begun, b"HTTP/1.1 200 OK\r\n");
    assert_eq!(ask(port, GET).text(), "elsewhere");
    let rest = String::from_utf8(client.send("").exactly(60).unwrap_or_else(|rest| rest)).unwrap();
    assert!(rest.contains("begun "), "{rest}");
}

#[test]
fn rfc9113_8_4_push_is_switched_off_and_refused() {
    let origin = endpoint(&[], |frames, number| {
        if number > 0 {
            return answer_all(frames, "fine");
        }
        let settings = frames.next_of(kind::SETTINGS).unwrap();
        assert_eq!(settings.setting(setting::ENABLE_PUSH), Some(0));
        let Some((stream, _)) = frames.request() else { return };
        let fields =
            [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/x")];
        let payload = [&2u32.to_be_bytes()[..], &block(&fields)].concat();
        frames.send(kind::PUSH_PROMISE, END_HEADERS, stream, &payload);
        frames.until_closed();
    });
    let (proxy, port) = before(&origin, "");
    assert_eq!(ask(port, POST).status, 502);
    flagged(&proxy, "UPE", 1.0);
    assert_eq!(ask(port, GET).text(), "fine");
}

#[test]
fn rfc9113_6_7_ping_is_answered() {
    let origin = endpoint(&[], |frames, _| {
        while let Some((stream, _)) = frames.request() {
            frames.send(kind::PING, 0, 0, b"12345678");
            let pong = frames.next_of(kind::PING).unwrap();
            assert_eq!((pong.flags, &pong.payload[..]), (ACK, &b"12345678"[..]));
            frames.respond(stream, "fine");
        }
    });
    let (_proxy, port) = before(&origin, "");
    assert_eq!(ask(port, POST).text(), "fine");
}

#[test]
fn rfc9113_6_7_an_endpoint_that_answers_ping_may_take_its_time() {
    let origin = endpoint(&[], |frames, _| {
        while let Some((stream, _)) = frames.request() {
            for _ in 0..3 {
                frames.next_of(kind::PING).unwrap();
            }
            frames.respond(stream, "at last");
        }
    });
    let (_proxy, port) = before(&origin, ", http2: {ping_interval: 30ms, ping_timeout: 10s}");
    assert_eq!(ask(port, POST).text(), "at last");
}

#[test]
fn rfc9113_6_7_an_endpoint_that_does_not_answer_ping_is_given_up() {
    let origin = endpoint(&[], |frames, number| {
        if number > 0 {
            return answer_all(frames, "fine");
        }
        frames.answers_ping = false;
        frames.until_closed();
    });
    let (proxy, port) = before(&origin, ", http2: {ping_interval: 30ms, ping_timeout: 500ms}");
    assert_eq!(ask(port, POST).status, 502);
    flagged(&proxy, "UC", 1.0);
    assert_eq!(ask(port, GET).text(), "fine");
}

#[test]
fn rfc9113_9_1_an_old_connection_is_left_and_its_streams_go_on() {
    let newer = AtomicUsize::new(0);
    let origin = endpoint(&[], move |frames, number| {
        newer.fetch_max(number, Ordering::SeqCst);
        while let Some((stream, body)) = frames.request() {
            if !body.is_empty() {
                let another = || (newer.load(Ordering::SeqCst) > 0).then_some(());
                eventually("another connection", another);
            }
            frames.respond(stream, "fine");
        }
    });
    let (proxy, port) = before(&origin, ", http2: {max_connection_age: 50ms}");
    let waiting = std::thread::spawn(move || ask(port, POST));
    // The endpoint reads one request after the other on the old connection. These requests wait
    // there until the connection closes.
    eventually("the second connection", || {
        let asking = std::thread::spawn(move || ask(port, GET));
        (origin.accepted() > 1 && asking.join().unwrap().text() == "fine").then_some(())
    });
    assert_eq!(waiting.join().unwrap().text(), "fine");
    assert_eq!(repeated(&proxy), 0.0);
}

#[test]
fn rfc9113_9_1_a_connection_without_streams_is_left_in_the_end() {
    let origin = endpoint(&[], |frames, _| answer_all(frames, "fine"));
    let (proxy, port) = before(&origin, ", idle_timeout: 50ms");
    assert_eq!(ask(port, GET).text(), "fine");
    let series = "ringway_endpoint_connections_active";
    eventually("its end", || (proxy.metric(series) == 0.0).then_some(()));
    assert_eq!(ask(port, GET).text(), "fine");
    assert_eq!(origin.accepted(), 2);
}

#[test]
fn rfc9113_5_2_a_stream_without_window_holds_up_no_other() {
    let closed = &[(setting::INITIAL_WINDOW_SIZE, 0)];
    let origin = endpoint(closed, |frames, _| {
        let (known, _) = frames.request().unwrap();
        frames.respond(known, "now it knows");
        let first = frames.next_of(kind::HEADERS).unwrap();
        // The second request has no body.
        let (second, _) = frames.request().unwrap();
        frames.respond(second, "quick");
        frames.send(kind::WINDOW_UPDATE, 0, first.stream, &4u32.to_be_bytes());
        let data = frames.next_of(kind::DATA).unwrap();
        assert_eq!((data.stream, &data.payload[..]), (first.stream, &b"body"[..]));
        frames.respond(first.stream, "slow");
        frames.until_closed();
    });
    let (proxy, port) = before(&origin, "");
    assert_eq!(ask(port, GET).text(), "now it knows");
    let slow = std::thread::spawn(move || ask(port, POST));
    let series = "ringway_endpoint_requests_total";
    eventually("the slow request", || (proxy.metric(series) == 2.0).then_some(()));
    assert_eq!(ask(port, GET).text(), "quick");
    assert_eq!(slow.join().unwrap().text(), "slow");
    assert_eq!(origin.accepted(), 1);
}

/// Sends HEADERS and as many CONTINUATION frames as a long head needs.
fn send_long(frames: &mut Frames, stream: u32, head: &[u8], flags: u8) {
    let parts: Vec<&[u8]> = head.chunks(16_000).collect();
    for (number, part) in parts.iter().enumerate() {
        let kind = if number == 0 { kind::HEADERS } else { kind::CONTINUATION };
        let last = if number + 1 == parts.len() { END_HEADERS } else { 0 };
        let flags = if number == 0 { flags } else { 0 };
        frames.send(kind, flags | last, stream, part);
    }
}

#[test]
fn rfc9113_6_10_heads_longer_than_a_buffer_pass_both_ways_and_in_any_buffer() {
    const STREAMS: u32 = 8;
    for length in [20_000, 30_700, 45_000] {
        let long = "y".repeat(length);
        let answer = [block(&[(":status", "200"), ("x-long", &long)])].concat();
        // All requests arrive before the first answer, so each answer is in its own buffer.
        let origin = endpoint(&[], move |frames, _| {
            let asked: Vec<u32> = (0..STREAMS).map_while(|_| Some(frames.request()?.0)).collect();
            for stream in asked {
                send_long(frames, stream, &answer, END_STREAM);
            }
            frames.until_closed();
        });
        let (proxy, port) = before(&origin, "");
        let mut client = Frames::connect(port);
        let fields =
            [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/a")];
        let head = block(&[&fields[..], &[("x-long", &long)]].concat());
        for number in 0..STREAMS {
            send_long(&mut client, 2 * number + 1, &head, END_STREAM);
        }
        for _ in 0..STREAMS {
            let answer = client.next_of(kind::HEADERS).unwrap();
            assert_eq!(answer.payload[0], 0x88, "{length}: 200, as the static table says it");
        }
        assert_eq!(proxy.metric("ringway_worker_panics_total"), 0.0);
    }
}
