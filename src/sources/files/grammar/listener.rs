//! The grammar of `listeners:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::http2::Http2;
use super::http3::Http3;
use super::mesh::Udp;
use super::rate_limit::RateLimit;
use super::tcp::Tcp;
use super::tls::ListenerTls;
use crate::sources::files::values::{AtLeastOne, OneOrMany, Placed, Time, TimeOrNone};

/// A listener: its addresses and the protocol of its connections.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// `IP:PORT`, `[IPv6]:PORT`, `unix:/path` or `systemd:NAME`; one or a list.
    pub bind: OneOrMany<Placed<String>>,
    /// The clients of the listener: others (`inbound`), or the workload beside the proxy
    /// (`outbound`). An outbound listener is drained last. Default `inbound`.
    #[serde(default)]
    pub direction: Direction,
    /// The protocol. Default `auto`.
    #[serde(default)]
    pub protocol: ListenerProtocol,
    /// Certificates; the SNI selects one of a list. Or `mesh`, which means this workload's
    /// identity.
    pub tls: Option<AtLeastOne<Placed<ListenerTls>>>,
    /// The service of a `tcp` listener: `NAME` or `NAME/VERSION`. With `quic`: the service of
    /// datagrams that are not QUIC.
    pub service: Option<Placed<String>>,
    /// The limits on flows of a `quic` listener. A flow is the address of a client.
    pub udp: Option<Placed<Udp>>,
    /// Whether each connection begins with a PROXY protocol header (v1 or v2). Default false.
    #[serde(default)]
    pub proxy_protocol: Placed<bool>,
    /// Whether each request is redirected to https. The listener then uses no routes. Default
    /// false.
    #[serde(default)]
    pub redirect_https: Placed<bool>,
    /// The hosts of `routes` whose rules apply. Default: all.
    pub hosts: Option<AtLeastOne<Placed<String>>>,
    /// The number of trusted proxies in front of this one. That many addresses at the end of
    /// `x-forwarded-for` are trusted, and so is `x-forwarded-proto`. Default 0.
    #[serde(default)]
    pub trusted_hops: u32,
    /// How the field `x-forwarded-client-cert` of a request is handled. Default `sanitize`.
    #[serde(default)]
    pub forward_client_cert: ForwardClientCert,
    /// HTTP/2 settings for clients.
    #[serde(default)]
    pub http2: Http2,
    /// Whether HTTP/3 is served, too, on the UDP port of the same number; or its settings. Default
    /// false.
    pub http3: Option<Placed<Http3>>,
    /// Time limits for clients.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// TCP settings for connections of clients. Default: the section `tcp`.
    #[serde(default)]
    pub tcp: Tcp,
    /// The maximum number of open connections. Default: only `limits.connections` applies.
    pub connections: Option<Placed<u32>>,
    /// The maximum number of open connections from one client address, over all workers. Default:
    /// no limit.
    pub connections_per_source: Option<Placed<u32>>,
    /// The maximum number of requests on a connection, which is then closed. Default: no limit.
    pub requests_per_connection: Option<Placed<u32>>,
    /// A limit on the requests of all clients of this listener together. Default: none.
    #[serde(default)]
    pub rate_limit: OneOrMany<Placed<RateLimit>>,
    /// Whether a request without `x-request-id` gets one. Default true.
    pub request_id: Option<bool>,
    /// The name of this proxy in an added `via` field (RFC 9110 7.6.3). Default: no field is added.
    pub via: Option<Placed<String>>,
    /// How `%2F` and `%5C` in the path of a request are handled. Default `keep`.
    #[serde(default)]
    pub escaped_slashes: EscapedSlashes,
    /// Whether a client that has closed its sending side counts as disconnected, so that its
    /// request is cancelled. Default: only if the client has asked for a persistent connection.
    pub abort_on_close: Option<bool>,
}

/// How `%2F` and `%5C` in the path of a request are handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EscapedSlashes {
    /// The request is refused with 400.
    Reject,
    /// `%2F` and `%5C` stay as they are. Authorization rules are evaluated so that an ambiguous
    /// path is denied.
    #[default]
    Keep,
    /// `%2F` and `%5C` become slashes.
    Decode,
}

/// The clients of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Clients outside the workload.
    #[default]
    Inbound,
    /// The workload beside the proxy.
    Outbound,
}

/// The protocol of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ListenerProtocol {
    /// HTTP/2, HTTP/1.1 or HTTP/1.0: the first bytes of the client show which one.
    #[default]
    Auto,
    /// HTTP/1.1 and 1.0.
    Http,
    /// HTTP/2 only. A connection with another protocol is closed.
    Http2,
    /// HTTP/3 only: the listener has UDP ports and no TCP ports.
    Http3,
    /// Opaque bytes, which go to one service.
    Tcp,
    /// TLS passthrough. The SNI selects the route.
    Tls,
    /// QUIC passthrough: the listener has UDP ports and no TCP ports. The SNI selects the route.
    Quic,
}

/// How the field `x-forwarded-client-cert` of a request is handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForwardClientCert {
    /// The field is removed.
    #[default]
    Sanitize,
    /// The client's certificate is added to the field, if the client has a certificate.
    Append,
    /// The field is replaced with the client's certificate.
    Set,
}

/// Time limits for clients.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// The time limit of the TLS handshake. Default 10s.
    pub handshake: Option<Time>,
    /// The time limit for receiving a complete request head. Default 10s.
    pub header: Option<Time>,
    /// The longest pause within the body of a request, until the response begins. Default 60s, and
    /// no limit for gRPC calls; `none` for no limit.
    pub request_body: Option<TimeOrNone>,
    /// The longest time in which no byte of an exchange passes, in either direction. Default 5m,
    /// and no limit for gRPC calls; `none` for no limit.
    pub stream_idle: Option<TimeOrNone>,
    /// The longest wait for the next request on a connection. Default 60s.
    pub keep_alive: Option<Time>,
    /// The longest time without a byte in either direction, for a TCP connection or tunnel. Default
    /// 1h; `none` for no limit.
    pub tcp_idle: Option<TimeOrNone>,
}
