//! The time limits on silence, in virtual time: their defaults, their places in the configuration,
//! and the words of the access log.
#![cfg(feature = "uring")]

use std::rc::Rc;
use std::time::Duration;

use ringway::compile::registry::Registry;
use ringway::runtime::io::{Io, Stream};
use ringway::runtime::sim::{SimIo, SimStream, Simulation, Weather};

use crate::http2_format::{self, flag, frame, kind};
use crate::sim::one::{address, commit, connect, hear_or_end, lines, logging_worker, send};

/// More virtual time than any case takes.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

const NO_BYTE: &str = "no byte passed in either direction for stream_idle_timeout";
const PAUSED: &str = "the client stopped sending the request body for too long";
const ENDED: &str = "the timeout of the request passed before its response was complete";
const UNANSWERED: &str = "the endpoint did not answer within the timeout";
const UNREAD: &str = "the client read nothing of the response for stream_idle_timeout";

/// Further keys of the listener, of the service, and of the rule.
type Keys<'a> = [&'a str; 3];

fn configuration([listener, service, rule]: Keys<'_>) -> String {
    format!(
        "listeners: {{web: {{bind: '10.0.0.1:80'{listener}}}}}\n\
         routes: {{'*': [{{to: app{rule}}}]}}\n\
         services: {{app: {{endpoints: ['10.0.1.1:80']{service}}}}}\n\
         telemetry: {{access_log: {{filter: all}}}}\n"
    )
}

/// Reads until `end`.
async fn until(io: &SimIo, stream: &SimStream, end: &[u8]) -> bool {
    let mut heard = Vec::new();
    while !heard.ends_with(end) {
        let Some(part) = hear_or_end(io, stream).await else { return false };
        heard.extend(part);
    }
    true
}

/// Sends `bytes`. The peer may have closed the connection.
async fn try_send(io: &SimIo, stream: &SimStream, bytes: &[u8]) {
    for part in bytes.chunks(8192) {
        let mut buf = io.buffers().take();
        buf.append(part);
        stream.write_all(buf).await.0.ok();
    }
}

/// An endpoint that reads a request until `end`, sends `first`, is silent for `silence`, and sends
/// `last`.
fn endpoint(io: &SimIo, end: &'static [u8], first: Vec<u8>, silence: Duration, last: Vec<u8>) {
    let (listener, io) = (io.listen(&address("10.0.1.1:80")), io.clone());
    io.clone().spawn(async move {
        let stream = listener.accept().await;
        if !until(&io, &stream, end).await {
            return;
        }
        if !first.is_empty() {
            try_send(&io, &stream, &first).await;
        }
        io.sleep(silence).await;
        try_send(&io, &stream, &last).await;
        while hear_or_end(&io, &stream).await.is_some() {}
    });
}

/// The status, the flag and the detail in the access log, the gRPC status, and the seconds that the
/// exchange took.
#[derive(Debug, PartialEq)]
struct Told {
    status: u64,
    flag: String,
    detail: String,
    code: Option<u64>,
    took_s: u64,
}

fn told(line: &serde_json::Value) -> Told {
    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    Told {
        status: line["status"].as_u64().unwrap(),
        flag: text("response_flags"),
        detail: text("detail"),
        code: line["grpc_status"].as_u64(),
        took_s: line["duration_us"].as_u64().unwrap() / 1_000_000,
    }
}

/// Sends `request`, and `rest` of it after `pause`. Returns the line of the access log. Reads the
/// response only if `reads`.
fn exchange(
    configuration: &str,
    (request, pause, rest): (&'static [u8], Duration, &'static [u8]),
    reads: bool,
    start: impl FnOnce(&SimIo),
) -> Told {
    let simulation = Simulation::new(1);
    let (worker, written) = logging_worker(simulation.io(), 1);
    let client = simulation.io();
    commit(&worker, &mut Registry::new(1), 1, configuration);
    start(&client);
    let found: Rc<std::cell::RefCell<Option<Told>>> = Rc::default();
    let keep = Rc::clone(&found);
    let main = async move {
        let stream = Rc::new(connect(&client, &worker, "web", None).await);
        if reads {
            let (io, stream) = (client.clone(), Rc::clone(&stream));
            client.spawn(async move { while hear_or_end(&io, &stream).await.is_some() {} });
        }
        send(&client, &stream, request).await;
        if !rest.is_empty() {
            client.sleep(pause).await;
            try_send(&client, &stream, rest).await;
        }
        let line = loop {
            if let Some(line) = lines(&worker, &written).first() {
                break told(line);
            }
            client.sleep(Duration::from_secs(1)).await;
        };
        keep.replace(Some(line));
    };
    assert_eq!(simulation.run(LIMIT, main), Ok(()), "{configuration}");
    found.take().unwrap()
}

