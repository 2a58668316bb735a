//! Gateways: their listeners, and the routes that may attach to them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::backends::Backends;
use super::{Context, at};
use crate::model::{Action, Item, Listener, Match, Origin, Respond, Routes, Rule, ServerTls};
use crate::net::Bind;
use crate::sources::objects::{Fields, Object};
use crate::sources::yaml::node::Node;

/// A listener of a gateway.
pub(super) struct Section {
    gateway: String,
    namespace: String,
    name: String,
    pub(super) port: u16,
    pub(super) is_tls: bool,
    hostname: Option<String>,
    /// Whether routes of other namespaces may attach.
    is_open: bool,
    kinds: Vec<String>,
    tls: Vec<Item<ServerTls>>,
    origin: Origin,
}

/// All listeners of all gateways.
#[derive(Default)]
pub(super) struct Gateways(Vec<Section>);

/// A reference from a route to a gateway.
pub(super) struct Parent<'a> {
    pub(super) kind: &'a str,
    pub(super) namespace: &'a str,
    pub(super) of_route: &'a str,
    pub(super) name: &'a str,
    pub(super) section: Option<&'a str>,
    pub(super) port: Option<u16>,
}

/// The place of the rules of a route: the scope and a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Attached {
    pub(super) scope: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) is_tls: bool,
}

impl Section {
    /// The scope of its routes: the gateway and the port.
    fn scope(&self) -> String {
        format!("Gateway {}:{}", self.gateway, self.port)
    }

    /// How well its host fits `host`, or a wildcard of hosts: the higher, the more specific. `None`
    /// if requests to `host` are not all for this listener.
    fn fit(&self, host: &str) -> Option<(u8, usize)> {
        match self.hostname.as_deref() {
            None => Some((0, 0)),
            Some(own) if own == host && own.starts_with('*') => Some((1, own.len())),
            Some(own) if own == host => Some((2, own.len())),
            Some(own) => is_below(host, own).then_some((1, own.len())),
        }
    }

    fn accepts(&self, parent: &Parent<'_>) -> bool {
        self.gateway == format!("{}/{}", parent.namespace, parent.name)
            && parent.section.is_none_or(|section| section == self.name)
            && parent.port.is_none_or(|port| port == self.port)
            && (self.is_open || self.namespace == parent.of_route)
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == parent.kind))
    }
}

impl Gateways {
    /// Reads a Gateway. One of another class is left out.
    pub(super) fn read(&mut self, cx: &mut Context<'_>, object: &Object, grants: &Backends) {
        let Some(mut spec) = cx.reader.spec(object) else { return };
        let r = &mut cx.reader;
        let class = spec.string(r, "gatewayClassName");
        for name in ["addresses", "infrastructure", "backendTLS", "allowedListeners", "tls"] {
            spec.refuse(r, name, "leave it out; `address` of the source says where to listen");
        }
        let nodes = spec.list(r, "listeners");
        spec.finish(r);
        let classes = &cx.settings.classes;
        let served =
            class.as_ref().is_none_or(|class| classes.is_empty() || classes.contains(&class.value));
        for node in nodes {
            if let Some(section) = section(cx, object, grants, node) {
                let same = |it: &&Section| {
                    it.port == section.port
                        && it.hostname == section.hostname
                        && it.gateway == section.gateway
                };
                let other =
                    |it: &&Section| it.scope() == section.scope() && it.is_tls != section.is_tls;
                if let Some(first) = self.0.iter().find(other) {
                    let message =
                        format!("the listener {:?} of this port has another protocol", first.name);
                    cx.reader.at(node.place, message, "take another port for one of them");
                }
                if let Some(first) = self.0.iter().find(same) {
                    let message = format!("the listener {:?} has this port and host", first.name);
                    cx.reader.at(node.place, message, "keep one of them");
                } else if served {
                    self.0.push(section);
                }
            }
        }
    }

    /// The names of the gateways of `namespace`, if `name` is none of them.
    pub(super) fn others(&self, namespace: &str, name: &str) -> Option<Vec<&str>> {
        let names = self.0.iter().filter_map(|it| {
            it.gateway.strip_prefix(namespace).and_then(|rest| rest.strip_prefix('/'))
        });
        let mut names: Vec<&str> = names.collect();
        names.dedup();
        (!names.contains(&name)).then_some(names)
    }

