//! A connection that a drain closes still answers the requests that were already sent.

use std::time::Duration;

use ringway::compile::registry::Registry;
use ringway::runtime::io::Io;
use ringway::runtime::sim::{SimIo, SimStream, Simulation};
use ringway::serve::Worker;
use ringway::snapshot::DrainStep;

use crate::sim::one::{address, commit, connect, hear_any, hear_or_end, say, send, worker};

/// The limit of virtual time for one case.
const LIMIT: Duration = Duration::from_secs(60);

/// For this time the client reads neither GOAWAY nor PING.
const BUSY: Duration = Duration::from_secs(3);

const CONFIGURATION: &str = "
listeners: {web: {bind: '10.0.0.1:80'}}
routes: {'*': [{respond: {body: hello}}]}
";

/// The same configuration with another name, so that a reload removes the listener `web`.
const OTHER_NAME: &str = "
listeners: {other: {bind: '10.0.0.1:80'}}
routes: {'*': [{respond: {body: hello}}]}
";

/// The connection preface of HTTP/2, empty SETTINGS, and the ACK of the proxy's SETTINGS.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
    \x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x04\x01\x00\x00\x00\x00";

/// A GET on this stream: HEADERS with END_HEADERS and END_STREAM.
fn get(stream: u8) -> Vec<u8> {
    let head = b"\x82\x86\x84\x41\x01a";
    let mut frame = vec![0, 0, head.len() as u8, 1, 5, 0, 0, 0, stream];
    frame.extend_from_slice(head);
    frame
}

async fn hear_hello(io: &SimIo, stream: &SimStream) {
    let mut heard = Vec::new();
    while !heard.windows(5).any(|part| part == b"hello") {
        heard.extend(hear_any(io, stream).await);
    }
}

/// Checks that a request is answered that the client sends before it reads the GOAWAY. `leave`
/// causes the GOAWAY.
fn crosses(leave: impl FnOnce(&Worker<SimIo>, &mut Registry) + 'static) {
    let simulation = Simulation::new(1);
    let (client, io) = (simulation.io(), simulation.io());
    let worker = worker(io);
    let mut registry = Registry::new(1);
    commit(&worker, &mut registry, 1, CONFIGURATION);
    let main = async move {
        let stream = connect(&client, &worker, "web", None).await;
        send(&client, &stream, PREFACE).await;
        send(&client, &stream, &get(1)).await;
        hear_hello(&client, &stream).await;
        leave(&worker, &mut registry);
        client.sleep(BUSY).await;
        send(&client, &stream, &get(3)).await;
        hear_hello(&client, &stream).await;
    };
    assert_eq!(simulation.run(LIMIT, main), Ok(()));
}

#[test]
fn rfc9113_6_8_a_request_that_crosses_the_goaway_is_answered() {
    crosses(|worker, _| worker.drain(DrainStep::All));
}

#[test]
fn rfc9113_6_8_a_request_that_crosses_the_goaway_of_a_removed_listener_is_answered() {
    crosses(|worker, registry| _ = commit(worker, registry, 2, OTHER_NAME));
}

#[test]
fn a_captured_connection_whose_request_has_not_come_yet_is_served() {
    let simulation = Simulation::new(1);
    let (client, endpoint, io) = (simulation.io(), simulation.io(), simulation.io());
    let worker = worker(io);
    let configuration = "mesh: {inbound: {bind: '127.0.0.1:15006'}}\n";
    commit(&worker, &mut Registry::new(1), 1, configuration);
    let main = async move {
        let accepting = endpoint.listen(&address("10.0.1.1:8080"));
        let serving = endpoint.clone();
        endpoint.spawn(async move {
            loop {
                let (stream, io) = (accepting.accept().await, serving.clone());
                serving.spawn(async move {
                    while hear_or_end(&io, &stream).await.is_some() {
                        say(&io, &stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
                            .await;
                    }
                });
            }
        });
        let original = Some("10.0.1.1:8080".parse().unwrap());
        let stream = connect(&client, &worker, "mesh.inbound", original).await;
        worker.drain(DrainStep::All);
        for part in ["GE", "T / HTTP/1.1\r\nHo", "st: a\r\n\r\n"] {
            client.sleep(Duration::from_millis(300)).await;
            say(&client, &stream, part).await;
        }
        hear_hello(&client, &stream).await;
    };
    assert_eq!(simulation.run(LIMIT, main), Ok(()));
}
