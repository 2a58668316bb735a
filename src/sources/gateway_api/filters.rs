//! `filters` of routes.

use super::backends::Backends;
use super::gateways::Attached;
use super::{Context, at};
use crate::model::{Action, FieldEdits, Item, Mirror, Redirect, Rewrite, Rule, SHARE_PARTS};
use crate::sources::objects::{Fields, Object, spelling};
use crate::sources::yaml::node::Node;

const TYPES: [&str; 5] = [
    "RequestHeaderModifier",
    "ResponseHeaderModifier",
    "RequestRedirect",
    "URLRewrite",
    "RequestMirror",
];

/// Reads one filter into `rule`.
pub(super) fn filter(
    cx: &mut Context<'_>,
    object: &Object,
    node: &Node,
    backends: &mut Backends,
    rule: &mut Rule,
) {
    let Some(mut fields) = Fields::of(&mut cx.reader, node, "a filter") else { return };
    let Some(kind) = fields.string(&mut cx.reader, "type") else {
        cx.reader.at(node.place, "this filter has no type", "write `type: RequestHeaderModifier`");
        return;
    };
    match kind.value.as_str() {
        "RequestHeaderModifier" => {
            let edits = edits(cx, &mut fields, "requestHeaderModifier");
            rule.request_headers = edits.map(Box::new);
        }
        "ResponseHeaderModifier" => {
            let edits = edits(cx, &mut fields, "responseHeaderModifier");
            rule.response_headers = edits.map(Box::new);
        }
        "RequestRedirect" => redirect(cx, &mut fields, rule),
        "URLRewrite" => rewrite(cx, &mut fields, rule),
        "RequestMirror" => mirror(cx, object, &mut fields, backends, rule),
        "CORS" | "ExternalAuth" | "ExtensionRef" => {
            let message = format!("the filter {} is not supported", kind.value);
            cx.reader.item(&kind, message, format!("the filters are {}", TYPES.join(", ")));
            return;
        }
        other => {
            let message = format!("{other:?} is not a filter");
            cx.reader.item(&kind, message, spelling(other, &TYPES));
            return;
        }
    }
    fields.finish(&mut cx.reader);
}

fn edits(cx: &mut Context<'_>, fields: &mut Fields<'_>, name: &'static str) -> Option<FieldEdits> {
    let r = &mut cx.reader;
    let mut written = fields.map(r, name)?;
    let mut pairs = |written: &mut Fields<'_>, name: &'static str| {
        let mut pairs = Vec::new();
        for node in written.list(r, name) {
            let Some(mut pair) = Fields::of(r, node, "a header field") else { continue };
            let name = pair.string(r, "name");
            let value = pair.string(r, "value");
            pair.finish(r);
            pairs.extend(name.zip(value));
        }
        pairs
    };
    let (set, add) = (pairs(&mut written, "set"), pairs(&mut written, "add"));
    let remove = written.strings(r, "remove");
    written.finish(r);
    Some(FieldEdits { set, add, remove })
}

/// The new path: the whole one, or the part that the prefix of the rule matched.
type NewPath = (Option<Item<String>>, Option<Item<String>>);

fn new_path(cx: &mut Context<'_>, fields: &mut Fields<'_>) -> NewPath {
    let r = &mut cx.reader;
    let Some(mut path) = fields.map(r, "path") else { return (None, None) };
    let kinds = [("ReplaceFullPath", ()), ("ReplacePrefixMatch", ())];
    path.one_of(r, "type", &kinds);
    let full = path.string(r, "replaceFullPath");
    let prefix = path.string(r, "replacePrefixMatch");
    path.finish(r);
    let prefix = prefix.map(|prefix| match prefix.value.as_str() {
        "" => Item::new("/".to_owned(), prefix.origin),
        _ => prefix,
    });
    (full, prefix)
}

fn redirect(cx: &mut Context<'_>, fields: &mut Fields<'_>, rule: &mut Rule) {
    let Some(mut written) = fields.map(&mut cx.reader, "requestRedirect") else { return };
    let (path, prefix) = new_path(cx, &mut written);
    let r = &mut cx.reader;
    let redirect = Redirect {
        scheme: written.string(r, "scheme"),
        host: written.string(r, "hostname"),
        port: written.number::<u16>(r, "port").map(|port| port.value),
        path,
        prefix,
        status: written
            .number::<u16>(r, "statusCode")
            .or_else(|| Some(Item::new(302, at(written.place)))),
    };
    let origin = at(written.place);
    written.finish(r);
    rule.action = Some(Action::Redirect(Box::new(Item::new(redirect, origin))));
}

/// Completes a redirect: without a port and a scheme, it has the port of the listener.
pub(super) fn with_port(rule: &mut Rule, place: &Attached) {
    if let Some(Action::Redirect(redirect)) = &mut rule.action
        && redirect.value.port.is_none()
        && redirect.value.scheme.is_none()
    {
        redirect.value.port = Some(place.port);
    }
}

fn rewrite(cx: &mut Context<'_>, fields: &mut Fields<'_>, rule: &mut Rule) {
    let Some(mut written) = fields.map(&mut cx.reader, "urlRewrite") else { return };
    let host = written.string(&mut cx.reader, "hostname");
    let (path, prefix) = new_path(cx, &mut written);
    let origin = at(written.place);
    written.finish(&mut cx.reader);
    let rewrite = Rewrite { host, path, prefix, ..Rewrite::default() };
    rule.rewrite = Some(Box::new(Item::new(rewrite, origin)));
}

fn mirror(
    cx: &mut Context<'_>,
    object: &Object,
    fields: &mut Fields<'_>,
    backends: &mut Backends,
    rule: &mut Rule,
) {
    let Some(mut written) = fields.map(&mut cx.reader, "requestMirror") else { return };
    let r = &mut cx.reader;
    let percent = written.number::<u32>(r, "percent").map(|it| it.value.min(100) * 10_000);
    let fraction = written.map(r, "fraction").and_then(|mut fraction| {
        let part = fraction.number::<u32>(r, "numerator");
        let of = fraction.number::<u32>(r, "denominator").map_or(100, |of| of.value.max(1));
        fraction.finish(r);
        part.map(|part| (u64::from(part.value) * u64::from(SHARE_PARTS) / u64::from(of)) as u32)
    });
    let mut to = None;
    if let Some(mut backend) = written.map(&mut cx.reader, "backendRef") {
        to = backends.reference(cx, object, &mut backend);
        backend.finish(&mut cx.reader);
    }
    if rule.mirror.is_some() {
        cx.reader.at(written.place, "a rule has one mirror", "keep one of them");
    }
    written.finish(&mut cx.reader);
    let Some(to) = to else { return };
    let origin = to.origin.clone();
    let share = percent.or(fraction);
    let mirror = Mirror { to: Some(to), share, shadow_host: Some(false), ..Mirror::default() };
    rule.mirror = Some(Box::new(Item::new(mirror, origin)));
}
