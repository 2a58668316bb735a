//! The system's settings for lookups: `/etc/resolv.conf` (resolv.conf(5)) and `/etc/hosts`
//! (hosts(5)).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::Family;

/// The port of DNS.
const PORT: u16 = 53;

/// The defaults and the limits of the options in resolv.conf(5).
const NDOTS: usize = 1;
const NDOTS_MAX: usize = 15;
const TIMEOUT_S: u64 = 5;
const TIMEOUT_S_MAX: u64 = 30;
const ATTEMPTS: usize = 2;
const ATTEMPTS_MAX: usize = 5;

/// The maximum number of DNS servers that are used (MAXNS of the C library).
pub const SERVERS_MAX: usize = 3;

/// The settings of the system for DNS lookups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemSettings {
    /// The DNS servers, in order. Empty means that the file names none (yet).
    pub servers: Vec<SocketAddr>,
    /// The time limit of one query to one server.
    pub timeout: Duration,
    /// How many times each server is queried.
    pub attempts: usize,
    search: Vec<String>,
    ndots: usize,
    hosts: HashMap<String, Vec<IpAddr>>,
}

impl SystemSettings {
    /// Parses the texts of `/etc/resolv.conf` and `/etc/hosts`. Skips unknown lines and options, as
    /// the C library does. `hostname` is the name of this host. Its domain is searched if
    /// `resolv_conf` names no other domain.
    pub fn parse(resolv_conf: &str, hosts: &str, hostname: &str) -> Self {
        let mut settings = Self {
            servers: Vec::new(),
            timeout: Duration::from_secs(TIMEOUT_S),
            attempts: ATTEMPTS,
            search: hostname.split_once('.').map(|(_, domain)| plain(domain)).into_iter().collect(),
            ndots: NDOTS,
            hosts: parse_hosts(hosts),
        };
        for line in resolv_conf.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => settings.servers.extend(words.next().and_then(server)),
                // The last `search` or `domain` line counts.
                Some("search") => settings.search = words.map(plain).collect(),
                Some("domain") => settings.search = words.take(1).map(plain).collect(),
                Some("options") => words.for_each(|word| settings.set(word)),
                _ => {}
            }
        }
        settings.servers.truncate(SERVERS_MAX);
        settings.search.retain(|domain| !domain.is_empty() && domain != "--");
        settings
    }

    fn set(&mut self, option: &str) {
        let Some((name, value)) = option.split_once(':') else { return };
        let Ok(value) = value.parse::<u64>() else { return };
        match name {
            "ndots" => self.ndots = (value as usize).min(NDOTS_MAX),
            "timeout" => self.timeout = Duration::from_secs(value.clamp(1, TIMEOUT_S_MAX)),
            "attempts" => self.attempts = (value as usize).clamp(1, ATTEMPTS_MAX),
            _ => {}
        }
    }

    /// Returns the addresses of `host` that are known without a query: those in `/etc/hosts`, and
    /// those of `localhost` (RFC 6761 6.3).
    pub fn addresses(&self, host: &str, family: Family) -> Vec<IpAddr> {
        let host = plain(host);
        let listed = self.hosts.get(&host).into_iter().flatten().copied();
        let listed: Vec<_> = listed.filter(|ip| family.includes(*ip)).collect();
        let is_local = host == "localhost" || host.ends_with(".localhost");
        match family {
            _ if !listed.is_empty() || !is_local => listed,
            Family::Ipv4 => vec![Ipv4Addr::LOCALHOST.into()],
            Family::Ipv6 => vec![Ipv6Addr::LOCALHOST.into()],
        }
    }

    /// Returns the names to query, in order, until one exists: `host`, and `host` in each search
    /// domain. The search domains are not used if `host` ends with a dot.
    pub fn candidates(&self, host: &str) -> Vec<String> {
        let name = plain(host);
        let mut names = vec![name.clone()];
        if !host.ends_with('.') {
            names.extend(self.search.iter().map(|domain| format!("{name}.{domain}")));
            if host.matches('.').count() < self.ndots {
                names.rotate_left(1); // the name itself comes last
            }
        }
        names
    }
}

fn parse_hosts(text: &str) -> HashMap<String, Vec<IpAddr>> {
    let mut hosts: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(ip) = words.next().and_then(ip) else { continue };
        words.for_each(|name| hosts.entry(plain(name)).or_default().push(ip));
    }
    hosts
}

fn server(text: &str) -> Option<SocketAddr> {
    ip(text).map(|ip| SocketAddr::new(ip, PORT))
}

/// Parses an address. Its zone, as in `fe80::1%eth0`, is left out.
fn ip(text: &str) -> Option<IpAddr> {
    text.split('%').next()?.parse().ok()
}

/// Returns the name in lower case, without its final dot.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(resolv_conf: &str) -> SystemSettings {
        SystemSettings::parse(resolv_conf, "", "pod.cluster.test")
    }

    #[test]
    fn the_files_are_read_as_the_c_library_does() {
        let text = "# nothing\n; more\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver x\n\
                    nameserver 10.0.0.2\nnameserver 10.0.0.3\n\
                    domain a.test\nsearch B.test. -- c.test\n\
                    options ndots:5 timeout:1 attempts:99 rotate edns0\nsortlist 1.2.3.4\n";
        let read = settings(text);
        let servers =
            ["10.0.0.1:53", "[fe80::1]:53", "10.0.0.2:53"].map(|text| text.parse().unwrap());
        assert_eq!(read.servers, servers);
        assert_eq!((read.ndots, read.attempts, read.timeout), (5, 5, Duration::from_secs(1)));
        assert_eq!(read.search, ["b.test", "c.test"]);
        let empty = settings("");
        assert_eq!((empty.servers.len(), empty.search.len()), (0, 1));
        assert_eq!(empty.timeout, Duration::from_secs(5));
    }

    #[test]
    fn names_with_few_dots_are_searched_first() {
        let read = settings("search a.test b.test\noptions ndots:2\n");
        for (host, names) in [
            ("Shop", &["shop.a.test", "shop.b.test", "shop"][..]),
            ("shop.x", &["shop.x.a.test", "shop.x.b.test", "shop.x"]),
            ("shop.x.y", &["shop.x.y", "shop.x.y.a.test", "shop.x.y.b.test"]),
            ("shop.", &["shop"]),
        ] {
            assert_eq!(read.candidates(host), names, "{host}");
        }
        assert_eq!(settings("").candidates("shop"), ["shop.cluster.test", "shop"]);
    }

    #[test]
    fn hosts_and_localhost_need_no_query() {
        let hosts = "127.0.0.1 localhost\n10.0.0.1 Shop shop.test. # 10.0.0.2 x\n::1 shop\nbad x\n";
        let read = SystemSettings::parse("", hosts, "pod");
        let said = |host: &str, family| {
            let found = read.addresses(host, family);
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(said("shop", Family::Ipv4), ["10.0.0.1"]);
        assert_eq!(said("SHOP.", Family::Ipv6), ["::1"]);
        assert_eq!(said("shop.test", Family::Ipv4), ["10.0.0.1"]);
        assert_eq!(said("localhost", Family::Ipv6), ["::1"]);
        assert_eq!(said("a.localhost", Family::Ipv4), ["127.0.0.1"]);
        assert!(said("x", Family::Ipv4).is_empty());
    }
}
