//! Authorization rules. What cannot be meant is a mistake: a rule that quietly never matches, or
//! quietly always, is how doors are left open.

use std::collections::HashMap;

use super::compile::{Compiler, is_token};
use super::compile_mesh::{INBOUND_SERVICE, PASSTHROUGH_SERVICE};
use super::decode::suggestion;
use super::diagnostic::Place;
use super::file::{ServiceProtocol, ValueMatch as Written};
use super::file_authorization::{self as file, AuthorizationAction, AuthorizationRule};
use super::values::{AtLeastOne, Placed};
use crate::authz::{
    Action, Choice, Operation, PathPattern, Policies, Rule, Source, When, host_pattern,
    identity_pattern,
};
use crate::jwt::ClaimMatch;
use crate::matching::{Pattern, PatternError, ValueMatch};
use crate::net::Network;

/// A list as it is written.
type List<T = String> = AtLeastOne<Placed<T>>;

pub(super) fn policies(compiler: &mut Compiler<'_>) -> Policies {
    let mut names: HashMap<String, Place> = HashMap::new();
    let mut rules = Vec::new();
    for (number, written) in (1..).zip(compiler.loaded.config.authorization.iter().flatten()) {
        let (name, place) = match &written.value.name {
            Some(name) => (name.value.clone(), name.place),
            None => (format!("authorization#{number}"), written.place),
        };
        if name.is_empty() {
            compiler.mistake(place, "a rule's name is not empty");
        }
        if let Some(first) = names.insert(name.clone(), place) {
            let first = compiler.loaded.sources.file_line(first);
            let message = format!("another rule is called {name:?}, at {first}");
            compiler.mistake_with_help(place, message, "give each rule a name of its own");
        }
        rules.push(rule_of(compiler, name, written));
    }
    Policies::new(rules)
}

fn rule_of(compiler: &mut Compiler<'_>, name: String, written: &Placed<AuthorizationRule>) -> Rule {
    let value = &written.value;
    if value.from.0.is_empty() && value.to.0.is_empty() && value.when.0.is_empty() {
        let help = "if that is meant, write `to: {service: \"*\"}`";
        no_condition(compiler, written.place, "this rule is about everyone everywhere", help);
    }
    let action = match value.action {
        AuthorizationAction::Allow => Action::Allow,
        AuthorizationAction::Deny => Action::Deny,
        AuthorizationAction::Audit => Action::Audit,
    };
    if action == Action::Audit && value.dry_run.value {
        let message = "an audit rule decides nothing, with or without `dry_run`";
        compiler.mistake_with_help(value.dry_run.place, message, "leave it out");
    }
    Rule {
        stats: compiler.registry.authorization(&name),
        name: name.into(),
        place: compiler.loaded.sources.file_line(written.place).into(),
        action,
        dry_run: value.dry_run.value,
        from: value.from.0.iter().map(|from| source(compiler, action, from)).collect(),
        to: value.to.0.iter().map(|to| operation(compiler, action, to, &value.when)).collect(),
        when: when(compiler, &value.when),
    }
}

fn source(compiler: &mut Compiler<'_>, action: Action, written: &Placed<file::Source>) -> Source {
    let value = &written.value;
    let mut names = |wanted, unwanted, parse: Parse<Pattern>| {
        not_everything(compiler, action, unwanted);
        choice(compiler, wanted, unwanted, parse)
    };
    let identities = names(&value.identities, &value.not_identities, identity_pattern);
    let namespaces = names(&value.namespaces, &value.not_namespaces, Pattern::parse);
    let trust_domains = names(&value.trust_domains, &value.not_trust_domains, Pattern::parse);
    let (forwarded, not_forwarded) = (&value.forwarded_ips, &value.not_forwarded_ips);
    let (ips, not_ips) = (&value.ips, &value.not_ips);
    let lists = [&value.identities, &value.not_identities, &value.namespaces]
        .into_iter()
        .chain([&value.not_namespaces, &value.trust_domains, &value.not_trust_domains])
        .chain([ips, not_ips, forwarded, not_forwarded]);
    if lists.into_iter().all(|list| list.0.is_empty()) {
        let help = "leave `from` out if anyone is meant";
        no_condition(compiler, written.place, "`from` has no condition", help);
    }
    Source {
        identities,
        namespaces,
        trust_domains,
        ips: choice(compiler, ips, not_ips, Network::parse),
        forwarded_ips: choice(compiler, forwarded, not_forwarded, Network::parse),
    }
}

fn operation(
    compiler: &mut Compiler<'_>,
    action: Action,
    written: &Placed<file::Operation>,
    when: &List<file::When>,
) -> Operation {
    let value = &written.value;
    not_everything(compiler, action, &value.not_hosts);
    not_everything(compiler, action, &value.not_paths);
    let plain = |ports: &List<u16>| ports.0.iter().map(|port| port.value).collect();
    for port in value.ports.0.iter().chain(&value.not_ports.0).filter(|port| port.value == 0) {
        compiler.mistake(port.place, "a port is between 1 and 65535");
    }
    let http = [&value.hosts, &value.not_hosts, &value.methods, &value.not_methods]
        .into_iter()
        .chain([&value.paths, &value.not_paths])
        .any(|list| !list.0.is_empty());
    let ports = !(value.ports.0.is_empty() && value.not_ports.0.is_empty());
    let ips = !(value.ips.0.is_empty() && value.not_ips.0.is_empty());
    if !http && !ports && !ips && value.service.0.is_empty() {
        let help = "leave `to` out if anything is meant";
        no_condition(compiler, written.place, "`to` has no condition", help);
    }
    if http || !when.0.is_empty() {
        only_http(compiler, &value.service);
    }
    Operation {
        services: services(compiler, &value.service),
        ports: Choice { wanted: plain(&value.ports), unwanted: plain(&value.not_ports) },
        ips: choice(compiler, &value.ips, &value.not_ips, Network::parse),
        hosts: choice(compiler, &value.hosts, &value.not_hosts, host_pattern),
        methods: choice(compiler, &value.methods, &value.not_methods, method),
        paths: choice(compiler, &value.paths, &value.not_paths, PathPattern::parse),
    }
}

