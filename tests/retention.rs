//! A connection that lives long keeps nothing of the snapshot that it began with.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ringway::cells::PerWorker;
use ringway::compile::Resolutions;
use ringway::compile::registry::Registry;
use ringway::downstream::connection;
use ringway::l4::Arrival;
use ringway::net::{Address, Egress};
use ringway::runtime::io::{Io, Read, Stream};
use ringway::runtime::sim::{SimIo, SimStream, Simulation};
use ringway::serve::record::buffer::LogBuffer;
use ringway::serve::{Worker, WorkerParts};
use ringway::snapshot::Snapshot;
use ringway::sources::files;

/// Virtual time that a case may take.
const LIMIT: Duration = Duration::from_secs(60);

const CONFIGURATION: &str = "
listeners:
  db: {bind: '10.0.0.1:3306', protocol: tcp, service: raw}
  web: {bind: '10.0.0.1:80'}
routes:
  '*': [{to: web}]
services:
  raw: {protocol: tcp, endpoints: [10.0.1.1:80]}
  web: {endpoints: [10.0.1.1:80]}
";

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_long_connection_keeps_no_snapshot() {
    let stream = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    let whole = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let switch = "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello";
    for (name, listener, request, answer) in [
        ("a tunnel", "db", "hello", "welcome"),
        ("an upgraded connection", "web", UPGRADE, switch),
        ("a response that goes on", "web", GET, stream),
        ("an idle connection", "web", GET, whole),
    ] {
        let simulation = Simulation::new(1);
        let (client, endpoint, io) = (simulation.io(), simulation.io(), simulation.io());
        let worker = worker(io);
        let first = commit(&worker, 1);
        let main = async move {
            let accepting = endpoint.listen(&address("10.0.1.1:80"));
            let serving = endpoint.clone();
            let begun = endpoint.clone();
            endpoint.spawn(async move {
                let stream = accepting.accept().await;
                hear(&serving, &stream).await;
                say(&serving, &stream, answer).await;
                serving.sleep(LIMIT).await; // it stays open
            });
            let stream = connect(&client, &worker, listener).await;
            say(&client, &stream, request).await;
            hear(&client, &stream).await;
            begun.sleep(Duration::from_secs(2)).await;
            assert_eq!(worker.registry.len(), 1, "{name}: it is open");
            commit(&worker, 2);
            begun.sleep(Duration::from_secs(2)).await;
            assert_eq!(worker.registry.len(), 1, "{name}: it stays open");
            assert!(first.upgrade().is_none(), "{name} keeps the snapshot");
        };
        assert_eq!(simulation.run(LIMIT, main), Ok(()), "{name}");
    }
}

fn worker(io: SimIo) -> Rc<Worker<SimIo>> {
    let stats = Arc::new(PerWorker::new(1));
    Worker::new(io, WorkerParts { index: 0, stats, seed: 1, log: LogBuffer::default() })
}

/// Brings the configuration to `worker` as `version`.
fn commit(worker: &Worker<SimIo>, version: u64) -> Weak<Snapshot> {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::io::Write::write_all(&mut file, CONFIGURATION.as_bytes()).unwrap();
    let loaded = files::load(&[file.path().to_owned()], &HashMap::new());
    let compiled = files::compile(&loaded, version, &mut Registry::new(1), &Resolutions::new());
    let snapshot = Arc::new(compiled.unwrap_or_else(|errors| panic!("{errors}")).snapshot);
    let weak = Arc::downgrade(&snapshot);
    worker.prepare(snapshot);
    assert!(worker.commit(version));
    weak
}

async fn connect(client: &SimIo, worker: &Rc<Worker<SimIo>>, listener: &str) -> SimStream {
    let at = address("10.0.0.1:80");
    let accepting = worker.io.listen(&at);
    let stream = client.connect(&at, Egress::default()).await.unwrap();
    let accepted = accepting.accept().await;
    let arrival = Arrival { peer: None, port: 80, original: None };
    let serving = connection::serve(Rc::clone(worker), accepted, Rc::from(listener), arrival);
    worker.io.spawn(serving);
    stream
}

async fn say(io: &SimIo, stream: &SimStream, text: &str) {
    let mut buf = io.buffers().take();
    buf.append(text.as_bytes());
    stream.write_all(buf).await.0.unwrap();
}

async fn hear(io: &SimIo, stream: &SimStream) {
    let (read, _) = stream.read(io.buffers().take()).await;
    assert!(matches!(read, Ok(Read::Data(_))), "{read:?}");
}

fn address(text: &str) -> Address {
    Address::Tcp(text.parse().unwrap())
}
