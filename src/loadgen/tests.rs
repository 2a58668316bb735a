//! Tests of the load generator against servers on loopback.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use clap::Parser;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use super::args::{BenchArgs, Work};
use super::{Error, bulk, client, hold, server, streams};
use crate::tls::PROVIDER;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: BenchArgs,
}

fn report(line: &str) -> Result<Value, Error> {
    let words = std::iter::once("bench").chain(line.split_whitespace());
    let plan = Command::try_parse_from(words).unwrap().args.plan()?;
    let report = match &plan.work {
        Work::Requests(target) => client::run(target, &plan.load)?,
        Work::Hold { target, connections } => hold::run(target, *connections, &plan.load)?,
        Work::Bulk(target) => bulk::run(target, &plan.load)?,
        Work::Streams(target) => streams::run(target, &plan.load)?,
        Work::Serve { .. } => panic!("not a load"),
    };
    Ok(report.json())
}

/// A report in which the value that `read` returns is at least `wanted`. A busy machine needs more
/// time for it.
fn report_with(line: &str, wanted: u64, read: impl Fn(&Value) -> &Value) -> Value {
    let mut last = Value::Null;
    for duration in ["100ms", "1s", "10s"] {
        last = report(&format!("{line} -d {duration}")).unwrap();
        if read(&last).as_u64().is_some_and(|found| found >= wanted) {
            return last;
        }
    }
    panic!("{line}: {last}")
}