/// A long exchange without a request body: the endpoint is silent for `silence_s` after `first`.
fn response(keys: Keys<'_>, first: &str, silence_s: u64, last: &str) -> Told {
    let request = (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], Duration::ZERO, &b""[..]);
    let (first, last) = (first.as_bytes().to_vec(), last.as_bytes().to_vec());
    exchange(&configuration(keys), request, true, |io| {
        endpoint(io, b"\r\n\r\n", first, Duration::from_secs(silence_s), last);
    })
}

fn end(status: u64, flag: &str, detail: &str, code: Option<u64>, took_s: u64) -> Told {
    Told { status, flag: flag.to_owned(), detail: detail.to_owned(), code, took_s }
}

#[test]
fn a_silent_response_ends_after_five_minutes_or_the_nearest_limit() {
    let none = ", stream_idle_timeout: none";
    let hour = 3600;
    for (keys, silence_s, took) in [
        (["", "", ""], 299, Ok(299)),
        (["", "", ""], hour, Err(300)),
        ([", timeouts: {stream_idle: 10s}", "", ""], hour, Err(10)),
        ([", timeouts: {stream_idle: none}", "", ""], hour, Ok(hour)),
        ([", timeouts: {stream_idle: 10s}", none, ""], hour, Ok(hour)),
        (["", ", stream_idle_timeout: 20s", ""], hour, Err(20)),
        (["", ", stream_idle_timeout: 20s", none], hour, Ok(hour)),
        (["", none, ", stream_idle_timeout: 30s"], hour, Err(30)),
    ] {
        let (answer, part) = (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
        );
        let cut = |status, took| end(status, "SI", NO_BYTE, None, took);
        let whole = |took| end(200, "-", "", None, took);
        let of_head = took.map_or_else(|took| cut(504, took), whole);
        assert_eq!(response(keys, "", silence_s, answer), of_head, "{keys:?} before the head");
        let of_body = took.map_or_else(|took| cut(200, took), whole);
        assert_eq!(response(keys, part, silence_s, "0\r\n\r\n"), of_body, "{keys:?} in the body");
    }
}

#[test]
fn a_timeout_that_is_shorter_says_its_own_name() {
    let keys = ["", ", timeout: 20s", ""];
    let part = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n";
    assert_eq!(response(keys, "", 60, ""), end(504, "UT", UNANSWERED, None, 20));
    assert_eq!(response(keys, part, 60, ""), end(200, "UT", ENDED, None, 20));
}

/// A gRPC message (Length-Prefixed-Message) with one byte of data.
const fn message(byte: u8) -> [u8; 6] {
    [0, 0, 0, 0, 1, byte]
}

/// A call by HTTP/1.1, so that a test can write it. It has one message, which ends with `q`.
const CALL: &[u8] = b"POST /a.B/C HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\
    Content-Type: application/grpc\r\nContent-Length: 6\r\n\r\n\0\0\0\0\x01q";

const GRPC: &str = ", protocol: grpc, http2: {ping_interval: none}";

/// The bytes of an endpoint of HTTP/2 until its first message, and its trailers with the status 0.
fn call_response() -> (Vec<u8>, Vec<u8>) {
    // `:status: 200` from the static table, and a literal whose name is at index 31 (content-type).
    let head = b"\x88\x0f\x10\x10application/grpc";
    let first = [
        http2_format::settings(&[]),
        frame(kind::HEADERS, flag::END_HEADERS, 1, head),
        frame(kind::DATA, 0, 1, &message(b'a')),
    ];
    let trailers = b"\x00\x0bgrpc-status\x010";
    let last = frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, trailers);
    (first.concat(), last)
}

/// A call. Its endpoint sends the first message before its silence only if `begins`.
fn call(keys: Keys<'_>, silence: Duration, begins: bool) -> Told {
    let (mut first, mut last) = call_response();
    if !begins {
        last = [first.split_off(http2_format::settings(&[]).len()), last].concat();
    }
    exchange(&configuration(keys), (CALL, Duration::ZERO, b""), true, |io| {
        endpoint(io, &const { message(b'q') }, first, silence, last);
    })
}

#[test]
fn a_silent_grpc_stream_goes_on_unless_its_author_limits_it() {
    let (long, limited) = (Duration::from_secs(3 * 3600), ", stream_idle_timeout: 20s");
    let service = format!("{GRPC}{limited}");
    for (keys, ends) in [
        (["", GRPC, ""], None),
        ([", timeouts: {stream_idle: 10s}", GRPC, ""], Some(10)),
        (["", &service, ""], Some(20)),
        (["", &service, ", stream_idle_timeout: none"], None),
        (["", GRPC, ", stream_idle_timeout: 30s"], Some(30)),
    ] {
        let whole = || end(200, "-", "", Some(0), long.as_secs());
        let cut = |status, took| end(status, "SI", NO_BYTE, Some(14), took);
        let of_body = ends.map_or_else(whole, |took| cut(200, took));
        assert_eq!(call(keys, long, true), of_body, "{keys:?} after a message");
        // A refusal of a call has the HTTP status 200.
        let of_head = ends.map_or_else(whole, |took| cut(200, took));
        assert_eq!(call(keys, long, false), of_head, "{keys:?} before the head");
    }
}

