//! The grammar of `jwt:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{OneOrMany, Placed, Time};

/// An issuer of JSON Web Tokens.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtProvider {
    /// What the claim `iss` must be.
    pub issuer: Placed<String>,
    /// What the claim `aud` must name one of; one or a list. Default: it is not looked at.
    #[serde(default)]
    pub audiences: OneOrMany<Placed<String>>,
    /// Where its public keys are.
    pub jwks: Placed<Jwks>,
    /// The field that holds the token. Default `authorization`, after `Bearer`.
    pub header: Option<Placed<String>>,
    /// The service gets to see the token. Default false: the field is dropped.
    #[serde(default)]
    pub forward: bool,
    /// How far the clocks of issuer and proxy may be apart. Default 60s.
    pub leeway: Option<Time>,
}

/// A JSON Web Key Set: exactly one of `file` and `url`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Jwks {
    /// A file, read again when it changes.
    pub file: Option<Placed<String>>,
    /// `https://...`, fetched at once and then again and again; what was fetched last stays in use
    /// when that fails.
    pub url: Option<Placed<String>>,
    /// PEM file with the CAs of an https URL. Default /etc/ssl/certs/ca-certificates.crt.
    pub ca: Option<Placed<String>>,
    /// How often a URL is fetched. Default 20m. A token with an unknown key brings it forward.
    pub refresh: Option<Time>,
}

/// The token that a request must carry: `PROVIDER`, or `{providers: [...]}`.
#[derive(Clone, Debug, Default)]
pub struct JwtDemand {
    /// Whose token it may be.
    pub providers: Vec<Placed<String>>,
    /// Requests without a token pass, too; those with a bad one do not.
    pub optional: bool,
}
