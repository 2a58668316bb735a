//! Rules and conditions of other proxies as entries of Ringway's sections, for the advice about
//! them.

use super::super::node::{Key, Kind, Node};
use super::{entry, flow, list, own_entry, quoted, targets, text};

/// The authorization rule that lets only clients with the addresses `ips` send requests to `to`,
/// or refuses them. It is no wider than `conditions`, the entries of `match`.
pub(super) fn access(
    ips: &str,
    to: Option<&Node>,
    conditions: &[(Key, Node)],
    allows: bool,
) -> Option<String> {
    let to = to.and_then(text);
    let service = to.as_deref().and_then(|to| to.split('/').next()).unwrap_or("SERVICE");
    let find = |name: &str| conditions.iter().find(|(key, _)| key.text == name);
    let entries = [("path", "paths"), ("method", "methods")].map(|(name, key)| {
        let list = list(&find(name)?.1)?;
        Some(format!(", {key}: [{list}]"))
    });
    let parts: String = entries.into_iter().flatten().collect();
    let headers = find("headers").and_then(|(_, all)| flow::pair("headers", all));
    let when = headers.map(|headers| format!(", when: {{{headers}}}")).unwrap_or_default();
    let (action, key) = match (allows, parts.is_empty() && when.is_empty()) {
        (false, _) => ("deny", "ips"),
        (true, true) => ("allow", "ips"),
        // To allow some addresses refuses all other requests to the service.
        (true, false) => ("deny", "not_ips"),
    };
    let to = format!("to: {{service: {service}{parts}}}");
    Some(format!("{{action: {action}, from: {{{key}: [{ips}]}}, {to}{when}}}"))
}

/// The addresses in a list, a text, or Traefik's `{sourceRange: [10.0.0.0/8]}`.
pub(super) fn cidrs(node: &Node) -> Option<String> {
    let names = ["source_range", "ips", "cidrs", "ranges", "allow", "whitelist"];
    let found = names.iter().find_map(|name| entry(node, name)).unwrap_or(node);
    list(found).filter(|all| all != "all")
}

/// The advice for `deny`, in a rule or a listener. `to` is what the requests are for.
pub(super) fn denied(node: &Node, rule: impl Fn(&str) -> Option<String>) -> Option<String> {
    if node.text() == "all" {
        return Some("leave it out: an `allow` rule of `authorization` refuses all others".into());
    }
    let rule = rule(&cidrs(node)?)?;
    Some(format!("write at the top of the file: authorization: [{rule}]"))
}

/// The advice for Traefik's `rule` in a rule of `routes`. `all` are the entries of that rule.
pub(super) fn traefik(node: &Node, key: &Key, all: &[(Key, Node)]) -> Option<String> {
    let (host, path) = targets::parts(node.text())?;
    let has_match = all.iter().any(|(key, _)| key.text == "match");
    let path = path.filter(|_| !has_match).map(|path| format!("match: {{path: {path}}}"));
    let Some(host) = host else { return Some(format!("write `{}`", path?)) };
    let rest = flow::pairs(all.iter().filter(|(it, _)| it.place != key.place))?;
    let parts: Vec<_> = path.into_iter().chain(Some(rest).filter(|it| !it.is_empty())).collect();
    Some(format!("a host is a key of `routes`; write there: {host}: [{{{}}}]", parts.join(", ")))
}

/// The end of the advice to write a condition in another key of the rule.
const BESIDE: &str = " in the rule itself, not in `when`";

/// Istio's condition `{key: 'request.headers[x-a]', values: [b]}` as an entry of `when`.
pub(super) fn condition(all: &[(Key, Node)]) -> Option<String> {
    let find = |name: &str| all.iter().find(|(key, _)| key.text == name).map(|(_, node)| node);
    if find("notValues").is_some() {
        return None;
    }
    let key = find("key")?.text();
    let values = find("values")?;
    match key {
        "source.ip" => return Some(format!("write `from: {{ips: [{}]}}`{BESIDE}", list(values)?)),
        "remote.ip" => {
            return Some(format!("write `from: {{forwarded_ips: [{}]}}`{BESIDE}", list(values)?));
        }
        "source.principal" => {
            return Some(format!("write `from: {{identities: [spiffe://...]}}`{BESIDE}"));
        }
        "destination.port" => {
            return Some(format!("write `to: {{ports: [{}]}}`{BESIDE}", list(values)?));
        }
        _ => {}
    }
    let (kind, rest) = key.split_once('[')?;
    let name = rest.strip_suffix(']')?.replace("][", ".");
    let kind = match kind {
        "request.headers" => "headers",
        "request.auth.claims" => "claims",
        _ => return None,
    };
    let values = match &values.kind {
        Kind::List(items) => items.iter().map(Node::text).collect(),
        _ => vec![values.text()],
    };
    let value = match &values[..] {
        [one] if !one.contains('*') => quoted(one)?,
        [] => return None,
        all => {
            let regex = |text: &&str| regex::escape(text).replace("\\*", ".*");
            let all = all.iter().map(regex).collect::<Vec<_>>().join("|");
            quoted(&format!("~{all}"))?
        }
    };
    Some(format!("write `{kind}: {{{}: {value}}}`", quoted(&name)?))
}

