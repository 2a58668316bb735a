//! Listeners.

use std::time::Duration;

use super::{Http2, Item, ServerTls};
use crate::net::Bind;

/// A listener: where connections arrive, and what they carry.
#[derive(Clone, Debug, Default)]
pub struct Listener {
    /// Its name.
    pub name: Item<String>,
    /// Where it listens.
    pub binds: Vec<Item<Bind>>,
    /// What clients speak.
    pub protocol: ListenerProtocol,
    /// TLS; empty for plain text. A list is a choice by SNI.
    pub tls: Vec<Item<ServerTls>>,
    /// The service of a TCP listener: `SERVICE` or `SERVICE/VERSION`.
    pub service: Option<Item<String>>,
    /// Each connection begins with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// The hosts that it serves; `None` for all.
    pub hosts: Option<Vec<Item<String>>>,
    /// The number of trusted proxies before this one.
    pub trusted_hops: u32,
    /// What services learn about client certificates.
    pub forward_client_cert: ForwardClientCert,
    /// How HTTP/2 is spoken with clients.
    pub http2: Http2,
    /// Time limits for clients.
    pub timeouts: Timeouts,
    /// Open connections at most; `None` for no own limit.
    pub connections: Option<u32>,
    /// Requests without `x-request-id` get one; `None` for the default, which is yes.
    pub request_id: Option<bool>,
    /// The pseudonym to add to `via`.
    pub via: Option<Item<String>>,
    /// The treatment of `%2F` and `%5C` in paths.
    pub escaped_slashes: EscapedSlashes,
}

/// What the clients of a listener speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// HTTP/1 or HTTP/2, as the client begins.
    #[default]
    Auto,
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Bytes for one service.
    Tcp,
    /// TLS that is not terminated; the SNI selects the route.
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

/// Time limits for clients; `None` for the default.
#[derive(Clone, Debug, Default)]
pub struct Timeouts {
    /// For the TLS handshake.
    pub handshake: Option<Duration>,
    /// For the head of a request.
    pub header: Option<Duration>,
    /// Between two portions of a body.
    pub body_idle: Option<Duration>,
    /// Until the next request on a connection.
    pub keep_alive: Option<Duration>,
    /// Without a byte in either direction of a TCP stream or tunnel.
    pub tcp_idle: Option<Duration>,
}
