//! The grammar of `listeners:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::http2::Http2;
use super::tls::ListenerTls;
use crate::sources::files::values::{OneOrMany, Placed, Time};

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
