//! Converts values of a configuration to forms of Ringway, for advice: a prefix becomes a path of
//! `match`, a status becomes an action.

use std::net::SocketAddr;

use super::super::node::{Kind, Node};
use super::addresses::{Addresses, BEHIND};
use super::{
    conditions, entries_of, entry, flow, limits, own_entry, quoted, rules, shares, targets, text,
    urls,
};
use crate::compile::habits;

/// The value of `node` in the form `name`. `compile::habits::fill` lists the forms.
pub(super) fn value(node: &Node, name: &str) -> Option<String> {
    match name {
        "pathbelow" => path(node).and_then(below),
        "pathalone" => path(node).and_then(|path| quoted(alone(path))),
        "pathdir" => path(node).and_then(|path| quoted(&directory(path))),
        "pathmatch" => path_match(node),
        "pathwords" => path_words(node),
        "orbegins" => or_begins(node),
        "cidrs" => rules::cidrs(node),
        "budget" => rules::budget(node),
        "tcpports" => rules::tcp_ports(node),
        "registry" => rules::registry(node),
        "loglevel" => rules::log_level(node),
        "logsection" => rules::log_section(node),
        "novariables" => conditions::no_variables(node),
        "local" => rules::local(node.text()),
        "portvalues" => rules::port_values(node),
        "none" => is_none(node.text()).then(|| "none".to_owned()),
        "checkpath" => check_path(node),
        "hostname" => host(node),
        "equal" => conditions::equal(node),
        "regex" => conditions::matches(node),
        "begins" => conditions::begins(node),
        "ends" => conditions::ends(node),
        "otlp" => own_entry(node, "otlp").and_then(|_| flow::one_line(node)),
        "answer" => answer(node),
        "urlparts" => urls::redirect(node.text()),
        "target" => targets::target(node),
        "toservice" => targets::target(node)?.split_once('`').map(|(to, _)| to.to_owned()),
        "weights" => targets::weights(node),
        "services" => named(node, &service_keys),
        "listeners" => named(node, &listener_keys),
        "jwts" => named(node, &|it| {
            flow::pairs(entries_of(it).iter().filter(|(key, _)| key.text != "name"))
        }),
        "anyof" => conditions::any_of(node),
        "anypath" => conditions::any_of(node).map(|all| format!("{all}`, a regex for all of them")),
        "matchparts" => conditions::match_parts(node),
        "pairs" => pairs(node),
        "level" => level(node),
        "versions" => versions(node, None),
        "failover" => failover(node),
        "localshare" => local_share(node),
        "proxyversion" => text(node).filter(|text| matches!(text.as_str(), "v1" | "v2")),
        "stdev" => stdev(node.text()),
        "value" => flow::one_line(node),
        "keys" => Some(format!("{{{}}}", Addresses::of(node, &[]).to_service()?)),
        "reach" => Addresses::of(node, &[]).to_service(),
        "endpoint" => Addresses::of(node, &[]).to_endpoint(),
        name => limits::value(node, name).or_else(|| shares::value(node, name)),
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

fn path_match(node: &Node) -> Option<String> {
    if let Some(found) = entry(node, "prefix") {
        return path(found).and_then(below);
    }
    if let Some(found) = entry(node, "exact") {
        return path(found).and_then(quoted);
    }
    let written = ["regex", "safe_regex"].iter().find_map(|name| entry(node, name));
    match written {
        Some(found) => conditions::matches(found),
        None => path(node).and_then(quoted),
    }
}

/// A path as [`path_match`] writes it, with the end of its code, and with words about a prefix.
fn path_words(node: &Node) -> Option<String> {
    let path = path_match(node)?;
    let words = entry(node, "prefix").and_then(|prefix| {
        let alone = self::path(prefix).map(alone)?;
        let begins = or_begins(prefix).unwrap_or_default();
        Some(format!(", which is {alone} and all paths below it{begins}"))
    });
    Some(format!("{path}`{}", words.unwrap_or_default()))
}

/// How to write a prefix that ends within a name, as the prefixes of other proxies do.
fn or_begins(node: &Node) -> Option<String> {
    let path = path(node).filter(|path| !path.ends_with('/'))?;
    let begins = conditions::regex(&format!("{}.*", regex::escape(path.trim_end_matches('*'))))?;
    Some(format!("; {begins} is for all that begin with {}", path.trim_end_matches('*')))
}

/// Whether a text in the place of a length of time means that there is no limit.
fn is_none(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "none" | "off" | "never" | "infinite" | "infinity")
}

/// The path of a health check, from a text such as `/up` or `GET /up`.
fn check_path(node: &Node) -> Option<String> {
    let found = ["path", "uri"].iter().find_map(|name| entry(node, name)).unwrap_or(node);
    found.text().split(' ').find(|word| word.starts_with('/')).and_then(quoted)
}

/// The first name of a host.
pub(super) fn host(node: &Node) -> Option<String> {
    let first = match &node.kind {
        Kind::List(items) => items.first()?,
        _ => node,
    };
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b".-:*".contains(&byte);
    let name = first.text().split_whitespace().next()?;
    if matches!(name, "true" | "false" | "on" | "off" | "yes" | "no") {
        return None;
    }
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

/// The action of a rule that responds itself: `redirect` or `respond`.
fn answer(node: &Node) -> Option<String> {
    let words = match entry(node, "status").or_else(|| entry(node, "code")) {
        Some(status) => status.text(),
        None => node.text(),
    };
    let (status, rest) = words.split_once(' ').unwrap_or((words, ""));
    let status: u16 = status.parse().ok().filter(|status| (200..600).contains(status))?;
    if matches!(status, 301 | 302 | 303 | 307 | 308) {
        let to = match rest.contains("://") {
            true => urls::redirect(rest)?,
            false if rest.starts_with('/') => format!("path: {}", quoted(rest)?),
            false => "host: HOST".to_owned(),
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

/// The keys of a service: those that it has already, or those for its addresses.
fn service_keys(node: &Node) -> Option<String> {
    let right = ["endpoints", "dns", "versions"];
    if right.iter().any(|name| own_entry(node, name).is_some_and(is_short)) {
        return flow::pairs(entries_of(node).iter().filter(|(key, _)| key.text != "name"));
    }
    Addresses::of(node, &[]).to_service()
}

/// Whether `node` is a text, or a list or a map of texts.
fn is_short(node: &Node) -> bool {
    let is_text = |node: &Node| !node.text().is_empty();
    match &node.kind {
        Kind::Null => false,
        Kind::Scalar { text, .. } => !text.contains("://"),
        Kind::List(items) => items.iter().all(|it| is_text(it) && !it.text().contains("://")),
        Kind::Map(entries) => entries.iter().all(|(_, value)| is_short(value)),
    }
}

/// The keys of a listener: those that it has already, or its address.
fn listener_keys(node: &Node) -> Option<String> {
    if own_entry(node, "bind").is_some_and(|bind| bind.text().parse::<SocketAddr>().is_ok()) {
        return flow::pairs(entries_of(node).iter().filter(|(key, _)| key.text != "name"));
    }
    Some(format!("bind: {}", Addresses::of(node, &BEHIND).to_bind()?))
}

/// The header fields in `X-A b`, `X-A: b`, `{x-a: b}`, `[{header: {key: x-a, value: b}}]` and
/// `[{name: x-a, value: b}]`, as `x-a: b`.
fn pairs(node: &Node) -> Option<String> {
    if let Some(inner) = ["set", "add", "header"].iter().find_map(|name| own_entry(node, name)) {
        return pairs(inner);
    }
    let named = own_entry(node, "key").or_else(|| own_entry(node, "name"));
    if let Some((name, value)) = named.zip(own_entry(node, "value")) {
        let value = Some(value).filter(|value| habits::variable(value.text()).is_none())?;
        return flow::pair(name.text(), value);
    }
    if let Some(name) = named {
        return Some(format!("{}: {}", text(name)?, conditions::value(node)?));
    }
    match &node.kind {
        Kind::Null => None,
        Kind::Scalar { text, .. } => {
            let (name, value) = text.split_once([' ', ':'])?;
            let value = value.trim_start_matches([' ', ':']).trim();
            // A variable of another proxy is no text.
            let value = quoted(value).filter(|_| habits::variable(value).is_none())?;
            Some(format!("{}: {value}", quoted(name)?))
        }
        Kind::List(items) => {
            let all: Option<Vec<_>> = items.iter().map(pairs).collect();
            all.filter(|all| !all.is_empty()).map(|all| all.join(", "))
        }
        Kind::Map(entries) => {
            let is_text = |text: &str| !text.is_empty() && habits::variable(text).is_none();
            let texts = entries.iter().all(|(_, value)| is_text(value.text()));
            texts.then(|| flow::pairs(entries.iter()))?.filter(|all| !all.is_empty())
        }
    }
}

/// The entries of a level that Ringway does not have, as entries of the level above.
fn level(node: &Node) -> Option<String> {
    if let Some(inner) = own_entry(node, "thresholds") {
        return level(inner);
    }
    let map = match &node.kind {
        Kind::List(items) if items.len() == 1 => &items[0],
        Kind::List(_) | Kind::Null | Kind::Scalar { .. } => return None,
        Kind::Map(_) => node,
    };
    let entries = entries_of(map).iter().filter(|(key, _)| key.text != "priority");
    let all: Option<Vec<_>> =
        entries.map(|(key, value)| flow::pair(&flow::snake(&key.text), value)).collect();
    all.filter(|all| !all.is_empty()).map(|all| all.join(", "))
}

/// The versions of a service from a list of subsets. The `endpoints` of the service belong to its
/// only version.
pub(super) fn versions(node: &Node, endpoints: Option<&Node>) -> Option<String> {
    let Kind::List(items) = &node.kind else { return None };
    let known = endpoints.filter(|_| items.len() == 1);
    let list = known.and_then(|known| Addresses::of(known, &[]).to_connect());
    let list = list.unwrap_or_else(|| "IP:PORT".to_owned());
    let name = |item: &Node| {
        let name = own_entry(item, "name").unwrap_or(item);
        Some(format!("{}: [{list}]", text(name)?))
    };
    let all: Option<Vec<_>> = items.iter().map(name).collect();
    all.filter(|all| !all.is_empty()).map(|all| all.join(", "))
}

/// Envoy's 1900 is 1.9.
fn stdev(text: &str) -> Option<String> {
    match text.parse::<u32>() {
        Ok(thousandths @ 100..) => {
            let factor = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
            Some(factor.trim_end_matches('0').trim_end_matches('.').to_owned())
        }
        _ => text.parse::<f64>().is_ok_and(|it| it > 0.0).then(|| text.to_owned()),
    }
}

/// The map or list `node` without the entries called `names`.
pub(super) fn without(node: &Node, names: &[&str]) -> Node {
    let mut node = node.clone();
    match &mut node.kind {
        Kind::Map(entries) => entries.retain(|(key, _)| !names.contains(&key.text.as_str())),
        Kind::List(items) => items.retain(|item| {
            own_entry(item, "name").is_none_or(|name| !names.contains(&name.text()))
        }),
        Kind::Null | Kind::Scalar { .. } => {}
    }
    node
}

/// The zones in Istio's `[{from: eu, to: us}]`, or in a list of zones. Istio always tries the own
/// region first. In Ringway, the list has all zones in their order.
fn failover(node: &Node) -> Option<String> {
    let Kind::List(items) = &node.kind else { return Some(format!("ZONE: [{}]", text(node)?)) };
    let pair = |item: &Node| {
        let (from, to) = own_entry(item, "from").zip(own_entry(item, "to"))?;
        let (from, to) = (text(from)?, text(to)?);
        Some(format!("{from}: [{from}, {to}]"))
    };
    let pairs: Option<Vec<_>> = items.iter().map(pair).collect();
    match pairs.filter(|pairs| !pairs.is_empty()) {
        Some(pairs) => Some(pairs.join(", ")),
        None => Some(format!("ZONE: [{}]", super::list(node)?)),
    }
}

/// The share of the own zone in Istio's `[{from: eu/a, to: {eu/a: 80, eu/b: 20}}]`.
fn local_share(node: &Node) -> Option<String> {
    let first = match &node.kind {
        Kind::List(items) => items.first()?,
        _ => node,
    };
    let (from, to) = own_entry(first, "from").zip(own_entry(first, "to"))?;
    let share: u32 = own_entry(to, from.text())?.text().trim_end_matches('%').parse().ok()?;
    Some(format!("{share}%"))
}
