//! Who a workload is: SPIFFE IDs as Istio, Consul and Ringway write them, and Linkerd's names.

mod linkerd;
mod spiffe;

pub use linkerd::LinkerdName;
pub use spiffe::{SpiffeError, SpiffeId, Workload};
