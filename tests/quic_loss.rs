//! HTTP/3 on lossy virtual links: a proxy asks another one over QUIC, and datagrams are lost,
//! repeated and overtaken. Every body arrives, and nothing is left.
//!
//! `QUIC_SEED=n` runs only this seed, and `QUIC_SEEDS=n` sets the number of seeds.

use std::rc::Rc;
use std::time::Duration;

use ringway::compile::registry::Registry;
use ringway::downstream::http3::{self, Arrived};
use ringway::quic::{Clock, Endpoint, Place};
use ringway::runtime::io::Io;
use ringway::runtime::sim::{SimDatagrams, SimIo, SimStream, Simulation, Weather};
use ringway::runtime::udp::epoch;
use ringway::serve::Worker;
use ringway::time::Time;
use ringway::wire::quic::{Port, Transport};

use crate::sim::one::{address, commit, connect, hear_or_end, send, worker};

/// The limit of virtual time for one world.
const LIMIT: Duration = Duration::from_secs(3600);

const SEEDS: u64 = 12;

/// The number of clients, and of the requests of each.
const CLIENTS: usize = 6;
const REQUESTS: u64 = 8;

/// The largest body.
const BODY_BYTES_MAX: usize = 200_000;

const PART_BYTES: usize = 8 * 1024;

#[test]
fn bodies_arrive_although_datagrams_are_lost() {
    let keys = Keys::new();
    if let Ok(seed) = std::env::var("QUIC_SEED") {
        return world(seed.parse().unwrap(), &keys);
    }
    let seeds = std::env::var("QUIC_SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    std::thread::scope(|scope| {
        for first in 0..threads {
            let keys = &keys;
            scope.spawn(move || {
                let own = (first..seeds).step_by(threads as usize);
                own.for_each(|seed| world(seed, keys));
            });
        }
    });
}

/// A certificate in files. Its signatures have one length, so the same seed sends the same bytes.
struct Keys(tempfile::TempDir);

