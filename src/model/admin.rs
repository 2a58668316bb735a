//! The admin interface.

use super::{Item, Material, Origin, ServerTls, Service};
use crate::net::Address;

/// The admin interface. `None` means the default value.
#[derive(Clone, Debug, Default)]
pub struct Admin {
    /// The address.
    pub bind: AdminBind,
    /// The origin of the address. `None` if it is the default.
    pub origin: Option<Origin>,
    /// The token that clients must send.
    pub token: Option<Item<Material>>,
    /// Its certificate, and the CAs of its clients.
    pub tls: Option<Item<ServerTls>>,
    /// The admin interfaces of other proxies.
    pub peers: Vec<AdminPeer>,
}

/// The address of the admin interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdminBind {
    /// The default address.
    #[default]
    Default,
    /// The admin interface is off.
    Off,
    /// The admin interface listens on this address.
    At(Address),
}

/// The admin interface of another proxy.
#[derive(Clone, Debug)]
pub struct AdminPeer {
    /// Its name, for people.
    pub name: Item<String>,
    /// Its address, `HOST:PORT`.
    pub address: Item<String>,
    /// The token that it demands.
    pub token: Option<Item<Material>>,
    /// The proxy as a service, for the settings of TLS.
    pub service: Service,
}
