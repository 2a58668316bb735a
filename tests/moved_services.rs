//! A reload between the accept of a connection and the choice of its service.

use std::time::Duration;

use ringway::compile::registry::Registry;
use ringway::runtime::io::Io;
use ringway::runtime::sim::{SimIo, Simulation};

use crate::sim::one::{address, commit, connect, hear, hear_any, say, worker};

/// The limit of virtual time for one case.
const LIMIT: Duration = Duration::from_secs(60);

const BEFORE: &str = "
listeners: {raw: {bind: '10.0.0.1:80', protocol: tcp, service: right, proxy_protocol: true}}
services: {right: {protocol: tcp, endpoints: [10.0.1.1:80]}}
";

/// The same configuration with one more service, which comes first.
const AFTER: &str = "
listeners: {raw: {bind: '10.0.0.1:80', protocol: tcp, service: right, proxy_protocol: true}}
services:
  another: {protocol: tcp, endpoints: [10.0.1.2:80]}
  right: {protocol: tcp, endpoints: [10.0.1.1:80]}
";

/// An endpoint that answers every request with `name`.
fn endpoint(io: &SimIo, at: &str, name: &'static str) {
    let (listener, io) = (io.listen(&address(at)), io.clone());
    io.clone().spawn(async move {
        let stream = listener.accept().await;
        hear_any(&io, &stream).await;
        say(&io, &stream, name).await;
        io.sleep(LIMIT).await;
    });
}

#[test]
fn a_connection_gets_the_service_of_its_listener_when_a_reload_comes_before_its_first_bytes() {
    let simulation = Simulation::new(1);
    let (client, io) = (simulation.io(), simulation.io());
    let worker = worker(io);
    let mut registry = Registry::new(1);
    commit(&worker, &mut registry, 1, BEFORE);
    let main = async move {
        endpoint(&client, "10.0.1.1:80", "right");
        endpoint(&client, "10.0.1.2:80", "wrong");
        let stream = connect(&client, &worker, "raw", None).await;
        client.sleep(Duration::from_secs(1)).await;
        commit(&worker, &mut registry, 2, AFTER);
        say(&client, &stream, "PROXY TCP4 10.0.0.9 10.0.0.1 999 80\r\nhello").await;
        hear(&client, &stream, "right").await;
    };
    assert_eq!(simulation.run(LIMIT, main), Ok(()));
}
