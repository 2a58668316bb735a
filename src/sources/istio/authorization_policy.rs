//! AuthorizationPolicy: which requests to this workload are allowed.

mod conditions;
mod refused;

use self::conditions::{Conditions, conditions};
pub(crate) use self::refused::in_place_of_refused;
use super::selector::reach;
use super::{Context, at};
use crate::model::{
    Choices, Item, Policy, PolicyAction, PolicyCondition, PolicyOperation, PolicySource,
};
use crate::sources::objects::{Fields, Object};
use crate::sources::yaml::node::{Kind, Node};

/// The annotation that makes a policy report only.
const DRY_RUN: &str = "istio.io/dry-run";

/// Reads an AuthorizationPolicy. Each element of `from` becomes a policy of its own, because the
/// conditions on its token belong to this element alone.
pub(super) fn authorization_policy(cx: &mut Context<'_>, object: &Object) -> Vec<Item<Policy>> {
    let Some(mut spec) = cx.reader.spec(object) else { return Vec::new() };
    let reach = reach(cx, object, &mut spec);
    let r = &mut cx.reader;
    let actions = [
        ("ALLOW", Some(PolicyAction::Allow)),
        ("DENY", Some(PolicyAction::Deny)),
        ("AUDIT", Some(PolicyAction::Audit)),
        ("CUSTOM", None),
    ];
    let action = spec.one_of(r, "action", &actions);
    if let Some(custom) = action.as_ref().filter(|action| action.value.is_none()) {
        let help = "it asks another server, which Ringway does not do: leave this policy out, and \
             write `jwt` or ALLOW rules";
        r.item(custom, "`CUSTOM` is not supported", help);
    }
    spec.refuse(r, "provider", "leave it out: only the action CUSTOM has one");
    let rules = spec.list(r, "rules");
    if rules.is_empty() && spec.is_null("rules") {
        let help = "leave it out for a policy that no request matches";
        r.at(spec.place_of("rules"), "`rules` is empty", help);
    }
    spec.finish(r);
    let action = action.map_or(Some(PolicyAction::Allow), |action| action.value);
    let dry_run = object.annotations.iter().any(|(name, value)| name == DRY_RUN && value == "true");
    let mut policies = Vec::new();
    for (number, node) in (1..).zip(rules) {
        for mut policy in rule(cx, object, node) {
            let part = policies.len() + 1;
            let name = match rules.len() {
                1 if part == 1 => object.title(),
                _ => format!("{} rule {number} #{part}", object.title()),
            };
            policy.name = Some(Item::new(name, at(node.place)));
            policies.push(Item::new(policy, at(node.place)));
        }
    }
    let (Some(action), Some(_)) = (action, reach) else { return Vec::new() };
    // No rules match nothing. An allow policy without rules denies all requests.
    if rules.is_empty() {
        policies.extend((action == PolicyAction::Allow).then(|| nothing(object)));
    }
    for policy in &mut policies {
        policy.value.action = action;
        policy.value.inbound_only = true;
        let is_dry = dry_run && action != PolicyAction::Audit;
        policy.value.dry_run = Item::new(is_dry, at(object.place));
    }
    policies
}

/// An allow policy that no request matches.
fn nothing(object: &Object) -> Item<Policy> {
    let origin = at(object.place);
    let item = |text: &str| Item::new(text.to_owned(), origin.clone());
    let all = Choices { wanted: Vec::new(), unwanted: vec![item("0.0.0.0/0"), item("::/0")] };
    let source = PolicySource { ips: all, ..PolicySource::default() };
    let policy = Policy {
        name: Some(item(&object.title())),
        from: vec![Item::new(source, origin.clone())],
        ..Policy::default()
    };
    Item::new(policy, origin)
}

