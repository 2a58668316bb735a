//! Timeouts of idle exchanges: any byte in either direction resets them.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ringway::compile::registry::Registry;
use ringway::runtime::io::{Io, Stream};
use ringway::runtime::sim::{SimIo, Simulation};

use crate::http2_format::{self, flag, frame, kind};
use crate::sim::one::{address, commit, connect, hear, hear_any, hear_or_end, say, send, worker};

/// The limit of virtual time for one case.
const LIMIT: Duration = Duration::from_secs(120);

/// A configuration with this limit on silence of the listener, and these further keys of the rule.
fn configuration(idle: &str, rule: &str) -> String {
    format!(
        "listeners: {{web: {{bind: '10.0.0.1:80', \
         timeouts: {{request_body: {idle}, stream_idle: {idle}}}}}}}\n\
         routes: {{'*': [{{to: app{rule}}}]}}\n\
         services: {{app: {{endpoints: [10.0.1.1:80], timeout: 50s}}}}\n"
    )
}

const EARLY_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";

/// An endpoint that sends the head of its response at once, and the body after the last chunk.
fn early_endpoint(io: &SimIo) {
    let (listener, io) = (io.listen(&address("10.0.1.1:80")), io.clone());
    io.clone().spawn(async move {
        let stream = listener.accept().await;
        say(&io, &stream, EARLY_HEAD).await;
        let mut request = Vec::new();
        while let Some(part) = hear_or_end(&io, &stream).await {
            request.extend(part);
            if request.ends_with(b"0\r\n\r\n") {
                return say(&io, &stream, "done").await;
            }
        }
    });
}

