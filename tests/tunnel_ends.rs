//! One side of a tunnel resets its connection: the bytes that it sent before reach the other side
//! first.

use std::time::Duration;

use ringway::compile::registry::Registry;
use ringway::runtime::io::{Io, Read, Stream};
use ringway::runtime::sim::{SimIo, Simulation, Weather};

use crate::sim::one::{address, commit, connect, hear_or_end, say, send, worker};

/// The limit of virtual time for one case.
const LIMIT: Duration = Duration::from_secs(120);

const CONFIGURATION: &str = "
listeners: {raw: {bind: '10.0.0.1:80', protocol: tcp, service: app}}
services: {app: {protocol: tcp, endpoints: [10.0.1.1:80]}}
";

/// A network on which most bytes wait at their sender.
const NARROW: Weather =
    Weather { latency_max: Duration::from_millis(20), window_bytes: 16 * 1024, ..Weather::CALM };

const BYTES: usize = 100_000;

fn body() -> Vec<u8> {
    (0..BYTES).map(|at| (at / 7) as u8).collect()
}

async fn send_all(io: &SimIo, stream: &ringway::runtime::sim::SimStream) {
    for part in body().chunks(4096) {
        send(io, stream, part).await;
    }
}

/// An endpoint that sends its bytes, waits, and resets the connection.
fn endpoint(io: &SimIo) {
    let (listener, io) = (io.listen(&address("10.0.1.1:80")), io.clone());
    io.clone().spawn(async move {
        let stream = listener.accept().await;
        send_all(&io, &stream).await;
        io.sleep(Duration::from_secs(1)).await;
        stream.reset_on_close();
    });
}

#[test]
fn what_an_endpoint_sent_before_its_reset_comes_first() {
    for (seed, client_speaks) in (0..40).map(|seed| (seed, seed % 2 == 0)) {
        let simulation = Simulation::new(seed);
        let (client, proxy) = (simulation.io(), simulation.io());
        let main = async move {
            let worker = worker(proxy.clone());
            commit(&worker, &mut Registry::new(1), 1, CONFIGURATION);
            endpoint(&proxy);
            client.set_weather(NARROW);
            let stream = connect(&client, &worker, "raw", None).await;
            client.sleep(Duration::from_secs(3)).await;
            if client_speaks {
                // The proxy's write to the endpoint fails before the proxy has read the endpoint's
                // bytes.
                say(&client, &stream, "x").await;
                client.sleep(Duration::from_secs(1)).await;
            }
            let mut heard = Vec::new();
            let end = loop {
                let (read, buf) = stream.read(client.buffers().take()).await;
                match read {
                    Ok(Read::Data(_)) => heard.extend_from_slice(buf.data()),
                    end => break end,
                }
            };
            assert_eq!(heard.len(), BYTES, "seed {seed}");
            assert!(heard == body(), "seed {seed}");
            assert!(end.is_err(), "seed {seed}: the reset is passed on");
        };
        assert_eq!(simulation.run(LIMIT, main), Ok(()));
    }
}

#[test]
fn what_a_client_sent_before_its_reset_comes_first() {
    for seed in 0..40 {
        let simulation = Simulation::new(seed);
        let (client, proxy) = (simulation.io(), simulation.io());
        let main = async move {
            let worker = worker(proxy.clone());
            commit(&worker, &mut Registry::new(1), 1, CONFIGURATION);
            let listener = proxy.listen(&address("10.0.1.1:80"));
            // The endpoint reads only after the client has ended.
            proxy.set_weather(NARROW);
            let stream = connect(&client, &worker, "raw", None).await;
            let peer = listener.accept().await;
            send_all(&client, &stream).await;
            client.sleep(Duration::from_secs(1)).await;
            stream.reset_on_close();
            drop(stream);
            client.sleep(Duration::from_secs(1)).await;
            let mut heard = Vec::new();
            while let Some(part) = hear_or_end(&client, &peer).await {
                heard.extend(part);
            }
            assert_eq!(heard.len(), BYTES, "seed {seed}");
            assert!(heard == body(), "seed {seed}");
        };
        assert_eq!(simulation.run(LIMIT, main), Ok(()));
    }
}
