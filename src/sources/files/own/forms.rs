//! Converts values of a configuration to forms of Ringway, for advice: a prefix becomes a path of
//! `match`, a status becomes an action.

use super::super::node::{Kind, Node};
use super::addresses::{Addresses, BEHIND};
use super::{entry, is_time, quoted, text};
use crate::compile::habits::address;

/// The keys with which other proxies name a service.
const TARGETS: [&str; 6] = ["cluster", "host", "service", "backend", "upstream", "name"];

/// The value of `node` in the form `name`. `compile::habits::fill` lists the forms.
pub(super) fn value(node: &Node, name: &str) -> Option<String> {
    match name {
        "pathbelow" => path(node).and_then(below),
        "pathalone" => path(node).and_then(|path| quoted(alone(path))),
        "pathdir" => path(node).and_then(|path| quoted(&directory(path))),
        "pathmatch" => path_match(node),
        "checkpath" => check_path(node),
        "hostname" => host(node),
        "equal" => text(node).filter(|_| !node.text().starts_with('~')),
        "regex" => regex(node.text()),
        "begins" => regex(&format!("{}.*", regex::escape(some(node)?))),
        "ends" => regex(&format!(".*{}", regex::escape(some(node)?))),
        "answer" => answer(node),
        "target" => target(node),
        "toservice" => target(node)?.split_once('`').map(|(to, _)| to.to_owned()),
        "services" => named(node, &|it| Addresses::of(it, &[]).to_service()),
        "listeners" => {
            named(node, &|it| Some(format!("bind: {}", Addresses::of(it, &BEHIND).to_listen()?)))
        }
        "weights" => weights(node),
        "rate" => rate(node.text()),
        "bucket" => bucket(node),
        "keys" => Some(format!("{{{}}}", Addresses::of(node, &[]).to_service()?)),
        "reach" => Addresses::of(node, &[]).to_service(),
        "endpoint" => Addresses::of(node, &[]).to_endpoint(),
        _ => None,
    }
}

/// The text of `node`. `None` if it is empty.
fn some(node: &Node) -> Option<&str> {
    Some(node.text()).filter(|text| !text.is_empty())
}

/// The path in a text, or in `{prefix: PATH}` or `{exact: PATH}`.
fn path(node: &Node) -> Option<&str> {
    let found = entry(node, "prefix").or_else(|| entry(node, "exact")).unwrap_or(node);
    some(found).filter(|text| text.starts_with('/'))
}

fn alone(path: &str) -> &str {
    match path.trim_end_matches('*').trim_end_matches('/') {
        "" => "/",
        path => path,
    }
}

fn directory(path: &str) -> String {
    format!("{}/", alone(path).trim_end_matches('/'))
}

fn below(path: &str) -> Option<String> {
    quoted(&format!("{}*", directory(path)))
}

fn regex(text: &str) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    quoted(&format!("~{}", text.trim_start_matches('~')))
}

fn path_match(node: &Node) -> Option<String> {
    if let Some(found) = entry(node, "prefix") {
        return path(found).and_then(below);
    }
    if let Some(found) = entry(node, "exact") {
        return path(found).and_then(quoted);
    }
    let written = ["regex", "safe_regex"].iter().find_map(|name| entry(node, name));
    match written.filter(|node| !node.text().is_empty()) {
        Some(found) => regex(found.text()),
        None => path(node).and_then(quoted),
    }
}

/// The path of a health check, from a text such as `/up` or `GET /up`.
fn check_path(node: &Node) -> Option<String> {
    let found = ["path", "uri"].iter().find_map(|name| entry(node, name)).unwrap_or(node);
    found.text().split(' ').find(|word| word.starts_with('/')).and_then(quoted)
}

fn host(node: &Node) -> Option<String> {
    let first = match &node.kind {
        Kind::List(items) => items.first()?,
        _ => node,
    };
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b".-:*".contains(&byte);
    let name = first.text().split_whitespace().next()?;
    name.bytes().all(letter).then(|| quoted(name)).flatten()
}

/// The entries of a map, or of a list of maps with a `name`. `form` makes the keys of each entry.
fn named(node: &Node, form: &dyn Fn(&Node) -> Option<String>) -> Option<String> {
    let one = |name: &str, node: &Node| Some(format!("{}: {{{}}}", quoted(name)?, form(node)?));
    let all: Option<Vec<String>> = match &node.kind {
        Kind::Map(entries) => entries.iter().map(|(key, value)| one(&key.text, value)).collect(),
        Kind::List(items) => {
            items.iter().map(|item| one(some(own_entry(item, "name")?)?, item)).collect()
        }
        Kind::Null | Kind::Scalar { .. } => None,
    };
    all.filter(|all| !all.is_empty()).map(|all| all.join(", "))
}

