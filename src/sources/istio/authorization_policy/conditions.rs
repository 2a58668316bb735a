//! The conditions of a rule: `key`, `values` and `notValues`.

use super::super::Context;
use crate::matching::{ValueMatch, whole};
use crate::model::{Choices, Item, Origin, Policy, PolicyCondition, PolicyOperation, PolicySource};
use crate::sources::objects::{Fields, spelling};
use crate::sources::yaml::node::Node;

/// The keys of conditions. The last two have a name in brackets.
const KEYS: [&str; 14] = [
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "destination.ip",
    "destination.port",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "request.auth.claims[NAME]",
    "request.headers[NAME]",
    "connection.sni",
];

/// The conditions of all elements of `when`, by what they are about. All must match.
#[derive(Default)]
pub(super) struct Conditions {
    /// The namespace of the policy, which is that of service accounts without one.
    namespace: String,
    sources: Vec<Item<PolicySource>>,
    operations: Vec<Item<PolicyOperation>>,
    others: PolicyCondition,
}

/// Reads one element of `when` into `all`.
pub(super) fn conditions(cx: &mut Context<'_>, node: &Node, all: &mut Conditions) {
    let r = &mut cx.reader;
    let Some(mut fields) = Fields::of(r, node, "a condition") else { return };
    if fields.refuse_empty(r) {
        return;
    }
    let key = fields.string(r, "key");
    let wanted = fields.strings(r, "values");
    let unwanted = fields.strings(r, "notValues");
    fields.finish(r);
    let Some(key) = key else {
        r.at(node.place, "this condition has no key", "write `key: request.headers[NAME]`");
        return;
    };
    if wanted.is_empty() && unwanted.is_empty() {
        r.at(node.place, "this condition has no values", "write `values: [VALUE]`");
        return;
    }
    let choices = Choices { wanted, unwanted };
    let origin = key.origin.clone();
    let mut source = PolicySource::default();
    let mut operation = PolicyOperation::default();
    match key.value.as_str() {
        "source.ip" => source.ips = choices,
        "remote.ip" => source.remote_ips = choices,
        "source.namespace" => source.namespaces = choices,
        "source.principal" => source.identities = choices,
        "source.trustDomain" => source.trust_domains = choices,
        "source.serviceAccount" => {
            let accounts = |items: Vec<Item<String>>| {
                items.into_iter().map(|item| account(item, &all.namespace)).collect()
            };
            source.identities =
                Choices { wanted: accounts(choices.wanted), unwanted: accounts(choices.unwanted) };
        }
        "destination.ip" => operation.ips = choices,
        "destination.port" => operation.ports = ports(cx, choices),
        "connection.sni" => {
            let help = "write `to: [{operation: {hosts: [...]}}]`";
            cx.reader.item(&key, "`connection.sni` is not supported", help);
            return;
        }
        other => {
            of_request(cx, &key, other, choices, &mut all.others);
            return;
        }
    }
    match (key.value.starts_with("destination."), origin) {
        (true, origin) => all.operations.push(Item::new(operation, origin)),
        (false, origin) => all.sources.push(Item::new(source, origin)),
    }
}

fn ports(cx: &mut Context<'_>, choices: Choices) -> Choices<u16> {
    let mut numbers = |items: Vec<Item<String>>| {
        let mut numbers = Vec::new();
        for item in items {
            match item.value.parse::<u16>() {
                Ok(port) => numbers.push(Item::new(port, item.origin)),
                Err(_) => {
                    cx.reader.item(&item, "a port is a number up to 65535", "write digits only");
                }
            }
        }
        numbers
    };
    Choices { wanted: numbers(choices.wanted), unwanted: numbers(choices.unwanted) }
}

/// A condition on a header field or on the token.
fn of_request(
    cx: &mut Context<'_>,
    key: &Item<String>,
    text: &str,
    choices: Choices,
    others: &mut PolicyCondition,
) {
    let named = |prefix: &str| -> Option<String> {
        let inner = text.strip_prefix(prefix)?.strip_prefix('[')?.strip_suffix(']')?;
        Some(inner.replace("][", "."))
    };
    let of_claim = match text {
        "request.auth.audiences" => Some("aud".to_owned()),
        "request.auth.presenter" => Some("azp".to_owned()),
        _ => named("request.auth.claims"),
    };
    let Choices { wanted, unwanted } = choices;
    let name = |text: String| Item::new(text, key.origin.clone());
    let (wanted, unwanted) = (any_of(cx, &wanted), any_of(cx, &unwanted));
    if text == "request.auth.principal" {
        others.principals.extend(wanted);
        others.not_principals.extend(unwanted);
    } else if let Some(claim) = of_claim {
        others.claims.extend(wanted.map(|value| (name(claim.clone()), value)));
        others.not_claims.extend(unwanted.map(|value| (name(claim), value)));
    } else if let Some(header) = named("request.headers") {
        others.headers.extend(wanted.map(|value| (name(header.clone()), value)));
        others.not_headers.extend(unwanted.map(|value| (name(header), value)));
    } else {
        let message = format!("{:?} is not a key that Ringway knows", key.value);
        cx.reader.item(key, message, spelling(&key.value, &KEYS));
    }
}

impl Conditions {
    /// No conditions, in a policy of `namespace`.
    pub(super) fn of(namespace: String) -> Self {
        Self { namespace, ..Self::default() }
    }

