//! Connections to endpoints: choosing an endpoint, connecting, pools and sharing.

mod attempt;
pub mod choose;
mod connect;
pub mod http2;
mod local;
pub mod passthrough;
mod pool;
mod secure;
mod shared;

pub use attempt::{Attempt, Outcome};
pub use choose::{Choice, Target};
pub use connect::{ConnectError, connect};
pub use local::{Local, LocalEndpoint, LocalRule, LocalService, Terms};
pub use pool::{EndpointState, OpenGuard, PoolTerms, Taken, Upstream, Waiting};
pub use shared::{Shared, Turn};
