//! Endpoints at the admin interface of this process, from outside of its own files. Their author
//! could read and change this process through one of its own routes.

use std::net::{IpAddr, SocketAddr};

use super::{Compiler, admin_address};
use crate::model::{Endpoint, Endpoints, Item, Origin, Service};
use crate::net::Address;

/// Reports each resource of a server with the admin interface among its endpoints.
pub(super) fn check(compiler: &mut Compiler<'_>) {
    let Some(admin) = admin_address(compiler.model) else { return };
    for service in &compiler.model.services {
        let Some(id) = service.origin.resource() else { continue };
        let mut first = None;
        admin_endpoints(&service.value, &admin, |_, address| {
            first.get_or_insert(address);
        });
        if let Some(address) = first {
            let message = format!("{address} is the admin interface of this process");
            let help = format!("{} cannot have it as an endpoint", id.source);
            compiler.fault_with_help(&service.origin, message, help);
        }
    }
}

/// Calls `found` for each endpoint of `service` that is the admin interface, at `admin`.
pub fn admin_endpoints(service: &Service, admin: &Address, mut found: impl FnMut(&Origin, String)) {
    let mut list = |endpoints: &[Item<Endpoint>]| {
        for item in endpoints {
            let is_it = match (&item.value.address, admin) {
                (Address::Tcp(address), Address::Tcp(admin)) => reaches(*address, *admin),
                (Address::Unix(path), Address::Unix(admin)) => path == admin,
                _ => false,
            };
            if is_it {
                found(&item.origin, item.value.address.to_string());
            }
        }
    };
    match &service.endpoints {
        Some(Endpoints::List(endpoints)) => list(endpoints),
        Some(Endpoints::Versions(versions)) => {
            versions.iter().for_each(|(_, endpoints)| list(endpoints));
        }
        Some(Endpoints::Name(name)) => {
            if let Address::Tcp(admin) = admin
                && is_local_name(&name.value.address, *admin)
            {
                found(&name.origin, name.value.address.to_string());
            }
        }
        Some(Endpoints::Consul(_) | Endpoints::Slices(_) | Endpoints::Awaited) | None => {}
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
fn is_local_name(name: &str, admin: SocketAddr) -> bool {
    let Some((host, port)) = name.rsplit_once(':') else { return false };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let is_local = host == "localhost" || host.ends_with(".localhost");
    is_local && port.parse() == Ok(admin.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_reach_the_admin_interface() {
        for (address, admin, expected) in [
            ("127.0.0.1:9900", "127.0.0.1:9900", true),
            ("127.0.0.1:9901", "127.0.0.1:9900", false),
            ("0.0.0.0:9900", "127.0.0.1:9900", true),
            ("[::]:9900", "127.0.0.1:9900", true),
            ("[::ffff:127.0.0.1]:9900", "127.0.0.1:9900", true),
            ("127.0.0.1:9900", "0.0.0.0:9900", true),
            ("10.0.0.1:9900", "10.0.0.1:9900", true),
            ("10.0.0.1:9900", "127.0.0.1:9900", false),
        ] {
            let found = reaches(address.parse().unwrap(), admin.parse().unwrap());
            assert_eq!(found, expected, "{address} {admin}");
        }
        let admin = "127.0.0.1:9900".parse().unwrap();
        assert!(is_local_name("localhost:9900", admin));
        assert!(is_local_name("LOCALHOST.:9900", admin));
        assert!(!is_local_name("localhost:80", admin));
    }
}
