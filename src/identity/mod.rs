//! Identities of workloads: SPIFFE IDs of Istio, Consul and Ringway, and Linkerd's DNS names.

mod linkerd;
mod spiffe;

pub use linkerd::LinkerdName;
pub use spiffe::{SpiffeError, SpiffeId, Workload};
