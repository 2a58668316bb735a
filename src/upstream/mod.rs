//! Connections to endpoints: opened within a time limit, kept for reuse, never used when dead.

mod connect;
mod pool;

pub use connect::{ConnectError, connect};
pub use pool::{EndpointState, Taken, Upstream};
