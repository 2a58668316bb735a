//! HTTP/2 on both sides of the proxy: many streams on one connection, in any order.

pub mod client;
pub mod endpoint;
mod frame;
mod hpack;
mod peer;
mod state;

use super::world::World;
use state::Terms;

impl Terms {
    /// Random settings that a peer may announce. Windows may be small, even 0.
    fn any(world: &World) -> Self {
        world.random(|random| Self {
            stream_window: [0, 1, 90, 5_000, 65_535, 300_000][random.usize(..6)],
            streams_max: [1, 2, 3, 5, 100][random.usize(..5)],
            table_bytes: [0, 60, 4096][random.usize(..3)],
        })
    }
}
