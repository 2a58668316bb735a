//! Endpoints at the admin interface of this process, in objects and in documents of a server: who
//! writes them could read and change this process through one of its own routes.

use super::diagnostic::{Diagnostic, SourceMap};
use super::outside::Outside;
use crate::compile::{admin_address, is_local_name, reaches};
use crate::model::{Endpoint, Endpoints, Item, Model, Origin};
use crate::net::Address;

/// Reports each endpoint of an object or of a document of a server that is the admin interface.
pub(super) fn check(
    model: &Model,
    sources: &SourceMap,
    outside: &Outside,
    mistakes: &mut Vec<Diagnostic>,
) {
    let Some(admin) = admin_address(model) else { return };
    let mut report = |origin: &Origin, address: &str| {
        if let Origin::File(place) = origin
            && (sources.is_remote(place.file) || outside.has(place.file))
        {
            let message = format!("{address} is the admin interface of this process");
            let help = "an object or a document of a server cannot have it as an endpoint";
            mistakes.push(Diagnostic::at(*place, message).help(help));
        }
    };
    let mut list = |endpoints: &[Item<Endpoint>]| {
        for item in endpoints {
            if let Address::Tcp(address) = &item.value.address
                && reaches(*address, admin)
            {
                report(&item.origin, &address.to_string());
            }
        }
    };
    for service in &model.services {
        match &service.value.endpoints {
            Some(Endpoints::List(endpoints)) => list(endpoints),
            Some(Endpoints::Versions(versions)) => {
                versions.iter().for_each(|(_, endpoints)| list(endpoints));
            }
            Some(Endpoints::Name(_)) | None => {}
        }
    }
    for service in &model.services {
        if let Some(Endpoints::Name(name)) = &service.value.endpoints
            && is_local_name(&name.value.address, admin)
        {
            report(&name.origin, &name.value.address);
        }
    }
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
