//! The grammar: what a user writes. Its comments are the descriptions in the JSON Schema.

pub mod authorization;
pub mod health;
pub mod http2;
pub mod http2_limits;
pub mod intercept;
pub mod jwt;
pub mod mesh;
pub mod tls;

use schemars::JsonSchema;
use serde::Deserialize;

use self::authorization::AuthorizationRule;
use self::health::HealthCheck;
use self::http2::Http2;
use self::http2_limits::Http2Limits;
use self::jwt::{JwtDemand, JwtProvider};
use self::tls::{ListenerTls, Mesh, ServiceTls};
use crate::sources::files::values::{
    AutoOrCount, Entries, OneOrMany, Placed, Size, Time, TimeOrNone,
};

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

/// Workers and their kernel interface.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Runtime {
    /// Number of workers. Default `auto`: one for each CPU that the process may use.
    pub workers: Option<AutoOrCount>,
    /// The kernel interface. Default `auto`: io_uring, or epoll where that is forbidden.
    pub driver: Driver,
}

/// A kernel interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// io_uring, or epoll where that is forbidden.
    #[default]
    Auto,
    /// io_uring or nothing.
    IoUring,
    /// epoll.
    Epoll,
}

/// The interface for operators.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Where it listens; `off` for nowhere. Default 127.0.0.1:9900.
    pub bind: Option<Placed<String>>,
}

/// Limits on what clients may send.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections open at once, over all listeners. Default 100000.
    pub connections: Option<u32>,
    /// Bytes of a message head. Default 60KiB.
    pub header_bytes: Option<Placed<Size>>,
    /// Field lines of a message head, at most 256. Default 100.
    pub headers: Option<Placed<u32>>,
    /// Bytes of a request target. Default 8KiB.
    pub uri_bytes: Option<Size>,
    /// Bytes of all chunk extensions of a message. Default 4KiB.
    pub chunk_extension_bytes: Option<Size>,
    /// Bytes of the trailers of a message. Default 8KiB.
    pub trailer_bytes: Option<Size>,
    /// What a peer of HTTP/2 may send besides messages.
    pub http2: Http2Limits,
}

/// Where connections are taken.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// `IP:PORT`, `[IPv6]:PORT`, `unix:/path` or `systemd:NAME`; one or a list.
    pub bind: OneOrMany<Placed<String>>,
    /// What is spoken. Default `auto`.
    #[serde(default)]
    pub protocol: ListenerProtocol,
    /// Certificates; a list is chosen from by SNI. `mesh`: this workload's identity.
    pub tls: Option<OneOrMany<Placed<ListenerTls>>>,
    /// The service of a `tcp` listener: `NAME` or `NAME/VERSION`.
    pub service: Option<Placed<String>>,
    /// Each connection begins with a PROXY protocol header (v1 or v2). Default false.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// The hosts of `routes` that it serves. Default: all.
    pub hosts: Option<OneOrMany<Placed<String>>>,
    /// Proxies before this one that are trusted: so many addresses at the end of `x-forwarded-for`
    /// are believed, and `x-forwarded-proto`. Default 0.
    #[serde(default)]
    pub trusted_hops: u32,
    /// What services are told of client certificates. Default `sanitize`.
    #[serde(default)]
    pub forward_client_cert: ForwardClientCert,
    /// How HTTP/2 is spoken with clients.
    #[serde(default)]
    pub http2: Http2,
    /// How long a client may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Connections open at once. Default: no limit of its own.
    pub connections: Option<u32>,
    /// Gives each request without `x-request-id` one. Default true.
    pub request_id: Option<bool>,
    /// Adds a `via` field with this name (RFC 9110 7.6.3). Default: none is added.
    pub via: Option<Placed<String>>,
    /// What becomes of `%2F` and `%5C` in a path. Default `keep`.
    #[serde(default)]
    pub escaped_slashes: EscapedSlashes,
}

/// What becomes of `%2F` and `%5C` in a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EscapedSlashes {
    /// The request is refused with 400.
    Reject,
    /// They stay; authorization decides doubt about them against the request.
    #[default]
    Keep,
    /// They become slashes.
    Decode,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ListenerProtocol {
    /// HTTP/2, and HTTP/1.1 and 1.0, as the client begins.
    #[default]
    Auto,
    /// HTTP/1.1 and 1.0.
    Http,
    /// HTTP/2 alone: whoever begins otherwise is cut off.
    Http2,
    /// Bytes to one service.
    Tcp,
    /// TLS that is passed on as it is, by the name that the client asks for.
    Tls,
}

