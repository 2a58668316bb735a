//! Authorization: the compiled rules give the same result as a simple evaluation of the written
//! rules. The normal form of a path is its own normal form, and has no dot segments and no double
//! slashes.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ringway::authz::path::{self, EscapedSlashes, Normal};
use ringway::authz::{
    Action, Choice, Operation, PathPattern, Peer, Policies, Request, Rule, Source, Target, Verdict,
    When,
};
use ringway::cells::PerWorker;
use ringway::http1::parse;
use ringway::jwt::{ClaimMatch, Claims};
use ringway::matching::{Pattern, ValueMatch};
use ringway::message::Head;
use ringway::message::Limits;
use ringway::net::Network;

pub fn holds(bytes: &[u8]) {
    let mut input = Input(bytes);
    let rules: Vec<Written> = (0..input.number(6)).map(|_| Written::read(&mut input)).collect();
    let asked = Asked::read(&mut input);
    for slashes in [EscapedSlashes::Reject, EscapedSlashes::Keep, EscapedSlashes::Decode] {
        normal_forms(input.0, slashes);
    }
    compare(&rules, &asked);
}

fn normal_forms(bytes: &[u8], slashes: EscapedSlashes) {
    let mut target = b"/".to_vec();
    target.extend_from_slice(bytes);
    let mut once = Vec::new();
    match path::normalise(&target, slashes, &mut once) {
        Err(_) => return,
        Ok(Normal::Unchanged) => once = target,
        Ok(Normal::Changed) => assert_ne!(once, target),
    }
    let mut twice = Vec::new();
    assert_eq!(path::normalise(&once, slashes, &mut twice), Ok(Normal::Unchanged));
    let path = once.split(|&byte| byte == b'?').next().unwrap_or_default();
    assert!(path.starts_with(b"/") && !path.contains(&b'\\'));
    assert!(!path.windows(2).any(|pair| pair == b"//"));
    assert!(!path.split(|&byte| byte == b'/').any(|part| matches!(part, b"." | b"..")));
}

/// The source of all random choices.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn number(&mut self, below: u8) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first % below
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.number(all.len() as u8))]
    }

    fn some<T: Copy>(&mut self, all: &[T]) -> Vec<T> {
        (0..self.number(3)).map(|_| self.of(all)).collect()
    }
}

const SERVICES: [&str; 4] = ["a", "ab", "b", "bab"];
const NAMES: [&str; 7] = ["a", "ab", "b", "a*", "*b", "ba*", "*"];
const NAMESPACES: [&str; 3] = ["a", "ab", "b"];
const METHODS: [&str; 3] = ["GET", "PUT", "CONNECT"];
const PATHS: [&str; 7] = ["/a", "/a/b", "/a/*", "*b", "*", "~/a.*", "~/[ab]/b"];
const REQUESTED: [&str; 6] = ["/", "/a", "/ab", "/a/b", "/b/b", "/a/"];
const NETWORKS: [&str; 3] = ["10.0.0.0/8", "10.1.0.0/16", "::/0"];
const VALUES: [&str; 3] = ["x", "y", "~x|y"];

/// The services, the ports, and four lists: wanted methods, unwanted methods, wanted paths and
/// unwanted paths.
type To = (Vec<&'static str>, Vec<u16>, [Vec<&'static str>; 4]);

/// A rule as text.
struct Written {
    action: Action,
    dry_run: bool,
    from: Vec<[Vec<&'static str>; 4]>,
    to: Vec<To>,
    header: Option<&'static str>,
    claim: Option<&'static str>,
}

impl Written {
    fn read(input: &mut Input<'_>) -> Self {
        let action = input.of(&[Action::Allow, Action::Deny, Action::Audit]);
        let dry_run = input.number(4) == 1;
        let from = (0..input.number(3))
            .map(|_| [&NAMES[..], &NAMES, &NETWORKS, &NETWORKS].map(|all| input.some(all)))
            .collect();
        let to = (0..input.number(3))
            .map(|_| {
                let http = [&METHODS[..], &METHODS, &PATHS, &PATHS];
                (input.some(&NAMES), input.some(&[80, 81]), http.map(|all| input.some(all)))
            })
            .collect();
        let header = (input.number(3) == 1).then(|| input.of(&VALUES));
        let claim = (input.number(3) == 1).then(|| input.of(&VALUES));
        Self { action, dry_run, from, to, header, claim }
    }

