//! The grammar of `routes:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::fault::Fault;
use super::jwt::JwtDemand;
use super::mirror::Mirror;
use super::overload::Priority;
use super::rate_limit::RateLimit;
use super::retry::Retries;
use super::shift::Shift;
use crate::sources::files::values::{AtLeastOne, Entries, OneOrMany, Placed, Time, TimeOrNone};

/// One rule of a host. The first rule whose `match` matches a request decides. Set exactly one of
/// `to`, `redirect` and `respond`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// The name in logs and metrics. Default: HOST#N.
    pub name: Option<Placed<String>>,
    /// The conditions on requests. Default: all requests match.
    #[serde(rename = "match")]
    pub matches: Match,
    /// The services that get the matching requests.
    pub to: Option<Placed<To>>,
    /// The value that keeps a user on the same version when the weights of `to` change: `identity`,
    /// `source-ip`, or a map with `header` or `cookie`. Default: requests are split by weight
    /// alone.
    pub sticky: Option<Placed<Sticky>>,
    /// A redirect as the response, instead of `to`.
    pub redirect: Option<Placed<Redirect>>,
    /// A fixed response, instead of `to`.
    pub respond: Option<Placed<Respond>>,
    /// The time from the request to the end of the response; `none` for no limit. Default: that of
    /// the service.
    pub timeout: Option<TimeOrNone>,
    /// Retries of failed requests. Default: those of the service.
    pub retries: Option<Placed<Retries>>,
    /// Faults that are injected into requests. Default: none.
    pub fault: Option<Placed<Fault>>,
    /// A plan that moves the requests from one destination in `to` to another. Default: none.
    pub shift: Option<Placed<Shift>>,
    /// Another service that gets a copy of each request. Default: none.
    pub mirror: Option<Placed<Mirror>>,
    /// A limit on the requests of this rule, or a list: a local limit and a global one. Default:
    /// none.
    pub rate_limit: OneOrMany<Placed<RateLimit>>,
    /// The priority of the requests when the process is overloaded: `high`, `normal` or `low`.
    /// Default: set by the header field of `overload.priority`, else `normal`.
    pub priority: Option<Placed<Priority>>,
    /// The longest pause within the body of a request, until the response begins; `none` for no
    /// limit. Default: `timeouts.request_body` of the listener.
    pub request_body_timeout: Option<TimeOrNone>,
    /// The longest time in which no byte of an exchange passes, in either direction; `none` for no
    /// limit. Default: the time of the service.
    pub stream_idle_timeout: Option<TimeOrNone>,
    /// The token that requests must have: the name of a provider in `jwt`, or a map. Default: the
    /// setting of the service.
    pub jwt: Option<Placed<JwtDemand>>,
    /// Changes to the host and the path before the request is forwarded.
    pub rewrite: Option<Placed<Rewrite>>,
    /// Changes to header fields.
    pub headers: Headers,
}

/// Conditions on a request. All must match.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// The path: `/exact`, `/prefix/*` or `~regex`.
    pub path: Option<Placed<String>>,
    /// The method, one of a list. Default: any method except CONNECT.
    pub method: AtLeastOne<Placed<String>>,
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
    /// The value is present, whatever it is.
    Present,
}

/// The destinations of requests: `SERVICE`, `SERVICE/VERSION`, or a map of them to weights.
#[derive(Clone, Debug, Default)]
pub struct To(pub Vec<(Placed<String>, u32)>);

/// A value that keeps a user on the same version.
#[derive(Clone, Debug)]
pub enum Sticky {
    /// The value of this header field.
    Header(Placed<String>),
    /// The value of this cookie.
    Cookie(Placed<String>),
    /// The version that this cookie names. The proxy sets it.
    Set(StickyCookie),
    /// The SPIFFE ID of the client.
    Identity,
    /// The client's IP address.
    SourceIp,
}

/// A cookie that the proxy sets, and that names the version of its user.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StickyCookie {
    /// The name of the cookie.
    pub name: Option<Placed<String>>,
    /// The lifetime of the cookie. Default: until the client ends its session.
    pub ttl: Option<Placed<Time>>,
    /// The path of the requests that have the cookie. Default `/`.
    pub path: Option<Placed<String>>,
}

/// A redirect to the URL of the request, with some of its parts replaced.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Placed<String>>,
    /// The new host.
    pub host: Option<Placed<String>>,
    /// The new port.
    pub port: Option<u16>,
    /// The new path.
    pub path: Option<Placed<String>>,
    /// The status: 301, 302, 303, 307 or 308. Default 301.
    pub status: Option<Placed<u16>>,
}

/// A fixed response.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Respond {
    /// The status, 200 to 599. Default 200.
    pub status: Option<Placed<u16>>,
    /// The body, as text. Default: empty.
    pub body: String,
}

/// Changes to host and path before the request goes to the service.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rewrite {
    /// Replaces the part of the path that `match.path` matched before its `*`.
    pub prefix: Option<Placed<String>>,
    /// Replaces the whole path.
    pub path: Option<Placed<String>>,
    /// Replaces the Host field.
    pub host: Option<Placed<String>>,
}

/// Changes to header fields.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Headers {
    /// Changes to the request.
    pub request: FieldEdits,
    /// Changes to the response.
    pub response: FieldEdits,
}

/// Changes to the fields of one message.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FieldEdits {
    /// Replaces all fields with this name.
    pub set: Entries<Placed<String>>,
    /// Adds a field. Fields with the same name stay.
    pub add: Entries<Placed<String>>,
    /// Removes all fields with this name.
    pub remove: OneOrMany<Placed<String>>,
}
