//! The Service Mesh Interface: TrafficSplit, TrafficTarget and HTTPRouteGroup. Its specification is
//! archived, and a warning says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::objects::{self, Fields, Object, Reader, items, spelling};
use super::yaml::diagnostic::{Diagnostic, SourceMap};
use super::yaml::node::Node;
use crate::matching::{PathMatch, ValueMatch, whole};
use crate::model::{
    Action, Choices, Item, Match, Model, Origin, Policy, PolicyAction, PolicyOperation,
    PolicySource, Routes, Rule,
};

/// The kinds that are read, each with its API group.
const KINDS: [(&str, &str); 3] = [
    ("HTTPRouteGroup", "specs.smi-spec.io"),
    ("TrafficSplit", "split.smi-spec.io"),
    ("TrafficTarget", "access.smi-spec.io"),
];

/// The method that stands for all methods.
const ANY_METHOD: &str = "*";

/// The conditions of one element of a group.
type Conditions = (Match, PolicyOperation);

/// The elements of all groups, by `NAMESPACE/GROUP`, each with its name.
type Groups = BTreeMap<String, Vec<(String, Conditions)>>;

/// Reads the objects of `documents` and adds them to `model`. `own` is the namespace and the
/// service account of this workload: targets for other destinations do not concern it. Without an
/// account, all targets of the namespace do.
pub fn add(
    documents: &[Node],
    own: (&str, Option<&str>),
    sources: &SourceMap,
    model: &mut Model,
    mistakes: &mut Vec<Diagnostic>,
) {
    let namespace = own.0;
    let mut reader = Reader::new(sources, mistakes);
    let r = &mut reader;
    let objects = objects::objects(r, documents, namespace, &KINDS);
    if let Some(first) = objects.first() {
        r.object = first.title();
        let help = "write the Gateway API or Istio's objects for new configurations";
        r.warn(first.place, "the Service Mesh Interface is archived", help);
    }
    let of = |kind: &'static str| objects.iter().filter(move |object| object.kind == kind);
    let mut groups = Groups::new();
    for object in of("HTTPRouteGroup") {
        group(r, object, &mut groups);
    }
    for object in of("TrafficSplit") {
        let routes = split(r, object, namespace, &groups);
        model.routes.extend(routes.map(Arc::new));
    }
    for object in of("TrafficTarget") {
        let policy = target(r, object, own, &groups);
        model.policies.extend(policy.map(Arc::new));
    }
}

fn group(r: &mut Reader<'_>, object: &Object, groups: &mut Groups) {
    let Some(mut spec) = r.spec(object) else { return };
    let mut all = Vec::new();
    for node in spec.list(r, "matches") {
        let Some(mut fields) = Fields::of(r, node, "an element of `matches`") else { continue };
        if fields.refuse_empty(r) {
            continue;
        }
        let name = fields.string(r, "name");
        let written = fields.strings(r, "methods");
        let any = |method: &Item<String>| method.value == ANY_METHOD;
        let methods = match written.iter().any(any) {
            true => Vec::new(),
            false => written,
        };
        let path = fields.string(r, "pathRegex");
        let mut headers = Vec::new();
        if let Some(node) = fields.get("headers") {
            for (name, value) in items(r, node, "headers") {
                match whole(value.text()) {
                    Ok(regex) => headers.push((name, ValueMatch::Regex(regex))),
                    Err(error) => r.item(&name, &error.message, error.help),
                }
            }
        }
        fields.finish(r);
        let Some(name) = name else {
            r.at(node.place, "this element has no name", "write `name: NAME`");
            continue;
        };
        let regex = path.as_ref().and_then(|path| match whole(&path.value) {
            Ok(regex) => Some(Item::new(PathMatch::Regex(regex), path.origin.clone())),
            Err(error) => {
                r.item(path, &error.message, error.help);
                None
            }
        });
        let paths = path.map(|path| Item::new(format!("~{}", path.value), path.origin));
        let operation = PolicyOperation {
            methods: Choices { wanted: of_policy(&methods, node), unwanted: Vec::new() },
            paths: Choices { wanted: paths.into_iter().collect(), unwanted: Vec::new() },
            ..PolicyOperation::default()
        };
        let matches = Match { path: regex, methods, headers, ..Match::default() };
        all.push((name.value, (matches, operation)));
    }
    if spec.lacks("matches") && !spec.refuse_empty(r) {
        r.at(object.place, "this group has no `matches`", "write `matches: [{name: NAME}]`");
    }
    spec.finish(r);
    groups.insert(format!("{}/{}", object.namespace, object.name), all);
}

