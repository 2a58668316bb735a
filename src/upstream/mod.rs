//! Connections to endpoints: opened within a time limit, kept for reuse, never used when dead.

mod connect;
mod pool;
mod shared;

pub use connect::{ConnectError, connect};
pub use pool::{EndpointState, OpenGuard, Taken, Upstream};
pub use shared::{Shared, Turn};