/// Where something was written that could not be read, that is the mistake to be shown.
fn no_condition(compiler: &mut Compiler<'_>, place: Place, message: &str, help: &str) {
    if compiler.loaded.mistakes.is_empty() {
        compiler.mistake_with_help(place, message, help);
    }
}

/// The services that are meant, each of which must be there.
fn services(compiler: &mut Compiler<'_>, written: &List) -> Vec<Pattern> {
    let loaded = compiler.loaded;
    let named = loaded.config.services.0.iter().map(|(n, _)| n.value.as_str());
    let known: Vec<&str> = named.chain([INBOUND_SERVICE, PASSTHROUGH_SERVICE]).collect();
    let mut patterns = Vec::new();
    for text in &written.0 {
        let pattern = match Pattern::parse(&text.value) {
            Ok(pattern) => pattern,
            Err(error) => {
                pattern_mistake(compiler, text.place, error);
                continue;
            }
        };
        if pattern != Pattern::Any && !known.iter().any(|name| pattern.fits(name)) {
            let message = format!("there is no service {:?}", text.value);
            let help = suggestion(pattern.text(), &known);
            compiler.mistake_with_help(text.place, message, help);
        }
        patterns.push(pattern);
    }
    patterns
}

/// Conditions on requests are no conditions on bytes: such a rule would never allow, or deny all.
fn only_http(compiler: &mut Compiler<'_>, services: &List) {
    let loaded = compiler.loaded;
    for written in &services.0 {
        let mut known = loaded.config.services.0.iter();
        let service = known.find(|(name, _)| name.value == written.value);
        if service.is_some_and(|(_, service)| service.value.protocol == ServiceProtocol::Tcp) {
            let message =
                format!("{:?} is a tcp service: it has no requests to look into", written.value);
            let help = "only `service`, `ports` and `from` can be asked of it";
            compiler.mistake_with_help(written.place, message, help);
        }
    }
}

/// `*` among what is unwanted: an allow rule with it never matches. A deny rule with it is about
/// peers that have no name at all.
fn not_everything(compiler: &mut Compiler<'_>, action: Action, unwanted: &List) {
    let all = unwanted.0.iter().find(|text| text.value == "*");
    if let Some(all) = all.filter(|_| action == Action::Allow) {
        let help = "to let in who has no identity, write `from: {ips: [...]}`";
        compiler.mistake_with_help(all.place, "nothing is left for this rule to allow", help);
    }
}

fn when(compiler: &mut Compiler<'_>, written: &List<file::When>) -> When {
    let (mut headers, mut claims) = (Vec::new(), Vec::new());
    for when in &written.0 {
        if when.value.headers.0.is_empty() && when.value.claims.0.is_empty() {
            no_condition(compiler, when.place, "`when` has no condition", "leave it out");
        }
        for (name, value) in &when.value.headers.0 {
            if !is_token(&name.value) {
                let message = format!("{:?} is not the name of a field", name.value);
                compiler.mistake(name.place, message);
            }
            if let Some(wanted) = wanted(compiler, value) {
                headers.push((name.value.as_str().into(), wanted));
            }
        }
        for (name, value) in &when.value.claims.0 {
            if let Some(wanted) = wanted(compiler, value) {
                claims.push(ClaimMatch { name: name.value.as_str().into(), wanted });
            }
        }
    }
    When { headers, claims }
}

fn wanted(compiler: &mut Compiler<'_>, written: &Placed<Written>) -> Option<ValueMatch> {
    let parsed = match &written.value {
        Written::Present => Ok(ValueMatch::Present),
        Written::Text(text) => ValueMatch::parse(text),
    };
    parsed.map_err(|error| pattern_mistake(compiler, written.place, error)).ok()
}

fn method(text: &str) -> Result<Box<str>, PatternError> {
    if !is_token(text) || text.contains('*') || text.bytes().any(|b| b.is_ascii_lowercase()) {
        return Err(PatternError {
            message: format!("{text:?} is not a method").into(),
            help: format!("methods are in capitals, and written out: {}", text.to_uppercase())
                .into(),
        });
    }
    Ok(text.into())
}

/// How one value of a list is read.
type Parse<P> = fn(&str) -> Result<P, PatternError>;

fn choice<P>(
    compiler: &mut Compiler<'_>,
    wanted: &List,
    unwanted: &List,
    parse: Parse<P>,
) -> Choice<P> {
    let wanted = patterns(compiler, wanted, parse);
    Choice { wanted, unwanted: patterns(compiler, unwanted, parse) }
}

fn patterns<P>(compiler: &mut Compiler<'_>, written: &List, parse: Parse<P>) -> Vec<P> {
    let mut patterns = Vec::new();
    for text in &written.0 {
        match parse(&text.value) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => pattern_mistake(compiler, text.place, error),
        }
    }
    patterns
}

fn pattern_mistake(compiler: &mut Compiler<'_>, place: Place, error: PatternError) {
    compiler.mistake_with_help(place, error.message, error.help);
}
