//! Compiles authorization rules. Reports a rule that never matches or always matches because of a
//! mistake: it may allow access that nobody intended.

use std::collections::{HashMap, HashSet};

use super::mesh::{INBOUND_SERVICE, PASSTHROUGH_SERVICE};
use super::{Compiler, is_token, suggestion};
use crate::authz::{
    ANY_METHOD, Action, Choice, Operation, PathPattern, Policies, Rule, Source, When, host_pattern,
    identity_pattern,
};
use crate::jwt::ClaimMatch;
use crate::matching::{Pattern, PatternError, ValueMatch};
use crate::model::{
    Choices, Item, Origin, Policy, PolicyAction, PolicyCondition, PolicyOperation, PolicySource,
    ServiceProtocol,
};
use crate::net::Network;

/// A list of names or patterns, as written.
type List<T = String> = [Item<T>];

/// The services that rules may name.
struct Known<'a> {
    list: Vec<&'a str>,
    set: HashSet<&'a str>,
    /// The services with `protocol: tcp`.
    tcp: HashSet<&'a str>,
}

impl<'a> Known<'a> {
    fn new(compiler: &Compiler<'a>) -> Self {
        let services = &compiler.model.services;
        let name = |item: &'a Item<crate::model::Service>| item.value.name.value.as_str();
        let bytes = services.iter().filter(|it| it.value.protocol == ServiceProtocol::Tcp);
        let tcp = bytes.map(|item| name(item)).collect();
        let named = services.iter().map(|item| name(item));
        let list: Vec<&str> = named.chain([INBOUND_SERVICE, PASSTHROUGH_SERVICE]).collect();
        Self { set: list.iter().copied().collect(), list, tcp }
    }

    /// Whether `pattern`, which was written as `text`, matches at least one service.
    fn fits(&self, text: &str, pattern: &Pattern) -> bool {
        self.set.contains(text) || self.list.iter().any(|name| pattern.fits(name))
    }
}

pub(super) fn policies(compiler: &mut Compiler<'_>) -> Policies {
    let model = compiler.model;
    if model.policies.is_empty() {
        return Policies::default();
    }
    let known = Known::new(compiler);
    let mut names: HashMap<String, &Origin> = HashMap::new();
    let mut rules = Vec::new();
    for (number, item) in (1..).zip(&model.policies) {
        let (name, origin) = match &item.value.name {
            Some(name) => (name.value.clone(), &name.origin),
            None => (format!("authorization#{number}"), &item.origin),
        };
        if name.is_empty() {
            compiler.fault(origin, "a rule's name is not empty");
        }
        if let Some(first) = names.insert(name.clone(), origin) {
            let first = model.files.line_of(first);
            let message = format!("another rule is called {name:?}, at {first}");
            compiler.fault_with_help(origin, message, "give each rule a name of its own");
        }
        rules.push(rule_of(compiler, &known, name, item));
    }
    Policies::new(rules)
}

fn rule_of(
    compiler: &mut Compiler<'_>,
    known: &Known<'_>,
    name: String,
    item: &Item<Policy>,
) -> Rule {
    let written = &item.value;
    let bare = written.from.is_empty() && written.to.is_empty() && written.when.is_empty();
    if bare && !written.inbound_only {
        let help = match written.action {
            PolicyAction::Allow => {
                "to let everybody in, write `to: {service: \"*\"}`; to allow only what other rules \
                 allow, as in Istio, `from: {identities: nobody/none}`"
            }
            _ => "if you intend that, write `to: {service: \"*\"}`",
        };
        compiler.missing(&item.origin, "this rule applies to every client and every service", help);
    }
    let action = match written.action {
        PolicyAction::Allow => Action::Allow,
        PolicyAction::Deny => Action::Deny,
        PolicyAction::Audit => Action::Audit,
    };
    let dry_run = &written.dry_run;
    if action == Action::Audit && dry_run.value {
        let message = "an audit rule decides nothing, with or without `dry_run`";
        compiler.fault_with_help(&dry_run.origin, message, "leave it out");
    }
    let when = &written.when;
    let operation = |to| operation(compiler, known, action, to, when);
    Rule {
        to: written.to.iter().map(operation).collect(),
        stats: compiler.registry.authorization(&name),
        name: name.into(),
        place: compiler.model.files.line_of(&item.origin).into(),
        action,
        dry_run: dry_run.value,
        inbound_only: written.inbound_only,
        from: written.from.iter().map(|from| source(compiler, action, from)).collect(),
        when: self::when(compiler, when),
    }
}

fn source(compiler: &mut Compiler<'_>, action: Action, item: &Item<PolicySource>) -> Source {
    let PolicySource { identities, namespaces, trust_domains, ips, forwarded_ips, remote_ips } =
        &item.value;
    let all = [identities, namespaces, trust_domains, ips, forwarded_ips, remote_ips];
    if all.into_iter().all(Choices::is_empty) {
        let help = "leave `from` out to match every client";
        compiler.missing(&item.origin, "`from` has no condition", help);
    }
    let mut names = |choices: &Choices, parse: Parse<Pattern>| {
        not_everything(compiler, action, &choices.unwanted);
        choice(compiler, choices, parse)
    };
    Source {
        identities: names(identities, identity_pattern),
        namespaces: names(namespaces, Pattern::parse),
        trust_domains: names(trust_domains, Pattern::parse),
        ips: choice(compiler, ips, Network::parse),
        forwarded_ips: choice(compiler, forwarded_ips, Network::parse),
        remote_ips: choice(compiler, remote_ips, Network::parse),
    }
}

