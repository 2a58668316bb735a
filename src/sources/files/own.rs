//! The author's own values, for advice: see `compile::habits::filled`.

use std::net::{IpAddr, SocketAddr};

use super::node::{Kind, Node};
use super::values::Time;
use crate::compile::habits;

/// The port in advice for an address without one.
const PORT: u16 = 8080;

/// Keys below which no address to listen on is.
const BEHIND: [&str; 6] = ["upstream", "backend", "cluster", "service", "endpoint", "route"];

/// Keys that have an address.
const ADDRESSES: [&str; 7] = ["bind", "listen", "address", "port", "server", "url", "host"];

/// The value in `node` that `name` stands for.
pub(super) fn value(node: &Node, name: &str) -> Option<String> {
    match name {
        "" => text(node),
        "*" => match &node.kind {
            Kind::List(items) if !items.is_empty() => {
                items.iter().map(text).collect::<Option<Vec<_>>>().map(|texts| texts.join(", "))
            }
            _ => text(node),
        },
        "#" => text(node).filter(|text| text.parse::<u32>().is_ok()),
        "~" => text(node).filter(|text| is_time(text)),
        "@" => Addresses::of(node, &BEHIND).to_listen(),
        "^" => Addresses::of(node, &[]).to_connect(),
        "urlscheme" => node.text().split_once("://").map(|(scheme, _)| scheme.to_owned()),
        "urlhost" => url_host(node.text()),
        name => entry(node, name).and_then(text),
    }
}

/// The text of a scalar as it is written between other entries in one line.
fn text(node: &Node) -> Option<String> {
    let text = node.text();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:+%~*".contains(c);
    let begins = |c: char| c.is_ascii_alphanumeric() || c == '/' || c == '.' || c == '_';
    match text {
        "" => None,
        _ if text.starts_with(begins) && !text.ends_with(':') && text.chars().all(plain) => {
            Some(text.to_owned())
        }
        // A line break has no place in advice.
        _ if text.chars().any(char::is_control) => None,
        _ => Some(format!("'{}'", text.replace('\'', "''"))),
    }
}

/// The host of a URL. One with a port or a user needs more than advice.
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

/// The value of the first entry `name`, at any depth.
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

/// The addresses in a value.
#[derive(Default)]
struct Addresses {
    whole: Vec<SocketAddr>,
    ip: Option<IpAddr>,
    port: Option<u16>,
}

impl Addresses {
    fn of(node: &Node, without: &[&str]) -> Self {
        let mut found = Self::default();
        found.add(node, true, without);
        found
    }

    /// Adds the addresses of `node`. Numbers count if its key `has_address`.
    fn add(&mut self, node: &Node, has_address: bool, without: &[&str]) {
        match &node.kind {
            Kind::Null => {}
            Kind::Scalar { text, .. } if has_address => self.add_text(text),
            Kind::Scalar { .. } => {}
            Kind::List(items) => items.iter().for_each(|it| self.add(it, has_address, without)),
            Kind::Map(entries) => {
                for (key, value) in entries {
                    let key = habits::plain(&key.text);
                    if !without.iter().any(|word| key.starts_with(word)) {
                        let named = key == "ip" || ADDRESSES.iter().any(|it| key.contains(it));
                        self.add(value, named, without);
                    }
                }
            }
        }
    }

    fn add_text(&mut self, text: &str) {
        let text = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let port = text.trim_start_matches('*').trim_start_matches(':');
        if let Ok(address) = text.parse() {
            self.whole.push(address);
        } else if let Ok(ip) = text.parse() {
            self.ip.get_or_insert(ip);
        } else if let Ok(port @ 1..) = port.parse() {
            self.port.get_or_insert(port);
        }
    }

    fn to_listen(&self) -> Option<String> {
        let joined = match (self.ip, self.port) {
            (Some(ip), port) => Some(SocketAddr::new(ip, port.unwrap_or(PORT))),
            (None, Some(port)) => Some(SocketAddr::from(([0, 0, 0, 0], port))),
            (None, None) => None,
        };
        let address = self.whole.first().copied().or(joined)?;
        // An IPv6 address begins with [, which is a list without quotes.
        Some(if address.is_ipv6() { format!("'{address}'") } else { address.to_string() })
    }

    fn to_connect(&self) -> Option<String> {
        let joined = self.ip.zip(self.port).map(|(ip, port)| SocketAddr::new(ip, port));
        let all = if self.whole.is_empty() { joined.as_slice() } else { &self.whole };
        let texts = all.iter().map(|address| match address.is_ipv6() {
            true => format!("'{address}'"),
            false => address.to_string(),
        });
        (!all.is_empty()).then(|| texts.collect::<Vec<_>>().join(", "))
    }
}
