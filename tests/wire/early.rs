//! Answers that arrive before the client has sent its whole request.

use std::io::Write as _;
use std::sync::mpsc;
use std::time::Duration;

use crate::support::free_port;
use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::peers::{Server, curl};
use crate::support::proxy::Proxy;

const UPLOAD_BYTES: usize = 20 << 20;

fn before(endpoint: &str) -> (Proxy, u16) {
    let port = free_port();
    let proxy = Proxy::start(&format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes:\n  \"*\": [{{to: app}}]\n  gone.test: [{{respond: {{status: 410}}}}]\n\
         services: {{app: {{endpoints: [\"{endpoint}\"]}}}}\n"
    ));
    (proxy, port)
}

/// Sends a whole upload and reads nothing meanwhile, like most simple clients. Fails after a reset.
/// Returns the status of the answer.
#[track_caller]
fn upload(port: u16, host: &str) -> u16 {
    let mut client = Client::connect(port);
    let head = format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {UPLOAD_BYTES}\r\n\r\n");
    client.send(head);
    client.stream().write_all(&vec![b'x'; UPLOAD_BYTES]).expect("a client that is not reset");
    client.response().status
}

/// The status that curl gets for the same upload over HTTP/2.
fn upload_by_http2(port: u16, host: &str) -> String {
    let body = tempfile::NamedTempFile::new().unwrap();
    body.as_file().set_len(UPLOAD_BYTES as u64).unwrap();
    let data = format!("@{}", body.path().display());
    let (url, host) = (format!("http://127.0.0.1:{port}/"), format!("Host: {host}"));
    let sent = ["--data-binary", &data, "-H", &host, "-o", "/dev/null", "-w", "%{http_code}"];
    curl(&[&["--http2-prior-knowledge"], &sent[..], &[&url]].concat())
}

#[test]
fn rfc9112_9_6_a_client_learns_that_its_upload_was_refused() {
    let nginx = Server::nginx(); // nginx answers 413 to more than 1 MiB
    let (_proxy, port) = before(&format!("127.0.0.1:{}", nginx.port));
    for _ in 0..5 {
        assert_eq!(upload(port, "a"), 413);
        assert_eq!(upload_by_http2(port, "a"), "413");
    }
    // An answer that the proxy makes itself.
    assert_eq!(upload(port, "gone.test"), 410);
    assert_eq!(upload_by_http2(port, "gone.test"), "410");
}

#[test]
fn an_endpoint_that_answers_at_once_and_reads_on_gets_the_whole_request() {
    let (tell, told) = mpsc::channel();
    let origin = Origin::scripted(move |peer| {
        peer.portion();
        peer.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 6\r\n\r\ndenied");
        // The proxy keeps the connection open, so read until the end of the upload.
        let mut seen = 0;
        while let Some(portion) = peer.portion() {
            seen += portion.iter().filter(|byte| **byte == b'x').count();
            if portion.ends_with(b"END") {
                break;
            }
        }
        tell.send(seen).ok();
    });
    let (_proxy, port) = before(&origin.address());
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {UPLOAD_BYTES}\r\n\r\n");
    let mut client = Client::connect(port);
    client.send(head);
    let mut body = vec![b'x'; UPLOAD_BYTES];
    body[UPLOAD_BYTES - 3..].copy_from_slice(b"END");
    client.stream().write_all(&body[..1000]).unwrap();
    assert_eq!(client.response().status, 401);
    client.stream().write_all(&body[1000..]).unwrap();
    assert_eq!(client.rest(), b"", "the connection ends in order");
    assert!(told.recv().unwrap() >= UPLOAD_BYTES - 3 - 65536, "the first portion is not counted");
}

#[test]
fn a_half_closed_client_gets_its_response_unless_it_counts_as_gone() {
    let origin = Origin::scripted(|peer| {
        while peer.request().is_some() {
            // Longer than the interval at which the proxy checks the client.
            std::thread::park_timeout(Duration::from_millis(1300));
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
        }
    });
    let (patient, aborting) = (free_port(), free_port());
    let _proxy = Proxy::start(&format!(
        "listeners:\n  a: {{bind: 127.0.0.1:{patient}}}\n\
         \x20 b: {{bind: 127.0.0.1:{aborting}, abort_on_close: true}}\n\
         routes: {{\"*\": [{{to: app}}]}}\nservices: {{app: {{endpoints: [\"{}\"]}}}}\n",
        origin.address()
    ));
    let request = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
    let answer = |port| Client::connect(port).send(request).finish().try_response(false);
    assert_eq!(answer(patient).map(|response| response.text().to_owned()), Ok("done".to_owned()));
    assert!(answer(aborting).is_err());
    let persistent = request.replace("Connection: close\r\n", "");
    let answer = Client::connect(patient).send(persistent).finish().try_response(false);
    assert!(answer.is_err(), "a client with a persistent connection has left");
}
