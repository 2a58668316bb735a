//! Token issuers (JSON Web Tokens), and token requirements.

use std::time::Duration;

use super::{Item, Material};

/// A token issuer.
#[derive(Clone, Debug, Default)]
pub struct TokenProvider {
    /// The name, to which routes and services refer.
    pub name: Item<String>,
    /// The required value of the claim `iss`.
    pub issuer: String,
    /// The accepted values of the claim `aud`. Empty means that `aud` is not checked.
    pub audiences: Vec<String>,
    /// The public keys that verify the tokens. `None` is an error.
    pub keys: Item<Option<TokenKeys>>,
    /// The name of the header field that holds the token. `None` means `authorization`.
    pub header: Option<Item<String>>,
    /// Whether the header field with the token is forwarded to the service.
    pub forward: bool,
    /// The accepted difference between the clocks of the issuer and the proxy. `None` means 60 s.
    pub leeway: Option<Duration>,
}

/// The public keys of an issuer, or their URL.
#[derive(Clone, Debug)]
pub enum TokenKeys {
    /// A JSON Web Key Set (RFC 7517) that the source has read.
    Set {
        /// The key set, as JSON.
        set: Item<Material>,
        /// PEM with the CAs for a URL. A key set that is not fetched needs no CAs, so `compile`
        /// reports an error.
        ca: Option<Item<Material>>,
    },
    /// A URL of a JSON Web Key Set.
    Url {
        /// `http://...` or `https://...`.
        url: Item<String>,
        /// PEM with the CAs of an https URL. `None` means the public CAs.
        ca: Option<Item<Material>>,
        /// The interval of fetches. `None` means the default.
        refresh: Option<Duration>,
    },
}

/// The token requirement of a rule or service.
#[derive(Clone, Debug, Default)]
pub struct TokenDemand {
    /// The names of accepted providers.
    pub providers: Vec<Item<String>>,
    /// Whether requests without a token pass.
    pub optional: bool,
}