/// What becomes of `x-forwarded-client-cert`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForwardClientCert {
    /// It is dropped.
    #[default]
    Sanitize,
    /// The client's certificate is added to what a client with a certificate said.
    Append,
    /// The client's certificate, whatever it said.
    Set,
}

/// How long a client may take.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// For the TLS handshake. Default 10s.
    pub handshake: Option<Time>,
    /// For the head of a request. Default 10s.
    pub header: Option<Time>,
    /// Between two portions of a body. Default 60s.
    pub body_idle: Option<Time>,
    /// Until the next request on a connection. Default 60s.
    pub keep_alive: Option<Time>,
    /// Without a byte in either direction of a TCP stream or tunnel. Default 1h.
    pub tcp_idle: Option<Time>,
}

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

/// Where requests go. It has exactly one of `endpoints`, `versions` and `dns`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Service {
    /// What the endpoints speak. Default `auto`: through TLS what they choose, HTTP/1.1 in the
    /// clear (or bytes behind a `tcp` listener).
    pub protocol: ServiceProtocol,
    /// Virtual addresses, `IP:PORT`: one or a list. Captured connections to them go to
    /// any endpoint.
    pub addresses: OneOrMany<Placed<String>>,
    /// The endpoints.
    pub endpoints: Option<Vec<Placed<Endpoint>>>,
    /// TLS to the endpoints. `mesh`: this workload's identity, and theirs is checked.
    pub tls: Option<Placed<ServiceTls>>,
    /// The SPIFFE IDs that endpoints must prove with `tls: mesh`; one or a list. Default: any of
    /// the trusted domains.
    pub identity: OneOrMany<Placed<String>>,
    /// The token that requests must carry: a provider of `jwt`, or a map. Default: none.
    pub jwt: Option<Placed<JwtDemand>>,
    /// The endpoints of each version.
    pub versions: Option<Entries<Vec<Placed<Endpoint>>>>,
    /// `HOST:PORT`: the addresses of the host are the endpoints.
    pub dns: Option<Placed<String>>,
    /// How an endpoint is chosen. Default `least-request`.
    pub balance: Balance,
    /// How long connecting may take. Default 1s.
    pub connect_timeout: Option<Time>,
    /// From the request to the end of the response. Default `none`.
    pub timeout: Option<TimeOrNone>,
    /// How long an unused connection to an endpoint is kept. Default 60s.
    pub idle_timeout: Option<Time>,
    /// Unused connections kept for each endpoint. Default 1024.
    pub max_idle_connections: Option<u32>,
    /// The PROXY protocol header that begins each connection to an endpoint. Default `none`.
    pub send_proxy_protocol: SendProxyProtocol,
    /// How HTTP/2 is spoken with endpoints.
    pub http2: Http2,
    /// How endpoints are checked; those that fail get no requests. Default: they are not.
    pub health_check: Option<Placed<HealthCheck>>,
}

/// What endpoints speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceProtocol {
    /// Through TLS HTTP/2 or HTTP/1.1, as each endpoint chooses by ALPN; HTTP/1.1 in the clear;
    /// bytes behind a `tcp` listener.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; in the clear with prior knowledge.
    Http2,
    /// gRPC: HTTP/2, and local answers with a gRPC status whatever the request says of itself.
    Grpc,
    /// Bytes.
    Tcp,
}

/// The form of a PROXY protocol header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SendProxyProtocol {
    /// No header.
    #[default]
    None,
    /// The text form.
    V1,
    /// The binary form.
    V2,
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// The less loaded of two chosen at random.
    #[default]
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// At random.
    Random,
    /// The better of two by recent latency and load.
    PeakEwma,
    /// Always the same for the same key.
    Hash(HashBy),
}

/// What is hashed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HashBy {
    /// The value of this header field.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// The client's IP address.
    SourceIp,
}

/// An instance of a service: `IP:PORT` or `unix:/path`, alone or with more about it.
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    /// `IP:PORT` or `unix:/path`.
    pub address: String,
    /// Its share of traffic relative to the others.
    pub weight: u32,
    /// Its zone.
    pub zone: Option<String>,
}

/// Logs.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// One line for each exchange. Default: none.
    pub access_log: Option<AccessLog>,
}

/// The access log.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessLog {
    /// `stdout`, `stderr` or a file.
    pub path: Placed<String>,
    /// How a line looks. Default `json`.
    #[serde(default)]
    pub format: LogFormat,
}

/// How a line of the access log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// A JSON object.
    #[default]
    Json,
    /// Envoy's default line.
    Text,
}
