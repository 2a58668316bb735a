//! Takes values from a configuration for the advice about it: see `compile::habits::filled`.

mod addresses;
mod around;
mod conditions;
mod flow;
mod forms;
mod limits;
mod objects;
mod rules;
mod shares;
mod targets;
mod urls;
mod whole;

use self::addresses::{Addresses, BEHIND};
pub(super) use self::around::advice;
pub(super) use self::objects::{is_of_kubernetes, of_kubernetes};
pub(super) use self::whole::{destination, nameless};
use super::node::{Key, Kind, Node};
use super::values::Time;
use crate::compile::habits::{self, Names};

/// The value for the placeholder `name`, found in `node`. `compile::habits::fill` lists the names.
pub(super) fn value(node: &Node, name: &str) -> Option<String> {
    match name {
        "" => text(node),
        "*" => list(node),
        "#" => text(node).filter(|text| text.parse::<u32>().is_ok()),
        "~" => time(node, "s"),
        "~ms" => time(node, "ms"),
        "~per" => time(node, "s").map(|time| format!("per: {time}")),
        "@" => Addresses::of(node, &BEHIND).to_bind(),
        "^" => Addresses::of(node, &[]).to_connect(),
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

/// The names in `tree` that advice may use.
pub(super) fn names(tree: &Node) -> Names {
    let entries = |section| own_entry(tree, section).map_or(&[][..], entries_of);
    let plain =
        |listener: &Node| ["tls", "ssl"].iter().all(|key| own_entry(listener, key).is_none());
    let listeners = entries("listeners").iter().map(|(_, listener)| listener);
    let binds = listeners.filter(|it| plain(it)).filter_map(|it| own_entry(it, "bind"));
    let port = |bind: &Node| bind.text().rsplit_once(':')?.1.parse().ok();
    Names {
        sections: entries_of(tree).iter().map(|(key, _)| key.text.clone()).collect(),
        services: entries("services").iter().map(|(key, _)| key.text.clone()).collect(),
        reached: entries("services").iter().filter_map(reached).collect(),
        ports: binds.filter_map(port).collect(),
        advised: None,
    }
}

/// The name of a service and the keys for its addresses.
fn reached((key, service): &(Key, Node)) -> Option<(String, String)> {
    let to = match own_entry(service, "endpoints") {
        Some(endpoints) => Addresses::of(endpoints, &[]).to_service()?,
        None => format!("dns: {}", own_entry(service, "dns")?.text()),
    };
    let tls = if own_entry(service, "tls").is_some() { ", tls: {ca: FILE}" } else { "" };
    Some((key.text.clone(), format!("{to}{tls}")))
}

/// The entries of a map, or none.
fn entries_of(node: &Node) -> &[(Key, Node)] {
    match &node.kind {
        Kind::Map(entries) => entries,
        Kind::Null | Kind::Scalar { .. } | Kind::List(_) => &[],
    }
}

/// The value of the entry `name` of the map `node`.
fn own_entry<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let named = |(key, _): &&(Key, Node)| habits::plain(&key.text) == habits::plain(name);
    entries_of(node).iter().find(named).map(|(_, value)| value)
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

/// A length of time. A number alone gets `unit`, the one of the other proxy.
fn time(node: &Node, unit: &str) -> Option<String> {
    let written = node.text();
    let number = written.parse::<u64>().is_ok_and(|number| number > 0);
    let whole = if number { format!("{written}{unit}") } else { written.to_owned() };
    is_time(&whole).then(|| quoted(&whole)).flatten()
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