/// The path of `match` for a location of nginx, such as `/a` or `location /a`.
pub(super) fn path(key: &str) -> Option<String> {
    let path = key.strip_prefix("location ").unwrap_or(key).trim();
    let plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-*".contains(&byte));
    let path = path.trim_end_matches('*').trim_end_matches('/');
    (key.contains('/') && plain && (path.is_empty() || path.starts_with('/')))
        .then(|| quoted(&format!("{path}/*")))
        .flatten()
}

/// Linkerd's `{retryRatio: 0.2, minRetriesPerSecond: 10}` as the keys of a budget, whose `min` is
/// for ten seconds.
pub(super) fn budget(node: &Node) -> Option<String> {
    let ratio: f64 = own_entry(node, "retry_ratio")?.text().parse().ok()?;
    let percent = (ratio * 100.0).round();
    let min: u32 = own_entry(node, "min_retries_per_second")?.text().parse().ok()?;
    let valid = (0.0..=100.0).contains(&percent);
    valid.then_some(())?;
    Some(format!("percent: {percent}%, min: {}", min.checked_mul(10)?))
}

/// The ports in a list, as ports of opaque bytes.
pub(super) fn tcp_ports(node: &Node) -> Option<String> {
    let all = list(node)?;
    let one = |port: &str| port.parse::<u16>().ok().map(|port| format!("{port}: tcp"));
    let ports: Option<Vec<_>> = all.split(", ").map(one).collect();
    ports.map(|ports| ports.join(", "))
}

/// The ports in a list, as the keys of a map.
pub(super) fn port_values(node: &Node) -> Option<String> {
    let ports = tcp_ports(node)?;
    Some(ports.replace(": tcp", ": VALUE"))
}

/// The address for a port alone, which only this machine reaches.
pub(super) fn local(text: &str) -> Option<String> {
    let port = text.trim_start_matches('*').trim_start_matches(':');
    port.parse::<u16>().ok().filter(|port| *port > 0).map(|port| format!("127.0.0.1:{port}"))
}

/// The advice for Istio's mode of traffic to unknown hosts.
pub(super) fn registry(node: &Node) -> Option<String> {
    let mode = own_entry(node, "mode").unwrap_or(node);
    match mode.text().to_ascii_uppercase().as_str() {
        "REGISTRY_ONLY" => Some("write `unknown: deny`".to_owned()),
        "ALLOW_ANY" => Some("leave it out: connections to unknown hosts are forwarded".to_owned()),
        _ => None,
    }
}

/// The variable for the level of the messages of the process.
pub(super) fn log_level(node: &Node) -> Option<String> {
    let level = own_entry(node, "level").unwrap_or(node).text().to_ascii_lowercase();
    let known = ["trace", "debug", "info", "warn", "error"].contains(&level.as_str());
    known.then(|| format!("RUST_LOG={level}"))
}

/// The advice for a section about logs: the access log, or the level of the process.
pub(super) fn log_section(node: &Node) -> Option<String> {
    let paths = ["path", "output", "file", "filepath"];
    let found = paths.iter().find_map(|name| entry(node, name));
    if let (None, Some(variable)) = (found, log_level(node)) {
        return Some(format!(
            "the level of the messages of the process is a variable of its environment: {variable}"
        ));
    }
    let path = found.unwrap_or(node);
    let path = text(path);
    let path = path.unwrap_or_else(|| "stdout".to_owned());
    Some(format!("write `telemetry: {{access_log: {{path: {path}}}}}`"))
}
