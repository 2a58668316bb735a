//! I/O and time: the ring, the simulated network, buffers, alarms and clocks.
//!
//! All other modules use [`io::Io`]. This trait has two implementations: the ring (`ring.rs`, the
//! only file that names monoio) and the simulated network of [`sim`].

pub mod alarm;
pub mod buffer;
pub mod contained;
pub mod core;
pub mod datagram;
pub mod heap;
pub mod io;
pub mod memory;
pub mod own;
pub mod raw_udp;
#[cfg(feature = "uring")]
pub mod ring;
pub mod sim;
pub mod socket;
pub mod spare;
#[cfg(feature = "uring")]
mod timer;
pub mod udp;
