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
    /// The listening address. `None` turns it off.
    pub bind: Option<SocketAddr>,
    /// The names that it answers.
    pub directory: Directory,
    /// The mark of all that the control thread sends for itself: forwarded queries, lookups,
    /// fetches of token keys. 0 where no traffic is captured.
    pub mark: u32,
}
