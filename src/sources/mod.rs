//! The sources of configuration: files, DNS, and the public keys of token issuers.

mod dns;
pub mod files;
mod keys;

pub use dns::Names;
pub use keys::KeySets;
