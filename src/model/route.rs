//! Routes: hosts and their rules.

use std::time::Duration;

use regex::bytes::Regex;

use super::{InjectedFault, Item, Mirror, Priority, RateLimit, Retries, Shift, TokenDemand};
use crate::matching::{PathMatch, ValueMatch};

/// The rules of one host.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// `shop.example.com`, `*.example.com` or `*`, each with an optional port.
    pub host: Item<String>,
    /// Further hosts with the same rules.
    pub aliases: Vec<Item<String>>,
    /// The listeners with the same scope serve these rules. `None` means all listeners without a
    /// scope, and captured traffic.
    pub scope: Option<Box<str>>,
    /// Whether a rule that no request can reach is only worth a warning.
    pub tolerant: bool,
    /// The rules. The first one that matches a request decides.
    pub rules: Vec<Item<Rule>>,
}

/// One rule of a host.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// The name in logs and metrics. `None` means `HOST#N`.
    pub name: Option<Item<String>>,
    /// The conditions on requests.
    pub matches: Match,
    /// The action. A rule without exactly one action is an error.
    pub action: Option<Action>,
    /// The value of a request that keeps it on its version. `None` means that requests are split by
    /// weight alone.
    pub sticky: Option<Box<Item<Sticky>>>,
    /// The time from the request to the end of the response. `None` means the timeout of the
    /// service.
    pub timeout: Option<Duration>,
    /// Retries of failed requests. `None` means those of the service.
    pub retries: Option<Box<Item<Retries>>>,
    /// Faults that are injected into requests.
    pub fault: Option<Box<Item<InjectedFault>>>,
    /// A plan that moves the traffic between two destinations.
    pub shift: Option<Box<Item<Shift>>>,
    /// The copies of requests that go to another service. `None` means no copies.
    pub mirror: Option<Box<Item<Mirror>>>,
    /// A limit on the requests of this rule.
    pub rate_limits: Vec<Item<RateLimit>>,
    /// The priority of the requests. `None` means that the header field of `overload.priority` may
    /// determine it.
    pub priority: Option<Item<Priority>>,
    /// The longest pause within the body of a request, until the response begins. `None` means the
    /// time of the listener.
    pub request_body_timeout: Option<Duration>,
    /// The longest time in which no byte of an exchange passes, in either direction. `None` means
    /// the time of the service.
    pub stream_idle_timeout: Option<Duration>,
    /// The token requirement. `None` means the requirement of the service.
    pub jwt: Option<Item<TokenDemand>>,
    /// Changes to the host and path.
    pub rewrite: Option<Box<Item<Rewrite>>>,
    /// Changes to the request's header fields.
    pub request_headers: Option<Box<FieldEdits>>,
    /// Changes to the response's header fields.
    pub response_headers: Option<Box<FieldEdits>>,
}

/// The action of a rule.
#[derive(Clone, Debug)]
pub enum Action {
    /// Forward to these destinations, `SERVICE` or `SERVICE/VERSION`, each with its weight.
    Forward(Vec<(Item<String>, u32)>),
    /// Answer with a redirect.
    Redirect(Box<Item<Redirect>>),
    /// Answer with a fixed response.
    Respond(Respond),
}

/// A value of a request that keeps it on its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// The value of this header field.
    Header(Item<String>),
    /// The value of this cookie.
    Cookie(Item<String>),
    /// The version that this cookie names. The proxy sets it.
    Set(StickyCookie),
    /// The SPIFFE ID of the client.
    Identity,
    /// The client's IP address.
    SourceIp,
}

/// A cookie that the proxy sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyCookie {
    /// The name.
    pub name: Option<Item<String>>,
    /// The lifetime. `None` means the session of the client.
    pub ttl: Option<Item<Duration>>,
    /// The path of the requests that have the cookie. `None` means all.
    pub path: Option<Item<String>>,
}

/// Conditions on a request. All must match.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// The condition on the path.
    pub path: Option<Item<PathMatch>>,
    /// The accepted methods. Empty means any except CONNECT.
    pub methods: Vec<Item<String>>,
    /// Conditions on header fields, by name.
    pub headers: Vec<(Item<String>, ValueMatch)>,
    /// Conditions on query parameters, by name.
    pub query: Vec<(Item<String>, ValueMatch)>,
    /// Conditions that a request must not match on header fields, by name. A request matches such a
    /// condition if one of the lines of the field does.
    pub without_headers: Vec<(Item<String>, ValueMatch)>,
    /// The condition on the host, as received: with the port, if the request has one.
    pub authority: Option<ValueMatch>,
    /// A condition on the name of the method, beside `methods`.
    pub method: Option<ValueMatch>,
}

/// A redirect to the URL of the request, with some of its parts replaced. `None` keeps a part.
#[derive(Clone, Debug, Default)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Item<String>>,
    /// The new host.
    pub host: Option<Item<String>>,
    /// The new port.
    pub port: Option<u16>,
    /// The new path.
    pub path: Option<Item<String>>,
    /// Replaces the part of the path that the prefix of the rule matched.
    pub prefix: Option<Item<String>>,
    /// The status. `None` means 301.
    pub status: Option<Item<u16>>,
}

/// A fixed response.
#[derive(Clone, Debug, Default)]
pub struct Respond {
    /// The status. `None` means 200.
    pub status: Option<Item<u16>>,
    /// The body, as text. Empty for no body.
    pub body: String,
}

/// Changes to the host and path before the request is forwarded.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    /// Replaces the part of the path that the prefix of the rule matched.
    pub prefix: Option<Item<String>>,
    /// Replaces the whole path.
    pub path: Option<Item<String>>,
    /// Replaces the host.
    pub host: Option<Item<String>>,
    /// Replaces the bytes that the condition on the path names, without a change of slashes.
    pub matched: Option<Item<String>>,
    /// Replaces all parts of the path that match the regex. `\1` in the text is the first group.
    pub regex: Option<(Item<Regex>, String)>,
}

/// Changes to the fields of one message.
#[derive(Clone, Debug, Default)]
pub struct FieldEdits {
    /// Replaces all fields with this name.
    pub set: Vec<(Item<String>, Item<String>)>,
    /// Adds a field. Fields with the same name stay.
    pub add: Vec<(Item<String>, Item<String>)>,
    /// Removes all fields with this name.
    pub remove: Vec<Item<String>>,
}
