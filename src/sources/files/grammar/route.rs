//! The grammar of `routes:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::jwt::JwtDemand;
use crate::sources::files::values::{Entries, OneOrMany, Placed, Time};

/// One rule of a host: the first whose `match` fits a request decides. It has exactly one of
/// `to`, `redirect` and `respond`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// Its name in logs and metrics. Default: HOST#N.
    pub name: Option<Placed<String>>,
    /// The requests that it takes. Default: all.
    #[serde(rename = "match")]
    pub matches: Match,
    /// Where they go.
    pub to: Option<Placed<To>>,
    /// Answers with a redirect.
    pub redirect: Option<Placed<Redirect>>,
    /// Answers with a fixed response.
    pub respond: Option<Placed<Respond>>,
    /// From the request to the end of the response. Default: the service's.
    pub timeout: Option<Time>,
    /// The token that requests must carry: a provider of `jwt`, or a map. Default: the service's.
    pub jwt: Option<Placed<JwtDemand>>,
    /// Changes host and path.
    pub rewrite: Option<Placed<Rewrite>>,
    /// Changes header fields.
    pub headers: Headers,
}

/// Conditions on a request; all of them must hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// `/exact`, `/prefix/*` or `~regex`.
    pub path: Option<Placed<String>>,
    /// One of these methods.
    pub method: OneOrMany<Placed<String>>,
    /// Header fields, by name.
    pub headers: Entries<Placed<ValueMatch>>,
    /// Query parameters, by name.
    pub query: Entries<Placed<ValueMatch>>,
}

/// A condition on a value: the value itself, `~regex`, or `{present: true}`.
#[derive(Clone, Debug)]
pub enum ValueMatch {
    /// The value or `~regex`.
    Text(String),
    /// It is there.
    Present,
}

/// Where requests go: `SERVICE`, `SERVICE/VERSION`, or a map of them to their weights.
#[derive(Clone, Debug, Default)]
pub struct To(pub Vec<(Placed<String>, u32)>);

/// A redirect: the request's own address with some parts replaced.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Placed<String>>,
    /// Another host.
    pub host: Option<Placed<String>>,
    /// Another port.
    pub port: Option<u16>,
    /// Another path.
    pub path: Option<Placed<String>>,
    /// 301, 302, 303, 307 or 308. Default 301.
    pub status: Option<Placed<u16>>,
}

/// A fixed response.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Respond {
    /// Its status, 200 to 599. Default 200.
    pub status: Option<Placed<u16>>,
    /// Its body, as text. Default: empty.
    pub body: String,
}

/// Changes of host and path on the way to the service.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rewrite {
    /// Replaces what `match.path` matched before its `*`.
    pub prefix: Option<Placed<String>>,
    /// Replaces the whole path.
    pub path: Option<Placed<String>>,
    /// Replaces Host.
    pub host: Option<Placed<String>>,
}

/// Changes of header fields.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Headers {
    /// On the way to the service.
    pub request: FieldEdits,
    /// On the way back.
    pub response: FieldEdits,
}

/// Changes of the fields of one message.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FieldEdits {
    /// Replaces every field of the name.
    pub set: Entries<Placed<String>>,
    /// Adds a field beside those of the name.
    pub add: Entries<Placed<String>>,
    /// Drops every field of the name.
    pub remove: OneOrMany<Placed<String>>,
}
