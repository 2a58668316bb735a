//! One simulated worker and single connections to it, for tests that script each step.

use std::collections::HashMap;
use std::net::SocketAddr;
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

/// A worker without a configuration.
pub fn worker(io: SimIo) -> Rc<Worker<SimIo>> {
    let stats = Arc::new(PerWorker::new(1));
    Worker::new(
        io,
        WorkerParts {
            index: 0,
            stats,
            seed: 1,
            overload: Arc::default(),
            log: LogBuffer::default(),
            observers: Arc::default(),
        },
    )
}

/// The access log of a worker.
#[cfg(feature = "uring")]
pub type Written = Rc<std::cell::RefCell<Vec<u8>>>;

/// A worker without a configuration, and its access log. `seed` is for its random numbers.
#[cfg(feature = "uring")]
pub fn logging_worker(io: SimIo, seed: u64) -> (Rc<Worker<SimIo>>, Written) {
    let written = Written::default();
    let kept = Rc::clone(&written);
    let log = LogBuffer::new(Box::new(move |lines| kept.borrow_mut().extend(lines)));
    let stats = Arc::new(PerWorker::new(1));
    (
        Worker::new(
            io,
            WorkerParts {
                index: 0,
                stats,
                seed,
                overload: Arc::default(),
                log,
                observers: Arc::default(),
            },
        ),
        written,
    )
}

/// Takes the lines of the access log.
#[cfg(feature = "uring")]
pub fn lines(worker: &Worker<SimIo>, written: &Written) -> Vec<serde_json::Value> {
    worker.log.flush();
    let text = String::from_utf8(written.take()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Compiles `configuration` as `version`.
pub fn compiled(registry: &mut Registry, version: u64, configuration: &str) -> Arc<Snapshot> {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::io::Write::write_all(&mut file, configuration.as_bytes()).unwrap();
    let loaded = files::load(&[file.path().to_owned()], &HashMap::new());
    let compiled = files::compile(&loaded, version, registry, &Resolutions::new());
    Arc::new(compiled.unwrap_or_else(|errors| panic!("{errors}")).snapshot)
}

/// Prepares and commits `configuration` at `worker`, as `version`.
pub fn commit(
    worker: &Worker<SimIo>,
    registry: &mut Registry,
    version: u64,
    configuration: &str,
) -> Arc<Snapshot> {
    let snapshot = compiled(registry, version, configuration);
    worker.prepare(Arc::clone(&snapshot));
    assert!(worker.commit(version));
    snapshot
}

/// Opens a connection to `listener`. `original` is the original destination of a captured
/// connection.
pub async fn connect(
    client: &SimIo,
    worker: &Rc<Worker<SimIo>>,
    listener: &str,
    original: Option<SocketAddr>,
) -> SimStream {
    let at = address("10.0.0.1:80");
    let accepting = worker.io.listen(&at);
    let stream = client.connect(&at, Egress::default()).await.unwrap();
    let accepted = accepting.accept().await;
    let arrival = Arrival { peer: None, port: 80, original: original.map(Ok) };
    let serving = connection::serve(Rc::clone(worker), accepted, Rc::from(listener), arrival);
    worker.io.spawn(serving);
    stream
}

/// Sends `text`.
pub async fn say(io: &SimIo, stream: &SimStream, text: &str) {
    send(io, stream, text.as_bytes()).await;
}

/// Sends `bytes`.
pub async fn send(io: &SimIo, stream: &SimStream, bytes: &[u8]) {
    let mut buf = io.buffers().take();
    buf.append(bytes);
    stream.write_all(buf).await.0.unwrap();
}

/// Reads as many bytes as `text` has, and checks that they are `text`.
pub async fn hear(io: &SimIo, stream: &SimStream, text: &str) {
    let mut heard = Vec::new();
    while heard.len() < text.len() {
        heard.extend(hear_any(io, stream).await);
    }
    assert_eq!(String::from_utf8_lossy(&heard), text);
}

/// Reads once and returns the bytes.
pub async fn hear_any(io: &SimIo, stream: &SimStream) -> Vec<u8> {
    hear_or_end(io, stream).await.expect("bytes, and not the end")
}

/// Reads once and returns the bytes. Returns `None` when the connection has ended.
pub async fn hear_or_end(io: &SimIo, stream: &SimStream) -> Option<Vec<u8>> {
    let (read, buf) = stream.read(io.buffers().take()).await;
    matches!(read, Ok(Read::Data(_))).then(|| buf.data().to_vec())
}

/// A TCP address.
pub fn address(text: &str) -> Address {
    Address::Tcp(text.parse().unwrap())
}
