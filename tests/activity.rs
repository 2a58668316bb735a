//! What keeps an exchange alive: a byte in either direction.

use std::time::Duration;

use ringway::compile::registry::Registry;
use ringway::runtime::io::Io;
use ringway::runtime::sim::{SimIo, Simulation};

use crate::sim::one::{address, commit, connect, hear, hear_or_end, say, worker};

/// Virtual time that the case may take.
const LIMIT: Duration = Duration::from_secs(120);

const CONFIGURATION: &str = "
listeners: {web: {bind: '10.0.0.1:80', timeouts: {body_idle: 2s}}}
routes: {'*': [{to: app}]}
services: {app: {endpoints: [10.0.1.1:80]}}
";

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

/// A client that sends a chunk, waits, and so on. Whether it gets the whole response.
async fn upload(client: &SimIo, chunks: usize, pause: Duration) -> bool {
    let worker = worker(client.clone());
    commit(&worker, &mut Registry::new(1), 1, CONFIGURATION);
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
