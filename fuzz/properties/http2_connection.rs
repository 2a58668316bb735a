//! An HTTP/2 connection does not panic. Its answer is the same for any split of the received bytes.

use std::rc::Rc;
use std::time::Duration;

use ringway::http2::{Config, Connection, FloodLimits, PREFACE, Peer, Settings};
use ringway::message::Limits;
use ringway::runtime::buffer::BufferPool;
use ringway::time::Time;

pub fn holds(input: &[u8]) {
    // The first byte selects the sender and the size of the portions.
    let Some((first, frames)) = input.split_first() else { return };
    let peer = if first & 1 == 0 { Peer::Client } else { Peer::Endpoint };
    let portion_bytes = usize::from(first >> 1) + 1;
    let preface = if peer == Peer::Client { PREFACE } else { b"" };
    let bytes = [preface, b"\0\0\0\x04\0\0\0\0\0", frames].concat();
    let at_once = answer(peer, &bytes, bytes.len());
    assert_eq!(at_once, answer(peer, &bytes, portion_bytes));
}

/// The answer of a connection to `bytes`, received in portions: its frames, its streams, and its
/// end.
fn answer(peer: Peer, bytes: &[u8], portion_bytes: usize) -> (Vec<u8>, Vec<u32>, String) {
    let config = Config {
        peer,
        message: &Limits::default(),
        floods: FloodLimits::default(),
        settings: &Settings::default(),
        header_timeout: Duration::from_secs(1),
        pool: BufferPool::default(),
        is_secure: false,
    };
    let now = Time::from_micros(50_000);
    let connection: Rc<Connection> = Connection::new(config, now);
    let (mut said, mut opened) = (Vec::new(), Vec::new());
    let mut waiting: Vec<u8> = Vec::new();
    for portion in bytes.chunks(portion_bytes) {
        waiting.extend_from_slice(portion);
        let read = connection.receive(&waiting, now);
        waiting.drain(..read);
        if let Some(buf) = connection.transmit() {
            said.extend_from_slice(buf.data());
            connection.written();
        }
    }
    while let Some(accepted) = connection.accept() {
        opened.push(accepted.id);
    }
    (said, opened, format!("{:?}", connection.end()))
}
