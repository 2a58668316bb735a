//! Lowers `sources:` to the model.

use std::sync::Arc;

use super::super::grammar::sources as grammar;
use super::super::materials::path_of;
use super::super::values::Placed;
use super::{Lower, list, origin, settings, tls};
use crate::model::{
    Consul, Endpoints, Etcd, Item, Items, Kubernetes, Service, ServiceProtocol, Sources, Xds,
};

pub(super) fn sources(lower: &mut Lower<'_>, written: grammar::Sources) -> Sources {
    Sources {
        etcd: written.etcd.map(|etcd| etcd_of(lower, etcd)),
        xds: written.xds.map(|xds| xds_of(lower, xds)),
        consul: written.consul.map(|consul| consul_of(lower, consul)),
        kubernetes: written.kubernetes.map(|kubernetes| kubernetes_of(lower, kubernetes)),
        cache: written.cache.map(|directory| {
            let place = directory.place;
            Item::new(path_of(lower.sources, &directory), origin(place))
        }),
    }
}

/// The word for all services of Consul's catalog.
const ALL: &str = "all";

fn consul_of(lower: &mut Lower<'_>, written: Placed<grammar::Consul>) -> Item<Consul> {
    let Placed { place, value } = written;
    let consul = Consul {
        address: value.address.into(),
        all: value.services.0.iter().any(|name| name.value == ALL),
        datacenter: value.datacenter.map(Into::into),
        token: value.token.as_ref().map(|name| lower.secret(name, "token")),
        service: Service {
            name: Item::new("sources.consul".to_owned(), origin(place)),
            protocol: ServiceProtocol::Http1,
            tls: value.tls.and_then(|tls| tls::client(lower, tls)),
            ..Service::default()
        },
        only_passing: value.only_passing,
    };
    Item::new(consul, origin(place))
}

/// Adds the services that are listed for Consul. A service of `services` without endpoints gets
/// those of Consul, so that it may have policies.
pub(super) fn add_consul_services(
    lower: &mut Lower<'_>,
    listed: Vec<Placed<String>>,
    services: &mut Items<Service>,
) {
    if listed.iter().any(|name| name.value == ALL) {
        let bare = services.iter_mut().filter(|service| service.value.endpoints.is_none());
        for service in bare.map(Arc::make_mut) {
            let name = service.value.name.clone();
            service.value.endpoints = Some(Endpoints::Consul(name));
        }
    }
    for name in listed.into_iter().filter(|name| name.value != ALL) {
        let item: Item<String> = name.clone().into();
        let endpoints = Some(Endpoints::Consul(item.clone()));
        let known = services.iter_mut().find(|known| known.value.name.value == name.value);
        match known.map(Arc::make_mut) {
            Some(known) if known.value.endpoints.is_none() => known.value.endpoints = endpoints,
            Some(_) => {
                let message = format!("the service {:?} has endpoints in `services`", name.value);
                let help = "leave them out there, or leave the name out here";
                lower.mistake_with_help(name.place, message, help);
            }
            None => {
                let service = Service { name: item.clone(), endpoints, ..Service::default() };
                services.push(Arc::new(Item::new(service, item.origin)));
            }
        }
    }
}

/// The word for a kubeconfig that is looked for.
const AUTO: &str = "auto";

fn kubernetes_of(lower: &Lower<'_>, written: Placed<grammar::Kubernetes>) -> Item<Kubernetes> {
    let Placed { place, value } = written;
    let file = value.kubeconfig.filter(|file| file.value != AUTO);
    let kubernetes = Kubernetes {
        kubeconfig: file.map(|file| {
            let place = file.place;
            Item::new(path_of(lower.sources, &file), origin(place))
        }),
        context: value.context.map(Into::into),
        namespaces: list(value.namespaces.0),
        cluster_domain: value.cluster_domain.map(Into::into),
        secrets: value.secrets,
    };
    Item::new(kubernetes, origin(place))
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
