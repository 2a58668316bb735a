//! Istio's own objects. They become items of the model, each with its place in a file.
//!
//! Fields that Ringway does not support are refused by name. istiod ignores unknown fields; this
//! module never does.

mod authorization_policy;
mod destination_rule;
mod gateway;
mod hosts;
mod http_route;
mod peer_authentication;
mod request_authentication;
mod selector;
mod service;
mod service_entry;
mod telemetry;
mod text_match;
mod virtual_service;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

pub(crate) use self::authorization_policy::in_place_of_refused;
use self::gateway::Gateways;
use self::hosts::Hosts;
use crate::model::{Item, Model, Origin, Place, ServerTls};
use crate::sources::objects::{self, Object, Reader};
use crate::sources::yaml::diagnostic::{Diagnostic, SourceMap};
use crate::sources::yaml::node::Node;

const SECURITY: &str = "security.istio.io";
const NETWORKING: &str = "networking.istio.io";

/// The kinds that are read, each with its API group.
const KINDS: [(&str, &str); 9] = [
    ("AuthorizationPolicy", SECURITY),
    ("DestinationRule", NETWORKING),
    ("Gateway", NETWORKING),
    ("PeerAuthentication", SECURITY),
    ("RequestAuthentication", SECURITY),
    ("ServiceEntry", NETWORKING),
    ("Telemetry", "telemetry.istio.io"),
    ("VirtualService", NETWORKING),
    ("WorkloadEntry", NETWORKING),
];

/// The kinds of Kubernetes: the services, with their endpoints in EndpointSlices.
const SERVICE: (&str, &str) = ("Service", "");

/// The settings of the source.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespace of this workload, and of objects without one.
    pub namespace: String,
    /// The namespace whose policies apply to all namespaces.
    pub root_namespace: String,
    /// The domain of the names of services.
    pub domain: String,
    /// The address at which gateways listen.
    pub address: IpAddr,
    /// The certificates that gateways name.
    pub certificates: Vec<(String, Item<ServerTls>)>,
    /// The labels of this workload.
    pub labels: Vec<(String, String)>,
    /// Whether services of Kubernetes are among the objects.
    pub has_services: bool,
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
    let mut kinds = KINDS.to_vec();
    kinds.extend(settings.has_services.then_some(SERVICE));
    let objects = objects::objects(&mut reader, documents, &settings.namespace, &kinds);
    let mut context = Context { settings, reader };
    let cx = &mut context;
    let of = |kind: &'static str| objects.iter().filter(move |object| object.kind == kind);
    let mut hosts = Hosts::new(&cx.settings, &model.services);
    let workloads = of("WorkloadEntry").filter_map(|object| service_entry::workload(cx, object));
    let workloads: Vec<_> = workloads.collect();
    // The files of this machine come first, then Services: an object of a tenant must not take the
    // host of another one's Service.
    let of_files = |object: &&Object| !sources.is_remote(object.place.file);
    for object in of("ServiceEntry").filter(of_files) {
        service_entry::service_entry(cx, object, &workloads, &mut hosts);
    }
    for object in of("Service") {
        service::service(cx, object, &mut hosts);
    }
    for object in of("ServiceEntry").filter(|object| !of_files(object)) {
        service_entry::service_entry(cx, object, &workloads, &mut hosts);
    }
    for object in of("DestinationRule") {
        destination_rule::destination_rule(cx, object, &mut hosts);
    }
    let services = hosts.services(cx);
    let mut gateways = Gateways::default();
    for object in of("Gateway") {
        gateways.read(cx, object);
    }
    let mut routes = Vec::new();
    for object in of("VirtualService") {
        routes.extend(virtual_service::virtual_service(cx, object, &mut hosts, &gateways));
    }
    model.listeners.extend(gateways.listeners().into_iter().map(Arc::new));
    cx.reader.object.clear();
    virtual_service::without_conflicts(cx, &mut routes);
    let taken = routes.iter().chain(model.routes.iter().map(|item| &**item));
    let of_mesh = taken.filter(|routes| routes.value.scope.is_none());
    let names = of_mesh.flat_map(|it| std::iter::once(&it.value.host).chain(&it.value.aliases));
    let taken: HashSet<String> = names.map(|name| name.value.clone()).collect();
    routes.extend(hosts.default_routes(&taken));
    model.services.extend(services.into_iter().chain(hosts.missing()).map(Arc::new));
    model.routes.extend(routes.into_iter().map(Arc::new));
    peer_authentication::peer_authentications(cx, of("PeerAuthentication"), model);
    request_authentication::request_authentications(cx, of("RequestAuthentication"), model);
    for object in of("AuthorizationPolicy") {
        let policies = authorization_policy::authorization_policy(cx, object);
        model.policies.extend(policies.into_iter().map(Arc::new));
    }
    telemetry::telemetries(cx, of("Telemetry"), &mut model.settings);
}

impl Context<'_> {
    /// Whether an object of `namespace` with this `exportTo` is visible here.
    fn is_exported(&self, namespace: &str, export_to: &[Item<String>]) -> bool {
        let own = self.settings.namespace.as_str();
        export_to.is_empty()
            || export_to.iter().any(|to| match to.value.as_str() {
                "*" => true,
                "." => namespace == own,
                named => named == own,
            })
    }

    /// Whether this workload has all of these labels.
    fn has_labels(&self, wanted: &[(Item<String>, Item<String>)]) -> bool {
        has_labels(&self.settings.labels, wanted)
    }
}

/// Whether `labels` has all of the `wanted` labels.
fn has_labels(labels: &[(String, String)], wanted: &[(Item<String>, Item<String>)]) -> bool {
    wanted.iter().all(|(name, value)| {
        labels.iter().any(|(known, its)| *known == name.value && *its == value.value)
    })
}

fn at(place: Place) -> Origin {
    Origin::File(place)
}
