//! Bytes through a TCP listener: in order, whole, and half-closed where the sender has ended.

use std::rc::Rc;

use ringway::runtime::io::Io;
use ringway::runtime::sim::SimIo;

use super::plan::{body_len, pattern};
use super::wire::{Cut, Wire, address};
use super::world::World;

/// An endpoint that learns from the first four bytes who speaks, reads to the end, and answers.
pub fn start(world: &Rc<World>, io: &SimIo, at: &str) {
    let listener = io.listen(&address(at));
    let (world, io) = (Rc::clone(world), io.clone());
    io.clone().spawn(async move {
        loop {
            let mut wire = Wire::new(&io, listener.accept().await);
            let world = Rc::clone(&world);
            io.spawn(async move {
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
            });
        }
    });
}

/// Sends a stream, ends its side, and reads the answer.
pub async fn run(world: Rc<World>, io: SimIo) {
    let Ok(mut wire) = Wire::connect(&io, "10.0.0.1:90").await else {
        assert!(world.refuses(), "the proxy takes no connection");
        return;
    };
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
        assert!(!world.calm, "stream {id} was reset");
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
