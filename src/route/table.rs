//! All routes of a listener: a hash table of hosts, each with its rules.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Rule;
use super::host::HostPattern;
use super::matcher::Mismatch;
use super::rules::Rules;
use crate::matching::split_authority;
use crate::message::HeadView;

/// The default port of http URLs (RFC 9110 4.2.1).
pub const HTTP_PORT: u16 = 80;
/// The default port of https URLs (RFC 9110 4.2.2).
pub const HTTPS_PORT: u16 = 443;

/// Hosts longer than this match only `*`, because a DNS name has at most 253 bytes.
const HOST_BYTES_MAX: usize = 256;

/// The compiled routes of a listener. The time of a lookup does not depend on the number of hosts.
#[derive(Debug, Default)]
pub struct Table {
    exact: Hosts,
    /// The hosts of wildcard patterns, by the name after `*.`.
    wildcard: Hosts,
    any: Host,
}

type Hosts = FxHashMap<Box<[u8]>, Host>;

/// The rules of one host name: those for all ports, and those for single ports.
#[derive(Debug, Default)]
struct Host {
    rules: Option<Rules>,
    by_port: Vec<(u16, Rules)>,
}

impl Host {
    fn of_port(&self, port: Option<u16>) -> Option<&Rules> {
        let with_port = self.by_port.iter().find(|(known, _)| Some(*known) == port);
        with_port.map(|(_, rules)| rules).or(self.rules.as_ref())
    }
}

/// A checked rule and the reason why it does not match. `None` means that the rule matches.
pub type Looked<'a> = (&'a Arc<Rule>, Option<Mismatch<'a>>);

impl Table {
    /// Compiles the rules of each host. If a pattern occurs twice, its first rules have priority;
    /// the check of the configuration refuses such a file.
    pub fn build(hosts: Vec<(HostPattern, Vec<Arc<Rule>>)>) -> Self {
        let mut table = Self::default();
        for (pattern, rules) in hosts {
            let host = match &*pattern.name {
                b"" => &mut table.any,
                _ if pattern.wildcard => table.wildcard.entry(pattern.name).or_default(),
                _ => table.exact.entry(pattern.name).or_default(),
            };
            match pattern.port {
                Some(port) => host.by_port.push((port, Rules::new(rules))),
                None => {
                    host.rules.get_or_insert_with(|| Rules::new(rules));
                }
            }
        }
        table
    }

    /// Returns the first matching rule of the most specific matching host. `port` is the default
    /// port, for a request whose host has none.
    pub fn find(&self, request: HeadView<'_>, port: u16) -> Option<&Arc<Rule>> {
        self.rules_of(request.authority(), port)?.find(request)
    }

    /// Whether there are rules for the host of the request. `port` is the default port, for a
    /// request whose host has none.
    pub fn knows_host(&self, request: HeadView<'_>, port: u16) -> bool {
        self.rules_of(request.authority(), port).is_some()
    }

    /// Returns the rule for a connection of which only the host is known: the first rule without
    /// conditions, of the most specific matching host.
    pub fn passes(&self, host: &[u8]) -> Option<&Arc<Rule>> {
        self.rules_of(host, HTTPS_PORT)?.list().iter().find(|rule| rule.matcher.is_any())
    }

    /// Returns the rules that [`Table::find`] checks, with their results.
    pub fn explain(&self, request: HeadView<'_>, port: u16) -> Vec<Looked<'_>> {
        let rules = self.rules_of(request.authority(), port);
        rules.map(|rules| rules.explain(request)).unwrap_or_default()
    }

    /// Returns all rules. The order of the hosts is not defined.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        let hosts = self.exact.values().chain(self.wildcard.values()).chain([&self.any]);
        hosts
            .flat_map(|host| host.rules.iter().chain(host.by_port.iter().map(|(_, rules)| rules)))
            .flat_map(Rules::list)
    }