/// Reads one rule: `from`, `to` and `when`.
fn rule(cx: &mut Context<'_>, object: &Object, node: &Node) -> Vec<Policy> {
    let r = &mut cx.reader;
    if node.kind == Kind::Null {
        r.at(node.place, "this rule is empty", "write `{}` for a rule that every request matches");
        return Vec::new();
    }
    let Some(mut fields) = Fields::of(r, node, "a rule") else { return Vec::new() };
    if fields.refuse_empty(r) {
        return Vec::new();
    }
    let mut sources = Vec::new();
    for element in fields.list(&mut cx.reader, "from") {
        sources.extend(wrapped(cx, element, "source").map(|(mut it, place)| {
            let source = source(cx, &object.namespace, &mut it);
            it.finish(&mut cx.reader);
            (source, place)
        }));
    }
    let mut operations = Vec::new();
    for element in fields.list(&mut cx.reader, "to") {
        operations.extend(wrapped(cx, element, "operation").map(|(mut it, place)| {
            let operation = operation(cx, &mut it);
            it.finish(&mut cx.reader);
            Item::new(operation, at(place))
        }));
    }
    let namespace = object.namespace.clone();
    let mut when = Conditions::of(namespace);
    for element in fields.list(&mut cx.reader, "when") {
        conditions(cx, element, &mut when);
    }
    fields.finish(&mut cx.reader);
    if sources.is_empty() {
        sources.push(((PolicySource::default(), PolicyCondition::default()), node.place));
    }
    let mut policies = Vec::new();
    for ((source, token), place) in sources {
        policies.push(when.joined(cx, source, token, &operations, at(place)));
    }
    policies
}

/// The fields of an element of `from` or `to`, which are below `source` or `operation`.
fn wrapped<'n>(
    cx: &mut Context<'_>,
    node: &'n Node,
    name: &'static str,
) -> Option<(Fields<'n>, crate::model::Place)> {
    let r = &mut cx.reader;
    let mut outer = Fields::of(r, node, "an element")?;
    if outer.is_empty() {
        let help = "leave the list out, if every request matches";
        r.at(node.place, format!("this element has no `{name}`"), help);
        return None;
    }
    if outer.refuse_empty(r) {
        return None;
    }
    let inner = outer.map(r, name).filter(|inner| !inner.refuse_empty(r));
    for field in ["principals", "namespaces", "methods", "paths", "ipBlocks", "hosts", "ports"] {
        outer.hint(
            field,
            if name == "source" {
                "write it below `source:`"
            } else {
                "write it below `operation:`"
            },
        );
    }
    outer.finish(r);
    inner.map(|inner| (inner, node.place))
}

/// Reads a source, and its conditions on the token.
fn source(
    cx: &mut Context<'_>,
    namespace: &str,
    fields: &mut Fields<'_>,
) -> (PolicySource, PolicyCondition) {
    let r = &mut cx.reader;
    let mut choices = |wanted: &'static str, unwanted: &'static str| Choices {
        wanted: fields.strings(r, wanted),
        unwanted: fields.strings(r, unwanted),
    };
    let mut identities = choices("principals", "notPrincipals");
    let namespaces = choices("namespaces", "notNamespaces");
    let ips = choices("ipBlocks", "notIpBlocks");
    let remote_ips = choices("remoteIpBlocks", "notRemoteIpBlocks");
    let accounts = choices("serviceAccounts", "notServiceAccounts");
    let tokens = choices("requestPrincipals", "notRequestPrincipals");
    let account = |item: Item<String>| conditions::account(item, namespace);
    identities.wanted.extend(accounts.wanted.into_iter().map(account));
    identities.unwanted.extend(accounts.unwanted.into_iter().map(account));
    let values =
        |items: Vec<Item<String>>| items.into_iter().map(|it| conditions::value(&it.value));
    let token = PolicyCondition {
        principals: values(tokens.wanted).collect(),
        not_principals: values(tokens.unwanted).collect(),
        ..PolicyCondition::default()
    };
    let source =
        PolicySource { identities, namespaces, ips, remote_ips, ..PolicySource::default() };
    (source, token)
}

fn operation(cx: &mut Context<'_>, fields: &mut Fields<'_>) -> PolicyOperation {
    let r = &mut cx.reader;
    let mut choices = |wanted: &'static str, unwanted: &'static str| Choices {
        wanted: fields.strings(r, wanted),
        unwanted: fields.strings(r, unwanted),
    };
    let hosts = choices("hosts", "notHosts");
    let methods = choices("methods", "notMethods");
    let paths = choices("paths", "notPaths");
    let written = choices("ports", "notPorts");
    let mut ports = |items: Vec<Item<String>>| {
        let mut numbers = Vec::new();
        for item in items {
            match item.value.parse::<u16>() {
                Ok(port) => numbers.push(Item::new(port, item.origin)),
                Err(_) => r.item(&item, "a port is a number up to 65535", "write digits only"),
            }
        }
        numbers
    };
    PolicyOperation {
        ports: Choices { wanted: ports(written.wanted), unwanted: ports(written.unwanted) },
        hosts,
        methods,
        paths: Choices {
            wanted: paths.wanted.into_iter().map(conditions::path).collect(),
            unwanted: paths.unwanted.into_iter().map(conditions::path).collect(),
        },
        ..PolicyOperation::default()
    }
}
