//! The grammar of `admin:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::tls::{ListenerTls, ServiceTls};
use crate::sources::files::values::{Entries, Placed};

/// The admin interface.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// The address, `IP:PORT` or `unix:/path`; `off` for no interface. Default 127.0.0.1:9900. Only
    /// the user of the proxy can connect to a Unix socket (mode 0600).
    pub bind: Option<Placed<String>>,
    /// A file with the token that clients must send: as `authorization: Bearer TOKEN`, or as the
    /// password of basic authentication. Only `/live` and `/ready` need none. An address that other
    /// hosts reach must have a token, or `tls` with `client_ca`. Default: none.
    pub token: Option<Placed<String>>,
    /// The certificate of the interface. With `client_ca`, a client with a certificate of these CAs
    /// needs no token. Default: plain text.
    pub tls: Option<Placed<ListenerTls>>,
    /// The admin interfaces of other proxies, by name. The dashboard shows the mesh of all of them.
    pub peers: Entries<Placed<AdminPeer>>,
}

/// The admin interface of another proxy: its address, or a map.
#[derive(Clone, Debug)]
pub enum AdminPeer {
    /// `HOST:PORT`.
    Address(String),
    /// The address and how this proxy gets in.
    Settings(Box<AdminPeerMap>),
}

/// The admin interface of another proxy, in its long form.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminPeerMap {
    /// `HOST:PORT`.
    pub address: Placed<String>,
    /// A file with the token that it demands. Default: none.
    pub token: Option<Placed<String>>,
    /// TLS to it. Default: plain text.
    pub tls: Option<Placed<ServiceTls>>,
}
