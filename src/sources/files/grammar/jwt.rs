//! The grammar of `jwt:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{OneOrMany, Placed, Time};

/// An issuer of JSON Web Tokens.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtProvider {
    /// The required value of the claim `iss`.
    pub issuer: Placed<String>,
    /// The accepted values of the claim `aud`; one or a list. Default: `aud` is not checked.
    #[serde(default)]
    pub audiences: OneOrMany<Placed<String>>,
    /// The public keys that verify the tokens.
    pub jwks: Placed<Jwks>,
    /// The name of the header field that holds the token. Default `authorization`, after `Bearer`.
    pub header: Option<Placed<String>>,
    /// Whether the field with the token is forwarded to the service. Default false: the field is
    /// removed.
    #[serde(default)]
    pub forward: bool,
    /// The accepted difference between the clocks of issuer and proxy. Default 60s.
    pub leeway: Option<Time>,
}

/// The source of a JSON Web Key Set. Set exactly one of `file` and `url`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Jwks {
    /// A file with the key set. It is read again when it changes.
    pub file: Option<Placed<String>>,
    /// The URL of the key set, `https://...`. It is fetched at start and then repeatedly. If a
    /// fetch fails, the previous keys stay in use.
    pub url: Option<Placed<String>>,
    /// PEM file with the CAs of an https URL. Default /etc/ssl/certs/ca-certificates.crt.
    pub ca: Option<Placed<String>>,
    /// The interval of fetches. Default 20m. A token with an unknown key id causes an earlier
    /// fetch.
    pub refresh: Option<Time>,
}

/// The token that a request must carry: `PROVIDER`, or `{providers: [...]}`.
#[derive(Clone, Debug, Default)]
pub struct JwtDemand {
    /// The names of the accepted providers in `jwt`.
    pub providers: Vec<Placed<String>>,
    /// Requests without a token pass too. Requests with an invalid token do not.
    pub optional: bool,
}
