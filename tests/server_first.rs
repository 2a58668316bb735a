//! A captured connection whose server speaks first gets the greeting almost as soon as a direct
//! connection. The time is virtual, so the speed of the machine does not matter.

use std::time::Duration;

use ringway::compile::registry::Registry;
use ringway::runtime::io::Io;
use ringway::runtime::sim::Simulation;

use crate::sim::one::{address, commit, connect, hear, say, worker};

/// The limit of virtual time for one case.
const LIMIT: Duration = Duration::from_secs(60);

/// How long after the connect the client may wait for the greeting.
const GREETING_MAX: Duration = Duration::from_millis(3);

#[test]
fn a_captured_server_that_speaks_first_is_heard_at_once() {
    for direction in ["inbound", "outbound"] {
        let simulation = Simulation::new(1);
        let (client, endpoint, io) = (simulation.io(), simulation.io(), simulation.io());
        let worker = worker(io);
        let configuration = format!("mesh: {{{direction}: {{bind: '127.0.0.1:15001'}}}}\n");
        commit(&worker, &mut Registry::new(1), 1, &configuration);
        let main = async move {
            let accepting = endpoint.listen(&address("10.0.1.1:3306"));
            let serving = endpoint.clone();
            endpoint.spawn(async move {
                let stream = accepting.accept().await;
                say(&serving, &stream, "welcome").await;
                hear(&serving, &stream, "hello").await;
                say(&serving, &stream, "ok").await;
                serving.sleep(LIMIT).await;
            });
            let began = client.now();
            let original = Some("10.0.1.1:3306".parse().unwrap());
            let listener = format!("mesh.{direction}");
            let stream = connect(&client, &worker, &listener, original).await;
            hear(&client, &stream, "welcome").await;
            let took = client.now().since(began);
            assert!(took < GREETING_MAX, "{direction}: the greeting came after {took:?}");
            say(&client, &stream, "hello").await;
            hear(&client, &stream, "ok").await;
        };
        assert_eq!(simulation.run(LIMIT, main), Ok(()), "{direction}");
    }
}
