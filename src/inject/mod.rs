//! `ringway inject`: adds the sidecar to the pods of Kubernetes' workloads.
//!
//! A document gets lines, and keeps all others as they are. Only if its text has no blocks to which
//! lines can be added, it is written again. A document without pods passes byte for byte.

mod connections;
mod containers;
mod documents;
mod edit;
mod print;
mod review;
mod server;
mod settings;
#[cfg(test)]
mod tests;
mod workload;

pub use documents::{Injected, inject, summary};
pub use review::{Answer, review};
pub use server::{Serving, serve};
pub use settings::{
    ADMIN_PORT, CONFIG, IMAGE, Resources, Settings, USER, image, network, object_name, port,
    pull_policy, quantity, range,
};
pub use workload::{Outcome, Report};