    fn rules_of(&self, authority: &[u8], default_port: u16) -> Option<&Rules> {
        let (host, port) = split_authority(authority);
        let port = port.or(Some(default_port));
        if self.exact.is_empty() && self.wildcard.is_empty() {
            return self.any.of_port(port);
        }
        let mut lower = [0; HOST_BYTES_MAX];
        let Some(lower) = lower.get_mut(..host.len()) else { return self.any.of_port(port) };
        lower.copy_from_slice(host);
        lower.make_ascii_lowercase();
        let lower = &*lower;
        if let Some(rules) = self.exact.get(lower).and_then(|host| host.of_port(port)) {
            return Some(rules);
        }
        if !self.wildcard.is_empty() {
            for dot in memchr::memchr_iter(b'.', lower) {
                let below = self.wildcard.get(&lower[dot + 1..]);
                if let Some(rules) = below.and_then(|host| host.of_port(port)) {
                    return Some(rules);
                }
            }
        }
        self.any.of_port(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cells::PerWorker;
    use crate::http1::parse;
    use crate::matching::{PathMatch, ValueMatch};
    use crate::message::Limits;
    use crate::message::{Head, HeaderEdits};
    use crate::route::{Action, Matcher, Respond};

    fn rule(name: &str, matcher: Matcher) -> Arc<Rule> {
        let respond = Respond { status: 200, body: Box::default() };
        Arc::new(Rule {
            index: 0,
            name: name.into(),
            host: "".into(),
            place: "".into(),
            matcher,
            action: Action::Respond(respond),
            sticky: None,
            timeout: None,
            retries: None,
            fault: None,
            mirror: None,
            rate_limits: Default::default(),
            global_limit: None,
            priority: None,
            request_body_timeout: None,
            stream_idle_timeout: None,
            jwt: None,
            rewrite: None,
            request_headers: HeaderEdits::none(),
            response_headers: HeaderEdits::none(),
            stats: Arc::new(PerWorker::new(1)),
        })
    }

    fn path(text: &str) -> Matcher {
        Matcher { path: PathMatch::parse(text).unwrap(), ..Matcher::default() }
    }

    fn table(hosts: Vec<(&str, Vec<(&str, Matcher)>)>) -> Table {
        let host = |(host, rules): (&str, Vec<(&str, Matcher)>)| {
            let rules = rules.into_iter().map(|(name, matcher)| rule(name, matcher)).collect();
            (HostPattern::parse(host).unwrap(), rules)
        };
        Table::build(hosts.into_iter().map(host).collect())
    }

    fn find(table: &Table, line: &str, host: &str, fields: &str) -> Option<String> {
        let text = format!("{line} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
        let mut head = Head::default();
        let limits = Limits::default();
        parse::request(text.as_bytes(), 0..text.len(), &limits, &mut head).unwrap();
        let view = head.view(text.as_bytes());
        let found = table.find(view, HTTP_PORT).map(|rule| rule.name.to_string());
        let explained = table.explain(view, HTTP_PORT);
        let last = explained.last().filter(|(_, mismatch)| mismatch.is_none());
        assert_eq!(found, last.map(|(rule, _)| rule.name.to_string()), "explain agrees");
        found
    }

    #[test]
    fn the_most_specific_host_wins() {
        let any = Matcher::default;
        let table = table(vec![
            ("*", vec![("any", any())]),
            ("*.example.com", vec![("wild", any())]),
            ("*.a.example.com", vec![("wilder", any())]),
            ("x.example.com", vec![("exact", any())]),
            ("x.example.com:8080", vec![("port", any())]),
        ]);
        for (host, name) in [
            ("x.example.com", "exact"),
            ("X.Example.COM", "exact"),
            ("x.example.com.", "exact"),
            ("x.example.com:80", "exact"),
            ("x.example.com:8080", "port"),
            ("y.example.com", "wild"),
            ("y.z.example.com:1", "wild"),
            ("y.a.example.com", "wilder"),
            ("a.example.com", "wild"),
            ("example.com", "any"),
        ] {
            assert_eq!(find(&table, "GET /", host, "").as_deref(), Some(name), "{host}");
        }
    }

    #[test]
    fn a_host_without_a_port_has_the_port_of_its_scheme() {
        let any = Matcher::default;
        let hosts = vec![("*:80", vec![("http", any())]), ("*:443", vec![("https", any())])];
        let table = table(hosts);
        for (host, port, name) in [
            ("a", HTTP_PORT, Some("http")),
            ("a", HTTPS_PORT, Some("https")),
            ("a:80", HTTPS_PORT, Some("http")),
            ("a:8080", HTTP_PORT, None),
        ] {
            let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let mut head = Head::default();
            let limits = Limits::default();
            parse::request(text.as_bytes(), 0..text.len(), &limits, &mut head).unwrap();
            let found = table.find(head.view(text.as_bytes()), port);
            assert_eq!(found.map(|rule| &*rule.name), name, "{host} {port}");
        }
    }

    #[test]
    fn only_a_rule_that_names_connect_gets_one() {
        for filler in [0, 50] {
            let methods = |methods: &[&str]| Matcher {
                methods: methods.iter().map(|&method| method.into()).collect(),
                ..Matcher::default()
            };
            let mut rules = vec![("get", methods(&["GET"])), ("any path", path("~.*"))];
            let paths: Vec<_> = (0..filler).map(|i| format!("/filler/{i}")).collect();
            rules.extend(paths.iter().map(|text| (text.as_str(), path(text))));
            let rest = vec![("any", Matcher::default()), ("tunnel", methods(&["PUT", "CONNECT"]))];
            let without = table(vec![("*", rules.clone())]);
            let with = table(vec![("*", [rules, rest].concat())]);
            assert_eq!(find(&without, "CONNECT a:80", "a:80", ""), None);
            assert_eq!(find(&with, "CONNECT a:80", "a:80", "").as_deref(), Some("tunnel"));
        }
    }

    #[test]
    fn without_a_host_that_fits_there_is_no_rule() {
        let table = table(vec![("a", vec![("a", path("/x"))])]);
        assert_eq!(find(&table, "GET /x", "b", ""), None);
        assert_eq!(find(&table, "GET /y", "a", ""), None);
    }

    #[test]
    fn the_first_rule_wins_whether_few_or_many() {
        for filler in [0, 50] {
            let get = Matcher { methods: vec!["GET".into()], ..path("/a/*") };
            let canary = ("x-canary".into(), ValueMatch::parse("~(?i)true|1").unwrap());
            let canary = Matcher { headers: vec![canary], ..Matcher::default() };
            let beta = Matcher { query: vec![("b".into(), ValueMatch::Present)], ..path("/a") };
            let mut rules = vec![
                ("canary", canary),
                ("beta", beta),
                ("get", get),
                ("exact", path("/a/b")),
                ("below", path("/a/b/*")),
                ("regex", path("~/r[0-9]+")),
            ];
            let paths: Vec<_> = (0..filler).map(|i| format!("/filler/{i}")).collect();
            rules.extend(paths.iter().map(|text| (text.as_str(), path(text))));
            rules.push(("rest", path("/*")));
            let table = table(vec![("*", rules)]);
            for (line, fields, name) in [
                ("GET /a/b", "", "get"),
                ("POST /a/b", "", "exact"),
                ("POST /a/b/c", "", "below"),
                ("POST /a/b/", "", "below"),
                ("POST /a/c", "", "rest"),
                ("POST /a/b", "X-Canary: TRUE\r\n", "canary"),
                ("POST /a/b", "X-Canary: no\r\nx-canary: 1\r\n", "canary"),
                ("POST /a?x=1&b", "", "beta"),
                ("POST /a?c", "", "rest"),
                ("GET /a", "", "get"),
                ("GET /r12", "", "regex"),
                ("GET /r12x", "", "rest"),
            ] {
                assert_eq!(find(&table, line, "h", fields).as_deref(), Some(name), "{line}");
            }
        }
    }
}
