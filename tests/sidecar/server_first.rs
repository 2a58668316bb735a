//! Servers that speak first are not kept waiting, and neither are their clients.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::rules::{self, By};
use crate::support::netns::{App, Host, Wire, can_have_hosts};
use crate::support::proxy::Proxy;

/// How much later than directly a conversation may begin.
const LATER_MAX: Duration = Duration::from_millis(5);

/// Conversations of each kind that are compared.
const ROUNDS: usize = 41;

/// Beginnings of a server: of SMTP (RFC 5321 3.1), and of MySQL's protocol 10.
const GREETINGS: [&[u8]; 2] =
    [b"220 mail.example ESMTP\r\n", b"\x0f\0\0\0\x0a8.0.36\0\x01\0\0\0ab\0"];

/// A server of `greeting` at `port`, which answers one line with `ok`.
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

/// The time from connecting to the greeting. The client then speaks, and gets an answer.
fn conversation(client: &Host, address: &str, greeting: &[u8]) -> Duration {
    client.within(|| {
        let began = Instant::now();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        let mut seen = vec![0; greeting.len()];
        stream.read_exact(&mut seen).unwrap();
        let took = began.elapsed();
        assert_eq!(seen, greeting, "{address}");
        stream.write_all(b"NOOP\r\n").unwrap();
        let mut ok = [0; 2];
        stream.read_exact(&mut ok).unwrap();
        took
    })
}

/// The lower quartile. A stall would show in all times; other load on the machine does not.
fn quartile(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 4]
}

#[test]
fn conversations_that_servers_begin_do_so_almost_as_soon_as_directly() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(3);
    let [plain, side, other] = &wire.hosts[..] else { panic!() };
    rules::inbound(side, By::Redirect);
    rules::outbound(side, By::Redirect);
    let proxy = Proxy::start_in(
        &side.name,
        "mesh: {inbound: {bind: \"0.0.0.0:15006\"}, outbound: {bind: \"127.0.0.1:15001\"}}\n",
    );
    for (number, greeting) in (0..).zip(GREETINGS) {
        // Port 7000 and up are not captured, 8000 and up are.
        let (direct, captured) = (7000 + number, 8000 + number);
        let _servers =
            [side, other].map(|host| [direct, captured].map(|p| server(host, p, greeting)));
        for (client, to) in [(plain, side), (side, other)] {
            let mut times = [Vec::new(), Vec::new()];
            for _ in 0..ROUNDS {
                for (times, port) in times.iter_mut().zip([direct, captured]) {
                    let address = format!("{}:{port}", to.v4());
                    times.push(conversation(client, &address, greeting));
                }
            }
            let [direct, captured] = times.map(quartile);
            println!("{}: directly {direct:?}, captured {captured:?}", client.name);
            assert!(captured < direct + LATER_MAX, "directly {direct:?}, captured {captured:?}");
        }
    }
    let first =
        proxy.metric("ringway_capture_detected_total{listener=\"mesh.inbound\",protocol=\"server");
    assert_eq!(first, (GREETINGS.len() * ROUNDS) as f64);
}
