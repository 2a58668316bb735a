//! VirtualService: the rules of hosts.

use std::collections::{BTreeMap, BTreeSet};

use super::Context;
use super::gateway::{self, Gateways};
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
    known: &Gateways,
) -> Vec<Item<Routes>> {
    let Some(mut spec) = cx.reader.spec(object) else { return Vec::new() };
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
    if spec.lacks("hosts") {
        let help = "write `hosts: [NAME]`; a VirtualService for `delegate` is not supported";
        r.at(object.place, "there are no `hosts`", help);
    }
    spec.finish(r);
    let scopes = scopes(object, &gateways);
    let mut all = Vec::new();
    for name in &names {
        let full = Item::new(hosts.full(&name.value, &object.namespace), name.origin.clone());
        for scope in &scopes {
            let Some(gateway) = scope else {
                all.extend(in_mesh(cx, object, hosts, &full, http));
                continue;
            };
            let Some(ports) = known.ports(gateway, &full.value, &object.namespace) else {
                let message =
                    format!("there is no Gateway {gateway}, so its routes are not served");
                let is_named = |it: &&Item<String>| {
                    gateway_scope(object, &it.value).as_deref() == Some(gateway)
                };
                if let Some(named) = gateways.iter().find(is_named) {
                    cx.reader.warn_item(named, message, known.advice(gateway));
                }
                continue;
            };
            for (port, host) in ports {
                let host = Item::new(host, full.origin.clone());
                all.extend(of_host(cx, object, hosts, &host, (Some(gateway), Some(port)), http));
            }
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

/// The routes of one host in the mesh: those for all ports, and those for single ports.
fn in_mesh(
    cx: &mut Context<'_>,
    object: &Object,
    hosts: &mut Hosts,
    full: &Item<String>,
    http: &[Node],
) -> Vec<Item<Routes>> {
    let mut ports: BTreeSet<Option<u16>> = BTreeSet::from([None]);
    ports.extend(hosts.several_ports(&full.value).into_iter().map(Some));
    ports.extend(http.iter().flat_map(http_route::ports).map(Some));
    let mut all = Vec::new();
    for port in ports {
        all.extend(of_host(cx, object, hosts, full, (None, port), http));
    }
    all
}

/// The routes of one host for a gateway and a port. Without a gateway, they are those of the mesh.
fn of_host(
    cx: &mut Context<'_>,
    object: &Object,
    hosts: &mut Hosts,
    full: &Item<String>,
    (gateway, port): (Option<&str>, Option<u16>),
    http: &[Node],
) -> Option<Item<Routes>> {
    let mut rules: Vec<Item<Rule>> = Vec::new();
    for (number, node) in (1..).zip(http) {
        let owner = RouteOwner { object, scope: gateway, port, number };
        let routes: Vec<HttpRoute> = http_route::http_route(cx, hosts, &owner, node);
        rules.extend(routes);
    }
    if rules.is_empty() {
        return None;
    }
    let scope = gateway.zip(port).map(|(gateway, port)| gateway::scope(gateway, port).into());
    let named = |name: String| match port.filter(|_| gateway.is_none()) {
        Some(port) => format!("{name}:{port}"),
        None => name,
    };
    let item = |name: String| Item::new(named(name), full.origin.clone());
    let host = item(full.value.clone());
    let aliases = hosts.aliases(&full.value).into_iter().map(item).collect();
    let routes = Routes { host, aliases, scope, tolerant: true, rules };
    Some(Item::new(routes, full.origin.clone()))
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