    /// The places of the rules of a route with these host names.
    pub(super) fn attached(&self, parent: &Parent<'_>, hostnames: &[String]) -> Vec<Attached> {
        let mut places = Vec::new();
        for section in self.0.iter().filter(|section| section.accepts(parent)) {
            let own = section.hostname.as_deref();
            let hosts: Vec<String> = match hostnames {
                [] => vec![own.unwrap_or("*").to_owned()],
                all => all.iter().filter_map(|host| common(own, host)).collect(),
            };
            // A request is only for the most specific listener of its port.
            let hosts = hosts.into_iter().filter(|host| {
                let same = self.0.iter().filter(|other| other.scope() == section.scope());
                section.fit(host) == same.filter_map(|other| other.fit(host)).max()
            });
            places.extend(hosts.map(|host| Attached {
                scope: section.scope(),
                host,
                port: section.port,
                is_tls: section.is_tls,
            }));
        }
        places
    }

    /// Routes for hosts of listeners that have no routes, beside a listener whose host includes
    /// them: its routes are not for these hosts, so that their requests get 404.
    pub(super) fn unserved(&self, routes: &[Item<Routes>]) -> Vec<Item<Routes>> {
        let mut all = Vec::new();
        for section in &self.0 {
            let Some(host) = &section.hostname else { continue };
            let scope = section.scope();
            let is_included = self.0.iter().any(|other| {
                other.scope() == scope
                    && other.hostname != section.hostname
                    && other.fit(host).is_some()
            });
            let is_served = routes.iter().any(|routes| {
                routes.value.scope.as_deref() == Some(&*scope) && routes.value.host.value == *host
            });
            if is_included && !is_served {
                all.push(not_found(&scope, host, &section.origin));
            }
        }
        all
    }

    /// One listener of the model for each gateway and port.
    pub(super) fn listeners(self, cx: &mut Context<'_>) -> Vec<Item<Listener>> {
        let mut by_scope: BTreeMap<String, Item<Listener>> = BTreeMap::new();
        for section in self.0 {
            let scope = section.scope();
            let address = SocketAddr::new(cx.settings.address, section.port);
            let listener = by_scope.entry(scope.clone()).or_insert_with(|| {
                let listener = Listener {
                    name: Item::new(scope.clone(), section.origin.clone()),
                    binds: vec![Item::new(Bind::Tcp(address), section.origin.clone())],
                    scope: Some(scope.into()),
                    ..Listener::default()
                };
                Item::new(listener, section.origin.clone())
            });
            listener.value.tls.extend(section.tls);
        }
        by_scope.into_values().collect()
    }
}

/// The host that both a listener and a route have. `None` if they have none in common.
fn common(listener: Option<&str>, route: &str) -> Option<String> {
    let Some(listener) = listener else { return Some(route.to_owned()) };
    if listener == route || is_below(route, listener) {
        return Some(route.to_owned());
    }
    is_below(listener, route).then(|| listener.to_owned())
}

fn is_below(host: &str, wildcard: &str) -> bool {
    let suffix = wildcard.strip_prefix('*');
    suffix.is_some_and(|suffix| host.len() > suffix.len() && host.ends_with(suffix))
}

/// Routes of a host that answer 404.
fn not_found(scope: &str, host: &str, origin: &Origin) -> Item<Routes> {
    let respond = Respond { status: Some(Item::new(404, origin.clone())), body: String::new() };
    let rule = Rule {
        name: Some(Item::new(format!("{scope} without routes"), origin.clone())),
        matches: Match::default(),
        action: Some(Action::Respond(respond)),
        ..Rule::default()
    };
    let routes = Routes {
        host: Item::new(host.to_owned(), origin.clone()),
        aliases: Vec::new(),
        scope: Some(scope.into()),
        tolerant: true,
        rules: vec![Item::new(rule, origin.clone())],
    };
    Item::new(routes, origin.clone())
}

fn section(
    cx: &mut Context<'_>,
    object: &Object,
    grants: &Backends,
    node: &Node,
) -> Option<Section> {
    let r = &mut cx.reader;
    let mut fields = Fields::of(r, node, "a listener")?;
    let name = fields.string(r, "name");
    let hostname = fields.string(r, "hostname");
    let port = fields.number::<u16>(r, "port");
    let protocols =
        [("HTTP", Some(false)), ("HTTPS", Some(true)), ("TLS", None), ("TCP", None), ("UDP", None)];
    let protocol = fields.one_of(r, "protocol", &protocols);
    let tls = fields.map(r, "tls");
    let mut certificates = Vec::new();
    let mut is_named = false;
    if let Some(mut tls) = tls {
        let modes = [("Terminate", true), ("Passthrough", false)];
        let mode = tls.one_of(r, "mode", &modes);
        if let Some(mode) = mode.filter(|mode| !mode.value) {
            let help = "write a listener with `protocol: tls` in Ringway's own files";
            r.item(&mode, "`Passthrough` is not supported", help);
        }
        let help = "write `client_ca` in `certificates` of the source";
        tls.refuse(r, "frontendValidation", help);
        tls.refuse(r, "options", "leave it out");
        let nodes = tls.list(r, "certificateRefs");
        tls.finish(r);
        is_named = !nodes.is_empty();
        for node in nodes {
            certificates.extend(certificate(cx, object, grants, node));
        }
    }
    let (is_open, kinds) = allowed(cx, &mut fields);
    let r = &mut cx.reader;
    fields.finish(r);
    let (Some(name), Some(port), Some(protocol)) = (name, port, protocol) else {
        let help = "write `name`, `port` and `protocol`";
        r.at(node.place, "this listener lacks a name, a port or a protocol", help);
        return None;
    };
    let Some(is_tls) = protocol.value else {
        let help = "write HTTP or HTTPS; for bytes, a listener with `protocol: tcp` or `tls` in \
                    Ringway's own files";
        r.item(&protocol, "this protocol is not supported", help);
        return None;
    };
    if is_tls && !is_named {
        let help = "write `tls: {certificateRefs: [{name: NAME}]}`";
        r.at(node.place, "this listener has no certificate", help);
    }
    Some(Section {
        gateway: format!("{}/{}", object.namespace, object.name),
        namespace: object.namespace.clone(),
        name: name.value,
        port: port.value,
        is_tls,
        hostname: hostname.map(|host| host.value.to_ascii_lowercase()),
        is_open,
        kinds,
        tls: certificates,
        origin: at(node.place),
    })
}

