//! HTTP/2 frames of any kind in any order, from a client or an endpoint, through a proxy on a
//! simulated network. The proxy never panics, always ends, and frees everything.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ringway::cells::PerWorker;
use ringway::compile::Resolutions;
use ringway::compile::registry::Registry;
use ringway::downstream::connection;
use ringway::http2::{PREFACE, held_bytes};
use ringway::l4::Arrival;
use ringway::net::{Address, Egress};
use ringway::runtime::io::{Io, Read, Stream};
use ringway::runtime::sim::{SimIo, SimStream, Simulation, Weather};
use ringway::serve::record::buffer::LogBuffer;
use ringway::serve::{Worker, WorkerParts};
use ringway::snapshot::{DrainStep, Snapshot};
use ringway::sources::files;

/// The limit of virtual time for one input.
const LIMIT: Duration = Duration::from_secs(600);

const CONFIGURATION: &str = "
listeners:
  web:
    bind: 10.0.0.1:80
    timeouts: {header: 2s, request_body: 3s, stream_idle: 3s, keep_alive: 4s}
    http2: {max_concurrent_streams: 3, stream_window: 1KiB, stream_buffer: 1KiB}
routes:
  '*':
    - {match: {path: /two}, to: two, timeout: 20s}
    - {match: {path: /here}, respond: {status: 200, body: here}}
    - {to: one, timeout: 20s}
services:
  one: {endpoints: [10.0.1.1:80], connect_timeout: 1s}
  two: {protocol: http2, endpoints: [10.0.1.2:80], connect_timeout: 1s, idle_timeout: 5s}
";

static SNAPSHOT: LazyLock<Arc<Snapshot>> = LazyLock::new(|| {
    let file = std::env::temp_dir().join(format!("ringway-frames-{}.yaml", std::process::id()));
    std::fs::write(&file, CONFIGURATION).expect("a temporary file");
    let loaded = files::load(std::slice::from_ref(&file), &HashMap::new());
    let compiled = files::compile(&loaded, 1, &mut Registry::new(1), &Resolutions::new());
    std::fs::remove_file(file).ok();
    Arc::new(compiled.expect("a valid configuration").snapshot)
});

/// Checks the property for `input`: the sender, the seed of the network, and the script of frames.
pub fn holds(input: &[u8]) {
    let [first, seed, script @ ..] = input else { return };
    let endpoint = first & 1 != 0;
    let simulation = Simulation::new(u64::from(*seed));
    let (near, far, io) = (simulation.io(), simulation.io(), simulation.io());
    let portion_bytes_max = 1 << (first >> 1 & 15);
    near.set_weather(Weather { portion_bytes_max, ..Weather::CALM });
    let parts = WorkerParts {
        index: 0,
        stats: Arc::new(PerWorker::new(1)),
        seed: 1,
        overload: Arc::default(),
        log: LogBuffer::default(),
        observers: Arc::default(),
    };
    let worker = Worker::new(io, parts);
    worker.prepare(Arc::clone(&SNAPSHOT));
    assert!(worker.commit(1));
    let said = said(script);
    let (answer, request) = match endpoint {
        true => (said, requests()),
        false => (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes".to_vec(), {
            [PREFACE, b"\0\0\0\x04\0\0\0\0\0", &said].concat()
        }),
    };
    for at in ["10.0.1.1:80", "10.0.1.2:80"] {
        answer_with(&far, at, answer.clone());
    }
    let proxy = Rc::clone(&worker);
    let main = async move {
        let accepted = accept(&near, &proxy).await;
        converse(near, accepted, request).await;
        // The drain closes all connections, at the latest after their idle timeouts.
        proxy.drain(DrainStep::All);
        while !proxy.registry.is_empty() {
            proxy.io.sleep(Duration::from_millis(500)).await;
        }
        let mut nothing = Snapshot::empty();
        nothing.version = 2;
        proxy.prepare(Arc::new(nothing));
        assert!(proxy.commit(2));
        proxy.io.sleep(Duration::from_secs(40)).await;
        assert_eq!(proxy.io.buffers().used(), 0, "buffers that were never given back");
        assert_eq!(proxy.io.tasks(), 1, "tasks that are left");
    };
    assert_eq!(simulation.run(LIMIT, main), Ok(()));
    drop(simulation);
    assert_eq!(held_bytes(), 0, "bytes that were never written nor dropped");
    assert_eq!(worker.cells().panics.value(), 0, "panics");
}

/// HTTP/1.1 requests for an HTTP/2 endpoint.
fn requests() -> Vec<u8> {
    let head =
        |method: &str, more: &str| format!("{method} /two HTTP/1.1\r\nHost: a\r\n{more}\r\n");
    let body = "x".repeat(3000);
    let post = head("POST", "Content-Length: 3000\r\n");
    [head("GET", ""), head("HEAD", ""), post, body, head("GET", "")].concat().into_bytes()
}