fn usage_error(line: &str) -> String {
    match report(line) {
        Err(error @ Error::Usage(_)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Starts an HTTP server. On each connection it sends `answers` one after the other, and closes the
/// connection after the last one.
fn http_server(answers: &'static [&'static str]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let socket = socket.unwrap();
            thread::spawn(move || {
                let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
                for answer in answers {
                    loop {
                        match lines.next() {
                            Some(Ok(line)) if line.is_empty() => break,
                            Some(Ok(_)) => {}
                            _ => return,
                        }
                    }
                    if (&socket).write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Like [`http_server`], but with TLS.
fn https_server(answers: &'static [&'static str]) -> SocketAddr {
    let key = rcgen::KeyPair::generate().unwrap();
    let made = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.der().clone()], secret)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = BufReader::new(StreamOwned::new(session, socket.unwrap()));
            thread::spawn(move || {
                for answer in answers {
                    let mut line = String::new();
                    while line != "\r\n" {
                        line.clear();
                        if stream.read_line(&mut line).unwrap_or_default() == 0 {
                            return;
                        }
                    }
                    if stream.get_mut().write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn tcp_server(sink: bool) -> SocketAddr {
    // The server takes an address and does not end. So find a free port first; no other test uses
    // it.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    thread::spawn(move || server::run(address, sink).map(|_| ()));
    while std::net::TcpStream::connect(address).is_err() {
        thread::yield_now();
    }
    address
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn the_closed_loop_counts_what_is_answered() {
    let address = http_server(&[OK; 1_000_000]);
    let report = report(&format!("http://{address}/ -c 4 -d 50ms")).unwrap();
    let requests = report["requests"].as_u64().unwrap();
    assert!(requests >= 4, "{report}");
    assert_eq!(report["statuses"]["200"], requests);
    assert_eq!(report["bytes"], requests * OK.len() as u64);
    assert_eq!(report["errors"]["closed"], 0);
}

#[test]
fn tls_is_spoken_with_full_handshakes_or_resumed_ones() {
    let address = https_server(&[OK; 1_000_000]);
    let url = format!("https://{address}/ -c 2");
    let full = report_with(&format!("{url} --close"), 2, |report| &report["requests"]);
    assert_eq!(full["resumed"], 0, "{full}");
    report_with(&format!("{url} --close --resume"), 1, |report| &report["resumed"]);
    report_with(&url, 2, |report| &report["statuses"]["200"]);
    let plain = http_server(&[OK; 9]);
    let failed = report(&format!("https://{plain}/ -c 1 -d 50ms --timeout 100ms")).unwrap();
    assert_eq!(failed["requests"], 0, "{failed}");
}

#[test]
fn a_schedule_sends_what_it_says() {
    let address = http_server(&[OK; 1_000_000]);
    let report = report(&format!("http://{address}/ -c 4 -d 100ms --rate 1000")).unwrap();
    assert_eq!(report["requests"], 100, "{report}");
    assert_eq!(report["mode"], "open");
}

#[test]
fn a_server_that_answers_never_costs_its_whole_schedule() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap();
    let line = format!("http://{silent}/ -c 2 -d 50ms --rate 200 --timeout 100ms");
    let report = report(&line).unwrap();
    assert_eq!(report["requests"], 0, "{report}");
    assert_eq!(report["errors"]["timeout"], 10, "sent or not, each was due: {report}");
    assert!(report["latency_us"]["p50"].as_f64().unwrap() >= 100_000.0, "{report}");
}

#[test]
fn a_server_that_hangs_up_is_counted_and_not_asked_in_a_busy_loop() {
    let address = http_server(&[]);
    let report = report(&format!("http://{address}/ -c 1 -d 20ms")).unwrap();
    // The client detects an end or a reset, depending on whether the server has read the request.
    let errors = &report["errors"];
    let ended = errors["closed"].as_u64().unwrap() + errors["reset"].as_u64().unwrap();
    assert!((1..=2).contains(&ended), "{report}");
}

#[test]
fn a_connection_per_request_and_a_server_that_closes() {
    let close = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
    let answers: &'static [&'static str] = Box::leak(Box::new([close]));
    let address = http_server(answers);
    for line in ["--close", ""] {
        let report = report(&format!("http://{address}/ -c 2 -d 50ms {line}")).unwrap();
        assert!(report["requests"].as_u64().unwrap() >= 2, "{report}");
        assert_eq!(report["errors"]["closed"], 0, "{report}");
    }
}

#[test]
fn idle_connections_are_held() {
    let address = http_server(&[OK; 2]);
    let report = report(&format!("http://{address}/ --idle 10 -d 50ms")).unwrap();
    assert_eq!(report["held"], 10, "{report}");
    assert_eq!(report["requests"], 10, "{report}");
}

#[test]
fn bytes_come_back_from_the_echo_and_vanish_in_the_sink() {
    let echo = tcp_server(false);
    let ping = report(&format!("--tcp {echo} -c 3 -d 50ms --size 100000")).unwrap();
    let requests = ping["requests"].as_u64().unwrap();
    assert!(requests >= 3, "{ping}");
    assert_eq!(ping["bytes"], requests * 100_000);
    let sink = tcp_server(true);
    let bulk = report(&format!("--tcp {sink} --bulk -c 2 -d 50ms")).unwrap();
    assert!(bulk["bytes"].as_u64().unwrap() > 0, "{bulk}");
    assert_eq!(bulk["requests"], 2, "both streams ended in order: {bulk}");
}

#[test]
fn nobody_there_is_one_clear_error() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for line in ["", "--close", "--idle 3"] {
        match report(&format!("http://{address}/ -d 20ms {line}")) {
            Err(Error::Unreachable { reason, .. }) => assert!(reason.contains("refused")),
            other => panic!("{line}: {other:?}"),
        }
    }
    let bulk = report(&format!("--tcp {address} --bulk -c 2 -d 20ms"));
    assert!(matches!(bulk, Err(Error::Unreachable { .. })), "{bulk:?}");
}

#[test]
fn wrong_usage_says_what_to_write() {
    assert!(usage_error("ftp://127.0.0.1/").contains("http://HOST:PORT/PATH"));
    assert!(usage_error("http:///x").contains("http://HOST:PORT/PATH"));
    assert!(usage_error("--tcp 127.0.0.1").contains("add the port"));
    assert!(usage_error("http://127.0.0.1:1/ --rate 0").contains("--rate 0"));
    assert!(usage_error("http://127.0.0.1:1/ -H novalue").contains("name: value"));
}
