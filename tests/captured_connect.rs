//! CONNECT on a captured connection: it passes if no service and no route has its destination.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringway::compile::registry::Registry;
use ringway::runtime::io::Io;
use ringway::runtime::sim::{SimIo, SimStream, Simulation};

use crate::sim::one::{address, commit, connect, hear, hear_any, say, worker};

/// The limit of virtual time for one case.
const LIMIT: Duration = Duration::from_secs(60);

/// The server that the client connects to.
const SERVER: &str = "10.0.1.1:3128";

const REQUEST: &str = "CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n\r\n";

/// Reads a head. The peer must send no bytes after it.
async fn head(io: &SimIo, stream: &SimStream) -> String {
    let mut heard = Vec::new();
    while !heard.windows(4).any(|four| four == b"\r\n\r\n") {
        heard.extend(hear_any(io, stream).await);
    }
    String::from_utf8(heard).unwrap()
}

/// A server that accepts a CONNECT and then answers in the tunnel.
fn server(io: &SimIo) {
    let (listener, io) = (io.listen(&address(SERVER)), io.clone());
    io.clone().spawn(async move {
        let stream = listener.accept().await;
        assert!(head(&io, &stream).await.starts_with("CONNECT a.example:80 "));
        say(&io, &stream, "HTTP/1.1 200 OK\r\n\r\n").await;
        hear(&io, &stream, "bytes").await;
        say(&io, &stream, "seen").await;
        io.sleep(LIMIT).await;
    });
}

/// The status of the answer to a CONNECT on a connection captured in `direction`.
fn status(direction: &str, rest: &str) -> u16 {
    let simulation = Simulation::new(1);
    let (client, worker) = (simulation.io(), worker(simulation.io()));
    let configuration = format!("mesh: {{{direction}: {{bind: '127.0.0.1:15001'}}}}\n{rest}");
    commit(&worker, &mut Registry::new(1), 1, &configuration);
    server(&client);
    let status = Rc::new(Cell::new(0));
    let told = Rc::clone(&status);
    let listener = format!("mesh.{direction}");
    let main = async move {
        let original = Some(SERVER.parse().unwrap());
        let stream = connect(&client, &worker, &listener, original).await;
        say(&client, &stream, REQUEST).await;
        told.set(head(&client, &stream).await[9..12].parse().unwrap());
        if told.get() == 200 {
            say(&client, &stream, "bytes").await;
            hear(&client, &stream, "seen").await;
        }
    };
    assert_eq!(simulation.run(LIMIT, main), Ok(()), "{direction} {rest}");
    status.get()
}

#[test]
fn a_captured_connect_passes_only_where_nothing_here_names_its_destination() {
    let route = |host: &str, rule: &str| {
        format!("routes: {{'{host}': [{rule}]}}\nservices: {{s: {{endpoints: ['{SERVER}']}}}}\n")
    };
    let endpoint = format!("services: {{s: {{endpoints: ['{SERVER}']}}}}\n");
    let virtual_address =
        format!("services: {{s: {{addresses: '{SERVER}', endpoints: ['10.0.1.2:1']}}}}\n");
    let open = "{match: {method: CONNECT}, to: s}";
    // A tunnel may contain a request for this path.
    let guarded = "authorization: [{action: deny, to: {paths: /admin}}]\n".to_owned();
    for (direction, rest, expected) in [
        ("outbound", String::new(), 200),
        ("outbound", "routes: {b.example: [{respond: {}}]}\n".to_owned(), 200),
        ("outbound", "routes: {a.example: [{respond: {}}]}\n".to_owned(), 405),
        ("outbound", endpoint.clone(), 405),
        ("outbound", virtual_address, 405),
        ("outbound", route("*", "{to: s}"), 405),
        ("outbound", route("*", open), 200),
        ("outbound", guarded, 403),
        ("inbound", String::new(), 405),
        ("inbound", endpoint, 405),
    ] {
        assert_eq!(status(direction, &rest), expected, "{direction} {rest}");
    }
}
