//! `matches` of routes.

use super::{Context, at};
use crate::matching::{PathMatch, ValueMatch, whole};
use crate::model::{Item, Match};
use crate::sources::objects::Fields;
use crate::sources::yaml::node::Node;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exact,
    Prefix,
    Regex,
}

/// The types of conditions on values.
const VALUES: [(&str, Kind); 2] = [("Exact", Kind::Exact), ("RegularExpression", Kind::Regex)];

/// Reads one element of `matches` of an HTTPRoute.
pub(super) fn http(cx: &mut Context<'_>, node: &Node) -> Option<Match> {
    let mut fields = Fields::of(&mut cx.reader, node, "an element of `matches`")?;
    let mut matches = Match::default();
    if let Some(path) = fields.map(&mut cx.reader, "path") {
        matches.path = self::path(cx, path);
    }
    matches.headers = values(cx, &mut fields, "headers");
    matches.query = values(cx, &mut fields, "queryParams");
    matches.methods.extend(fields.string(&mut cx.reader, "method"));
    fields.finish(&mut cx.reader);
    Some(matches)
}

fn path(cx: &mut Context<'_>, mut fields: Fields<'_>) -> Option<Item<PathMatch>> {
    let r = &mut cx.reader;
    let kinds =
        [("PathPrefix", Kind::Prefix), ("Exact", Kind::Exact), ("RegularExpression", Kind::Regex)];
    let kind = fields.one_of(r, "type", &kinds).map_or(Kind::Prefix, |kind| kind.value);
    let value = fields.string(r, "value");
    fields.finish(r);
    let value = value?;
    let text = value.value.as_str();
    let path = match kind {
        Kind::Exact => PathMatch::Exact(text.as_bytes().into()),
        Kind::Prefix => match text.trim_end_matches('/') {
            "" => PathMatch::Any,
            prefix => PathMatch::Prefix(format!("{prefix}/").into_bytes().into()),
        },
        Kind::Regex => PathMatch::Regex(regex(cx, &value)?),
    };
    Some(Item::new(path, value.origin))
}

fn regex(cx: &mut Context<'_>, value: &Item<String>) -> Option<regex::bytes::Regex> {
    match whole(&value.value) {
        Ok(regex) => Some(regex),
        Err(error) => {
            cx.reader.item(value, &error.message, error.help);
            None
        }
    }
}

/// Reads a list of conditions on values. Of several ones with the same name, the first one counts.
fn values(
    cx: &mut Context<'_>,
    fields: &mut Fields<'_>,
    name: &'static str,
) -> Vec<(Item<String>, ValueMatch)> {
    let mut all: Vec<(Item<String>, ValueMatch)> = Vec::new();
    for node in fields.list(&mut cx.reader, name) {
        let r = &mut cx.reader;
        let Some(mut fields) = Fields::of(r, node, "a condition") else { continue };
        let kind = fields.one_of(r, "type", &VALUES).map_or(Kind::Exact, |kind| kind.value);
        let key = fields.string(r, "name");
        let value = fields.string(r, "value");
        fields.finish(r);
        let (Some(key), Some(value)) = (key, value) else {
            cx.reader.at(node.place, "this condition lacks a name or a value", "write both");
            continue;
        };
        if all.iter().any(|(known, _)| known.value.eq_ignore_ascii_case(&key.value)) {
            continue;
        }
        let condition = match kind {
            Kind::Regex => regex(cx, &value).map(ValueMatch::Regex),
            _ => Some(ValueMatch::Exact(value.value.into_bytes().into())),
        };
        all.extend(condition.map(|condition| (key, condition)));
    }
    all
}

/// Reads one element of `matches` of a GRPCRoute.
pub(super) fn grpc(cx: &mut Context<'_>, node: &Node) -> Option<Match> {
    let mut fields = Fields::of(&mut cx.reader, node, "an element of `matches`")?;
    let headers = values(cx, &mut fields, "headers");
    let mut matches = Match { headers, ..Match::default() };
    if let Some(mut method) = fields.map(&mut cx.reader, "method") {
        let place = method.place;
        let r = &mut cx.reader;
        let kind = method.one_of(r, "type", &VALUES).map_or(Kind::Exact, |kind| kind.value);
        let service = method.string(r, "service").map(|it| it.value);
        let name = method.string(r, "method").map(|it| it.value);
        method.finish(r);
        let path = match (kind, service, name) {
            (Kind::Exact, Some(service), Some(name)) => {
                Some(PathMatch::Exact(format!("/{service}/{name}").into_bytes().into()))
            }
            (Kind::Exact, Some(service), None) => {
                Some(PathMatch::Prefix(format!("/{service}/").into_bytes().into()))
            }
            (_, None, None) => None,
            (kind, service, name) => {
                let part = |part: Option<String>| match (part, kind) {
                    (None, _) => "[^/]+".to_owned(),
                    (Some(text), Kind::Regex) => text,
                    (Some(text), _) => regex::escape(&text),
                };
                let text = format!("/{}/{}", part(service), part(name));
                regex(cx, &Item::new(text, at(place))).map(PathMatch::Regex)
            }
        };
        matches.path = path.map(|path| Item::new(path, at(place)));
    }
    fields.finish(&mut cx.reader);
    Some(matches)
}
