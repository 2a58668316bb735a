//! Objects of the Gateway API. Gateways become listeners, and routes become their rules.

mod backends;
mod conditions;
mod filters;
mod gateways;
mod order;
mod routes;

use std::net::IpAddr;
use std::sync::Arc;

use self::backends::Backends;
use self::gateways::Gateways;
use crate::model::{Item, Model, Origin, Place, ServerTls};
use crate::sources::objects::{self, Reader};
use crate::sources::yaml::diagnostic::{Diagnostic, SourceMap};
use crate::sources::yaml::node::Node;

const GROUP: &str = "gateway.networking.k8s.io";

/// The kinds that are read, each with its API group.
const KINDS: [(&str, &str); 5] = [
    ("GRPCRoute", GROUP),
    ("Gateway", GROUP),
    ("GatewayClass", GROUP),
    ("HTTPRoute", GROUP),
    ("ReferenceGrant", GROUP),
];

/// The settings of the source.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespace of objects without one.
    pub namespace: String,
    /// The domain of the names of services.
    pub domain: String,
    /// The address at which gateways listen.
    pub address: IpAddr,
    /// The classes of gateways that this proxy serves. Empty means all.
    pub classes: Vec<String>,
    /// The certificates that gateways name.
    pub certificates: Vec<(String, Item<ServerTls>)>,
}

/// The settings of the source, and the reader that collects mistakes.
struct Context<'m> {
    settings: Settings,
    reader: Reader<'m>,
}

/// Reads the objects of `documents` and adds them to `model`. Adds a mistake for each wrong value.
pub fn add(
    documents: &[Node],
    settings: Settings,
    sources: &SourceMap,
    model: &mut Model,
    mistakes: &mut Vec<Diagnostic>,
) {
    let mut reader = Reader::new(sources, mistakes);
    let objects = objects::objects(&mut reader, documents, &settings.namespace, &KINDS);
    let mut context = Context { settings, reader };
    let cx = &mut context;
    let of = |kind: &'static str| objects.iter().filter(move |object| object.kind == kind);
    let mut backends = Backends::new(&cx.settings, &model.services);
    for object in of("ReferenceGrant") {
        backends.grant(cx, object);
    }
    let mut gateways = Gateways::default();
    for object in of("Gateway") {
        gateways.read(cx, object, &backends);
    }
    let mut rules = Vec::new();
    for object in of("HTTPRoute").chain(of("GRPCRoute")) {
        rules.extend(routes::route(cx, object, &gateways, &mut backends));
    }
    let routes = order::routes(rules);
    let unserved = gateways.unserved(&routes);
    model.routes.extend(routes.into_iter().chain(unserved).map(Arc::new));
    model.listeners.extend(gateways.listeners(cx).into_iter().map(Arc::new));
    model.services.extend(backends.missing().into_iter().map(Arc::new));
}

fn at(place: Place) -> Origin {
    Origin::File(place)
}