fn operation(
    compiler: &mut Compiler<'_>,
    known: &Known<'_>,
    action: Action,
    item: &Item<PolicyOperation>,
    when: &List<PolicyCondition>,
) -> Operation {
    let PolicyOperation { services, ports, ips, hosts, methods, paths } = &item.value;
    not_everything(compiler, action, &hosts.unwanted);
    not_everything(compiler, action, &methods.unwanted);
    not_everything(compiler, action, &paths.unwanted);
    let plain = |ports: &List<u16>| ports.iter().map(|port| port.value).collect();
    for port in ports.wanted.iter().chain(&ports.unwanted).filter(|port| port.value == 0) {
        compiler.fault(&port.origin, "a port is between 1 and 65535");
    }
    let http = ![hosts, methods, paths].into_iter().all(Choices::is_empty);
    if !http && ports.is_empty() && ips.is_empty() && services.is_empty() {
        let help = "leave `to` out to match every request";
        compiler.missing(&item.origin, "`to` has no condition", help);
    }
    if http || !when.is_empty() {
        only_http(compiler, known, services);
    }
    Operation {
        services: self::services(compiler, known, services),
        ports: Choice { wanted: plain(&ports.wanted), unwanted: plain(&ports.unwanted) },
        ips: choice(compiler, ips, Network::parse),
        hosts: choice(compiler, hosts, host_pattern),
        methods: choice(compiler, methods, method),
        paths: choice(compiler, paths, PathPattern::parse),
    }
}

/// Compiles the patterns of service names. Each must match at least one existing service.
fn services(compiler: &mut Compiler<'_>, known: &Known<'_>, written: &List) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    for text in written {
        let pattern = match Pattern::parse(&text.value) {
            Ok(pattern) => pattern,
            Err(error) => {
                pattern_fault(compiler, &text.origin, error);
                continue;
            }
        };
        if pattern != Pattern::Any && !known.fits(&text.value, &pattern) {
            let message = format!("there is no service {:?}", text.value);
            let help = suggestion(pattern.text(), &known.list);
            compiler.fault_with_help(&text.origin, message, help);
        }
        patterns.push(pattern);
    }
    patterns
}

/// Reports conditions on requests in a rule for a `tcp` service, which has no requests. Such an
/// allow rule would never match, and such a deny rule would always match.
fn only_http(compiler: &mut Compiler<'_>, known: &Known<'_>, services: &List) {
    for written in services {
        if known.tcp.contains(written.value.as_str()) {
            let message = format!("{:?} is a tcp service: it has no requests", written.value);
            let help = "only `service`, `ports` and `from` apply to it";
            compiler.fault_with_help(&written.origin, message, help);
        }
    }
}

/// Reports `*` among the refused values of an allow rule: the rule never matches. In a deny rule, a
/// refused `*` matches peers without an identity.
fn not_everything(compiler: &mut Compiler<'_>, action: Action, unwanted: &List) {
    let all = unwanted.iter().find(|text| text.value == "*");
    if let Some(all) = all.filter(|_| action == Action::Allow) {
        let help = "to allow clients without an identity, write `from: {ips: [...]}`";
        compiler.fault_with_help(&all.origin, "this rule never matches", help);
    }
}

fn when(compiler: &mut Compiler<'_>, written: &List<PolicyCondition>) -> When {
    let mut all = When::default();
    let claim = |(name, value): &(Item<String>, ValueMatch)| ClaimMatch {
        name: name.value.as_str().into(),
        wanted: value.clone(),
    };
    let header = |(name, value): &(Item<String>, ValueMatch)| {
        (Box::from(name.value.as_str()), value.clone())
    };
    for when in written {
        let PolicyCondition {
            headers,
            claims,
            not_headers,
            not_claims,
            principals,
            not_principals,
        } = &when.value;
        let fields = headers.len() + not_headers.len();
        let of_token = claims.len() + not_claims.len() + principals.len() + not_principals.len();
        if fields + of_token == 0 {
            compiler.missing(&when.origin, "`when` has no condition", "leave it out");
        }
        for (name, _) in headers.iter().chain(not_headers) {
            compiler.field_name(name);
        }
        all.headers.extend(headers.iter().map(header));
        all.not_headers.extend(not_headers.iter().map(header));
        all.claims.extend(claims.iter().map(claim));
        all.not_claims.extend(not_claims.iter().map(claim));
        all.principals.wanted.extend(principals.iter().cloned());
        all.principals.unwanted.extend(not_principals.iter().cloned());
    }
    all
}

/// Parses a method. `*` is any: a condition that only an HTTP request can match.
fn method(text: &str) -> Result<Box<str>, PatternError> {
    if text == ANY_METHOD {
        return Ok(text.into());
    }
    if !is_token(text) || text.contains('*') || text.bytes().any(|b| b.is_ascii_lowercase()) {
        return Err(PatternError {
            message: format!("{text:?} is not a method").into(),
            help: format!("write the method in full and in capitals: {}", text.to_uppercase())
                .into(),
        });
    }
    Ok(text.into())
}

/// A function that parses one value.
type Parse<P> = fn(&str) -> Result<P, PatternError>;

fn choice<P>(compiler: &mut Compiler<'_>, written: &Choices, parse: Parse<P>) -> Choice<P> {
    let wanted = patterns(compiler, &written.wanted, parse);
    Choice { wanted, unwanted: patterns(compiler, &written.unwanted, parse) }
}

fn patterns<P>(compiler: &mut Compiler<'_>, written: &List, parse: Parse<P>) -> Vec<P> {
    let mut patterns = Vec::new();
    for text in written {
        match parse(&text.value) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => pattern_fault(compiler, &text.origin, error),
        }
    }
    patterns
}

fn pattern_fault(compiler: &mut Compiler<'_>, origin: &Origin, error: PatternError) {
    compiler.fault_with_help(origin, error.message, error.help);
}
