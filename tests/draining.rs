//! A connection that is left in a drain still serves the requests that were on their way.

use std::time::Duration;

use ringway::compile::registry::Registry;
use ringway::runtime::sim::{SimIo, SimStream, Simulation};

use crate::sim::one::{commit, connect, hear_any, send, worker};

/// Virtual time that the case may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How long the client is busy with something else: it reads neither GOAWAY nor PING.
const BUSY: Duration = Duration::from_secs(3);

const CONFIGURATION: &str = "
listeners: {web: {bind: '10.0.0.1:80'}}
routes: {'*': [{respond: {body: hello}}]}
";

/// The connection preface of HTTP/2, SETTINGS without an entry, and the ACK of those that come.
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

#[test]
fn rfc9113_6_8_a_request_that_crosses_the_goaway_is_answered() {
    let simulation = Simulation::new(1);
    let (client, io) = (simulation.io(), simulation.io());
    let worker = worker(io);
    commit(&worker, &mut Registry::new(1), 1, CONFIGURATION);
    let main = async move {
        let stream = connect(&client, &worker, "web", None).await;
        send(&client, &stream, PREFACE).await;
        send(&client, &stream, &get(1)).await;
        hear_hello(&client, &stream).await;
        worker.drain();
        client.sleep(BUSY).await;
        send(&client, &stream, &get(3)).await;
        hear_hello(&client, &stream).await;
    };
    assert_eq!(simulation.run(LIMIT, main), Ok(()));
}
