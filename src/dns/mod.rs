//! DNS: a resolver for the workload on this host, and the proxy's own lookups. The resolver answers
//! names of services with their virtual addresses, and forwards all other queries to the system's
//! servers.

mod answer;
mod known;
mod query;
mod system;

use std::net::SocketAddr;

pub use answer::{Answer, Directory, TTL_S, answer, failure};
pub use known::{Found, KnownAddresses};
pub use query::{Family, Response, is_refusal, query, response};
pub use system::SystemSettings;

/// The settings of the resolver.
#[derive(Clone, Debug)]
pub struct DnsPlan {
    /// The address on which the resolver listens. `None` turns the resolver off.
    pub bind: Option<SocketAddr>,
    /// The names that the resolver answers itself.
    pub directory: Directory,
    /// The SO_MARK of the sockets that the control thread opens for forwarded DNS queries, its own
    /// lookups, and fetches of token keys. 0 if no traffic is captured.
    pub mark: u32,
}