impl Keys {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        std::fs::write(directory.path().join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(directory.path().join("key.pem"), key.serialize_pem()).unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

/// The links of one world. Each seed has others.
fn weather(random: &mut fastrand::Rng) -> Weather {
    Weather {
        latency_max: Duration::from_micros(random.u64(100..30_000)),
        lost: random.f64() * 0.1,
        repeated: random.f64() * 0.05,
        ..Weather::CALM
    }
}

fn world(seed: u64, keys: &Keys) {
    let simulation = Simulation::new(seed);
    let mut random = fastrand::Rng::with_seed(seed);
    let (client, near, far, origin) =
        (simulation.io(), simulation.io(), simulation.io(), simulation.io());
    for io in [&near, &far] {
        io.set_weather(weather(&mut random));
    }
    let (near, far) = (worker(near), worker(far));
    let (certificate, key) = (keys.path("cert.pem"), keys.path("key.pem"));
    let far_file = format!(
        "listeners: {{far: {{bind: '10.0.0.2:443', protocol: http3, \
         tls: {{cert: {certificate}, key: {key}}}}}}}\n\
         services: {{app: {{endpoints: ['10.0.0.3:80']}}}}\nroutes: {{'*': [{{to: app}}]}}\n"
    );
    let near_file = format!(
        "listeners: {{near: {{bind: '10.0.0.1:80'}}}}\n\
         services: {{hop: {{protocol: http3, endpoints: ['10.0.0.2:443'], connect_timeout: 60s, \
         tls: {{ca: {certificate}, sni: localhost}}}}}}\nroutes: {{'*': [{{to: hop}}]}}\n"
    );
    commit(&near, &mut Registry::new(1), 1, &near_file);
    commit(&far, &mut Registry::new(1), 1, &far_file);
    listen(&far);
    serve_origin(&origin);
    let (tasks, used) = (near.io.clone(), near.io.buffers().clone());
    let main = async move {
        let mut done = Vec::new();
        for number in 0..CLIENTS {
            let stream = connect(&client, &near, "near", None).await;
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let (io, seed) = (client.clone(), seed * 1000 + number as u64);
            client.spawn(async move {
                ask(&io, &stream, seed).await;
                sender.send(()).ok();
            });
            done.push(receiver);
        }
        for receiver in done {
            receiver.await.expect("a client has failed");
        }
        // The connection over QUIC closes after its idle timeout.
        client.sleep(Duration::from_secs(600)).await;
        (tasks.tasks(), used.used())
    };
    let end = simulation.run(LIMIT, main);
    assert_eq!(end, Ok((1, 0)), "seed {seed}: tasks and buffers of the near proxy at the end");
}

/// Accepts QUIC connections for the listener `far`.
fn listen(worker: &Rc<Worker<SimIo>>) {
    let io = worker.io.clone();
    let datagrams = SimDatagrams::open(&io, "10.0.0.2:443".parse().unwrap());
    let local = worker.local();
    let http3 = local.snapshot.listener("far").unwrap().http3.clone().unwrap();
    let place = Place { worker: 0, workers: 1 };
    let (clock, random) = (Clock::new(epoch()), &mut worker.random.borrow_mut());
    let endpoint = Endpoint::new(&http3.keys, place, Some(&http3.server), false, clock, random);
    let port = Port::new(io.clone(), datagrams, endpoint);
    let worker = Rc::clone(worker);
    io.clone().spawn(async move {
        let stop = io.alarms().alarm();
        stop.set(Time::NEVER);
        let attempt = |attempt| {
            let mut accepted = None;
            port.answer(|out| match port.endpoint.accept(attempt, io.now(), &http3.server, out) {
                Ok(connection) => {
                    accepted = Some(connection);
                    None
                }
                Err(answer) => answer,
            });
            let Some(connection) = accepted else { return };
            let transport = Transport::new(Rc::clone(&port), Rc::clone(&connection));
            let arrived = Arrived { connection, transport, port: 443, is_proven: false };
            io.spawn(http3::serve(Rc::clone(&worker), Rc::from("far"), arrived, || {}));
        };
        port.receive(&stop, attempt, |_| {}).await.unwrap();
    });
}

/// The body of a message, by its number.
fn body(number: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number);
    let length = random.usize(..BODY_BYTES_MAX);
    let length = if random.bool() { length % 1000 } else { length };
    (0..length).map(|_| random.u8(b'a'..=b'z')).collect()
}

/// Sends requests, one after the other. Each has a body, and gets it back.
async fn ask(io: &SimIo, stream: &SimStream, seed: u64) {
    for number in 0..REQUESTS {
        let body = body(seed * REQUESTS + number);
        let head =
            format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        send(io, stream, head.as_bytes()).await;
        for part in body.chunks(PART_BYTES) {
            send(io, stream, part).await;
        }
        let (head, found) = message(io, stream, &mut Vec::new()).await.expect("a response");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(found == body, "{} bytes instead of {}", found.len(), body.len());
    }
}

/// Reads one message with a content-length. `rest` has bytes that were read already.
async fn message(io: &SimIo, stream: &SimStream, rest: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let end = loop {
        if let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        rest.extend(hear_or_end(io, stream).await?);
    };
    let head = String::from_utf8(rest.drain(..end).collect()).unwrap().to_ascii_lowercase();
    let head = head.replace("http/1.1", "HTTP/1.1");
    let length = head.split_once("content-length: ").map_or("0", |(_, after)| after);
    let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
    while rest.len() < length {
        rest.extend(hear_or_end(io, stream).await?);
    }
    Some((head, rest.drain(..length).collect()))
}

/// An HTTP/1.1 origin that sends each body back.
fn serve_origin(origin: &SimIo) {
    let accepting = origin.listen(&address("10.0.0.3:80"));
    let io = origin.clone();
    origin.spawn(async move {
        loop {
            let (stream, io) = (accepting.accept().await, io.clone());
            io.clone().spawn(async move {
                let mut rest = Vec::new();
                while let Some((_, body)) = message(&io, &stream, &mut rest).await {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                    send(&io, &stream, head.as_bytes()).await;
                    for part in body.chunks(PART_BYTES) {
                        send(&io, &stream, part).await;
                    }
                }
            });
        }
    });
}