/// The value of the entry `name` of the map `node`.
fn own_entry<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Kind::Map(entries) = &node.kind else { return None };
    entries.iter().find(|(key, _)| key.text == name).map(|(_, value)| value)
}

/// The names and weights in a list such as `[{name: a, weight: 90}]` or `[{a: 90}]`, at any depth.
fn weights(node: &Node) -> Option<String> {
    let items = match &node.kind {
        Kind::Map(entries) => return entries.iter().find_map(|(_, value)| weights(value)),
        Kind::List(items) => items,
        Kind::Null | Kind::Scalar { .. } => return None,
    };
    let one = |item: &Node| {
        let Kind::Map(entries) = &item.kind else { return None };
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

/// The keys of `rate_limit` for a rate in the form of nginx, such as `10r/s`.
fn rate(text: &str) -> Option<String> {
    let (requests, per) = text.split_once("r/").filter(|(_, per)| matches!(*per, "s" | "m"))?;
    let requests: u32 = requests.parse().ok()?;
    Some(format!("requests: {requests}, per: 1{per}"))
}

/// The keys of `rate_limit` for Envoy's token bucket: `tokens_per_fill` in each `fill_interval`,
/// and a capacity of `max_tokens`.
fn bucket(node: &Node) -> Option<String> {
    let number = |name| entry(node, name).and_then(|it| it.text().parse::<u32>().ok());
    if let Ok(requests) = node.text().parse::<u32>() {
        return Some(format!("requests: {requests}, per: 1s"));
    }
    let interval = entry(node, "fill_interval").map(Node::text).filter(|text| is_time(text));
    let most = number("max_tokens");
    // In Envoy, the default of `tokens_per_fill` is 1.
    let default = if interval.is_some() { most.and(Some(1)) } else { most };
    let requests = number("tokens_per_fill").or(default)?;
    let keys = format!("requests: {requests}, per: {}", interval.unwrap_or("1s"));
    match most.and_then(|most| most.checked_sub(requests)) {
        None | Some(0) => Some(keys),
        Some(more) => Some(format!("{keys}, burst: {more}")),
    }
}

/// The action of a rule that responds itself: `redirect` or `respond`.
fn answer(node: &Node) -> Option<String> {
    let words = match entry(node, "status").or_else(|| entry(node, "code")) {
        Some(status) => status.text(),
        None => node.text(),
    };
    let (status, rest) = words.split_once(' ').unwrap_or((words, ""));
    let status: u16 = status.parse().ok().filter(|status| (200..600).contains(status))?;
    if matches!(status, 301 | 302 | 303 | 307 | 308) {
        let to = match rest.split_once("://") {
            Some((scheme, _)) => {
                format!("scheme: {scheme}, host: {}", super::url_host(rest)?)
            }
            None if rest.starts_with('/') => format!("path: {}", quoted(rest)?),
            None => "scheme: https".to_owned(),
        };
        // A URL with a variable of another proxy is not a valid value.
        return (!to.contains('$')).then(|| format!("redirect: {{{to}, status: {status}}}"));
    }
    let inline = ["inline_string", "body"].iter().find_map(|name| entry(node, name));
    let body = match inline.and_then(text) {
        Some(body) => format!(", body: {body}"),
        None if rest.is_empty() => String::new(),
        None => format!(", body: {}", quoted(rest.trim_matches(['"', '\'']))?),
    };
    (!(300..400).contains(&status)).then(|| format!("respond: {{status: {status}{body}}}"))
}

/// The destination of a rule: the name of a service, or an address that becomes a service.
fn target(node: &Node) -> Option<String> {
    let found = match &node.kind {
        Kind::List(items) if items.len() != 1 => return None,
        _ => TARGETS.iter().find_map(|name| entry(node, name)).unwrap_or(node),
    };
    let written = some(found)?;
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let named = written.bytes().all(letter) && written.parse::<std::net::IpAddr>().is_err();
    if !named {
        let to = address::service(written)?;
        return Some(format!("to: app`, and `services: {{app: {{{to}}}}}"));
    }
    // In Kubernetes, `NAME.NAMESPACE.svc` names a service. Use only its name.
    let name = written.split_once(".svc").map_or(written, |(name, _)| name);
    let name = if name.len() < written.len() { name.split('.').next()? } else { name };
    Some(format!("to: {name}`, with `{name}` in `services"))
}
