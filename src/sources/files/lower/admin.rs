//! Lowers `admin:` to the model.

use super::super::grammar::admin as grammar;
use super::super::values::Placed;
use super::{Lower, origin, tls};
use crate::model::{Admin, AdminBind, AdminPeer, Item, Service, ServiceProtocol};
use crate::net::Address;

pub(super) fn admin(lower: &mut Lower<'_>, written: grammar::Admin) -> Admin {
    let peers = written.peers.0.into_iter();
    Admin {
        bind: written.bind.as_ref().map_or(AdminBind::Default, |it| bind(lower, it)),
        origin: written.bind.map(|bind| origin(bind.place)),
        token: written.token.as_ref().map(|name| lower.secret(name, "token")),
        tls: written.tls.and_then(|tls| tls::server(lower, tls)),
        peers: peers.map(|(name, value)| peer(lower, name.into(), value)).collect(),
    }
}

fn bind(lower: &mut Lower<'_>, written: &Placed<String>) -> AdminBind {
    if written.value == "off" {
        return AdminBind::Off;
    }
    if let Some(path) = written.value.strip_prefix("unix:").filter(|path| path.starts_with('/')) {
        return AdminBind::At(Address::Unix(path.into()));
    }
    let address = lower.address(written, "write IP:PORT, unix:/path, or `off`");
    address.map_or(AdminBind::Off, |address| AdminBind::At(Address::Tcp(address)))
}

fn peer(
    lower: &mut Lower<'_>,
    name: Item<String>,
    written: Placed<grammar::AdminPeer>,
) -> AdminPeer {
    let place = written.place;
    let (address, token, tls) = match written.value {
        grammar::AdminPeer::Address(address) => (Item::new(address, origin(place)), None, None),
        grammar::AdminPeer::Settings(map) => (map.address.into(), map.token, map.tls),
    };
    let service = Service {
        name: Item::new(format!("admin.peers.{}", name.value), origin(place)),
        protocol: ServiceProtocol::Http1,
        tls: tls.and_then(|tls| tls::client(lower, tls)),
        ..Service::default()
    };
    let token = token.as_ref().map(|name| lower.secret(name, "token"));
    AdminPeer { name, address, token, service }
}
