//! The sources of configuration: files, DNS, and the public keys of token issuers.

mod dns;
mod fetch;
pub mod files;
mod keys;
pub mod lookup;
mod outward;

pub use dns::Names;
pub use keys::KeySets;
pub use outward::Outward;