    /// The policy of one source and all operations, with these conditions. Reports conditions
    /// that cannot be joined with those of the source or an operation.
    pub(super) fn joined(
        &self,
        cx: &mut Context<'_>,
        source: PolicySource,
        token: PolicyCondition,
        operations: &[Item<PolicyOperation>],
        origin: Origin,
    ) -> Policy {
        let mut from = source;
        for more in &self.sources {
            let more_of = &more.value;
            let joined = [
                join(&mut from.identities, &more_of.identities),
                join(&mut from.namespaces, &more_of.namespaces),
                join(&mut from.trust_domains, &more_of.trust_domains),
                join(&mut from.ips, &more_of.ips),
                join(&mut from.remote_ips, &more_of.remote_ips),
            ];
            self.report(cx, &joined, &more.origin);
        }
        let mut to = operations.to_vec();
        if to.is_empty() && !self.operations.is_empty() {
            to.push(Item::new(PolicyOperation::default(), origin.clone()));
        }
        for more in &self.operations {
            for operation in &mut to {
                let joined = [
                    join(&mut operation.value.ports, &more.value.ports),
                    join(&mut operation.value.ips, &more.value.ips),
                ];
                self.report(cx, &joined, &more.origin);
            }
        }
        let PolicyCondition { principals, not_principals, .. } = token;
        let both = !principals.is_empty() && !self.others.principals.is_empty();
        self.report(cx, &[!both], &origin);
        let mut when = self.others.clone();
        when.principals.extend(principals);
        when.not_principals.extend(not_principals);
        Policy {
            from: (!is_empty(&from)).then(|| Item::new(from, origin.clone())).into_iter().collect(),
            to,
            when: has_conditions(&when).then(|| Item::new(when, origin)).into_iter().collect(),
            ..Policy::default()
        }
    }

    fn report(&self, cx: &mut Context<'_>, joined: &[bool], origin: &Origin) {
        if joined.contains(&false)
            && let Origin::File(place) = origin
        {
            let help = "write the values that both lists have, in one of them";
            cx.reader.at(*place, "two lists of one property in a rule are not supported", help);
        }
    }
}

/// Joins two conditions on a property: both must match. Returns false if that is not possible,
/// because both have wanted values.
fn join<T: Clone>(one: &mut Choices<T>, other: &Choices<T>) -> bool {
    let possible = one.wanted.is_empty() || other.wanted.is_empty();
    one.wanted.extend(other.wanted.iter().cloned());
    one.unwanted.extend(other.unwanted.iter().cloned());
    possible
}

fn is_empty(source: &PolicySource) -> bool {
    let PolicySource { identities, namespaces, trust_domains, ips, forwarded_ips, remote_ips } =
        source;
    let all = [identities, namespaces, trust_domains, ips, forwarded_ips, remote_ips];
    all.into_iter().all(Choices::is_empty)
}

fn has_conditions(when: &PolicyCondition) -> bool {
    let PolicyCondition { headers, claims, not_headers, not_claims, .. } = when;
    let values = when.principals.len() + when.not_principals.len();
    values + headers.len() + claims.len() + not_headers.len() + not_claims.len() > 0
}

/// A condition that one of `values` matches. `None` if there are none.
fn any_of(cx: &mut Context<'_>, values: &[Item<String>]) -> Option<ValueMatch> {
    let (first, more) = values.split_first()?;
    if more.is_empty() {
        return Some(value(&first.value));
    }
    let parts: Vec<String> = values.iter().map(|it| pattern(&it.value)).collect();
    match whole(&parts.join("|")) {
        Ok(regex) => Some(ValueMatch::Regex(regex)),
        // A condition that is left out would allow more than its author intended.
        Err(error) => {
            cx.reader.item(first, "these are too many values", error.help);
            None
        }
    }
}

/// A condition on one value: `exact`, `prefix*`, `*suffix`, or `*` for any that is not empty.
pub(super) fn value(text: &str) -> ValueMatch {
    let bytes = |text: &str| text.as_bytes().into();
    if text == "*" {
        return whole(".+").map_or(ValueMatch::Present, ValueMatch::Regex);
    }
    match (text.strip_prefix('*'), text.strip_suffix('*')) {
        (Some(suffix), _) => ValueMatch::Suffix(bytes(suffix)),
        (None, Some(prefix)) => ValueMatch::Prefix(bytes(prefix)),
        (None, None) => ValueMatch::Exact(bytes(text)),
    }
}

fn pattern(text: &str) -> String {
    match (text, text.strip_prefix('*'), text.strip_suffix('*')) {
        ("*", ..) => ".+".to_owned(),
        (_, Some(suffix), _) => format!(".*{}", regex::escape(suffix)),
        (_, None, Some(prefix)) => format!("{}.*", regex::escape(prefix)),
        _ => regex::escape(text),
    }
}

/// The condition on a path. A prefix is one of bytes, so it becomes a regex. `{*}` is one segment,
/// and `{**}` is any number of them.
pub(super) fn path(item: Item<String>) -> Item<String> {
    let text = item.value.as_str();
    let template = text.contains("{*}") || text.contains("{**}");
    let regex = match text.strip_suffix('*') {
        _ if template => {
            let escaped = regex::escape(text);
            escaped.replace(r"\{\*\*\}", ".*").replace(r"\{\*\}", "[^/]+")
        }
        Some(prefix) if !prefix.is_empty() && !prefix.contains('*') => {
            format!("{}.*", regex::escape(prefix))
        }
        _ => return item,
    };
    Item::new(format!("~{regex}"), item.origin)
}

/// The SPIFFE IDs of a service account: `NAMESPACE/NAME`, or a name in the namespace of the policy.
pub(super) fn account(item: Item<String>, namespace: &str) -> Item<String> {
    let (namespace, name) = item.value.split_once('/').unwrap_or((namespace, &item.value));
    Item::new(format!("*/ns/{namespace}/sa/{name}"), item.origin)
}
