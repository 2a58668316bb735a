//! Servers that speak first, with silent clients. `tests/server_first.rs` measures the wait in
//! virtual time.

use std::io::{Read, Write};

use super::rules::{self, By};
use crate::support::netns::{App, Host, Wire, can_have_hosts};
use crate::support::proxy::Proxy;

/// The number of conversations of each kind.
const ROUNDS: usize = 5;

/// The greetings of an SMTP server (RFC 5321 3.1) and of a MySQL server (protocol 10).
const GREETINGS: [&[u8]; 2] =
    [b"220 mail.example ESMTP\r\n", b"\x0f\0\0\0\x0a8.0.36\0\x01\0\0\0ab\0"];

/// A server at `port` that sends `greeting` and answers one line with `ok`.
fn server(host: &Host, port: u16, greeting: &'static [u8]) -> App {
    App::new(host.listen(&format!("0.0.0.0:{port}")), move |mut stream| {
        stream.set_nodelay(true).unwrap();
        stream.write_all(greeting).unwrap();
        let mut line = [0; 6];
        if stream.read_exact(&mut line).is_ok() {
            stream.write_all(b"ok").unwrap();
        }
    })
}

/// A conversation in which the client sends nothing before it has the greeting. It fails if the
/// proxy waits for the client first.
fn conversation(client: &Host, address: &str, greeting: &[u8]) {
    let mut stream = client.connect(address);
    let mut seen = vec![0; greeting.len()];
    stream.read_exact(&mut seen).unwrap_or_else(|error| panic!("no greeting: {error}"));
    assert_eq!(seen, greeting, "{address}");
    stream.write_all(b"NOOP\r\n").unwrap();
    let mut ok = [0; 2];
    stream.read_exact(&mut ok).unwrap();
}

#[test]
fn servers_begin_conversations() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(3);
    let [plain, side, other] = &wire.hosts[..] else { panic!() };
    rules::inbound(side, By::Redirect);
    rules::outbound(side, By::Redirect);
    // The time limits for silent clients are longer than the test. So they cannot end a wait for
    // the client.
    let never = "timeouts: {header: 1h, tcp_idle: 1h}";
    let proxy = Proxy::start_in(
        &side.name,
        &format!(
            "mesh: {{inbound: {{bind: \"0.0.0.0:15006\", {never}}}, \
             outbound: {{bind: \"127.0.0.1:15001\", {never}}}}}\n"
        ),
    );
    for (port, greeting) in (8000..).zip(GREETINGS) {
        let _servers = [side, other].map(|host| server(host, port, greeting));
        for (client, to) in [(plain, side), (side, other)] {
            for _ in 0..ROUNDS {
                conversation(client, &format!("{}:{port}", to.v4()), greeting);
            }
        }
    }
    for direction in ["inbound", "outbound"] {
        let series = format!(
            "ringway_capture_detected_total{{listener=\"mesh.{direction}\",protocol=\"server"
        );
        assert_eq!(proxy.metric(&series), (GREETINGS.len() * ROUNDS) as f64, "{direction}");
    }
}