/// Whether routes of all namespaces may attach, and the allowed kinds.
fn allowed(cx: &mut Context<'_>, fields: &mut Fields<'_>) -> (bool, Vec<String>) {
    let r = &mut cx.reader;
    let Some(mut routes) = fields.map(r, "allowedRoutes") else { return (false, Vec::new()) };
    let mut is_open = false;
    if let Some(mut namespaces) = routes.map(r, "namespaces") {
        let words = [("All", true), ("Same", false)];
        namespaces.refuse(r, "selector", "write `from: All` or `from: Same`");
        is_open = namespaces.one_of(r, "from", &words).is_some_and(|from| from.value);
        namespaces.finish(r);
    }
    let mut kinds = Vec::new();
    for node in routes.list(r, "kinds") {
        let Some(mut kind) = Fields::of(r, node, "a kind") else { continue };
        kind.ignore("group");
        kinds.extend(kind.string(r, "kind").map(|kind| kind.value));
        kind.finish(r);
    }
    routes.finish(r);
    (is_open, kinds)
}

/// The certificate that a gateway names.
fn certificate(
    cx: &mut Context<'_>,
    object: &Object,
    grants: &Backends,
    node: &Node,
) -> Option<Item<ServerTls>> {
    let r = &mut cx.reader;
    let mut fields = Fields::of(r, node, "a certificate")?;
    fields.ignore("group");
    fields.one_of(r, "kind", &[("Secret", ())]);
    let name = fields.string(r, "name");
    let namespace = fields.string(r, "namespace");
    fields.finish(r);
    let name = name?;
    let namespace = namespace.map_or_else(|| object.namespace.clone(), |it| it.value);
    let full = format!("{namespace}/{}", name.value);
    let is_own = namespace == object.namespace;
    if !is_own && !grants.is_granted(object, &namespace, ("Secret", &name.value)) {
        let message = format!("no ReferenceGrant in {namespace} permits this reference");
        let help = format!(
            "write a ReferenceGrant in {namespace}, from Gateway in {} to Secret",
            object.namespace
        );
        cx.reader.item(&name, message, help);
        return None;
    }
    let known = &cx.settings.certificates;
    let named = |wanted: &str| known.iter().find(|(known, _)| known == wanted);
    let found = named(&full).or_else(|| named(&name.value));
    if found.is_none() {
        let message = format!("no certificate {full:?} is known");
        let help = format!(
            "write in `sources.gateway_api`: certificates: {{{}: {{cert: FILE, key: FILE}}}}",
            name.value
        );
        cx.reader.item(&name, message, help);
    }
    found.map(|(_, tls)| tls.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_in_common() {
        for (listener, route, expected) in [
            (None, "a.example.com", Some("a.example.com")),
            (Some("a.example.com"), "a.example.com", Some("a.example.com")),
            (Some("a.example.com"), "b.example.com", None),
            (Some("*.example.com"), "a.example.com", Some("a.example.com")),
            (Some("*.example.com"), "a.b.example.com", Some("a.b.example.com")),
            (Some("*.example.com"), "example.com", None),
            (Some("a.example.com"), "*.example.com", Some("a.example.com")),
            (Some("*.example.com"), "*.b.example.com", Some("*.b.example.com")),
            (Some("*.b.example.com"), "*.example.com", Some("*.b.example.com")),
            (Some("*.a.com"), "*.b.com", None),
        ] {
            assert_eq!(common(listener, route).as_deref(), expected, "{listener:?} {route}");
        }
    }
}
