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
