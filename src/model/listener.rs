//! Listeners.

use std::time::Duration;

use super::{Http2, Item, ServerTls};
use crate::net::Bind;

/// A listener: its addresses and the protocol of its connections.
#[derive(Clone, Debug, Default)]
pub struct Listener {
    /// The name.
    pub name: Item<String>,
    /// The addresses.
    pub binds: Vec<Item<Bind>>,
    /// The protocol.
    pub protocol: ListenerProtocol,
    /// TLS. Empty means plain text. The SNI selects one of several certificates.
    pub tls: Vec<Item<ServerTls>>,
    /// The service of a TCP listener: `SERVICE` or `SERVICE/VERSION`.
    pub service: Option<Item<String>>,
    /// Whether each connection begins with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// The hosts to use. `None` means all hosts.
    pub hosts: Option<Vec<Item<String>>>,
    /// The number of trusted proxies before this one.
    pub trusted_hops: u32,
    /// The treatment of `x-forwarded-client-cert`.
    pub forward_client_cert: ForwardClientCert,
    /// HTTP/2 settings for clients.
    pub http2: Http2,
    /// Time limits for clients.
    pub timeouts: Timeouts,
    /// The maximum number of open connections. `None` means no separate limit.
    pub connections: Option<u32>,
    /// Whether requests without `x-request-id` get one. `None` means the default, true.
    pub request_id: Option<bool>,
    /// The pseudonym to add to `via`.
    pub via: Option<Item<String>>,
    /// The treatment of `%2F` and `%5C` in paths.
    pub escaped_slashes: EscapedSlashes,
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

/// Time limits for clients. `None` means the default.
#[derive(Clone, Debug, Default)]
pub struct Timeouts {
    /// The time limit of the TLS handshake.
    pub handshake: Option<Duration>,
    /// The time limit of a request head.
    pub header: Option<Duration>,
    /// The longest pause between two portions of a body.
    pub body_idle: Option<Duration>,
    /// The longest wait for the next request on a connection.
    pub keep_alive: Option<Duration>,
    /// The longest silence of both directions of a TCP connection or tunnel.
    pub tcp_idle: Option<Duration>,
}
