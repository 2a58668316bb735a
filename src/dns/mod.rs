//! A resolver for the workload on this host: names of services have their virtual addresses, and
//! everything else is asked of the system's resolvers.

mod answer;
mod server;

pub use answer::{Answer, Directory, TTL_S, answer};
pub use server::{QUERIES_MAX, Resolver};
