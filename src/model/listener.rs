//! Listeners.

use std::time::Duration;

use super::{Http2, Item, Origin, RateLimit, ServerTls, Tcp};
use crate::net::Bind;

/// A listener: its addresses and the protocol of its connections.
#[derive(Clone, Debug, Default)]
pub struct Listener {
    /// The name.
    pub name: Item<String>,
    /// The addresses.
    pub binds: Vec<Item<Bind>>,
    /// Whether its clients are the workload beside the proxy.
    pub outbound: bool,
    /// The protocol.
    pub protocol: ListenerProtocol,
    /// TLS. Empty means plain text. The SNI selects one of several certificates.
    pub tls: Vec<Item<ServerTls>>,
    /// The service of a TCP listener: `SERVICE` or `SERVICE/VERSION`.
    pub service: Option<Item<String>>,
    /// Whether each connection begins with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// The origin of `redirect_https: true`, which redirects each request to https. `None` means
    /// that routes apply.
    pub redirect_https: Option<Origin>,
    /// The hosts to use. `None` means all hosts.
    pub hosts: Option<Vec<Item<String>>>,
    /// The number of trusted proxies in front of this one.
    pub trusted_hops: u32,
    /// The treatment of `x-forwarded-client-cert`.
    pub forward_client_cert: ForwardClientCert,
    /// HTTP/2 settings for clients.
    pub http2: Http2,
    /// Time limits for clients.
    pub timeouts: Timeouts,
    /// How the kernel detects that a client is gone.
    pub tcp: Tcp,
    /// The maximum number of open connections. `None` means no separate limit.
    pub connections: Option<u32>,
    /// The maximum number of open connections from one client address. `None` means no limit.
    pub connections_per_source: Option<Item<u32>>,
    /// The number of requests after which a connection closes. `None` means no limit.
    pub requests_per_connection: Option<Item<u32>>,
    /// The limits on the requests of all clients.
    pub rate_limits: Vec<Item<RateLimit>>,
    /// Whether requests without `x-request-id` get one. `None` means the default, true.
    pub request_id: Option<bool>,
    /// The pseudonym to add to `via`.
    pub via: Option<Item<String>>,
    /// The treatment of `%2F` and `%5C` in paths.
    pub escaped_slashes: EscapedSlashes,
    /// Whether a client that has closed its sending side counts as disconnected. `None` means: only
    /// if its request asked for a persistent connection.
    pub abort_on_close: Option<bool>,
}

/// The protocol of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// HTTP/1 or HTTP/2. The first bytes of the client decide.
    #[default]
    Auto,
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Opaque bytes for one service.
    Tcp,
    /// TLS passthrough. The SNI selects the route.
    Tls,
}

/// The treatment of `x-forwarded-client-cert`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardClientCert {
    /// Remove it.
    #[default]
    Sanitize,
    /// Add the client's certificate to the field of a client that has a certificate.
    Append,
    /// Replace it with the client's certificate.
    Set,
}

/// The treatment of `%2F` and `%5C` in a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// Refuse the request.
    Reject,
    /// Keep them.
    #[default]
    Keep,
    /// Decode them.
    Decode,
}

/// Time limits for clients. `None` means the default value. [`NO_LIMIT`](crate::time::NO_LIMIT)
/// means no limit.
#[derive(Clone, Debug, Default)]
pub struct Timeouts {
    /// The time limit of the TLS handshake.
    pub handshake: Option<Duration>,
    /// The time limit of a request head.
    pub header: Option<Duration>,
    /// The longest time without a byte of a body in either direction.
    pub body_idle: Option<Duration>,
    /// The longest wait for the next request on a connection.
    pub keep_alive: Option<Duration>,
    /// The longest silence of both directions of a TCP connection or tunnel.
    pub tcp_idle: Option<Duration>,
}
