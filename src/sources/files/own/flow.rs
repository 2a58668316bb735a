//! Values of the author, written in one line.

use super::super::node::{Key, Kind, Node};
use super::quoted;

/// `node` in one line, or nothing if it needs more lines.
pub(super) fn one_line(node: &Node) -> Option<String> {
    match &node.kind {
        Kind::Null => Some("null".to_owned()),
        Kind::Scalar { text, .. } if text.is_empty() => Some("''".to_owned()),
        Kind::Scalar { text, .. } => quoted(text),
        Kind::List(items) => {
            let items: Option<Vec<_>> = items.iter().map(one_line).collect();
            Some(format!("[{}]", items?.join(", ")))
        }
        Kind::Map(entries) => Some(format!("{{{}}}", pairs(entries.iter())?)),
    }
}

/// The entries of a map in one line, without its braces.
pub(super) fn pairs<'n>(entries: impl Iterator<Item = &'n (Key, Node)>) -> Option<String> {
    let one = |(key, value): &(Key, Node)| pair(&key.text, value);
    let all: Vec<_> = entries.map(one).collect::<Option<_>>()?;
    Some(all.join(", "))
}

/// `name: value`.
pub(super) fn pair(name: &str, value: &Node) -> Option<String> {
    Some(format!("{}: {}", quoted(name)?, one_line(value)?))
}

/// A key of another proxy in the spelling of Ringway: `maxConnections` is `max_connections`.
pub(super) fn snake(key: &str) -> String {
    let mut out = String::with_capacity(key.len() + 2);
    for character in key.chars() {
        match character {
            '-' => out.push('_'),
            upper if upper.is_ascii_uppercase() && !out.is_empty() => {
                out.push('_');
                out.push(upper.to_ascii_lowercase());
            }
            other => out.push(other.to_ascii_lowercase()),
        }
    }
    out
}
