//! Finds addresses, and DNS names with ports, in a value of a configuration, for the advice about
//! it.

use std::net::{IpAddr, SocketAddr};

use super::super::node::{Key, Kind, Node};
use crate::compile::habits::{self, address::Written};

/// The port in advice, if the author has written an address without a port.
const PORT: u16 = 8080;

/// Keys that never contain an address to listen on.
pub(super) const BEHIND: [&str; 6] =
    ["upstream", "backend", "cluster", "service", "endpoint", "route"];

/// Keys that may contain an address.
const ADDRESSES: [&str; 7] = ["bind", "listen", "address", "port", "server", "url", "host"];

/// The addresses that a value contains.
#[derive(Default)]
pub(super) struct Addresses {
    whole: Vec<SocketAddr>,
    ip: Option<IpAddr>,
    port: Option<u16>,
    /// DNS names, each with its port if the author has written it.
    names: Vec<(String, Option<u16>)>,
    https: bool,
}

impl Addresses {
    /// Finds the addresses in `node`. Skips the values of keys that begin with a word in `without`.
    pub(super) fn of(node: &Node, without: &[&str]) -> Self {
        let mut found = Self::default();
        found.add(node, true, without);
        found
    }

    /// Adds the missing half of an address, if two entries of a map have one half each. `key` is
    /// one of them. Returns the key of the other one.
    pub(super) fn complete<'n>(&mut self, key: &Key, all: &'n [(Key, Node)]) -> Option<&'n Key> {
        let half = self.whole.is_empty()
            && (self.port.is_some() != (self.ip.is_some() || !self.names.is_empty()));
        let named = |other: &Key| {
            let name = habits::plain(&other.text);
            other.place != key.place && (name == "ip" || ADDRESSES.contains(&name.as_str()))
        };
        let other = all.iter().filter(|_| half).find(|(other, _)| named(other))?;
        self.add(&other.1, true, &[]);
        let whole = self.port.is_some() && (self.ip.is_some() || !self.names.is_empty());
        whole.then_some(&other.0)
    }

    /// Adds the addresses of `node`. A scalar counts only if its key may have an address, as
    /// `has_address` says.
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
        let Some((written, https)) = habits::address::written(text) else { return };
        self.https |= https;
        match written {
            Written::Whole(address) => self.whole.push(address),
            Written::Ip(ip) => _ = self.ip.get_or_insert(ip),
            Written::Port(port) => _ = self.port.get_or_insert(port),
            Written::Name(host, port) => self.names.push((host, port)),
        }
    }

    /// The address to listen on, in a form that YAML accepts.
    pub(super) fn to_listen(&self) -> Option<String> {
        let joined = match (self.ip, self.port) {
            (Some(ip), port) => Some(SocketAddr::new(ip, port.unwrap_or(PORT))),
            (None, Some(port)) => Some(SocketAddr::from(([0, 0, 0, 0], port))),
            (None, None) => None,
        };
        let address = self.whole.first().copied().or(joined)?;
        // Quote an IPv6 address: without quotes, YAML reads `[` as the beginning of a list.
        Some(if address.is_ipv6() { format!("'{address}'") } else { address.to_string() })
    }

    /// The addresses to connect to, separated by commas.
    pub(super) fn to_connect(&self) -> Option<String> {
        let joined = self.ip.zip(self.port).map(|(ip, port)| SocketAddr::new(ip, port));
        let all = if self.whole.is_empty() { joined.as_slice() } else { &self.whole };
        let texts = all.iter().map(|address| match address.is_ipv6() {
            true => format!("'{address}'"),
            false => address.to_string(),
        });
        (!all.is_empty()).then(|| texts.collect::<Vec<_>>().join(", "))
    }

    /// The key `dns` for the name to connect to. Returns `None` unless there is exactly one name.
    fn to_name(&self) -> Option<String> {
        let [(host, port)] = &self.names[..] else { return None };
        Some(format!("dns: {host}:{}", port.or(self.port)?))
    }

    /// The keys of a service that connects to the addresses or the name.
    pub(super) fn to_service(&self) -> Option<String> {
        // A service has either addresses or one name.
        let to = match (self.to_connect(), self.names.is_empty()) {
            (Some(all), true) => format!("endpoints: [{all}]"),
            (None, false) => self.to_name()?,
            _ => return None,
        };
        Some(if self.https { format!("{to}, tls: {{ca: FILE}}") } else { to })
    }

    /// Advice: the key of an endpoint with an address, or the key of a service with a name.
    pub(super) fn to_endpoint(&self) -> Option<String> {
        match self.to_connect() {
            Some(address) => Some(format!("address: {address}`, IP and port together")),
            None => Some(format!("{}` in the service, in place of `endpoints`", self.to_name()?)),
        }
    }
}
