//! Endpoints at the admin interface of this process, in resources of a server. Their author could
//! read and change this process through one of its own routes.

use std::net::{IpAddr, SocketAddr};

use super::{Compiler, admin_address};
use crate::model::Endpoints;
use crate::net::Address;

/// Reports each endpoint of a resource that is the admin interface.
pub(super) fn check(compiler: &mut Compiler<'_>) {
    let Some(admin) = admin_address(compiler.model) else { return };
    for service in &compiler.model.services {
        let Some(id) = service.origin.resource() else { continue };
        let found = match &service.value.endpoints {
            Some(Endpoints::List(all)) => all.iter().find_map(|item| match &item.value.address {
                Address::Tcp(address) if reaches(*address, admin) => Some(address.to_string()),
                _ => None,
            }),
            Some(Endpoints::Name(name)) if is_local_name(&name.value.address, admin) => {
                Some(name.value.address.to_string())
            }
            _ => None,
        };
        if let Some(address) = found {
            let message = format!("{address} is the admin interface of this process");
            let help = format!("{} cannot have it as an endpoint", id.source);
            compiler.fault_with_help(&service.origin, message, help);
        }
    }
}

/// Whether a connection to `address` reaches a listener at `admin`.
pub fn reaches(address: SocketAddr, admin: SocketAddr) -> bool {
    let (ip, own) = (address.ip().to_canonical(), admin.ip().to_canonical());
    let is_local = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
    // The kernel takes a connection to 0.0.0.0 or :: as one to this host.
    let is_same = ip == own || is_local(ip) && is_local(own);
    address.port() == admin.port() && is_same
}

/// Whether `name` is `localhost` with the port of `admin`.
pub fn is_local_name(name: &str, admin: SocketAddr) -> bool {
    let Some((host, port)) = name.rsplit_once(':') else { return false };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let is_local = host == "localhost" || host.ends_with(".localhost");
    is_local && port.parse() == Ok(admin.port())
}
