//! Serves requests of all HTTP versions: plans, bodies, local responses, tunnels and records.
//!
//! `exchange.rs` lists the steps of one request.

mod body;
mod breaker;
mod call;
mod download;
mod downstream;
pub mod exchange;
mod fault;
mod global_limit;
pub mod guard;
mod hedge;
pub mod limits;
mod mirror;
mod outgoing;
mod overload;
mod pace;
pub mod plan;
mod private;
pub mod record;
pub mod registry;
mod relay;
pub mod reply;
mod request_head;
mod retired;
mod retry;
mod send;
mod tokens;
pub mod tunnel;
mod upload;
pub mod worker;
pub mod workspace;

pub use downstream::{Downstream, Peer, Secured};
pub use plan::OriginalDestination;
pub use worker::{Worker, WorkerParts};
