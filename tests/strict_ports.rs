//! Connections that are refused before their first request leave a line in the access log.
//!
//! Plain text on a captured port that requires mutual TLS: HTTP gets 403, and a connection with
//! other bytes is closed. A warning names the port and a correction.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Once;
use std::time::Duration;

use ringway::compile::registry::Registry;
use ringway::downstream::connection;
use ringway::http2::PREFACE;
use ringway::l4::Arrival;
use ringway::runtime::io::{Io, Stream};
use ringway::runtime::sim::{SimIo, Simulation};
use ringway::serve::Worker;
use serde_json::Value;

use crate::http2_format::{flag, frame, kind, settings};
use crate::sim::one::{
    address, commit, connect, hear_or_end, lines, logging_worker, say, send, worker,
};
use crate::support::pki::{Pki, Wanted};

/// The limit of virtual time for one case.
const LIMIT: Duration = Duration::from_secs(60);

/// A port that requires mutual TLS.
const STRICT: &str = "10.0.5.5:8080";

/// A port of plain text.
const PLAIN: &str = "10.0.5.5:9";

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// The listener of a connection.
#[derive(Clone, Copy, Debug)]
enum By<'a> {
    /// `mesh.inbound`, with this original destination.
    Inbound(&'a str),
    /// The listener with this name.
    Listener(&'a str),
}

/// The behaviour of a client after its last bytes.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// It closes its sending side.
    Ends,
    /// It is silent.
    Waits,
}

