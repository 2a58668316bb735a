//! JSON Web Tokens (RFC 7519) as bearer tokens (RFC 6750): checks that the issuer has signed a
//! request's token, and reads its claims.
//!
//! `keys` are an issuer's public keys, `token` checks one token, `provider` is a configured issuer,
//! and rules read `claims`. No I/O and no clock: the caller passes keys and the time.

mod cells;
mod claims;
mod keys;
mod provider;
mod token;

pub use cells::ProviderCells;
pub use claims::{ClaimMatch, Claims};
pub use keys::{KeySet, KeySetError};
pub use provider::{Accepted, KeysWanted, Presented, Provider, Requirement};
pub use token::Rejection;
