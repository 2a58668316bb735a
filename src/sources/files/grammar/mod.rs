//! The grammar of configuration files. Its comments are the descriptions in the JSON Schema.

pub mod admin;
pub mod authorization;
pub mod breaker;
pub mod fault;
pub mod health;
pub mod http2;
pub mod http3;
pub mod intercept;
pub mod jwt;
pub mod listener;
pub mod locality;
pub mod mesh;
pub mod metrics;
pub mod mirror;
pub mod outlier;
pub mod overload;
pub mod rate_limit;
pub mod retry;
pub mod route;
pub mod service;
pub mod settings;
pub mod shift;
pub mod sources;
pub mod tcp;
pub mod tls;
pub mod tracing;

use schemars::JsonSchema;
use serde::Deserialize;

use self::admin::Admin;
use self::authorization::AuthorizationRule;
use self::jwt::JwtProvider;
use self::listener::Listener;
use self::overload::Overload;
use self::route::Rule;
use self::service::Service;
use self::settings::{Dns, Drain, Limits, Runtime, Telemetry};
use self::sources::Sources;
use self::tcp::Tcp;
use self::tls::Mesh;
use super::values::{Entries, OneOrMany, Placed};

/// A Ringway configuration: the sections of all files together.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Workers and their kernel interface. It is read only at start.
    pub runtime: Runtime,
    /// The zone of this proxy, such as `eu/a`: region, zone and sub-zone. Default: none.
    pub zone: Option<Placed<String>>,
    /// The admin interface: its address, or `off`.
    pub admin: Admin,
    /// How the process drains: a time limit for requests in progress, or a map.
    pub drain: Option<Drain>,
    /// How the kernel detects a dead TCP peer. A listener or service may have its own settings.
    pub tcp: Tcp,
    /// Lookups of service names.
    pub dns: Dns,
    /// Limits on clients.
    pub limits: Limits,
    /// Overload protection of the process.
    pub overload: Overload,
    /// Listeners, by name.
    pub listeners: Entries<Placed<Listener>>,
    /// Rules for requests, by host: `shop.example.com`, `*.example.com`, `*`.
    pub routes: Entries<OneOrMany<Placed<Rule>>>,
    /// Sources of configuration beside these files.
    pub sources: Sources,
    /// Services, by name.
    pub services: Entries<Placed<Service>>,
    /// The identity of this workload, the roots that it trusts, and captured traffic.
    pub mesh: Mesh,
    /// Issuers of JSON Web Tokens, by name.
    pub jwt: Entries<Placed<JwtProvider>>,
    /// Authorization rules. Deny rules are evaluated first, then allow rules. If no allow rule
    /// applies to a service, all requests to it that are not denied are allowed.
    pub authorization: Option<Vec<Placed<AuthorizationRule>>>,
    /// The access log: its target, format and filter.
    pub telemetry: Telemetry,
}