/// A client that sends `chunks` chunks with a pause after each. Returns whether it gets the whole
/// response.
async fn upload(client: &SimIo, chunks: usize, pause: Duration) -> bool {
    let worker = worker(client.clone());
    commit(&worker, &mut Registry::new(1), 1, &configuration("2s", ""));
    early_endpoint(client);
    let stream = connect(client, &worker, "web", None).await;
    say(client, &stream, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    hear(client, &stream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n")
        .await;
    for _ in 0..chunks {
        client.sleep(pause).await;
        say(client, &stream, "1\r\nx\r\n").await;
    }
    say(client, &stream, "0\r\n\r\n").await;
    hear_or_end(client, &stream).await.as_deref() == Some(b"done")
}

#[test]
fn an_upload_behind_an_early_response_is_activity() {
    let simulation = Simulation::new(1);
    let client = simulation.io();
    let main = async move {
        assert!(upload(&client, 30, Duration::from_millis(500)).await);
    };
    assert_eq!(simulation.run(LIMIT, main), Ok(()));
}

/// An endpoint that answers 1.3 s after the whole request.
fn slow_endpoint(io: &SimIo) {
    let (listener, io) = (io.listen(&address("10.0.1.1:80")), io.clone());
    io.clone().spawn(async move {
        let stream = listener.accept().await;
        // The network may split the request. Bytes that nobody reads would become a reset.
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\nx") {
            request.extend(hear_any(&io, &stream).await);
        }
        io.sleep(Duration::from_millis(1300)).await;
        say(&io, &stream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
    });
}

/// The answer to a client that closes its sending side after its request. `None` if there is no
/// answer.
async fn half_closed(client: &SimIo, configuration: &str) -> Option<String> {
    let worker = worker(client.clone());
    commit(&worker, &mut Registry::new(1), 1, configuration);
    slow_endpoint(client);
    let stream = connect(client, &worker, "web", None).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
    say(client, &stream, head).await;
    stream.shutdown_write().await;
    let mut answer = hear_or_end(client, &stream).await?;
    // The network may split the answer.
    while let Some(more) = hear_or_end(client, &stream).await {
        answer.extend(more);
    }
    Some(String::from_utf8(answer).unwrap())
}

#[test]
fn a_client_that_has_closed_its_sending_side_gets_its_response() {
    let simulation = Simulation::new(1);
    let client = simulation.io();
    let main = async move {
        let patient = configuration("2s", "");
        let answer = half_closed(&client, &patient).await;
        let answer = answer.unwrap_or_default();
        assert!(answer.ends_with("done"), "{answer}");
        let aborting = patient.replace("timeouts:", "abort_on_close: true, timeouts:");
        assert_eq!(half_closed(&client, &aborting).await, None);
    };
    assert_eq!(simulation.run(LIMIT, main), Ok(()));
}

/// The proxy answers at once, but the client reads only after it has sent everything. It gets the
/// answer, however long it sends.
#[test]
fn a_client_that_reads_after_a_slow_upload_gets_its_answer() {
    let simulation = Simulation::new(1);
    let client = simulation.io();
    let main = async move {
        let worker = worker(client.clone());
        let configuration = "
            listeners: {web: {bind: '10.0.0.1:80'}}
            routes: {'*': [{respond: {status: 403, body: no}}]}
        ";
        commit(&worker, &mut Registry::new(1), 1, configuration);
        let stream = connect(&client, &worker, "web", None).await;
        let chunk = format!("1000\r\n{}\r\n", "x".repeat(4096));
        say(&client, &stream, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        for _ in 0..50 {
            client.sleep(Duration::from_millis(500)).await;
            say(&client, &stream, &chunk.repeat(16)).await;
        }
        say(&client, &stream, "0\r\n\r\n").await;
        let answer = hear_any(&client, &stream).await;
        assert!(answer.starts_with(b"HTTP/1.1 403"), "{}", String::from_utf8_lossy(&answer));
    };
    assert_eq!(simulation.run(LIMIT, main), Ok(()));
}

/// An endpoint that answers with `first`, is silent for `silence`, and then sends `last`.
fn silent_endpoint(io: &SimIo, first: &'static str, silence: Duration, last: &'static str) {
    let (listener, io) = (io.listen(&address("10.0.1.1:80")), io.clone());
    io.clone().spawn(async move {
        let stream = listener.accept().await;
        let mut request = Vec::new();
        while !request.windows(4).any(|four| four == b"\r\n\r\n") {
            let Some(part) = hear_or_end(&io, &stream).await else { return };
            request.extend(part);
        }
        say(&io, &stream, first).await;
        io.sleep(silence).await;
        let mut buf = io.buffers().take();
        buf.append(last.as_bytes());
        // The proxy may have closed the connection.
        stream.write_all(buf).await.0.ok();
    });
}

/// The answer that a client with this request gets from such an endpoint.
fn answer(
    configuration: &str,
    request: &'static str,
    first: &'static str,
    silence: Duration,
    last: &'static str,
) -> String {
    let simulation = Simulation::new(1);
    let (client, worker) = (simulation.io(), worker(simulation.io()));
    commit(&worker, &mut Registry::new(1), 1, configuration);
    silent_endpoint(&client, first, silence, last);
    let got = Rc::new(RefCell::new(Vec::new()));
    let heard = Rc::clone(&got);
    let main = async move {
        let stream = connect(&client, &worker, "web", None).await;
        say(&client, &stream, request).await;
        while !heard.borrow().ends_with(b"\r\n\r\n") || heard.borrow().ends_with(b"chunked\r\n\r\n")
        {
            let Some(part) = hear_or_end(&client, &stream).await else { return };
            heard.borrow_mut().extend(part);
        }
    };
    assert_eq!(simulation.run(LIMIT, main), Ok(()), "{configuration}");
    String::from_utf8_lossy(&got.borrow()).into_owned()
}

#[test]
fn silence_ends_a_response_only_where_it_is_limited() {
    for (listener, rule, silence_s, whole) in [
        ("2s", "", 1, true),
        ("2s", "", 5, false),
        ("none", "", 40, true),
        ("2s", ", stream_idle_timeout: none", 40, true),
        ("2s", ", stream_idle_timeout: 10s", 5, true),
        ("2s", ", stream_idle_timeout: 10s", 20, false),
        ("none", ", stream_idle_timeout: 2s", 5, false),
        // The service's own `timeout` is 50 s for the whole response.
        ("none", ", timeout: 70s", 60, true),
        ("none", "", 60, false),
        ("none", ", timeout: none", 100, true),
    ] {
        let got = answer(
            &configuration(listener, rule),
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
            Duration::from_secs(silence_s),
            "0\r\n\r\n",
        );
        assert!(got.starts_with("HTTP/1.1 200 OK\r\n"), "{got}");
        assert_eq!(
            got.ends_with("0\r\n\r\n"),
            whole,
            "{listener}{rule} after {silence_s} s: {got}"
        );
    }
}

#[test]
fn silence_ends_a_request_only_where_it_is_limited() {
    for (listener, rule, silence_s, status) in [
        ("2s", "", 5, "408"),
        ("2s", ", stream_idle_timeout: none, request_body_timeout: none", 40, "200"),
        ("2s", ", stream_idle_timeout: 10s, request_body_timeout: 10s", 5, "200"),
        ("none", ", stream_idle_timeout: 2s, request_body_timeout: 2s", 5, "408"),
    ] {
        let simulation = Simulation::new(1);
        let (client, worker) = (simulation.io(), worker(simulation.io()));
        commit(&worker, &mut Registry::new(1), 1, &configuration(listener, rule));
        let accepting = client.listen(&address("10.0.1.1:80"));
        let endpoint = client.clone();
        client.spawn(async move {
            let stream = accepting.accept().await;
            let mut request = Vec::new();
            while let Some(part) = hear_or_end(&endpoint, &stream).await {
                request.extend(part);
                if request.ends_with(b"\r\n\r\nab") {
                    return say(&endpoint, &stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                        .await;
                }
            }
        });
        let main = async move {
            let stream = connect(&client, &worker, "web", None).await;
            say(&client, &stream, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na").await;
            client.sleep(Duration::from_secs(silence_s)).await;
            let mut buf = client.buffers().take();
            buf.append(b"b");
            stream.write_all(buf).await.0.ok();
            let mut answer = Vec::new();
            while answer.len() < 12 {
                answer.extend(hear_any(&client, &stream).await);
            }
            assert_eq!(String::from_utf8_lossy(&answer[9..12]), status);
        };
        assert_eq!(simulation.run(LIMIT, main), Ok(()), "{listener}{rule} after {silence_s} s");
    }
}

/// A gRPC message (Length-Prefixed-Message) with one byte of data.
fn message(byte: u8) -> [u8; 6] {
    [0, 0, 0, 0, 1, byte]
}

/// An HTTP/2 endpoint that answers a call with one message, and then sends nothing.
fn silent_grpc_endpoint(io: &SimIo) {
    let (listener, io) = (io.listen(&address("10.0.1.1:80")), io.clone());
    io.clone().spawn(async move {
        let stream = listener.accept().await;
        let mut request = Vec::new();
        while !request.ends_with(&message(b'q')) {
            request.extend(hear_any(&io, &stream).await);
        }
        send(&io, &stream, &http2_format::settings(&[])).await;
        // `:status: 200` from the static table, and a literal whose name is at index 31
        // (content-type).
        let head = b"\x88\x0f\x10\x10application/grpc";
        send(&io, &stream, &frame(kind::HEADERS, flag::END_HEADERS, 1, head)).await;
        send(&io, &stream, &frame(kind::DATA, 0, 1, &message(b'a'))).await;
        while hear_or_end(&io, &stream).await.is_some() {}
    });
}

#[test]
fn an_idle_grpc_stream_ends_as_unavailable_and_an_overdue_one_with_its_deadline() {
    const CALL: &str = "POST /a.B/C HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\
        Content-Type: application/grpc\r\nContent-Length: 6\r\n\r\n\0\0\0\0\x01q";
    for (rule, code) in [("", 14), (", timeout: 1s", 4)] {
        let simulation = Simulation::new(1);
        let (client, worker) = (simulation.io(), worker(simulation.io()));
        let configuration = configuration("2s", rule).replace("timeout: 50s", "protocol: grpc");
        commit(&worker, &mut Registry::new(1), 1, &configuration);
        silent_grpc_endpoint(&client);
        let main = async move {
            let stream = connect(&client, &worker, "web", None).await;
            say(&client, &stream, CALL).await;
            let mut answer = Vec::new();
            while let Some(part) = hear_or_end(&client, &stream).await {
                answer.extend(part);
                if answer.windows(7).any(|end| end == b"\n0\r\ngrp")
                    && answer.ends_with(b"\r\n\r\n")
                {
                    break;
                }
            }
            let end = format!("6\r\n\0\0\0\0\x01a\r\n0\r\ngrpc-status: {code}\r\n");
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.contains(&end), "{answer:?}");
        };
        assert_eq!(simulation.run(LIMIT, main), Ok(()), "{rule}");
    }
}
