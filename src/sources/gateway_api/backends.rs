//! Backends of routes: services, and the grants for references to other namespaces.

use std::collections::{BTreeMap, HashSet};

use super::{Context, Settings};
use crate::model::{Endpoints, Item, Items, Origin, Service};
use crate::sources::objects::{Fields, Object};
use crate::sources::yaml::node::Node;

/// The status of a request to a backend that does not exist.
const MISSING_STATUS: u16 = 500;

/// A permission for objects of one namespace to refer to services or secrets of another.
struct Grant {
    namespace: String,
    from: Vec<(String, String)>,
    /// Kinds and names. No name means all objects of the kind.
    to: Vec<(String, Option<String>)>,
}

/// The services that routes may name.
pub(super) struct Backends {
    namespace: String,
    domain: String,
    known: HashSet<String>,
    grants: Vec<Grant>,
    /// Services without endpoints, in the place of those that do not exist.
    missing: BTreeMap<String, Origin>,
}

impl Backends {
    pub(super) fn new(settings: &Settings, services: &Items<Service>) -> Self {
        Self {
            namespace: settings.namespace.clone(),
            domain: settings.domain.clone(),
            known: services.iter().map(|item| item.value.name.value.clone()).collect(),
            grants: Vec::new(),
            missing: BTreeMap::new(),
        }
    }

    /// Reads a ReferenceGrant.
    pub(super) fn grant(&mut self, cx: &mut Context<'_>, object: &Object) {
        let Some(mut spec) = cx.reader.spec(object) else { return };
        let r = &mut cx.reader;
        let mut grant =
            Grant { namespace: object.namespace.clone(), from: Vec::new(), to: Vec::new() };
        for node in spec.list(r, "from") {
            let Some(mut from) = Fields::of(r, node, "an element of `from`") else { continue };
            from.ignore("group");
            let kind = from.string(r, "kind");
            let namespace = from.string(r, "namespace");
            from.finish(r);
            if let (Some(kind), Some(namespace)) = (kind, namespace) {
                grant.from.push((kind.value, namespace.value));
            }
        }
        for node in spec.list(r, "to") {
            let Some(mut to) = Fields::of(r, node, "an element of `to`") else { continue };
            to.ignore("group");
            let kind = to.string(r, "kind");
            let name = to.string(r, "name");
            to.finish(r);
            grant.to.extend(kind.map(|kind| (kind.value, name.map(|name| name.value))));
        }
        spec.finish(r);
        self.grants.push(grant);
    }

    /// The full name of a service.
    pub(super) fn full(&self, name: &str, namespace: &str) -> String {
        format!("{name}.{namespace}.svc.{}", self.domain)
    }

    /// The shorter names of a service, in requests and in Ringway's own files.
    pub(super) fn aliases(&self, name: &str, namespace: &str) -> Vec<String> {
        let mut names = vec![format!("{name}.{namespace}.svc"), format!("{name}.{namespace}")];
        if namespace == self.namespace {
            names.push(name.to_owned());
        }
        names
    }

    /// Reads a reference to a backend of `object`, with its weight.
    pub(super) fn backend(
        &mut self,
        cx: &mut Context<'_>,
        object: &Object,
        node: &Node,
    ) -> Option<(Item<String>, u32)> {
        let r = &mut cx.reader;
        let mut fields = Fields::of(r, node, "a backend")?;
        let weight = fields.number::<u32>(r, "weight").map_or(1, |weight| weight.value);
        fields.refuse(r, "filters", "write `filters` beside `backendRefs`, for all backends");
        let to = self.reference(cx, object, &mut fields);
        fields.finish(&mut cx.reader);
        to.map(|to| (to, weight))
    }

    /// Reads the name of a backend.
    pub(super) fn reference(
        &mut self,
        cx: &mut Context<'_>,
        object: &Object,
        fields: &mut Fields<'_>,
    ) -> Option<Item<String>> {
        let r = &mut cx.reader;
        fields.ignore("group");
        let kind = fields.string(r, "kind");
        let name = fields.string(r, "name");
        let namespace = fields.string(r, "namespace");
        let port = fields.number::<u16>(r, "port");
        let Some(name) = name else {
            r.at(fields.place, "this backend has no name", "write `name: SERVICE`");
            return None;
        };
        let own = object.namespace.as_str();
        let namespace = namespace.as_ref().map_or(own, |it| it.value.as_str());
        let full = self.full(&name.value, namespace);
        if let Some(kind) = kind.filter(|kind| kind.value != "Service") {
            let message = format!("a {} is not a backend here", kind.value);
            return Some(self.absent(cx, full, &kind.origin, &message, "write `kind: Service`"));
        }
        let of_port = port.map(|port| format!("{full}|{}", port.value));
        let mut names: Vec<String> = of_port.into_iter().chain([full.clone()]).collect();
        names.extend(self.aliases(&name.value, namespace));
        let found = names.into_iter().find(|name| self.known.contains(name.as_str()));
        let is_own = |alias: &String| self.known.contains(alias.as_str());
        if found.is_none() && namespace != own && self.aliases(&name.value, own).iter().any(is_own)
        {
            let message = format!("there is no service {} in {namespace}", name.value);
            let help = format!("{} is in {own}: leave `namespace` out", name.value);
            return Some(self.absent(cx, full, &name.origin, &message, &help));
        }
        if namespace != own && !self.is_granted(object, namespace, ("Service", &name.value)) {
            let message = format!("no ReferenceGrant in {namespace} permits this reference");
            let help = format!(
                "write a ReferenceGrant in {namespace}, from {} in {own} to Service",
                object.kind
            );
            return Some(self.absent(cx, full, &name.origin, &message, &help));
        }
        if let Some(found) = found {
            return Some(Item::new(found, name.origin));
        }
        let message = format!("there is no service {full}");
        let help = "write a service of this name in `services`, or a ServiceEntry";
        Some(self.absent(cx, full, &name.origin, &message, help))
    }

    /// Whether a ReferenceGrant of `namespace` permits `object` to refer to a kind and name there.
    pub(super) fn is_granted(
        &self,
        object: &Object,
        namespace: &str,
        (kind, name): (&str, &str),
    ) -> bool {
        let is_meant = |(its, only): &(String, Option<String>)| {
            its == kind && only.as_deref().is_none_or(|only| only == name)
        };
        self.grants.iter().any(|grant| {
            grant.namespace == namespace
                && grant
                    .from
                    .iter()
                    .any(|(kind, from)| *kind == object.kind && *from == object.namespace)
                && grant.to.iter().any(is_meant)
        })
    }

    fn absent(
        &mut self,
        cx: &mut Context<'_>,
        full: String,
        origin: &Origin,
        message: &str,
        help: &str,
    ) -> Item<String> {
        if let Origin::File(place) = origin {
            cx.reader.warn(*place, message, format!("its requests get 500; {help}"));
        }
        let name = format!("{full} (missing)");
        self.missing.entry(name.clone()).or_insert_with(|| origin.clone());
        Item::new(name, origin.clone())
    }

    /// The services in the place of those that do not exist.
    pub(super) fn missing(self) -> Vec<Item<Service>> {
        let service = |(name, origin): (String, Origin)| {
            let service = Service {
                name: Item::new(name, origin.clone()),
                endpoints: Some(Endpoints::List(Vec::new())),
                empty_status: Some(MISSING_STATUS),
                ..Service::default()
            };
            Item::new(service, origin)
        };
        self.missing.into_iter().map(service).collect()
    }
}
