//! HTTPRoute and GRPCRoute.

use super::backends::Backends;
use super::conditions;
use super::filters;
use super::gateways::{Attached, Gateways, Parent};
use super::order::{Rank, Ranked};
use super::{Context, at};
use crate::model::{Action, Item, Match, Respond, Retries, Rule};
use crate::sources::objects::{Fields, Object};
use crate::sources::yaml::node::Node;
use crate::time::NO_LIMIT;

/// Where the rules of a route are served.
enum Served {
    Gateway(Attached),
    /// The mesh: requests to a service, by its names.
    Service {
        host: Item<String>,
        aliases: Vec<Item<String>>,
    },
}

/// Reads a route. The result is a rule for each place and each element of `matches`.
pub(super) fn route(
    cx: &mut Context<'_>,
    object: &Object,
    gateways: &Gateways,
    backends: &mut Backends,
) -> Vec<Ranked> {
    let Some(mut spec) = cx.reader.spec(object) else { return Vec::new() };
    let hostnames: Vec<String> = spec
        .strings(&mut cx.reader, "hostnames")
        .into_iter()
        .map(|host| host.value.to_ascii_lowercase())
        .collect();
    let parents = spec.list(&mut cx.reader, "parentRefs");
    let nodes = spec.list(&mut cx.reader, "rules");
    spec.refuse(&mut cx.reader, "useDefaultGateways", "write `parentRefs`");
    spec.finish(&mut cx.reader);
    let mut places = Vec::new();
    for node in parents {
        places.extend(served(cx, object, node, gateways, backends, &hostnames));
    }
    if parents.is_empty() {
        let help = "write `parentRefs: [{name: GATEWAY}]`";
        cx.reader.at(object.place, "this route has no parent", help);
    }
    let mut rules = Vec::new();
    for (number, node) in (1..).zip(nodes) {
        rules.extend(rule(cx, object, backends, number, node));
    }
    let mut all = Vec::new();
    for place in &places {
        for (rule, rank) in &rules {
            let mut rule = rule.clone();
            let (scope, host, aliases) = match place {
                Served::Gateway(attached) => {
                    filters::with_port(&mut rule.value, attached);
                    let host = Item::new(attached.host.clone(), at(object.place));
                    (Some(attached.scope.clone()), host, Vec::new())
                }
                Served::Service { host, aliases } => (None, host.clone(), aliases.clone()),
            };
            all.push(Ranked { scope, host, aliases, rule, rank: rank.clone() });
        }
    }
    all
}

/// The places where a route is served because of one element of `parentRefs`.
fn served(
    cx: &mut Context<'_>,
    object: &Object,
    node: &Node,
    gateways: &Gateways,
    backends: &Backends,
    hostnames: &[String],
) -> Vec<Served> {
    let r = &mut cx.reader;
    let Some(mut fields) = Fields::of(r, node, "a parent") else { return Vec::new() };
    fields.ignore("group");
    let is_service = fields
        .one_of(r, "kind", &[("Gateway", false), ("Service", true)])
        .is_some_and(|kind| kind.value);
    let name = fields.string(r, "name");
    let namespace = fields.string(r, "namespace");
    let section = fields.string(r, "sectionName");
    let port = fields.number::<u16>(r, "port").map(|port| port.value);
    fields.finish(r);
    let Some(name) = name else {
        r.at(node.place, "this parent has no name", "write `name: GATEWAY`");
        return Vec::new();
    };
    let namespace = namespace.map_or_else(|| object.namespace.clone(), |it| it.value);
    if is_service {
        let own = [namespace.as_str(), cx.settings.namespace.as_str()];
        if !own.contains(&object.namespace.as_str()) {
            let message = format!(
                "a route of {} cannot change the requests to a service of {namespace}",
                object.namespace
            );
            let help = "it is not served; write it in the namespace of the service";
            cx.reader.warn(node.place, message, help);
            return Vec::new();
        }
        let with_port = |host: String| match port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        };
        let item = |host: String| Item::new(with_port(host), name.origin.clone());
        let host = item(backends.full(&name.value, &namespace));
        let aliases = backends.aliases(&name.value, &namespace).into_iter().map(item).collect();
        return vec![Served::Service { host, aliases }];
    }
    let parent = Parent {
        kind: &object.kind,
        namespace: &namespace,
        of_route: &object.namespace,
        name: &name.value,
        section: section.as_ref().map(|section| section.value.as_str()),
        port,
    };
    let places = gateways.attached(&parent, hostnames);
    if places.is_empty() {
        let (message, help) = match gateways.others(&namespace, &name.value) {
            Some(others) => no_gateway(&namespace, &name.value, &others),
            None => (
                format!("no listener of the gateway {namespace}/{} takes this route", name.value),
                "its namespace, `sectionName`, `port` and hosts must be those of a listener".into(),
            ),
        };
        cx.reader.warn(node.place, message, help);
    }
    places.into_iter().map(Served::Gateway).collect()
}

