//! Translates rates, token buckets and sizes in the syntax of other proxies, such as `10r/s` in
//! nginx, into the keys and units of Ringway.

use super::super::node::{Key, Node};
use super::{entry, flow, is_time, own_entry};
use crate::compile::habits;

/// The keys of a number of requests in each interval.
const REQUESTS: [&str; 4] = ["tokens_per_fill", "average", "limit", "requests_per_unit"];

/// The keys of an interval.
const INTERVALS: [&str; 3] = ["fill_interval", "period", "interval"];

/// The form `name` of `node`.
pub(super) fn value(node: &Node, name: &str) -> Option<String> {
    match name {
        "rate" => rate(node.text()),
        "bucket" => bucket(node),
        "zone" => zone(node),
        "ofzone" => zone(node).filter(|keys| !keys.contains("RATE")).map(|_| String::new()),
        "size" => size(node),
        "kib" => kib(node).or_else(|| number_of_kib(node)),
        _ => None,
    }
}

/// The keys for `10r/s`.
fn rate(text: &str) -> Option<String> {
    let (requests, per) = text.split_once("r/").filter(|(_, per)| matches!(*per, "s" | "m"))?;
    let requests: u32 = requests.parse().ok()?;
    Some(format!("requests: {requests}, per: 1{per}"))
}

/// The keys for nginx's `limit_req`, as a map or as words. Its zone has the rate.
fn zone(node: &Node) -> Option<String> {
    let word = |name: &str| {
        let mut words = node.text().split_whitespace().filter_map(|word| word.split_once('='));
        words.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let value = |name: &str| own_entry(node, name).map(Node::text).or_else(|| word(name));
    let rate = value("rate").and_then(rate);
    let burst = value("burst").and_then(|burst| burst.parse::<u32>().ok());
    if rate.is_none() && burst.is_none() {
        return None;
    }
    let rate = rate.unwrap_or_else(|| "requests: RATE, per: 1s".to_owned());
    // Without a burst, nginx lets no request pass before its time.
    let burst = burst.unwrap_or(0);
    // The first word of a zone is the variable that it counts by.
    let header = node.text().split_whitespace().next().and_then(|key| key.strip_prefix("$http_"));
    let by = match header {
        Some(header) => format!("{{header: {}}}", header.replace('_', "-")),
        None => "source".to_owned(),
    };
    Some(format!("{rate}, burst: {burst}, by: {by}"))
}

/// The keys for a bucket: `tokens_per_fill` in each `fill_interval`, and at most `max_tokens` at
/// once.
fn bucket(node: &Node) -> Option<String> {
    if let Ok(requests) = node.text().parse::<u32>() {
        return Some(format!("requests: {requests}, per: 1s"));
    }
    let found = |name: &&str| entry(node, name);
    of_parts(&|names: &[&str]| names.iter().find_map(found))
}

/// The same for a bucket whose keys are beside `key`. Also returns the other keys of the bucket.
pub(super) fn of_entries<'n>(key: &Key, all: &'n [(Key, Node)]) -> Option<(String, Vec<&'n Key>)> {
    let is = |(key, _): &&(Key, Node), names: &[&str]| {
        names.iter().any(|name| habits::plain(name) == habits::plain(&key.text))
    };
    let find = |names: &[&str]| all.iter().find(|entry| is(entry, names)).map(|(_, node)| node);
    let mut keys = of_parts(&find)?;
    // A part that is right already stays.
    let has = |name: &str| all.iter().any(|entry| is(&entry, &[name]));
    let new = |part: &&str| part.split(':').next().is_some_and(|name| !has(name));
    keys = keys.split(", ").filter(new).collect::<Vec<_>>().join(", ");
    if keys.is_empty() {
        return Some((flow::pair("requests", find(&["requests"])?)?, Vec::new()));
    }
    let parts = [&REQUESTS[..], &INTERVALS, &["max_tokens"]].concat();
    let others = all.iter().filter(|entry| is(entry, &parts) && entry.0.place != key.place);
    Some((keys, others.map(|(key, _)| key).collect()))
}

fn of_parts<'n>(find: &dyn Fn(&[&str]) -> Option<&'n Node>) -> Option<String> {
    let number = |names: &[&str]| find(names)?.text().parse::<u32>().ok();
    let interval = find(&INTERVALS).map(Node::text).filter(|text| is_time(text));
    let most = number(&["max_tokens"]);
    // Without this key, Envoy adds one token.
    let default = if interval.is_some() { most.and(Some(1)) } else { most };
    let requests = number(&REQUESTS).or(default)?;
    // A bucket of Envoy has no default for its interval, and a limit of Traefik has one second.
    let default = if most.is_some() { "TIME" } else { "1s" };
    let mut keys = format!("requests: {requests}, per: {}", interval.unwrap_or(default));
    if find(&["average"]).is_some() {
        // Traefik counts each client address alone, and lets one request pass at a time.
        keys.push_str(", burst: 0, by: source");
    }
    // `burst` is how many may come at once with the first one. Its default is `requests` less 1.
    match most {
        Some(most) if most != requests => Some(format!("{keys}, burst: {}", most.max(1) - 1)),
        _ => Some(keys),
    }
}

/// A size such as `100k` in the units of Ringway.
pub(super) fn size(node: &Node) -> Option<String> {
    let names = ["limit", "limit_rate", "rate", "bytes_per_second", "bytes"];
    let found = names.iter().find_map(|name| entry(node, name)).unwrap_or(node);
    let written = found.text().trim_end_matches("/s");
    let digits = written.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = written[..digits].parse().ok().filter(|number| *number > 0)?;
    match written[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(number.to_string()),
        "k" | "kb" | "kib" | "ki" => Some(format!("{number}KiB")),
        "m" | "mb" | "mib" | "mi" => Some(format!("{number}MiB")),
        "g" | "gb" | "gib" | "gi" => Some(format!("{}MiB", number.checked_mul(1024)?)),
        _ => None,
    }
}

/// Envoy's `limit_kbps`, which counts KiB.
pub(super) fn kib(node: &Node) -> Option<String> {
    number_of_kib(entry(node, "limit_kbps")?)
}

fn number_of_kib(node: &Node) -> Option<String> {
    let number: u32 = node.text().parse().ok()?;
    Some(format!("{number}KiB"))
}
