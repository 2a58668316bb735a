//! JSON Web Tokens (RFC 7519) as bearer tokens (RFC 6750): whether a request carries one that its
//! issuer has signed, and what that says.
//!
//! `keys` are an issuer's public keys, `token` checks one token against them, `provider` is an
//! issuer as configured, `claims` is what rules see. No I/O and no clock: keys and the time come
//! from outside.

mod cells;
mod claims;
mod keys;
mod provider;
mod token;

pub use cells::ProviderCells;
pub use claims::{ClaimMatch, Claims};
pub use keys::{KeySet, KeySetError};
pub use provider::{Accepted, KeysWanted, Provider, Requirement};
pub use token::Rejection;
