//! Routes: hosts and their rules.

use std::time::Duration;

use super::{Item, TokenDemand};
use crate::matching::{PathMatch, ValueMatch};

/// The rules of one host.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// `shop.example.com`, `*.example.com` or `*`, each with an optional port.
    pub host: Item<String>,
    /// Its rules; the first that matches a request decides.
    pub rules: Vec<Item<Rule>>,
}

/// One rule of a host.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Its name in logs and metrics; `None` for `HOST#N`.
    pub name: Option<Item<String>>,
    /// The requests that it takes.
    pub matches: Match,
    /// What it does with them. A rule without exactly one action is a fault.
    pub action: Option<Action>,
    /// From the request to the end of the response; `None` for the service's.
    pub timeout: Option<Duration>,
    /// The token that requests must carry; `None` for the service's.
    pub jwt: Option<Item<TokenDemand>>,
    /// Changes of host and path.
    pub rewrite: Option<Box<Item<Rewrite>>>,
    /// Changes of the fields of requests.
    pub request_headers: Option<Box<FieldEdits>>,
    /// Changes of the fields of responses.
    pub response_headers: Option<Box<FieldEdits>>,
}

/// What a rule does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Forward to these destinations, `SERVICE` or `SERVICE/VERSION`, each with its weight.
    Forward(Vec<(Item<String>, u32)>),
    /// Answer with a redirect.
    Redirect(Box<Item<Redirect>>),
    /// Answer with a fixed response.
    Respond(Respond),
}

/// Conditions on a request. All must hold.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// On the path.
    pub path: Option<Item<PathMatch>>,
    /// One of these methods; empty for any.
    pub methods: Vec<Item<String>>,
    /// On header fields, by name.
    pub headers: Vec<(Item<String>, ValueMatch)>,
    /// On query parameters, by name.
    pub query: Vec<(Item<String>, ValueMatch)>,
}

/// A redirect: the request's own address with some parts replaced.
#[derive(Clone, Debug, Default)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Item<String>>,
    /// Another host.
    pub host: Option<Item<String>>,
    /// Another port.
    pub port: Option<u16>,
    /// Another path.
    pub path: Option<Item<String>>,
    /// The status; `None` for 301.
    pub status: Option<Item<u16>>,
}

/// A fixed response.
#[derive(Clone, Debug, Default)]
pub struct Respond {
    /// The status; `None` for 200.
    pub status: Option<Item<u16>>,
    /// The body.
    pub body: String,
}

/// Changes of host and path on the way to the service.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    /// Replaces the matched prefix.
    pub prefix: Option<Item<String>>,
    /// Replaces the whole path.
    pub path: Option<Item<String>>,
    /// Replaces the host.
    pub host: Option<Item<String>>,
}

/// Changes of the fields of one message.
#[derive(Clone, Debug, Default)]
pub struct FieldEdits {
    /// Replaces all fields of the name.
    pub set: Vec<(Item<String>, Item<String>)>,
    /// Adds a field.
    pub add: Vec<(Item<String>, Item<String>)>,
    /// Removes all fields of the name.
    pub remove: Vec<Item<String>>,
}