/// The methods of an operation of a policy. A group is about requests: without methods it is about
/// all methods, but never about opaque bytes.
fn of_policy(methods: &[Item<String>], node: &Node) -> Vec<Item<String>> {
    match methods {
        [] => vec![Item::new(ANY_METHOD.to_owned(), Origin::File(node.place))],
        named => named.to_vec(),
    }
}

/// The conditions that references to groups name. `chosen` lists the names of elements.
fn chosen(r: &mut Reader<'_>, object: &Object, nodes: &[Node], groups: &Groups) -> Vec<Conditions> {
    let mut all = Vec::new();
    for node in nodes {
        let Some(mut fields) = Fields::of(r, node, "a reference to a group") else { continue };
        fields.one_of(r, "kind", &[("HTTPRouteGroup", ())]);
        fields.ignore("apiGroup");
        if fields.refuse_empty(r) {
            continue;
        }
        let name = fields.string(r, "name");
        let names = fields.strings(r, "matches");
        fields.finish(r);
        let Some(name) = name else {
            r.at(node.place, "this reference has no name", "write `name: GROUP`");
            continue;
        };
        let Some(group) = groups.get(&format!("{}/{}", object.namespace, name.value)) else {
            let message = format!("there is no HTTPRouteGroup {:?}", name.value);
            r.item(&name, message, "write it into a file of this source");
            continue;
        };
        let wanted =
            |element: &str| names.is_empty() || names.iter().any(|name| name.value == element);
        for name in names.iter().filter(|it| group.iter().all(|(known, _)| *known != it.value)) {
            let known: Vec<&str> = group.iter().map(|(known, _)| known.as_str()).collect();
            let message = format!("the group has no element {:?}", name.value);
            r.item(name, message, spelling(&name.value, &known));
        }
        let elements = group.iter().filter(|(element, _)| wanted(element));
        all.extend(elements.map(|(_, conditions)| conditions.clone()));
    }
    all
}

/// The routes of a split: its conditions share the weights, and other requests go to its service.
fn split(
    r: &mut Reader<'_>,
    object: &Object,
    namespace: &str,
    groups: &Groups,
) -> Option<Item<Routes>> {
    let mut spec = r.spec(object)?;
    let service = spec.string(r, "service");
    let (mut to, mut first) = (Vec::new(), None);
    for node in spec.list(r, "backends") {
        let Some(mut backend) = Fields::of(r, node, "a backend") else { continue };
        let name = backend.string(r, "service");
        let weight = backend.number::<u32>(r, "weight");
        backend.finish(r);
        let here = || Origin::File(node.place);
        first.get_or_insert_with(|| weight.as_ref().map_or_else(here, |it| it.origin.clone()));
        to.extend(name.map(|name| (name, weight.map_or(0, |weight| weight.value))));
    }
    if let Some(first) = first.filter(|_| to.iter().all(|(_, weight)| *weight == 0)) {
        let help = "give one of them a `weight` of 1 or more";
        r.item(&Item::new((), first), "no backend has a weight above 0", help);
        return None;
    }
    let nodes = spec.list(r, "matches");
    spec.finish(r);
    let conditions = chosen(r, object, nodes, groups);
    let service = service?;
    let origin = service.origin.clone();
    let rule = |matches: Match, to| {
        let name = Some(Item::new(object.title(), origin.clone()));
        let rule = Rule { name, matches, action: Some(Action::Forward(to)), ..Rule::default() };
        Item::new(rule, origin.clone())
    };
    let mut rules: Vec<_> =
        conditions.iter().map(|(matches, _)| rule(matches.clone(), to.clone())).collect();
    match nodes.is_empty() {
        true => rules.push(rule(Match::default(), to)),
        false => rules.push(rule(Match::default(), vec![(service.clone(), 1)])),
    }
    let full = format!("{}.{}.svc.cluster.local", service.value, object.namespace);
    let own = (object.namespace == namespace).then(|| service.value.clone());
    let short = format!("{}.{}", service.value, object.namespace);
    let item = |host: String| Item::new(host, origin.clone());
    let aliases = [short, full].into_iter().map(item).collect();
    let host = own.unwrap_or_else(|| format!("{}.{}.svc", service.value, object.namespace));
    let host = item(host);
    let routes = Routes { host, aliases, scope: None, tolerant: true, rules };
    Some(Item::new(routes, origin.clone()))
}

