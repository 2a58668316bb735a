//! VirtualService: the rules of hosts.

use std::collections::{BTreeMap, BTreeSet};

use super::Context;
use super::hosts::Hosts;
use super::http_route::{self, HttpRoute, RouteOwner};
use crate::model::{Item, Routes, Rule};
use crate::sources::objects::Object;
use crate::sources::yaml::node::Node;

/// The gateway that stands for all sidecars.
pub(super) const MESH: &str = "mesh";

/// Reads a VirtualService.
pub(super) fn virtual_service(
    cx: &mut Context<'_>,
    object: &Object,
    hosts: &mut Hosts,
) -> Vec<Item<Routes>> {
    let Some(mut spec) = cx.spec(object) else { return Vec::new() };
    let r = &mut cx.reader;
    let names = spec.strings(r, "hosts");
    let gateways = spec.strings(r, "gateways");
    let export_to = spec.strings(r, "exportTo");
    spec.refuse(r, "tls", "write a listener with `protocol: tls` and rules in `routes`");
    spec.refuse(
        r,
        "tcp",
        "write a listener with `protocol: tcp`, or `addresses` in a ServiceEntry",
    );
    let http = spec.list(r, "http");
    spec.finish(r);
    if names.is_empty() {
        let help = "write `hosts: [NAME]`; a VirtualService for `delegate` is not supported";
        cx.reader.at(object.place, "there are no `hosts`", help);
        return Vec::new();
    }
    let scopes = scopes(object, &gateways);
    let mut all = Vec::new();
    for name in &names {
        let full = Item::new(hosts.full(&name.value, &object.namespace), name.origin.clone());
        for scope in &scopes {
            all.extend(of_host(cx, object, hosts, &full, scope, http));
        }
    }
    match cx.is_exported(&object.namespace, &export_to) {
        true => all,
        false => Vec::new(),
    }
}

/// The gateways of a VirtualService, by their full names. `None` is the mesh.
fn scopes(object: &Object, gateways: &[Item<String>]) -> BTreeSet<Option<String>> {
    if gateways.is_empty() {
        return BTreeSet::from([None]);
    }
    gateways.iter().map(|gateway| gateway_scope(object, &gateway.value)).collect()
}

/// The scope of the routes of a gateway. `None` is the mesh.
pub(super) fn gateway_scope(object: &Object, gateway: &str) -> Option<String> {
    match gateway {
        MESH => None,
        full if full.contains('/') => Some(full.to_owned()),
        short => Some(format!("{}/{short}", object.namespace)),
    }
}

/// The routes of one host for one gateway: those for all ports, and those for single ports.
fn of_host(
    cx: &mut Context<'_>,
    object: &Object,
    hosts: &mut Hosts,
    full: &Item<String>,
    scope: &Option<String>,
    http: &[Node],
) -> Vec<Item<Routes>> {
    let mut ports: BTreeSet<Option<u16>> = BTreeSet::from([None]);
    ports.extend(hosts.several_ports(&full.value).into_iter().map(Some));
    ports.extend(http.iter().flat_map(http_route::ports).map(Some));
    let mut all = Vec::new();
    for port in ports {
        let mut rules: Vec<Item<Rule>> = Vec::new();
        for (number, node) in (1..).zip(http) {
            let owner = RouteOwner { object, scope: scope.as_deref(), port, number };
            let routes: Vec<HttpRoute> = http_route::http_route(cx, hosts, &owner, node);
            rules.extend(routes);
        }
        if rules.is_empty() {
            continue;
        }
        let named = |name: &str| match port {
            Some(port) => format!("{name}:{port}"),
            None => name.to_owned(),
        };
        let item = |name: String| Item::new(named(&name), full.origin.clone());
        let routes = Routes {
            host: item(full.value.clone()),
            aliases: hosts.aliases(&full.value).into_iter().map(item).collect(),
            scope: scope.as_deref().map(Into::into),
            tolerant: true,
            rules,
        };
        all.push(Item::new(routes, full.origin.clone()));
    }
    all
}

/// Joins the routes of several VirtualServices of a gateway with the same host. In the mesh, only
/// one VirtualService may have a host.
pub(super) fn without_conflicts(cx: &mut Context<'_>, routes: &mut Vec<Item<Routes>>) {
    let mut first: BTreeMap<(Option<Box<str>>, String), usize> = BTreeMap::new();
    let mut joined: Vec<Item<Routes>> = Vec::new();
    for item in routes.drain(..) {
        let key = (item.value.scope.clone(), item.value.host.value.clone());
        let Some(&known) = first.get(&key) else {
            first.insert(key, joined.len());
            joined.push(item);
            continue;
        };
        let known = &mut joined[known];
        if item.value.scope.is_some() {
            known.value.rules.extend(item.value.rules);
            continue;
        }
        let line = cx.reader.origin_line(&known.origin);
        let message = format!("{} has routes already, at {line}", item.value.host.value);
        cx.reader.item(&item.value.host, message, "keep one VirtualService for each host");
    }
    *routes = joined;
}