/// The message for a gateway that is not there, or of another class, and the advice.
fn no_gateway(namespace: &str, name: &str, others: &[&str]) -> (String, String) {
    let message = format!("there is no Gateway {name} in {namespace}");
    let help = match others {
        [] => "write a Gateway of this name, of a class in `classes` if the source has it".into(),
        all => format!("its gateways are: {}", all.join(", ")),
    };
    (message, help)
}

/// Reads one rule: a rule of the model for each element of `matches`, with its rank.
fn rule(
    cx: &mut Context<'_>,
    object: &Object,
    backends: &mut Backends,
    number: usize,
    node: &Node,
) -> Vec<(Item<Rule>, Rank)> {
    let Some(mut fields) = Fields::of(&mut cx.reader, node, "a rule") else { return Vec::new() };
    let name = fields.string(&mut cx.reader, "name");
    let title = match &name {
        Some(name) => format!("{} {}", object.title(), name.value),
        None => format!("{} #{number}", object.title()),
    };
    let mut rule = Rule { name: Some(Item::new(title, at(node.place))), ..Rule::default() };
    let is_grpc = object.kind == "GRPCRoute";
    let written = fields.list(&mut cx.reader, "matches");
    let mut all = Vec::new();
    for node in written {
        let matches = match is_grpc {
            true => conditions::grpc(cx, node),
            false => conditions::http(cx, node),
        };
        all.extend(matches.map(|matches| (matches, node.place)));
    }
    if written.is_empty() {
        all.push((Match::default(), node.place));
    }
    let targets = fields.list(&mut cx.reader, "backendRefs");
    let mut to = Vec::new();
    for node in targets {
        to.extend(backends.backend(cx, object, node));
    }
    to.retain(|(_, weight)| *weight > 0);
    for node in fields.list(&mut cx.reader, "filters") {
        filters::filter(cx, object, node, backends, &mut rule);
    }
    timeouts(cx, &mut fields, &mut rule);
    fields.refuse(&mut cx.reader, "sessionPersistence", "write `sticky` in Ringway's own files");
    fields.finish(&mut cx.reader);
    if rule.action.is_none() {
        // A rule without backends answers 500.
        rule.action = Some(match to.is_empty() {
            true => {
                let status = Some(Item::new(500, at(node.place)));
                Action::Respond(Respond { status, body: String::new() })
            }
            false => Action::Forward(to),
        });
    }
    if !matches!(rule.action, Some(Action::Forward(_))) {
        (rule.rewrite, rule.mirror, rule.retries) = (None, None, None);
    }
    let ranked = |(index, (matches, place)): (usize, (Match, crate::model::Place))| {
        let route = (object.created.as_str(), format!("{}/{}", object.namespace, object.name));
        let rank = Rank::new(&matches, route, (number, index));
        (Item::new(Rule { matches, ..rule.clone() }, at(place)), rank)
    };
    all.into_iter().enumerate().map(ranked).collect()
}

/// Reads both time limits and the retries.
fn timeouts(cx: &mut Context<'_>, fields: &mut Fields<'_>, rule: &mut Rule) {
    let r = &mut cx.reader;
    let mut attempt = None;
    if let Some(mut timeouts) = fields.map(r, "timeouts") {
        let total = timeouts.duration(r, "request");
        attempt = timeouts.duration(r, "backendRequest").filter(|time| !time.value.is_zero());
        timeouts.finish(r);
        rule.timeout = total.as_ref().map(|time| match time.value.is_zero() {
            true => NO_LIMIT,
            false => time.value,
        });
        if let (Some(one), Some(all)) = (&attempt, rule.timeout)
            && one.value > all
        {
            let help = format!("write {all:?} or less");
            r.item(one, "`backendRequest` is longer than `request`", help);
        }
    }
    let Some(mut retry) = fields.map(r, "retry") else {
        // There is one attempt, so the shorter limit holds.
        let limits = [rule.timeout, attempt.map(|time| time.value)];
        rule.timeout = limits.into_iter().flatten().min();
        return;
    };
    let origin = at(retry.place);
    let mut on: Vec<Item<String>> = vec![Item::new("connect-failure".to_owned(), origin.clone())];
    on.extend(retry.strings(r, "codes"));
    let retries = Retries {
        attempts: retry.number::<u32>(r, "attempts").map(|it| it.value),
        backoff_base: retry.duration(r, "backoff"),
        per_try_timeout: attempt.filter(|one| rule.timeout.is_none_or(|all| one.value < all)),
        on: Some(on),
        ..Retries::default()
    };
    retry.finish(r);
    rule.retries = Some(Box::new(Item::new(retries, origin)));
}
