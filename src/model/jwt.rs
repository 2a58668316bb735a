//! Issuers of JSON Web Tokens, and the demand for a token.

use std::time::Duration;

use super::{Item, Material};

/// An issuer of tokens.
#[derive(Clone, Debug, Default)]
pub struct TokenProvider {
    /// Its name.
    pub name: Item<String>,
    /// The claim `iss`.
    pub issuer: String,
    /// The claim `aud` must name one of these; empty for any.
    pub audiences: Vec<String>,
    /// Its public keys. A provider without exactly one kind is a fault.
    pub keys: Item<Option<TokenKeys>>,
    /// The field that holds the token; `None` for `authorization`.
    pub header: Option<Item<String>>,
    /// The service sees the token.
    pub forward: bool,
    /// The allowed difference of clocks; `None` for the default.
    pub leeway: Option<Duration>,
}

/// The public keys of an issuer.
#[derive(Clone, Debug)]
pub enum TokenKeys {
    /// A JSON Web Key Set.
    Set {
        /// The key set.
        set: Item<Material>,
        /// The CAs of a URL, which a key set does not need.
        ca: Option<Item<Material>>,
    },
    /// A URL that has a JSON Web Key Set.
    Url {
        /// `http://...` or `https://...`.
        url: Item<String>,
        /// PEM with the CAs of an https URL; `None` for the public CAs.
        ca: Option<Item<Material>>,
        /// Between two fetches; `None` for the default.
        refresh: Option<Duration>,
    },
}

/// The token that a request must carry.
#[derive(Clone, Debug, Default)]
pub struct TokenDemand {
    /// The names of accepted providers.
    pub providers: Vec<Item<String>>,
    /// Requests without a token pass.
    pub optional: bool,
}