/// The allow rule of a target.
fn target(
    r: &mut Reader<'_>,
    object: &Object,
    (namespace, own): (&str, Option<&str>),
    groups: &Groups,
) -> Option<Item<Policy>> {
    let mut spec = r.spec(object)?;
    if spec.refuse_empty(r) {
        return None;
    }
    for (name, help) in [
        ("destination", "write `destination: {kind: ServiceAccount, name: NAME}`"),
        ("sources", "write `sources: [{kind: ServiceAccount, name: NAME}]`"),
        ("rules", "write `rules: [{kind: HTTPRouteGroup, name: GROUP}]`"),
    ] {
        if spec.get(name).is_none() {
            r.at(object.place, format!("this target has no `{name}`"), help);
        }
    }
    let destination = spec.map(r, "destination").and_then(|it| account(r, object, it));
    let mut identities = Vec::new();
    for node in spec.list(r, "sources") {
        let fields = Fields::of(r, node, "a source");
        identities.extend(fields.and_then(|fields| account(r, object, fields)));
    }
    let nodes = spec.list(r, "rules");
    spec.finish(r);
    let conditions = chosen(r, object, nodes, groups);
    let destination = destination?;
    let of_namespace = format!("*/ns/{namespace}/sa/");
    let account = destination.value.strip_prefix(&of_namespace)?;
    if own.is_some_and(|own| account != own) {
        return None;
    }
    if let Some(first) = conditions.iter().find_map(|(matches, _)| matches.headers.first()) {
        r.item(
            &first.0,
            "a condition on a header field is not supported in a target",
            "leave it out",
        );
    }
    let origin = destination.origin;
    let identities = Choices { wanted: identities, unwanted: Vec::new() };
    let source = PolicySource { identities, ..PolicySource::default() };
    let operation = |(_, operation): &Conditions| Item::new(operation.clone(), origin.clone());
    let policy = Policy {
        name: Some(Item::new(object.title(), origin.clone())),
        action: PolicyAction::Allow,
        inbound_only: true,
        from: vec![Item::new(source, origin.clone())],
        to: conditions.iter().map(operation).collect(),
        ..Policy::default()
    };
    Some(Item::new(policy, origin))
}

/// The SPIFFE IDs of a service account.
fn account(r: &mut Reader<'_>, object: &Object, mut fields: Fields<'_>) -> Option<Item<String>> {
    let place = fields.place;
    fields.one_of(r, "kind", &[("ServiceAccount", ())]);
    let name = fields.string(r, "name");
    let namespace = fields.string(r, "namespace");
    fields.finish(r);
    let Some(name) = name else {
        r.at(place, "this reference has no name", "write `name: ACCOUNT`");
        return None;
    };
    let namespace = namespace.map_or_else(|| object.namespace.clone(), |it| it.value);
    let origin: Origin = name.origin;
    Some(Item::new(format!("*/ns/{namespace}/sa/{}", name.value), origin))
}