#[test]
fn the_deadline_of_a_call_is_told_as_such() {
    let told = call(["", GRPC, ", timeout: 20s"], Duration::from_secs(60), true);
    assert_eq!(told, end(200, "UT", ENDED, Some(4), 20));
}

/// A request whose second part comes after `pause_s`.
fn upload(keys: Keys<'_>, head: &'static [u8], pause_s: u64) -> Told {
    let request = (head, Duration::from_secs(pause_s), &b"b"[..]);
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec();
    exchange(&configuration(keys), request, true, |io| {
        endpoint(io, b"\r\n\r\nab", Vec::new(), Duration::ZERO, answer);
    })
}

#[test]
fn a_request_that_pauses_ends_after_a_minute_or_the_nearest_limit() {
    const PLAIN: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na";
    const CLAIMED: &[u8] = b"POST /a.B/C HTTP/1.1\r\nHost: a\r\n\
        Content-Type: application/grpc\r\nContent-Length: 2\r\n\r\na";
    let long = ", timeouts: {request_body: 2m}";
    for (keys, request, pause_s, told) in [
        (["", "", ""], PLAIN, 59, end(200, "-", "", None, 59)),
        (["", "", ""], PLAIN, 100, end(408, "DT", PAUSED, None, 60)),
        ([long, "", ""], PLAIN, 100, end(200, "-", "", None, 100)),
        ([long, "", ", request_body_timeout: 5s"], PLAIN, 100, end(408, "DT", PAUSED, None, 5)),
        (["", "", ", request_body_timeout: 200s"], PLAIN, 100, end(200, "-", "", None, 100)),
        (["", "", ", request_body_timeout: none"], PLAIN, 400, end(408, "SI", NO_BYTE, None, 300)),
        (["", ", stream_idle_timeout: 9s", ""], PLAIN, 100, end(408, "SI", NO_BYTE, None, 9)),
        // A service of HTTP/1.1 has no gRPC streams, whatever a request says.
        (["", ", protocol: http1", ""], CLAIMED, 100, end(200, "DT", PAUSED, Some(4), 60)),
    ] {
        assert_eq!(upload(keys, request, pause_s), told, "{keys:?} after {pause_s} s");
    }
}

#[test]
fn a_grpc_stream_of_requests_may_pause_for_hours() {
    const HALF: &[u8] = b"POST /a.B/C HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\
        Content-Type: application/grpc\r\nContent-Length: 6\r\n\r\n\0\0\0";
    let (first, last) = call_response();
    let pause = Duration::from_secs(2 * 3600);
    let told = exchange(&configuration(["", GRPC, ""]), (HALF, pause, b"\0\x01q"), true, |io| {
        endpoint(io, b"\0\x01q", first, Duration::ZERO, last);
    });
    assert_eq!(told, end(200, "-", "", Some(0), pause.as_secs()));
}

#[test]
fn a_client_that_reads_nothing_is_not_a_silent_stream() {
    let (first, last) = call_response();
    let many = frame(kind::DATA, 0, 1, &message(b'a').repeat(2000)).repeat(5);
    let configuration = configuration(["", GRPC, ""]);
    let told = exchange(&configuration, (CALL, Duration::ZERO, b""), false, |io| {
        io.set_weather(Weather { window_bytes: 16 * 1024, ..Weather::CALM });
        let first = [first, many].concat();
        endpoint(io, &const { message(b'q') }, first, Duration::from_secs(3 * 3600), last);
    });
    assert_eq!(told, end(200, "SI", UNREAD, Some(14), 300));
}

#[test]
fn a_tunnel_has_the_limit_only_if_its_rule_or_service_sets_it() {
    const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\
        Upgrade: websocket\r\n\r\n";
    let of_tcp = "no bytes passed for too long";
    for (keys, told) in [
        (["", "", ""], end(101, "DT", of_tcp, None, 3600)),
        ([", timeouts: {stream_idle: 10s}", "", ""], end(101, "DT", of_tcp, None, 3600)),
        (["", ", stream_idle_timeout: 20s", ""], end(101, "SI", NO_BYTE, None, 20)),
        (["", "", ", stream_idle_timeout: 30s"], end(101, "SI", NO_BYTE, None, 30)),
    ] {
        let first = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
            Upgrade: websocket\r\n\r\n";
        let request = (UPGRADE, Duration::ZERO, &b""[..]);
        let found = exchange(&configuration(keys), request, true, |io| {
            endpoint(io, b"\r\n\r\n", first.to_vec(), Duration::from_secs(7200), Vec::new());
        });
        assert_eq!(found, told, "{keys:?}");
    }
}
