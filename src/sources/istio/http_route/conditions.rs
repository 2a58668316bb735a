//! HTTPMatchRequest: the conditions of a route.

use super::super::text_match::{TextMatch, field, text_match};
use super::super::virtual_service::gateway_scope;
use super::super::{Context, at};
use super::RouteOwner;
use crate::matching::ValueMatch;
use crate::model::{Item, Match, Place};
use crate::sources::objects::{Fields, items};
use crate::sources::yaml::node::Node;

/// The conditions of one rule.
pub(super) struct Conditions {
    /// The place of the conditions. `None` if the route has none.
    pub(super) place: Option<Place>,
    pub(super) matches: Match,
}

/// Reads `match`. Leaves out the conditions that no request to this workload, gateway and port can
/// meet.
pub(super) fn conditions(
    cx: &mut Context<'_>,
    owner: &RouteOwner<'_>,
    route: &mut Fields<'_>,
) -> Vec<Conditions> {
    let all = route.list(&mut cx.reader, "match");
    if all.is_empty() {
        return vec![Conditions { place: None, matches: Match::default() }];
    }
    let mut found = Vec::new();
    for node in all {
        if let Some(matches) = one(cx, owner, node) {
            found.push(Conditions { place: Some(node.place), matches });
        }
    }
    found
}

fn one(cx: &mut Context<'_>, owner: &RouteOwner<'_>, node: &Node) -> Option<Match> {
    let mut fields = Fields::of(&mut cx.reader, node, "an element of `match`")?;
    let mut matches = Match::default();
    let uri = field(cx, &mut fields, "uri");
    let method = field(cx, &mut fields, "method");
    let authority = field(cx, &mut fields, "authority");
    let any_case = fields.boolean(&mut cx.reader, "ignoreUriCase").is_some_and(|it| it.value);
    matches.headers = values(cx, &mut fields, "headers");
    matches.without_headers = values(cx, &mut fields, "withoutHeaders");
    matches.query = values(cx, &mut fields, "queryParams");
    let r = &mut cx.reader;
    let port = fields.number::<u16>(r, "port");
    let labels = fields.texts(r, "sourceLabels");
    let namespace = fields.string(r, "sourceNamespace");
    let gateways = fields.strings(r, "gateways");
    fields.ignore("name");
    let help = "the listener knows the scheme: write `gateways` or `port`";
    fields.refuse(r, "scheme", help);
    fields.refuse(r, "statPrefix", "the metrics of a rule have its name");
    fields.finish(r);
    if let Some(uri) = uri {
        let path = uri.value.path(any_case);
        matches.path = Some(Item::new(path, uri.origin));
    }
    match method.map(|method| (method.value, method.origin)) {
        Some((TextMatch::Exact(name), origin)) => matches.methods.push(Item::new(name, origin)),
        Some((other, _)) => matches.method = Some(other.value()),
        None => {}
    }
    matches.authority = authority.map(|authority| authority.value.value());
    let at_port = match (port, owner.port) {
        (Some(wanted), known) => known == Some(wanted.value),
        (None, _) => true,
    };
    let through = gateways.is_empty()
        || gateways
            .iter()
            .any(|it| gateway_scope(owner.object, &it.value).as_deref() == owner.scope);
    let from = cx.has_labels(&labels)
        && namespace.is_none_or(|namespace| namespace.value == cx.settings.namespace);
    (at_port && through && from).then_some(matches)
}

/// Reads a map from names to conditions. The pseudo-header fields of HTTP/2 are fields here, too.
fn values(
    cx: &mut Context<'_>,
    fields: &mut Fields<'_>,
    name: &'static str,
) -> Vec<(Item<String>, ValueMatch)> {
    let Some(node) = fields.get(name) else { return Vec::new() };
    let mut all = Vec::new();
    for (key, value) in items(&mut cx.reader, node, name) {
        if key.value.starts_with(':') {
            let help = "write `uri`, `method` or `authority` instead";
            cx.reader.item(&key, format!("{:?} is not a header field", key.value), help);
            continue;
        }
        let condition = match value.kind {
            crate::sources::yaml::node::Kind::Null => {
                Some(Item::new(TextMatch::Present, at(value.place)))
            }
            _ => text_match(cx, value, &key.value),
        };
        all.extend(condition.map(|condition| (key, condition.value.value())));
    }
    all
}
