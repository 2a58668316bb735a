//! Conditions of other proxies on a value, such as `{prefix: a}`, as values of `match.headers`.

use super::super::node::{Kind, Node};
use super::{entry, own_entry, quoted, text};
use crate::compile::habits;

/// The keys of Envoy's conditions, and those of Istio.
const EXACT: [&str; 2] = ["exact_match", "exact"];
const REGEX: [&str; 4] = ["safe_regex_match", "regex_match", "safe_regex", "regex"];
const PREFIX: [&str; 2] = ["prefix_match", "prefix"];
const SUFFIX: [&str; 2] = ["suffix_match", "suffix"];

/// The condition of an entry such as `{name: a, exact_match: b}`.
pub(super) fn value(node: &Node) -> Option<String> {
    let inner = own_entry(node, "string_match").unwrap_or(node);
    let find = |names: &[&str]| names.iter().find_map(|name| own_entry(inner, name));
    if let Some(found) = find(&EXACT) {
        return equal(found);
    }
    if let Some(found) = find(&REGEX) {
        return matches(found);
    }
    if let Some(found) = find(&PREFIX) {
        return begins(found);
    }
    if let Some(found) = find(&SUFFIX) {
        return ends(found);
    }
    let present = own_entry(node, "present_match")?;
    (present.text() == "true").then(|| "{present: true}".to_owned())
}

/// The text to compare with.
pub(super) fn equal(node: &Node) -> Option<String> {
    text(node).filter(|_| !node.text().starts_with('~'))
}

/// The regex in a text, or in `{regex: TEXT}`.
pub(super) fn matches(node: &Node) -> Option<String> {
    regex(entry(node, "regex").unwrap_or(node).text())
}

/// The regex for all that begin with the text.
pub(super) fn begins(node: &Node) -> Option<String> {
    some(node).and_then(|text| regex(&format!("{}.*", regex::escape(text))))
}

/// The regex for all that end with the text.
pub(super) fn ends(node: &Node) -> Option<String> {
    some(node).and_then(|text| regex(&format!(".*{}", regex::escape(text))))
}

/// The text of a regex as a value.
pub(super) fn regex(text: &str) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    quoted(&format!("~{}", text.trim_start_matches('~')))
}

/// The regex for one of the texts in a list of values or paths.
pub(super) fn any_of(node: &Node) -> Option<String> {
    let Kind::List(items) = &node.kind else { return None };
    let one = |item: &Node| {
        let text = some(item)?;
        Some(match text.strip_suffix("/*") {
            _ if text.starts_with('~') => text[1..].to_owned(),
            Some(path) => format!("{}(/.*)?", regex::escape(path)),
            None => regex::escape(text),
        })
    };
    let all: Option<Vec<_>> = items.iter().map(one).collect();
    regex(&all?.join("|"))
}

/// The conditions of a list such as `[{name: ':method', exact_match: GET}]`, as entries of `match`.
pub(super) fn match_parts(node: &Node) -> Option<String> {
    let Kind::List(items) = &node.kind else { return None };
    let (mut parts, mut headers) = (Vec::new(), Vec::new());
    for item in items {
        let name = own_entry(item, "name")?;
        let value = value(item)?;
        match name.text() {
            ":method" => parts.push(format!("method: {value}")),
            ":path" => parts.push(format!("path: {value}")),
            name if name.starts_with(':') => return None,
            _ => headers.push(format!("{}: {value}", text(name)?)),
        }
    }
    if !headers.is_empty() {
        parts.push(format!("headers: {{{}}}", headers.join(", ")));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Words about the first variable of another proxy in a text below `node`.
pub(super) fn no_variables(node: &Node) -> Option<String> {
    let found = variable(node)?;
    Some(format!(
        "; {found} would be sent as it is, because there are no variables; `x-forwarded-for` has \
         the address of the client"
    ))
}

fn variable(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Null => None,
        Kind::Scalar { text, .. } => habits::variable(text),
        Kind::List(items) => items.iter().find_map(variable),
        Kind::Map(entries) => entries.iter().find_map(|(_, value)| variable(value)),
    }
}

fn some(node: &Node) -> Option<&str> {
    Some(node.text()).filter(|text| !text.is_empty())
}
