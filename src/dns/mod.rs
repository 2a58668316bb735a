//! A DNS resolver for the workload on this host. It answers names of services with their virtual
//! addresses and forwards all other queries to the system's resolvers.

mod answer;

use std::net::SocketAddr;

pub use answer::{Answer, Directory, TTL_S, answer, failure};

/// The settings of the resolver.
#[derive(Clone, Debug)]
pub struct DnsPlan {
    /// The listening address. `None` turns it off.
    pub bind: Option<SocketAddr>,
    /// The names that it answers.
    pub directory: Directory,
    /// The mark of its forwarded queries.
    pub mark: u32,
}
