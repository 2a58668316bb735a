//! One worker on the simulated network, with connections that a test writes to by hand.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use ringway::cells::PerWorker;
use ringway::compile::Resolutions;
use ringway::compile::registry::Registry;
use ringway::downstream::connection;
use ringway::l4::Arrival;
use ringway::net::{Address, Egress};
use ringway::runtime::io::{Io, Read, Stream};
use ringway::runtime::sim::{SimIo, SimStream};
use ringway::serve::record::buffer::LogBuffer;
use ringway::serve::{Worker, WorkerParts};
use ringway::snapshot::Snapshot;
use ringway::sources::files;

/// A worker that serves nothing yet.
pub fn worker(io: SimIo) -> Rc<Worker<SimIo>> {
    let stats = Arc::new(PerWorker::new(1));
    Worker::new(io, WorkerParts { index: 0, stats, seed: 1, log: LogBuffer::default() })
}

/// Brings `configuration` to `worker` as `version`.
pub fn commit(
    worker: &Worker<SimIo>,
    registry: &mut Registry,
    configuration: &str,
    version: u64,
) -> Arc<Snapshot> {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::io::Write::write_all(&mut file, configuration.as_bytes()).unwrap();
    let loaded = files::load(&[file.path().to_owned()], &HashMap::new());
    let compiled = files::compile(&loaded, version, registry, &Resolutions::new());
    let snapshot = Arc::new(compiled.unwrap_or_else(|errors| panic!("{errors}")).snapshot);
    worker.prepare(Arc::clone(&snapshot));
    assert!(worker.commit(version));
    snapshot
}

/// A connection of `client` to the listener called `listener`.
pub async fn connect(client: &SimIo, worker: &Rc<Worker<SimIo>>, listener: &str) -> SimStream {
    let at = address("10.0.0.1:80");
    let accepting = worker.io.listen(&at);
    let stream = client.connect(&at, Egress::default()).await.unwrap();
    let accepted = accepting.accept().await;
    let arrival = Arrival { peer: None, port: 80, original: None };
    let serving = connection::serve(Rc::clone(worker), accepted, Rc::from(listener), arrival);
    worker.io.spawn(serving);
    stream
}

/// Sends `text`.
pub async fn say(io: &SimIo, stream: &SimStream, text: &str) {
    let mut buf = io.buffers().take();
    buf.append(text.as_bytes());
    stream.write_all(buf).await.0.unwrap();
}

/// Waits for bytes.
pub async fn hear(io: &SimIo, stream: &SimStream) -> String {
    try_hear(io, stream).await.expect("bytes, and not the end")
}

/// Waits for bytes; `None` when the connection ends.
pub async fn try_hear(io: &SimIo, stream: &SimStream) -> Option<String> {
    let (read, buf) = stream.read(io.buffers().take()).await;
    let data = matches!(read, Ok(Read::Data(_)));
    data.then(|| String::from_utf8_lossy(buf.data()).into_owned())
}

/// A TCP address.
pub fn address(text: &str) -> Address {
    Address::Tcp(text.parse().unwrap())
}
