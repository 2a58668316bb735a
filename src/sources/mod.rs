//! Where a configuration comes from, beside the files: names that are looked up, and the public
//! keys of issuers of tokens.

mod dns;
mod keys;

pub use dns::Names;
pub use keys::KeySets;
