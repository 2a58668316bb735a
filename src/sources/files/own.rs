//! Takes values from a configuration for the advice about it: see `compile::habits::filled`.

mod addresses;
mod forms;

use self::addresses::{Addresses, BEHIND};
use super::node::{Key, Kind, Node};
use super::values::Time;
use crate::compile::habits;

/// The value for the placeholder `name`, found in `node`. `compile::habits::fill` lists the names.
pub(super) fn value(node: &Node, name: &str) -> Option<String> {
    match name {
        "" => text(node),
        "*" => list(node),
        "#" => text(node).filter(|text| text.parse::<u32>().is_ok()),
        "~" => text(node).filter(|text| is_time(text)),
        "@" => Addresses::of(node, &BEHIND).to_listen(),
        "^" => Addresses::of(node, &[]).to_connect(),
        "urlscheme" => node.text().split_once("://").map(|(scheme, _)| scheme.to_owned()),
        "urlhost" => url_host(node.text()),
        name => match name.strip_prefix('*') {
            Some(name) => entry(node, name).and_then(list),
            None => forms::value(node, name).or_else(|| entry(node, name).and_then(text)),
        },
    }
}

/// The value for a placeholder of an address whose parts may be in several entries of a map, such
/// as `host` and `port`. `key` is one entry of the map, and `all` are all its entries. Also returns
/// the key of the other part.
pub(super) fn address<'n>(
    node: &'n Node,
    name: &str,
    (key, all): (&Key, &'n [(Key, Node)]),
) -> Option<(String, &'n Key)> {
    let mut found = Addresses::of(node, &BEHIND);
    let other = found.complete(key, all)?;
    let shown = match name {
        "@" => found.to_listen(),
        "endpoint" => found.to_endpoint(),
        "reach" => found.to_service(),
        _ => None,
    };
    Some((shown?, other))
}

/// The names of the services in `tree`.
pub(super) fn services(tree: &Node) -> Vec<String> {
    let section = match &tree.kind {
        Kind::Map(sections) => sections.iter().find(|(key, _)| key.text == "services"),
        Kind::Null | Kind::Scalar { .. } | Kind::List(_) => None,
    };
    match section.map(|(_, section)| &section.kind) {
        Some(Kind::Map(entries)) => entries.iter().map(|(key, _)| key.text.clone()).collect(),
        _ => Vec::new(),
    }
}

/// The texts of a list, or the parts of a text with commas.
fn list(node: &Node) -> Option<String> {
    let texts: Option<Vec<String>> = match &node.kind {
        Kind::List(items) => items.iter().map(text).collect(),
        _ => node.text().split(',').map(|part| quoted(part.trim())).collect(),
    };
    texts.filter(|texts| !texts.is_empty()).map(|texts| texts.join(", "))
}

/// The text of a scalar, in a form that is valid between other entries on one line.
fn text(node: &Node) -> Option<String> {
    quoted(node.text())
}

/// The text, in quotes if YAML needs them.
fn quoted(text: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:+%~*".contains(c);
    let begins = |c: char| c.is_ascii_alphanumeric() || c == '/' || c == '.' || c == '_';
    match text {
        "" => None,
        _ if text.starts_with(begins) && !text.ends_with(':') && text.chars().all(plain) => {
            Some(text.to_owned())
        }
        // Advice is one line, so a text with a line break cannot be a part of it.
        _ if text.chars().any(char::is_control) => None,
        _ => Some(format!("'{}'", text.replace('\'', "''"))),
    }
}

/// The host of a URL. Returns `None` if the URL has a port or a user, which short advice cannot
/// cover.
fn url_host(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next()?;
    let bare = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    (bare && !host.is_empty()).then(|| host.to_owned())
}

fn is_time(text: &str) -> bool {
    use serde::Deserialize as _;
    use serde::de::IntoDeserializer as _;
    let value: serde::de::value::StrDeserializer<'_, serde::de::value::Error> =
        text.into_deserializer();
    Time::deserialize(value).is_ok()
}

/// The value of the first entry called `name`, at any depth below `node`.
fn entry<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    match &node.kind {
        Kind::Null | Kind::Scalar { .. } => None,
        Kind::List(items) => items.iter().find_map(|item| entry(item, name)),
        Kind::Map(entries) => {
            let own =
                entries.iter().find(|(key, _)| habits::plain(&key.text) == habits::plain(name));
            own.map(|(_, value)| value)
                .or_else(|| entries.iter().find_map(|(_, value)| entry(value, name)))
        }
    }
}
