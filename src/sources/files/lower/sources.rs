//! Lowers `sources:` to the model.

use super::super::grammar::sources as grammar;
use super::super::materials::path_of;
use super::super::values::Placed;
use super::{Lower, list, origin, settings, tls};
use crate::model::{Etcd, Item, Service, ServiceProtocol, Sources, Xds};

pub(super) fn sources(lower: &mut Lower<'_>, written: grammar::Sources) -> Sources {
    Sources {
        etcd: written.etcd.map(|etcd| etcd_of(lower, etcd)),
        xds: written.xds.map(|xds| xds_of(lower, xds)),
        cache: written.cache.map(|directory| {
            let place = directory.place;
            Item::new(path_of(lower.sources, &directory), origin(place))
        }),
    }
}

fn etcd_of(lower: &mut Lower<'_>, written: Placed<grammar::Etcd>) -> Item<Etcd> {
    let Placed { place, value } = written;
    let etcd = Etcd {
        endpoints: list(value.endpoints.0),
        prefix: value.prefix.map(Into::into),
        user: value.user.map(Into::into),
        password: value.password.as_ref().map(|name| lower.secret(name, "password")),
        service: Service {
            name: Item::new("sources.etcd".to_owned(), origin(place)),
            protocol: ServiceProtocol::Grpc,
            tls: value.tls.and_then(|tls| tls::client(lower, tls)),
            ..Service::default()
        },
        max_bytes: settings::size(value.max_bytes),
    };
    Item::new(etcd, origin(place))
}

fn xds_of(lower: &mut Lower<'_>, written: Placed<grammar::Xds>) -> Item<Xds> {
    let Placed { place, value } = written;
    let xds = Xds {
        address: value.address.into(),
        types: value.types.map(Into::into),
        node: value.node.map(Into::into),
        cluster: value.cluster.map(Into::into),
        delta: value.delta,
        service: Service {
            name: Item::new("sources.xds".to_owned(), origin(place)),
            protocol: ServiceProtocol::Grpc,
            tls: value.tls.and_then(|tls| tls::client(lower, tls)),
            ..Service::default()
        },
        max_resources: value.max_resources.map(Into::into),
        max_bytes: settings::size(value.max_bytes),
    };
    Item::new(xds, origin(place))
}
