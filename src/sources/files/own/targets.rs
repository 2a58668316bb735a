//! The destinations of rules and mirrors at other proxies.

use super::super::node::{Kind, Node};
use super::{entry, own_entry, quoted, text};
use crate::compile::habits::address;

/// The keys with which other proxies name a service.
pub(super) const TARGETS: [&str; 6] = ["cluster", "host", "service", "backend", "upstream", "name"];

/// The names and weights in a list such as `[{name: a, weight: 90}]` or `[{a: 90}]`, at any depth.
pub(super) fn weights(node: &Node) -> Option<String> {
    let items = match &node.kind {
        Kind::Map(entries) => return entries.iter().find_map(|(_, value)| weights(value)),
        Kind::List(items) => items,
        Kind::Null | Kind::Scalar { .. } => return None,
    };
    let one = |item: &Node| {
        let Kind::Map(entries) = &item.kind else {
            return Some(format!("{}: N", text(item).filter(|_| items.len() > 1)?));
        };
        let (name, weight) = match own_entry(item, "weight") {
            Some(weight) => {
                (TARGETS.iter().find_map(|name| entry(item, name)).and_then(text)?, weight)
            }
            None if entries.len() == 1 => (quoted(&entries[0].0.text)?, &entries[0].1),
            None => return None,
        };
        let weight = weight.text().trim_end_matches('%');
        weight.parse::<u32>().is_ok().then(|| format!("{name}: {weight}"))
    };
    items.iter().map(one).collect::<Option<Vec<_>>>().map(|all| all.join(", "))
}

/// The destination in `app`, `{cluster: app}` and `{host: app, subset: v2}`.
pub(super) fn destination(node: &Node) -> Option<String> {
    let name = TARGETS.iter().find_map(|name| entry(node, name)).unwrap_or(node);
    let name = service(name.text())?;
    match ["subset", "version"].iter().find_map(|name| entry(node, name)) {
        Some(version) => quoted(&format!("{name}/{}", version.text())),
        None => quoted(name),
    }
}

/// The name of a service, without a namespace of Kubernetes.
fn service(written: &str) -> Option<&str> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b".-_/".contains(&byte);
    let named = written.bytes().all(letter) && !written.starts_with('/') && !written.is_empty();
    if !named || written.parse::<std::net::IpAddr>().is_ok() {
        return None;
    }
    let name = written.split_once(".svc").map_or(written, |(name, _)| name);
    if name.len() < written.len() { name.split('.').next() } else { Some(name) }
}

/// The destination of a rule: the name of a service, or an address that becomes a service.
pub(super) fn target(node: &Node) -> Option<String> {
    let found = match &node.kind {
        Kind::List(items) if items.len() != 1 => return None,
        _ => TARGETS.iter().find_map(|name| entry(node, name)).unwrap_or(node),
    };
    let written = found.text();
    let Some(name) = service(written) else {
        let to = address::service(written)?;
        return Some(format!("to: app`, and `services: {{app: {{{to}}}}}"));
    };
    Some(format!("to: {name}`, with `{name}` in `services"))
}

/// The entry of `routes` for one of Traefik's routers: `Host` and `Path` or `PathPrefix`.
pub(super) fn router(node: &Node) -> Option<String> {
    let (host, path) = parts(own_entry(node, "rule")?.text())?;
    let to = own_entry(node, "service").and_then(destination);
    let to = format!("to: {}", to.as_deref().unwrap_or("SERVICE"));
    let rule = match path {
        Some(path) => format!("match: {{path: {path}}}, {to}"),
        None => to,
    };
    Some(format!("{}: [{{{rule}}}]", host.unwrap_or_else(|| "\"*\"".to_owned())))
}

/// The host and the path in a rule of Traefik.
pub(super) fn parts(rule: &str) -> Option<(Option<String>, Option<String>)> {
    let (mut host, mut path) = (None, None);
    for part in rule.split("&&") {
        let (name, value) = part.trim().split_once("(`")?;
        let value = value.strip_suffix("`)").filter(|value| !value.contains('`'))?;
        match name {
            "Host" => host = Some(quoted(value)?),
            "Path" => path = Some(quoted(value)?),
            "PathPrefix" => path = Some(quoted(&format!("{}/*", value.trim_end_matches('/')))?),
            _ => return None,
        }
    }
    Some((host, path))
}