/// Opens a connection to the proxy.
async fn accept(near: &SimIo, proxy: &Rc<Worker<SimIo>>) -> SimStream {
    let at = address("10.0.0.1:80");
    let listener = proxy.io.listen(&at);
    let stream = near.connect(&at, Egress::default()).await.expect("a listener");
    let accepted = listener.accept().await;
    let arrival = Arrival { peer: None, port: 0, original: None };
    let serving = connection::serve(Rc::clone(proxy), accepted, Rc::from("web"), arrival);
    proxy.io.spawn(serving);
    stream
}

/// Sends `bytes` and reads until the other side ends, or for a limited time.
async fn converse(io: SimIo, stream: SimStream, bytes: Vec<u8>) {
    let stream = Rc::new(stream);
    let writing = Rc::clone(&stream);
    let buffers = io.buffers().clone();
    io.spawn(async move {
        for part in bytes.chunks(30_000) {
            let mut buf = buffers.take();
            buf.append(part);
            if writing.write_all(buf).await.0.is_err() {
                return;
            }
        }
    });
    read_for_a_while(&io, &stream).await;
}

async fn read_for_a_while(io: &SimIo, stream: &SimStream) {
    let alarm = io.alarms().alarm();
    alarm.set(io.now() + Duration::from_secs(30));
    while let (Ok(Read::Data(_)), _) = stream.read_or_woken(io.buffers().take(), &alarm).await {}
}

/// An endpoint that answers everything with `answer`.
fn answer_with(io: &SimIo, at: &str, answer: Vec<u8>) {
    let listener = io.listen(&address(at));
    let io = io.clone();
    io.clone().spawn(async move {
        loop {
            let stream = listener.accept().await;
            let (io, answer) = (io.clone(), answer.clone());
            io.clone().spawn(async move {
                let mut buf = io.buffers().take();
                if !matches!(stream.read(io.buffers().take()).await, (Ok(Read::Data(_)), _)) {
                    return;
                }
                buf.append(&answer);
                stream.write_all(buf).await.0.ok();
                read_for_a_while(&io, &stream).await;
            });
        }
    });
}

fn address(text: &str) -> Address {
    Address::Tcp(text.parse().expect("an address"))
}

/// The frames of the script. Most of them are well-formed, so that later frames are processed too.
fn said(mut script: &[u8]) -> Vec<u8> {
    let out = RefCell::new(Vec::new());
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let mut out = out.borrow_mut();
        out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        out.extend_from_slice(&[kind, flags, 0, 0, 0, stream]);
        out.extend_from_slice(payload);
    };
    while let [what, stream, rest @ ..] = script {
        if out.borrow().len() > 20_000 {
            break;
        }
        let (flags, stream) = (what >> 4, stream & 15);
        let len = usize::from(rest.first().copied().unwrap_or_default());
        script = rest.get(1..).unwrap_or_default();
        let (payload, after) = script.split_at(len.min(script.len()));
        match what & 15 {
            0 => frame(0, flags, stream, &vec![b'd'; len * 8]),
            1 => frame(1, flags | 4, stream, BLOCKS[len % BLOCKS.len()]),
            2 => frame(1, flags | 5, stream, BLOCKS[len % BLOCKS.len()]),
            3 => frame(3, 0, stream, &[0, 0, 0, len as u8]),
            4 => frame(8, 0, stream, &[0, 0, len as u8, 1]),
            5 => frame(6, flags, 0, b"somebody"),
            6 => frame(7, 0, 0, &[0, 0, 0, stream, 0, 0, 0, len as u8]),
            7 => frame(4, 0, 0, &[0, stream, 0, 0, len as u8, len as u8]),
            8 => frame(4, flags & 1, 0, b""),
            // A frame with the kind, flags, stream and payload of the input.
            kind => {
                frame(kind - 9, flags, stream, payload);
                script = after;
            }
        }
    }
    out.into_inner()
}

/// Header blocks: requests, responses, and blocks that are neither.
const BLOCKS: [&[u8]; 10] = [
    b"\x82\x86\x84\x41\x01a",
    b"\x82\x86\x44\x05/here\x41\x01a",
    b"\x82\x86\x44\x04/two\x41\x01a",
    b"\x83\x86\x44\x04/two\x41\x01a\x5c\x015",
    b"\x83\x86\x84\x41\x01a",
    b"\x88",
    b"\x88\x5c\x0210",
    b"\x08\x03103",
    b"\x89",
    b"\x00\x01x\x01y",
];
