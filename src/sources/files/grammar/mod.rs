//! The grammar: what a user writes. Its comments are the descriptions in the JSON Schema.

pub mod authorization;
pub mod health;
pub mod http2;
pub mod intercept;
pub mod jwt;
pub mod listener;
pub mod mesh;
pub mod route;
pub mod service;
pub mod settings;
pub mod tls;

use schemars::JsonSchema;
use serde::Deserialize;

use self::authorization::AuthorizationRule;
use self::jwt::JwtProvider;
use self::listener::Listener;
use self::route::Rule;
use self::service::Service;
use self::settings::{Admin, Limits, Runtime, Telemetry};
use self::tls::Mesh;
use super::values::{Entries, OneOrMany, Placed, Time};

/// A Ringway configuration: the sections of all files together.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Workers and their kernel interface. Read at start only.
    pub runtime: Runtime,
    /// The interface for operators.
    pub admin: Admin,
    /// How long connections may finish when they are drained. Default 30s.
    pub drain: Option<Time>,
    /// Limits on what clients may send.
    pub limits: Limits,
    /// Where connections are taken, by name.
    pub listeners: Entries<Placed<Listener>>,
    /// What happens to requests, by host: `shop.example.com`, `*.example.com`, `*`.
    pub routes: Entries<OneOrMany<Placed<Rule>>>,
    /// Where requests go, by name.
    pub services: Entries<Placed<Service>>,
    /// Who this workload is, and whom it trusts.
    pub mesh: Mesh,
    /// Issuers of JSON Web Tokens, by name.
    pub jwt: Entries<Placed<JwtProvider>>,
    /// Who may do what. Deny rules come first, then allow rules; where no allow rule is about a
    /// service, everything else is allowed there.
    pub authorization: Option<Vec<Placed<AuthorizationRule>>>,
    /// Logs.
    pub telemetry: Telemetry,
}
