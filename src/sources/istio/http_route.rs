//! HTTPRoute of a VirtualService: conditions, the destination and the policies of one rule.

mod action;
mod conditions;
mod policies;

use self::action::action;
pub(super) use self::action::destination_fields;
use self::conditions::{Conditions, conditions};
pub(super) use self::policies::default_retries;
use super::hosts::Hosts;
use super::{Context, at};
use crate::model::{Item, Rule};
use crate::sources::objects::{Fields, Object};
use crate::sources::yaml::node::{Kind, Node};

/// The routes of one element of `http`: one for each element of `match`.
pub(super) type HttpRoute = Item<Rule>;

/// The place of a route: its VirtualService, gateway and port.
pub(super) struct RouteOwner<'a> {
    pub(super) object: &'a Object,
    /// The gateway. `None` is the mesh.
    pub(super) scope: Option<&'a str>,
    /// The port of the requests. `None` means any port.
    pub(super) port: Option<u16>,
    /// The number of the route, from 1.
    pub(super) number: usize,
}

/// The ports that the conditions of a route name.
pub(super) fn ports(node: &Node) -> Vec<u16> {
    let entry = |node: &Node, name: &str| match &node.kind {
        Kind::Map(entries) => {
            entries.iter().find(|(key, _)| key.text == name).map(|(_, value)| value.clone())
        }
        _ => None,
    };
    let Some(Node { kind: Kind::List(matches), .. }) = entry(node, "match") else {
        return Vec::new();
    };
    matches.iter().filter_map(|it| entry(it, "port")?.text().parse().ok()).collect()
}

/// Reads one element of `http`.
pub(super) fn http_route(
    cx: &mut Context<'_>,
    hosts: &mut Hosts,
    owner: &RouteOwner<'_>,
    node: &Node,
) -> Vec<HttpRoute> {
    let Some(mut fields) = Fields::of(&mut cx.reader, node, "a route") else { return Vec::new() };
    let name = fields.string(&mut cx.reader, "name");
    let all = conditions(cx, owner, &mut fields);
    let mut rule = Rule {
        name: Some(Item::new(title(owner, name.as_ref()), at(node.place))),
        ..Rule::default()
    };
    action(cx, hosts, owner, &mut fields, &mut rule);
    policies::policies(cx, hosts, owner, &mut fields, &mut rule);
    let r = &mut cx.reader;
    fields.refuse(r, "delegate", "write the routes of the other VirtualService here");
    fields.refuse(r, "corsPolicy", "leave it out: the service must answer these requests itself");
    fields.hint("weight", "the weight is beside `destination`, in an element of `route`");
    fields.hint("destination", "write `route: [{destination: {host: NAME}}]`");
    fields.finish(r);
    if rule.action.is_none() {
        return Vec::new();
    }
    let mut rules = Vec::new();
    for Conditions { place, matches } in all {
        rules.push(Item::new(Rule { matches, ..rule.clone() }, at(place.unwrap_or(node.place))));
    }
    rules
}

/// The name of the rules of a route: the object, and the number or the name of the route.
fn title(owner: &RouteOwner<'_>, name: Option<&Item<String>>) -> String {
    let object = owner.object.title();
    match name {
        Some(name) => format!("{object} {}", name.value),
        None => format!("{object} #{}", owner.number),
    }
}
