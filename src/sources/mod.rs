//! The sources of the configuration: files, DNS, and the URLs of token keys.

pub mod consul;
mod dial;
mod dns;
mod documents;
pub mod etcd;
mod fetch;
pub mod files;
mod gateway_api;
mod incoming;
mod istio;
mod keys;
pub mod kubernetes;
pub mod lookup;
mod objects;
mod outward;
mod pause;
mod post;
mod rpc;
mod smi;
pub mod workload;
pub mod xds;
pub mod yaml;

pub(crate) use self::istio::in_place_of_refused;
pub use consul::Consul;
pub use dial::{Connection, authority, dial};
pub use dns::Names;
pub use documents::{Cache, Documents};
pub use etcd::Etcd;
pub use fetch::{Fetcher, authorities};
pub use keys::KeySets;
pub use kubernetes::Kubernetes;
pub use outward::Outward;
pub use post::post;
pub use workload::Identities;
pub use xds::Xds;