thread_local! {
    /// The log of this thread while [`logged`] runs.
    static LOG: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Writes to [`LOG`].
struct ThreadLog;

impl std::io::Write for ThreadLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.with_borrow_mut(|log| log.as_mut().map(|log| log.extend_from_slice(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Calls `run`, and returns its result and the log.
fn logged<T>(run: impl FnOnce() -> T) -> (T, String) {
    // A subscriber of one thread would be unreliable: tracing remembers for all threads that nobody
    // wants a line, if another thread reaches it first.
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(|| ThreadLog).finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
    LOG.set(Some(Vec::new()));
    let result = run();
    let log = LOG.take().unwrap_or_default();
    (result, String::from_utf8(log).unwrap())
}

fn strict(worker: &Worker<SimIo>) {
    let pki = Pki::new();
    pki.leaf("own", &Wanted { names: &["spiffe://cluster.local/own"], ..Wanted::default() });
    let directory = pki.directory().display();
    let configuration = format!(
        "telemetry: {{access_log: {{path: stdout}}}}
mesh:
  identity: {{cert: {directory}/own.pem, key: {directory}/own.key, roots: {directory}/ca.pem}}
  inbound: {{bind: 10.0.0.1:15006, mtls: strict, ports: {{'9': disable}}, \
         protocols: {{'8081': tcp}}}}
listeners:
  secure: {{bind: 10.0.0.1:80, tls: mesh}}
  pass: {{bind: 10.0.0.1:443, protocol: tls}}
routes: {{'*': {{to: s}}}}
services: {{s: {{endpoints: ['10.0.1.1:1']}}}}
"
    );
    commit(worker, &mut Registry::new(1), 1, &configuration);
}

/// The bytes that a client gets for the parts that it sends, and the lines of the access log.
fn asked(by: By<'_>, parts: &[&[u8]], then: Then) -> (String, Vec<Value>) {
    let simulation = Simulation::new(1);
    let (client, (worker, written)) = (simulation.io(), logging_worker(simulation.io(), 1));
    strict(&worker);
    let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
    let (listener, original) = match by {
        By::Inbound(to) => ("mesh.inbound".to_owned(), Some(to.parse().unwrap())),
        By::Listener(name) => (name.to_owned(), None),
    };
    let _workload = client.listen(&address(PLAIN));
    let heard = Rc::new(RefCell::new(Vec::new()));
    let told = Rc::clone(&heard);
    let serving = Rc::clone(&worker);
    let main = async move {
        let stream = connect(&client, &serving, &listener, original).await;
        for part in &parts {
            send(&client, &stream, part).await;
            client.sleep(Duration::from_millis(5)).await;
        }
        if then == Then::Ends {
            stream.shutdown_write().await;
        }
        while let Some(bytes) = hear_or_end(&client, &stream).await {
            told.borrow_mut().extend(bytes);
        }
        drop(stream);
        while !serving.registry.is_empty() {
            client.sleep(Duration::from_millis(10)).await;
        }
    };
    assert_eq!(simulation.run(LIMIT, main), Ok(()));
    (String::from_utf8_lossy(&heard.take()).into_owned(), lines(&worker, &written))
}

/// A GET by HTTP/2 with prior knowledge.
fn http2() -> Vec<u8> {
    // Static table (RFC 7541 A): `:method: GET`, `:scheme: http`, `:path: /`, and the name
    // `:authority` with the value "a".
    let block = [0x82, 0x86, 0x84, 0x01, 1, b'a'];
    let headers = frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &block);
    [PREFACE, &settings(&[]), &headers].concat()
}

#[test]
fn plain_text_on_a_strict_port_is_answered_logged_and_reported() {
    let tcp = "10.0.5.5:8081";
    let http2 = http2();
    for (to, parts, then, status, protocol, flag) in [
        (STRICT, &[GET.as_bytes()][..], Then::Ends, 403, "HTTP/1.1", "UAEX"),
        (STRICT, &[b"GE", b"T / HTTP/1.1\r\nHost: a\r\n\r\n"], Then::Ends, 403, "HTTP/1.1", "UAEX"),
        (tcp, &[GET.as_bytes()], Then::Ends, 403, "HTTP/1.1", "UAEX"),
        (STRICT, &[&http2], Then::Ends, 403, "HTTP/2", "UAEX"),
        (STRICT, &[&http2[..9], &http2[9..]], Then::Ends, 403, "HTTP/2", "UAEX"),
        (STRICT, &[b"\x01\x02"], Then::Waits, 0, "TCP", "UAEX"),
        (tcp, &[b"\x01\x02"], Then::Waits, 0, "TCP", "UAEX"),
        (STRICT, &[b"GE"], Then::Ends, 0, "TCP", "UAEX"),
        (STRICT, &[b"GE"], Then::Waits, 0, "TCP", "DT"),
    ] {
        let case = format!("{to} {:?}", String::from_utf8_lossy(&parts.concat()));
        let ((heard, lines), log) = logged(|| asked(By::Inbound(to), parts, then));
        let [line] = &lines[..] else { panic!("{case}: {lines:?}") };
        assert_eq!(line["status"], status, "{case}: {line}");
        assert_eq!((&line["protocol"], &line["response_flags"]), (&protocol.into(), &flag.into()));
        assert_eq!(line["original_destination"], to, "{case}: {line}");
        if protocol == "HTTP/1.1" {
            assert!(heard.starts_with("HTTP/1.1 403 "), "{case}: {heard}");
        }
        assert_eq!(heard.is_empty(), status == 0, "{case}: {heard}");
        let port = &to["10.0.5.5:".len()..];
        let cure = format!("mesh: {{inbound: {{ports: {{\"{port}\": permissive}}}}}}");
        let warned = log.matches(&cure).count();
        assert!(warned == 1 && log.contains(&format!("port={port}")), "{case}: {log}");
    }
}

#[test]
fn the_callers_sidecar_passes_the_403_on() {
    let simulation = Simulation::new(1);
    let (client, far) = (simulation.io(), worker(simulation.io()));
    let (near, written) = logging_worker(simulation.io(), 1);
    strict(&far);
    let outbound = "telemetry: {access_log: {path: stdout}}\n\
                    mesh: {outbound: {bind: '127.0.0.1:15001'}}\n";
    commit(&near, &mut Registry::new(1), 1, outbound);
    let accepting = far.io.listen(&address(STRICT));
    let original = STRICT.parse().unwrap();
    far.io.clone().spawn(async move {
        loop {
            let stream = accepting.accept().await;
            let arrival = Arrival { peer: None, port: 8080, original: Some(Ok(original)) };
            let name = Rc::from("mesh.inbound");
            far.io.spawn(connection::serve(Rc::clone(&far), stream, name, arrival));
        }
    });
    let worker = Rc::clone(&near);
    let main = async move {
        let stream = connect(&client, &worker, "mesh.outbound", Some(original)).await;
        say(&client, &stream, GET).await;
        let heard = hear_or_end(&client, &stream).await.unwrap();
        assert!(heard.starts_with(b"HTTP/1.1 403 "), "{}", String::from_utf8_lossy(&heard));
    };
    assert_eq!(simulation.run(LIMIT, main), Ok(()));
    let lines = lines(&near, &written);
    assert!(lines.iter().all(|line| line["status"] == 403), "{lines:?}");
}

#[test]
fn a_connection_that_ends_in_its_beginning_leaves_a_line() {
    let plain_on_tls = "the client does not speak TLS";
    let no_hello = "the client left before the end of its ClientHello";
    let undetected = "the client left before its protocol was known";
    for (by, bytes, then, status, flag, detail) in [
        (By::Inbound(STRICT), &b""[..], Then::Waits, 0, "DT", "the TLS handshake took too long"),
        (By::Inbound(STRICT), b"\x16\x03", Then::Waits, 0, "DT", "the TLS handshake took too long"),
        (By::Inbound(STRICT), b"\x16\x03", Then::Ends, 0, "DC", "the client left during"),
        (
            By::Inbound(STRICT),
            b"\x16\x03\x01\0\x04\x63\0\0\0",
            Then::Waits,
            0,
            "DPE",
            "the TLS handshake",
        ),
        (By::Listener("secure"), GET.as_bytes(), Then::Ends, 400, "DPE", plain_on_tls),
        (By::Listener("pass"), b"\x16\x03\x01", Then::Ends, 0, "DC", no_hello),
        (By::Inbound(PLAIN), b"GE", Then::Ends, 0, "DC", undetected),
    ] {
        let case = format!("{by:?} {:?} {detail}", String::from_utf8_lossy(bytes));
        let parts = [bytes];
        let parts = if bytes.is_empty() { &[][..] } else { &parts };
        let (_, lines) = asked(by, parts, then);
        let [line] = &lines[..] else { panic!("{case}: {lines:?}") };
        assert_eq!((&line["status"], &line["response_flags"]), (&status.into(), &flag.into()));
        assert!(line["detail"].as_str().unwrap().starts_with(detail), "{case}: {line}");
    }
    // A port scan, or a health check of TCP, asks for nothing.
    for by in [By::Inbound(STRICT), By::Inbound(PLAIN), By::Listener("pass")] {
        assert_eq!(asked(by, &[], Then::Ends).1, [] as [Value; 0], "{by:?}");
    }
}
