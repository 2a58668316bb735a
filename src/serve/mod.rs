//! The straight line: a connection, its exchanges, and the bytes that pass.
//!
//! Only this room may import all others. `exchange.rs` is one request's way, top to bottom.

mod arrival;
mod body;
mod captured;
mod choose;
pub mod connection;
mod contained;
#[cfg(feature = "uring")]
mod datagram;
mod download;
mod exchange;
mod guard;
mod http2;
mod ledger;
mod originals;
mod registry;
mod relay;
mod reply;
#[cfg(feature = "uring")]
pub mod run;
mod secure;
mod sni;
mod sniff;
mod tokens;
mod tunnel;
mod upload;
mod worker;
mod workspace;

pub use arrival::Arrival;
pub use worker::{Local, LocalService, SWEEP_INTERVAL, Worker, WorkerParts};
