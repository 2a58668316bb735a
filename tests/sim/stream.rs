//! Bytes through a TCP listener: they arrive complete and in order, and a half-close arrives too.

use std::rc::Rc;

use ringway::runtime::sim::SimIo;

use super::plan::{body_len, pattern};
use super::wire::{Cut, Wire, accept};
use super::world::{GREETING, World};

/// An endpoint that sends `greeting`, reads the client's number from the first four bytes, reads to
/// the end, and answers.
pub fn start(world: &Rc<World>, io: &SimIo, at: &str, greeting: &'static str) {
    let (world, inner) = (Rc::clone(world), io.clone());
    accept(io, at, move |stream| serve(Rc::clone(&world), Wire::new(&inner, stream), greeting));
}

async fn serve(world: Rc<World>, mut wire: Wire, greeting: &'static str) {
    if wire.send(greeting.as_bytes()).await.is_err() {
        return;
    }
    let Ok(name) = wire.reader().exactly(4).await else { return };
    let id = u32::from_be_bytes([name[0], name[1], name[2], name[3]]);
    let (sent, answer) = lengths(&world, id);
    let (got, cut) = wire.reader().rest().await;
    let wanted = pattern(id, 3, sent);
    assert!(wanted.starts_with(&got), "stream {id} brought other bytes");
    if cut == Cut::Ended {
        assert_eq!(got.len(), wanted.len(), "stream {id} ended in order, but early");
        wire.send(&pattern(id, 4, answer)).await.ok();
    }
}

/// Sends a stream, shuts down the sending side, and reads the answer.
pub async fn run(world: Rc<World>, io: SimIo) {
    // To a TCP listener, and as captured connections: one with an unknown protocol, and one with an
    // endpoint that speaks first.
    let ports = [("10.0.0.1:90", ""), ("10.0.0.1:91", ""), ("10.0.0.1:92", GREETING)];
    let (at, greeting) = ports[world.random(|random| random.usize(..ports.len()))];
    let Ok(mut wire) = Wire::connect(&io, at).await else {
        assert!(world.refuses(), "the proxy takes no connection");
        return;
    };
    match wire.reader().exactly(greeting.len()).await {
        Ok(said) => assert_eq!(said, greeting.as_bytes(), "another greeting"),
        Err(cut) => {
            assert!(world.refuses(), "no greeting: {cut:?}");
            return world.tally(|tally| tally.broken += 1);
        }
    }
    world.tally(|tally| tally.greeted += u64::from(!greeting.is_empty()));
    let id = world.new_id();
    let (sent, answer) = lengths(&world, id);
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend(pattern(id, 3, sent));
    if wire.send(&bytes).await.is_ok() {
        wire.finish().await;
    }
    let (got, cut) = wire.reader().rest().await;
    let wanted = pattern(id, 4, answer);
    assert!(wanted.starts_with(&got), "stream {id} got other bytes");
    if cut == Cut::Ended {
        assert_eq!(got.len(), wanted.len(), "stream {id} looks whole and is not");
        world.tally(|tally| tally.streams += 1);
    } else {
        // A proxy that ends may drop a connection with an unknown protocol.
        assert!(world.refuses(), "stream {id} was reset");
        world.tally(|tally| tally.broken += 1);
    }
}

fn lengths(world: &World, id: u32) -> (usize, usize) {
    let mut random = fastrand::Rng::with_seed(world.seed ^ (u64::from(id) << 20));
    let mut len = || match random.u8(..6) {
        0 => random.usize(..900_000),
        _ => body_len(&mut random),
    };
    (len(), len())
}
