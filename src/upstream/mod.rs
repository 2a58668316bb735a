//! Connections to endpoints: choosing an endpoint, connecting, pools and sharing.

mod attempt;
mod beside;
pub mod choose;
mod connect;
mod families;
mod hedge;
pub mod http2;
mod http3;
mod limited;
mod local;
mod needed;
mod opening;
pub mod passthrough;
mod pool;
mod queue;
mod secure;
mod service;
mod shared;

pub use attempt::{Attempt, Outcome};
pub use beside::{is_misdirected, learn, served};
pub use choose::{Choice, Target};
pub use connect::{ConnectError, connect};
pub use local::{Local, LocalRule, Reports, Terms};
pub use pool::{EndpointState, OpenGuard, PoolTerms, Taken, Upstream, Waiting};
pub use service::{LocalEndpoint, LocalService};
pub use shared::Shared;