    fn compiled(&self, name: usize) -> Rule {
        let names = |list: &[&str]| list.iter().map(|t| Pattern::parse(t).unwrap()).collect();
        let networks = |list: &[&str]| list.iter().map(|t| Network::parse(t).unwrap()).collect();
        let paths = |list: &[&str]| list.iter().map(|t| PathPattern::parse(t).unwrap()).collect();
        let methods = |list: &[&str]| list.iter().map(|t| Box::from(*t)).collect();
        let source = |[wanted, unwanted, ips, not_ips]: &[Vec<&str>; 4]| Source {
            namespaces: Choice { wanted: names(wanted), unwanted: names(unwanted) },
            ips: Choice { wanted: networks(ips), unwanted: networks(not_ips) },
            ..Source::default()
        };
        let operation = |(services, ports, http): &To| Operation {
            services: names(services),
            ports: Choice { wanted: ports.clone(), unwanted: Vec::new() },
            ips: Choice::default(),
            hosts: Choice::default(),
            methods: Choice { wanted: methods(&http[0]), unwanted: methods(&http[1]) },
            paths: Choice { wanted: paths(&http[2]), unwanted: paths(&http[3]) },
        };
        let header = self.header.iter().map(|t| ("h".into(), ValueMatch::parse(t).unwrap()));
        let claim = self
            .claim
            .iter()
            .map(|text| ClaimMatch { name: "c".into(), wanted: ValueMatch::parse(text).unwrap() });
        Rule {
            name: name.to_string().into(),
            place: Box::default(),
            action: self.action,
            dry_run: self.dry_run,
            inbound_only: false,
            from: self.from.iter().map(source).collect(),
            to: self.to.iter().map(operation).collect(),
            when: When { headers: header.collect(), claims: claim.collect(), ..When::default() },
            stats: Arc::new(PerWorker::new(1)),
        }
    }
}

/// A request or an L4 connection.
struct Asked {
    namespace: Option<&'static str>,
    ip: Option<IpAddr>,
    service: &'static str,
    port: u16,
    http: Option<(&'static str, &'static str, Vec<&'static str>)>,
    /// The elements of a claim in the request's token.
    claims: Vec<&'static str>,
}

impl Asked {
    fn read(input: &mut Input<'_>) -> Self {
        let known = input.number(4);
        let ip = Ipv4Addr::new(10 + input.number(2), input.number(2), 0, 1);
        let http = (input.number(4) > 0)
            .then(|| (input.of(&METHODS), input.of(&REQUESTED), input.some(&["x", "y", "z"])));
        Self {
            namespace: (known & 1 == 0).then(|| input.of(&NAMESPACES)),
            ip: (known & 2 == 0).then_some(ip.into()),
            service: input.of(&SERVICES),
            port: input.of(&[80, 81, 0]),
            http,
            claims: input.some(&["x", "y", "z"]),
        }
    }
}

fn compare(rules: &[Written], asked: &Asked) {
    let policies =
        Policies::new(rules.iter().enumerate().map(|(i, rule)| rule.compiled(i)).collect());
    let identity = asked.namespace.map(|namespace| format!("spiffe://td/ns/{namespace}/sa/x"));
    let peer = Peer { identity: identity.as_deref(), ip: asked.ip, forwarded_ip: None };
    let mut text = String::new();
    let mut head = Head::default();
    let claim = ("c".to_owned(), asked.claims.clone().into());
    let claims = Claims::from(serde_json::Map::from_iter([claim]));
    let claims = Some(&claims).filter(|_| !asked.claims.is_empty());
    let request = asked.http.as_ref().map(|(method, path, fields)| {
        let target = if *method == "CONNECT" { "host:80" } else { *path };
        text = format!("{method} {target} HTTP/1.1\r\nHost: host\r\n");
        fields.iter().for_each(|field| text += &format!("h: {field}\r\n"));
        text += "\r\n";
        let whole = 0..text.len();
        parse::request(text.as_bytes(), whole, &Limits::default(), &mut head).unwrap();
        let head = head.view(text.as_bytes());
        Request { method: head.method_name(), host: b"host", path: head.path(), head, claims }
    });
    let target =
        Target { service: asked.service, port: asked.port, ip: None, outbound: false, request };
    let decision = policies.decide(&peer, &target);
    let said = match decision.verdict {
        Verdict::Unconcerned => "open".to_owned(),
        Verdict::Allowed(rule) => format!("allow {}", rule.name),
        Verdict::Denied(rule) => format!("deny {}", rule.name),
        Verdict::DeniedByDefault(rule) => format!("default {}", rule.name),
    };
    assert_eq!(said, naive_verdict(rules, asked));
    let reported = decision.reports().count();
    let watched = rules.iter().filter(|rule| rule.dry_run || rule.action == Action::Audit);
    assert!(reported <= watched.count());
}

/// Evaluates the rules one by one, as the documentation describes them.
fn naive_verdict(rules: &[Written], asked: &Asked) -> String {
    let deciding = |action| {
        let of_action = rules.iter().enumerate().filter(move |(_, rule)| rule.action == action);
        of_action.filter(|(_, rule)| !rule.dry_run)
    };
    for (index, rule) in deciding(Action::Deny) {
        if naive_match(rule, asked) {
            return format!("deny {index}");
        }
    }
    let mut first = None;
    for (index, rule) in deciding(Action::Allow) {
        let concerned = |services: &Vec<&str>| {
            services.is_empty() || services.iter().any(|name| naive_name(name, asked.service))
        };
        if !rule.to.is_empty() && !rule.to.iter().any(|(services, ..)| concerned(services)) {
            continue;
        }
        if naive_match(rule, asked) {
            return format!("allow {index}");
        }
        first.get_or_insert(index);
    }
    first.map_or_else(|| "open".to_owned(), |index| format!("default {index}"))
}

fn naive_match(rule: &Written, asked: &Asked) -> bool {
    let strict = rule.action == Action::Allow;
    let listed = |lists: (&[&str], &[&str]), value: Option<&str>, fits: fn(&str, &str) -> bool| {
        let (wanted, unwanted) = lists;
        match value {
            Some(value) => {
                (wanted.is_empty() || wanted.iter().any(|text| fits(text, value)))
                    && unwanted.iter().all(|text| !fits(text, value))
            }
            None => wanted.is_empty() && (unwanted.is_empty() || !strict),
        }
    };
    let ip = asked.ip.map(|ip| ip.to_string());
    let from = |[names, not_names, ips, not_ips]: &[Vec<&str>; 4]| {
        listed((names, not_names), asked.namespace, naive_name)
            && listed((ips, not_ips), ip.as_deref(), naive_network)
    };
    let to = |(services, ports, http): &To| {
        let here = (services.is_empty() || services.iter().any(|s| naive_name(s, asked.service)))
            && (ports.is_empty() || asked.port != 0 && ports.contains(&asked.port));
        let [methods, not_methods, paths, not_paths] = http;
        here && match &asked.http {
            None => !strict || http.iter().all(Vec::is_empty),
            Some((method, path, _)) => {
                let tunnel = *method == "CONNECT";
                listed((methods, not_methods), Some(method), |text, value| text == value)
                    && match tunnel {
                        // The tunnel may contain a request for any path.
                        true => !strict || paths.is_empty() && not_paths.is_empty(),
                        false => listed((paths, not_paths), Some(path), naive_path),
                    }
            }
        }
    };
    let value = |wanted: &str, value: &str| wanted == value || wanted == "~x|y" && value != "z";
    let when = match (rule.header, &asked.http) {
        (None, _) => true,
        (Some(_), None) => !strict,
        (Some(wanted), Some((.., fields))) if strict => {
            !fields.is_empty() && fields.iter().all(|field| value(wanted, field))
        }
        (Some(wanted), Some((.., fields))) => fields.iter().any(|field| value(wanted, field)),
    };
    (rule.from.is_empty() || rule.from.iter().any(from))
        && (rule.to.is_empty() || rule.to.iter().any(to))
        && when
        && match (rule.claim, &asked.http) {
            (None, _) => true,
            (Some(_), None) => !strict,
            (Some(wanted), Some(_)) => asked.claims.iter().any(|claim| value(wanted, claim)),
        }
}

fn naive_name(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(suffix), _) => name.ends_with(suffix),
        (_, Some(prefix)) => name.starts_with(prefix),
        _ => pattern == name,
    }
}

fn naive_network(network: &str, ip: &str) -> bool {
    match network {
        "10.0.0.0/8" => ip.starts_with("10."),
        "10.1.0.0/16" => ip.starts_with("10.1."),
        _ => false,
    }
}

fn naive_path(pattern: &str, path: &str) -> bool {
    match pattern {
        "/a/*" => path == "/a" || path.starts_with("/a/"),
        "~/a.*" => path.starts_with("/a"),
        "~/[ab]/b" => path == "/a/b" || path == "/b/b",
        _ => naive_name(pattern, path),
    }
}
