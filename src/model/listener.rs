//! Listeners.

use std::time::Duration;

use super::{Http2, Http3, Item, Origin, RateLimit, ServerTls, Tcp, Udp};
use crate::net::Bind;

/// A listener: its addresses and the protocol of its connections.
#[derive(Clone, Debug, Default)]
pub struct Listener {
    /// The name in logs and metrics.
    pub name: Item<String>,
    /// The addresses at which the listener accepts connections.
    pub binds: Vec<Item<Bind>>,
    /// Whether the clients are the workload itself (outbound). Otherwise the clients are others.
    pub outbound: bool,
    /// The protocol that clients use.
    pub protocol: ListenerProtocol,
    /// One entry for each certificate; the SNI selects the entry. Empty means plain text.
    pub tls: Vec<Item<ServerTls>>,
    /// The service of a TCP listener: `SERVICE` or `SERVICE/VERSION`.
    pub service: Option<Item<String>>,
    /// The limits on flows of a listener that passes QUIC through.
    pub udp: Option<Item<Udp>>,
    /// Whether each connection begins with a PROXY protocol header.
    pub proxy_protocol: Option<Origin>,
    /// The origin of `redirect_https: true`, which redirects each request to https. `None` means
    /// that routes apply.
    pub redirect_https: Option<Origin>,
    /// The hosts whose routes apply. `None` means all hosts.
    pub hosts: Option<Vec<Item<String>>>,
    /// Only routes with the same scope apply. `None` means the routes without a scope.
    pub scope: Option<Box<str>>,
    /// The number of trusted proxies in front of this one. That many addresses at the end of
    /// `x-forwarded-for` are trusted.
    pub trusted_hops: u32,
    /// The treatment of `x-forwarded-client-cert`.
    pub forward_client_cert: ForwardClientCert,
    /// HTTP/2 settings for clients.
    pub http2: Http2,
    /// HTTP/3 settings for clients. `None` means that HTTP/3 is not served.
    pub http3: Option<Item<Http3>>,
    /// Time limits for clients.
    pub timeouts: Timeouts,
    /// How the kernel detects a dead TCP peer, for connections of clients.
    pub tcp: Tcp,
    /// The maximum number of open connections. `None` means that only the limit of the process
    /// applies.
    pub connections: Option<Item<u32>>,
    /// The maximum number of open connections from one client address. `None` means no limit.
    pub connections_per_source: Option<Item<u32>>,
    /// The number of requests after which a connection closes. `None` means no limit.
    pub requests_per_connection: Option<Item<u32>>,
    /// The limits on the requests of all clients together.
    pub rate_limits: Vec<Item<RateLimit>>,
    /// Whether requests without `x-request-id` get one. `None` means the default, true.
    pub request_id: Option<bool>,
    /// The name of this proxy in an added `via` field (RFC 9110 7.6.3). `None` means that no field
    /// is added.
    pub via: Option<Item<String>>,
    /// How `%2F` and `%5C` in the path of a request are handled.
    pub escaped_slashes: EscapedSlashes,
    /// Whether a client that has closed its sending side counts as disconnected. `None` means that
    /// it counts only if its request asked for a persistent connection.
    pub abort_on_close: Option<bool>,
}

/// The protocol of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// HTTP/1 or HTTP/2: the first bytes of the client show which one.
    #[default]
    Auto,
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
    /// HTTP/3, on UDP ports alone.
    Http3,
    /// Opaque bytes, which go to one service.
    Tcp,
    /// TLS passthrough: the SNI selects the route, and the TLS stream is forwarded unchanged.
    Tls,
    /// QUIC passthrough on UDP ports: the SNI selects the route, and datagrams are forwarded
    /// unchanged.
    Quic,
}

/// How the field `x-forwarded-client-cert` of a request is handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardClientCert {
    /// The field is removed.
    #[default]
    Sanitize,
    /// The client's certificate is added to the field, if the client has a certificate.
    Append,
    /// The field is replaced with the client's certificate.
    Set,
}

/// How `%2F` and `%5C` in the path of a request are handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// The request is refused.
    Reject,
    /// `%2F` and `%5C` stay as they are.
    #[default]
    Keep,
    /// `%2F` and `%5C` become slashes.
    Decode,
}

/// Time limits for clients. `None` means the default value. [`NO_LIMIT`](crate::time::NO_LIMIT)
/// means no limit.
#[derive(Clone, Debug, Default)]
pub struct Timeouts {
    /// The time limit of the TLS handshake.
    pub handshake: Option<Duration>,
    /// The time limit for receiving a complete request head.
    pub header: Option<Duration>,
    /// The longest pause within the body of a request, until the response begins.
    pub request_body: Option<Duration>,
    /// The longest time in which no byte of an exchange passes, in either direction.
    pub stream_idle: Option<Duration>,
    /// The longest wait for the next request on a connection.
    pub keep_alive: Option<Duration>,
    /// The longest time without a byte in either direction, for a TCP connection or tunnel.
    pub tcp_idle: Option<Duration>,
}
