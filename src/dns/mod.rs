//! A resolver for the workload on this host: names of services have their virtual addresses, and
//! everything else is asked of the system's resolvers.

mod answer;

use std::net::SocketAddr;

pub use answer::{Answer, Directory, TTL_S, answer, failure};

/// What the resolver does.
#[derive(Clone, Debug)]
pub struct DnsPlan {
    /// Where it listens; nowhere if `None`.
    pub bind: Option<SocketAddr>,
    /// What it knows itself.
    pub directory: Directory,
    /// The mark of what it asks others.
    pub mark: u32,
}
