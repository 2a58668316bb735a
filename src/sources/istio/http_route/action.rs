//! The action of a route: its destinations, a redirect or a fixed response.

use super::super::hosts::{Destination, Hosts};
use super::super::{Context, at};
use super::RouteOwner;
use crate::model::{Action, Item, Redirect, Respond, Rule};
use crate::sources::objects::{Fields, Object};
use crate::sources::yaml::node::Node;

/// Reads the action of a route into `rule`.
pub(super) fn action(
    cx: &mut Context<'_>,
    hosts: &mut Hosts,
    owner: &RouteOwner<'_>,
    fields: &mut Fields<'_>,
    rule: &mut Rule,
) {
    let written: Vec<&'static str> = ["route", "redirect", "directResponse"]
        .into_iter()
        .filter(|name| fields.get(name).is_some())
        .collect();
    match written[..] {
        ["route"] => forward(cx, hosts, owner, fields, rule),
        ["redirect"] => redirect(cx, fields, rule),
        [_] => respond(cx, fields, rule),
        [] => {
            let help = "write `route: [{destination: {host: NAME}}]`";
            cx.reader.at(fields.place, "this route has no destination", help);
        }
        [one, other, ..] => {
            let message = format!("a route has either `{one}` or `{other}`, and not both");
            cx.reader.at(fields.place_of(other), message, "keep one of them");
        }
    }
}

fn forward(
    cx: &mut Context<'_>,
    hosts: &mut Hosts,
    owner: &RouteOwner<'_>,
    fields: &mut Fields<'_>,
    rule: &mut Rule,
) {
    let nodes = fields.list(&mut cx.reader, "route");
    let mut to = Vec::new();
    let mut first = None;
    for node in nodes {
        let before = cx.reader.count();
        let Some(mut share) = Fields::of(&mut cx.reader, node, "an element of `route`") else {
            continue;
        };
        let destination = share.get("destination");
        let weight = share.number::<u32>(&mut cx.reader, "weight");
        if nodes.len() == 1 {
            super::policies::edits(cx, &mut share, rule);
        } else {
            let help = "write `headers` beside `route`, for all destinations";
            share.refuse(&mut cx.reader, "headers", help);
        }
        share.hint("host", "write `destination: {host: NAME}`");
        share.hint("subset", "write `destination: {host: NAME, subset: NAME}`");
        share.finish(&mut cx.reader);
        let Some(destination) = destination else {
            if cx.reader.count() == before {
                let help = "write `destination: {host: NAME}`";
                cx.reader.at(node.place, "this has no destination", help);
            }
            continue;
        };
        let reference = destination_of(cx, hosts, owner, destination);
        let origin = || weight.as_ref().map_or_else(|| at(node.place), |it| it.origin.clone());
        first.get_or_insert_with(origin);
        // One destination gets all requests, whatever its weight is.
        let weight = if nodes.len() == 1 { 1 } else { weight.map_or(0, |weight| weight.value) };
        to.extend(reference.map(|reference| (reference, weight)));
    }
    if to.len() == nodes.len() && !nodes.is_empty() {
        // Destinations with the weight 0 get nothing.
        to.retain(|(_, weight)| *weight > 0);
        if let (true, Some(first)) = (to.is_empty(), first) {
            let help = "give one of them a `weight` of 1 or more";
            cx.reader.item(&Item::new((), first), "no destination has a weight above 0", help);
            return;
        }
        rule.action = Some(Action::Forward(to));
    }
}

/// Reads a destination, as the model refers to its service.
fn destination_of(
    cx: &mut Context<'_>,
    hosts: &mut Hosts,
    owner: &RouteOwner<'_>,
    node: &Node,
) -> Option<Item<String>> {
    destination_fields(cx, hosts, owner.object, owner.port, node)
}

/// Reads a destination of `object`. `of_requests` is the port of the requests.
pub(in super::super) fn destination_fields(
    cx: &mut Context<'_>,
    hosts: &mut Hosts,
    object: &Object,
    of_requests: Option<u16>,
    node: &Node,
) -> Option<Item<String>> {
    let r = &mut cx.reader;
    let mut fields = Fields::of(r, node, "`destination`")?;
    let host = fields.string(r, "host");
    let subset = fields.string(r, "subset");
    let port = fields.map(r, "port").and_then(|mut port| {
        let number = port.number::<u16>(r, "number");
        port.finish(r);
        number
    });
    fields.finish(r);
    let Some(host) = host else {
        r.at(node.place, "this destination has no host", "write `host: NAME`");
        return None;
    };
    let to = Destination {
        host: &host,
        subset: subset.as_ref(),
        port: port.as_ref(),
        namespace: &object.namespace,
        of_requests,
    };
    Some(hosts.destination(cx, &to))
}

fn redirect(cx: &mut Context<'_>, fields: &mut Fields<'_>, rule: &mut Rule) {
    let r = &mut cx.reader;
    let Some(mut redirect) = fields.map(r, "redirect") else { return };
    let place = redirect.place;
    let uri = redirect.string(r, "uri");
    if let Some(uri) = uri.as_ref().filter(|uri| uri.value.contains('%')) {
        r.item(uri, "variables in a redirect are not supported", "write the whole path");
    }
    let authority = redirect.string(r, "authority");
    let scheme = redirect.string(r, "scheme");
    let port = redirect.number::<u16>(r, "port");
    let status = redirect.number::<u16>(r, "redirectCode");
    redirect.one_of(r, "derivePort", &[("FROM_PROTOCOL_DEFAULT", ())]);
    redirect.refuse(r, "uriRegexRewrite", "write `uri`, in a route for each path");
    redirect.finish(r);
    let redirect = Redirect {
        scheme,
        host: authority,
        port: port.map(|port| port.value),
        path: uri,
        prefix: None,
        status,
    };
    rule.action = Some(Action::Redirect(Box::new(Item::new(redirect, at(place)))));
}

fn respond(cx: &mut Context<'_>, fields: &mut Fields<'_>, rule: &mut Rule) {
    let r = &mut cx.reader;
    let Some(mut response) = fields.map(r, "directResponse") else { return };
    let place = response.place;
    let status = response.number::<u16>(r, "status");
    let body = response.map(r, "body").and_then(|mut body| {
        let text = body.string(r, "string");
        body.refuse(r, "bytes", "write `string: TEXT`");
        body.finish(r);
        text
    });
    response.finish(r);
    if status.is_none() {
        r.at(place, "this response has no status", "write `status: 200`");
        return;
    }
    let body = body.map(|body| body.value).unwrap_or_default();
    rule.action = Some(Action::Respond(Respond { status, body }));
}
