//! Compiles hosts and their rules.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use regex::bytes::Regex;

use super::rate_limits::{self, Owner};
use super::retries::{self, Total};
use super::{Compiler, faults, is_token, jwt, methods, mirrors, overload, shifts, sticky};
use crate::cluster::Service;
use crate::http1::framing::FRAMING_FIELDS;
use crate::matching::{PathMatch, ValueMatch};
use crate::message::HeaderEdits;
use crate::model::{self, FieldEdits, Item, Match};
use crate::resilience::Scope;
use crate::route::{
    Action, CONNECT, HostPattern, Matcher, RareMatch, Redirect, RegexRewrite, Respond, Rewrite,
    Rule, Split, Table,
};

/// All compiled rules, by host.
#[derive(Default)]
pub(super) struct Hosts<'a> {
    hosts: Vec<CompiledHost<'a>>,
    by_name: HashMap<&'a str, usize>,
    all: OnceCell<Arc<Table>>,
}

/// The rules of a host.
struct CompiledHost<'a> {
    name: &'a str,
    pattern: HostPattern,
    /// The listeners that serve them: see [`model::Routes::scope`].
    scope: Option<&'a str>,
    rules: Vec<Arc<Rule>>,
}

impl<'a> Hosts<'a> {
    /// The route table of all hosts without a scope. The listeners without `hosts` share it.
    pub(super) fn all(&self) -> Arc<Table> {
        Arc::clone(self.all.get_or_init(|| Arc::new(self.scoped(None))))
    }

    /// The route table of all hosts with this scope.
    pub(super) fn scoped(&self, scope: Option<&str>) -> Table {
        let hosts = self.hosts.iter().filter(|host| host.scope == scope);
        let host = |host: &CompiledHost<'_>| (host.pattern.clone(), host.rules.clone());
        Table::build(hosts.map(host).collect())
    }

    /// The route table of the `wanted` hosts, and those wanted hosts that have no rules.
    pub(super) fn only<'w>(&self, wanted: &'w [Item<String>]) -> (Table, Vec<&'w Item<String>>) {
        let mut hosts = Vec::new();
        let mut unknown = Vec::new();
        for host in wanted {
            match self.by_name.get(host.value.as_str()).map(|&index| &self.hosts[index]) {
                Some(host) => hosts.push((host.pattern.clone(), host.rules.clone())),
                None => unknown.push(host),
            }
        }
        (Table::build(hosts), unknown)
    }

    fn add(&mut self, host: CompiledHost<'a>) {
        if host.scope.is_none() {
            self.by_name.insert(host.name, self.hosts.len());
        }
        self.hosts.push(host);
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.by_name.keys().copied()
    }
}

pub(super) fn hosts<'a>(compiler: &mut Compiler<'a>, services: &[Arc<Service>]) -> Hosts<'a> {
    let model = compiler.model;
    let mut hosts = Hosts::default();
    let mut seen = HashMap::new();
    for item in &model.routes {
        let model::Routes { host, aliases, scope, tolerant, rules } = &item.value;
        let scope = scope.as_deref();
        let name = host.value.as_str();
        let pattern = match HostPattern::parse(name) {
            Ok(pattern) => pattern,
            Err(message) => {
                host_fault(compiler, host, message);
                continue;
            }
        };
        if let Some(first) = seen.insert((scope, pattern.clone()), name) {
            compiler.fault(&host.origin, format!("{name:?} is the same host as {first:?}"));
        }
        let mut namesakes = HashMap::new();
        let compiled: Vec<_> = (1..)
            .zip(rules)
            .filter_map(|(number, item)| {
                let written = item.value.name.as_ref().map(|name| name.value.clone());
                let rule = written.unwrap_or_else(|| format!("{name}#{number}"));
                let nth = namesakes.entry(rule.clone()).and_modify(|nth| *nth += 1).or_insert(0);
                let called = RuleName { scope, host: name, name: rule, nth: *nth };
                rule_of(compiler, services, called, item)
            })
            .collect();
        let before = compiler.faults.len();
        unreachable_rules(compiler, rules, &compiled);
        if *tolerant {
            let new = &mut compiler.faults[before..];
            new.iter_mut().for_each(|fault| fault.severity = model::Severity::Warning);
        }
        sticky::clashes(compiler, rules);
        for alias in aliases {
            let name = alias.value.as_str();
            let Ok(pattern) = HostPattern::parse(name) else {
                host_fault(compiler, alias, "it is not a host name");
                continue;
            };
            if let Some(first) = seen.insert((scope, pattern.clone()), name) {
                compiler.fault(&alias.origin, format!("{name:?} is the same host as {first:?}"));
            }
            hosts.add(CompiledHost { name, pattern, scope, rules: compiled.clone() });
        }
        hosts.add(CompiledHost { name, pattern, scope, rules: compiled });
    }
    hosts
}

/// Checks the name of a host with rules.
///
/// # Errors
/// A sentence about the mistake.
pub fn check_host(name: &str) -> Result<(), String> {
    HostPattern::parse(name).map(drop).map_err(|why| format!("{name:?}: {why}"))
}

/// Checks the name of a header field in a condition or a change.
///
/// # Errors
/// A sentence about the mistake.
pub fn check_field(name: &str) -> Result<(), String> {
    match is_token(name) {
        true => Ok(()),
        false => Err(format!("{name:?} is not the name of a header field")),
    }
}

/// Checks the text that replaces the matches of `regex` in a path.
///
/// # Errors
/// A sentence about the mistake.
pub fn check_substitution(regex: &Regex, text: &str) -> Result<(), String> {
    RegexRewrite::parse(regex, text).map(drop)
}

/// Reports an invalid host. A URL in the place of a host has its own message, because other proxies
/// accept it.
fn host_fault(compiler: &mut Compiler<'_>, host: &Item<String>, message: &str) {
    let name = host.value.as_str();
    let after_scheme = name.split_once("://").map_or(name, |(_, rest)| rest);
    let bare = after_scheme.split('/').next().unwrap_or_default();
    if bare != name && HostPattern::parse(bare).is_ok() {
        let message = format!("{name:?} is a URL; rules are grouped by host");
        let (scheme, path) = (name.split_once("://"), &after_scheme[bare.len()..]);
        let mut help = format!("write {bare:?}");
        if path.len() > 1 {
            let path = path.trim_end_matches(['*', '/']);
            help.push_str(&format!("; the path is in `match: {{path: {path}/*}}`"));
        }
        if scheme.is_some_and(|(scheme, _)| scheme == "https") {
            help.push_str("; https is `tls` of the listener");
        }
        compiler.fault_with_help(&host.origin, message, help);
        return;
    }
    compiler.fault_with_help(&host.origin, format!("{name:?}: {message}"), host_help(name));
}

/// The advice for a host that is not valid, with its valid part.
fn host_help(name: &str) -> String {
    let quoted = |host: &str| match host.starts_with('*') {
        true => format!("{host:?}"),
        false => host.to_owned(),
    };
    let valid = |host: &str| HostPattern::parse(host).is_ok();
    if let Some((host, _)) = name.rsplit_once(':').filter(|(host, _)| valid(host)) {
        return format!(
            "write {host:?}, or {:?} with a port from 1 to 65535",
            format!("{host}:PORT")
        );
    }
    if let Some((_, domain)) = name.rsplit_once("*.").filter(|(_, domain)| valid(domain)) {
        return format!(
            "write each host by its name, or {} for all below {domain}",
            quoted(&format!("*.{domain}"))
        );
    }
    "write the name of a host, \"*.DOMAIN\" for all below a domain, or \"*\" for all hosts; \
     each may have :PORT"
        .to_owned()
}

/// Reports each rule that no request can reach, because an earlier and more general rule matches
/// first. The cost is quadratic, so only rules without further conditions are compared, and long
/// lists are skipped.
fn unreachable_rules(
    compiler: &mut Compiler<'_>,
    written: &[Item<model::Rule>],
    compiled: &[Arc<Rule>],
) {
    const COMPARED_MAX: usize = 500;
    if written.len() != compiled.len() || compiled.len() > COMPARED_MAX {
        return;
    }
    for (index, later) in compiled.iter().enumerate() {
        let shadow =
            compiled[..index].iter().find(|earlier| earlier.matcher.shadows(&later.matcher));
        if let Some(earlier) = shadow {
            let message = format!(
                "no request reaches this rule: {:?} ({}) matches all of them",
                earlier.name, earlier.place
            );
            // If a condition of the earlier rule could not be read, that error is the cause, and
            // this one is not shown.
            compiler.missing(&written[index].origin, &message, "put the more specific rule first");
        }
    }
}

/// The host and the name of a rule. Several rules of a host may have the same name.
struct RuleName<'a> {
    scope: Option<&'a str>,
    host: &'a str,
    name: String,
    /// The number of earlier rules with the same host and name.
    nth: usize,
}

fn rule_of(
    compiler: &mut Compiler<'_>,
    services: &[Arc<Service>],
    called: RuleName<'_>,
    item: &Item<model::Rule>,
) -> Option<Arc<Rule>> {
    let written = &item.value;
    let action = action(compiler, services, &called, item);
    let sticky = written.sticky.as_ref();
    let split = match &action {
        Some(Action::Forward(split)) => Some(split),
        _ => None,
    };
    let of_rule = (written, split);
    let sticky = sticky.map(|item| Box::new(sticky::sticky(compiler, services, item, of_rule)));
    let matcher = matcher(compiler, &written.matches);
    let forwards = matches!(written.action, None | Some(model::Action::Forward(_)));
    if let (Some(shift), false) = (&written.shift, forwards) {
        let message = "only a rule with `to` can shift its requests";
        let help = "leave `shift` out: this rule answers itself";
        compiler.fault_with_help(&shift.origin, message, help);
    }
    connect_rule(compiler, written, forwards);
    let rewrite = written.rewrite.as_ref().map(|rewrite| rewrite_of(compiler, rewrite));
    if let (Some(rewrite), false) = (&written.rewrite, forwards) {
        compiler.fault(&rewrite.origin, "only a rule with `to` can rewrite");
    }
    let request_headers = edits(compiler, written.request_headers.as_deref());
    let response_headers = edits(compiler, written.response_headers.as_deref());
    let jwt = jwt::demand(compiler, written.jwt.as_ref());
    let retries = written.retries.as_ref();
    let total = Total::of_rule(written.timeout, services, split);
    let retries = retries.map(|item| retries::policy(compiler, item, total));
    let fault = written.fault.as_ref();
    let fault = fault.map(|item| faults::fault(compiler, item, forwards));
    let mirror = written.mirror.as_ref();
    let mirror = mirror.and_then(|item| mirrors::mirror(compiler, services, item, forwards));
    let RuleName { host, ref name, nth, .. } = called;
    let not_http = (!forwards).then_some("this rule answers without a service");
    let owner = Owner { scope: Scope::Route, host, name, nth, not_http };
    let limits = rate_limits::limits(compiler, &owner, &written.rate_limits);
    let priority = overload::priority(compiler, written, forwards);
    let (matcher, action) = (matcher?, action?);
    let place = compiler.model.files.line_of(&item.origin).into();
    let index = compiler.rule_index();
    let RuleName { host, name, .. } = called;
    let stats = compiler.registry.route(host, &name);
    Some(compiler.rule(Rule {
        index,
        stats,
        name: name.into(),
        host: host.into(),
        place,
        matcher,
        action,
        sticky,
        timeout: written.timeout,
        retries,
        fault,
        mirror,
        rate_limits: limits.local,
        global_limit: limits.global,
        priority,
        request_body_timeout: written.request_body_timeout,
        stream_idle_timeout: written.stream_idle_timeout,
        jwt,
        rewrite,
        request_headers,
        response_headers,
    }))
}

/// Checks a rule for CONNECT requests. They have no path and no query, so conditions on these would
/// not have the effect that the author expects.
fn connect_rule(compiler: &mut Compiler<'_>, rule: &model::Rule, forwards: bool) {
    let Match { path, methods, query, .. } = &rule.matches;
    let Some(method) = methods.iter().find(|method| method.value.as_bytes() == CONNECT) else {
        return;
    };
    let message = match (path, query.first(), &rule.rewrite) {
        (Some(_), ..) => "a CONNECT has no path that this rule could match",
        (_, Some(_), _) => "a CONNECT has no query that this rule could match",
        (.., Some(_)) => "a CONNECT cannot be rewritten",
        _ if !forwards => "a CONNECT opens a tunnel, and only a rule with `to` has its other end",
        _ => return,
    };
    let help = "give CONNECT a rule of its own: {match: {method: CONNECT}, to: SERVICE}";
    compiler.fault_with_help(&method.origin, message, help);
}

fn action(
    compiler: &mut Compiler<'_>,
    services: &[Arc<Service>],
    called: &RuleName<'_>,
    item: &Item<model::Rule>,
) -> Option<Action> {
    match &item.value.action {
        Some(model::Action::Forward(to)) => {
            split(compiler, services, called, item, to).map(Action::Forward)
        }
        Some(model::Action::Redirect(redirect)) => {
            Some(Action::Redirect(redirect_of(compiler, redirect)))
        }
        Some(model::Action::Respond(respond)) => {
            let status = respond.status.as_ref();
            if let Some(status) = status.filter(|status| !(200..=599).contains(&status.value)) {
                compiler.fault(&status.origin, "a status is between 200 and 599");
            }
            let status = status.map_or(200, |status| status.value);
            Some(Action::Respond(Respond { status, body: respond.body.as_bytes().into() }))
        }
        None => {
            let message = "a rule needs exactly one of to, redirect and respond";
            compiler.missing(&item.origin, message, "write `to: SERVICE`, the name of a service");
            None
        }
    }
}

fn split(
    compiler: &mut Compiler<'_>,
    services: &[Arc<Service>],
    called: &RuleName<'_>,
    rule: &Item<model::Rule>,
    to: &[(Item<String>, u32)],
) -> Option<Split> {
    if to.iter().all(|(_, weight)| *weight == 0) {
        let origin = to.first().map_or(&rule.origin, |(first, _)| &first.origin);
        let help = "give one of them a weight of 1 or more";
        compiler.fault_with_help(origin, "no destination has a weight above 0", help);
        return None;
    }
    let mut shares = Vec::new();
    for (reference, weight) in to {
        let destination = compiler.destination(services, reference);
        shares.extend(destination.map(|destination| (destination, *weight)));
    }
    if shares.len() != to.len() {
        return None;
    }
    let shift = match &rule.value.shift {
        None => None,
        Some(shift) => {
            let destinations: Vec<_> = shares.iter().map(|(destination, _)| *destination).collect();
            let owner = shifts::Owner {
                host: called.host,
                rule: &called.name,
                is_named: rule.value.name.is_some(),
                to,
                destinations: &destinations,
            };
            Some(shifts::shift(compiler, services, &owner, shift)?)
        }
    };
    let split = match shares[..] {
        [(only, _)] => Split::single(only),
        _ => {
            let RuleName { scope, host, ref name, nth } = *called;
            let turns = compiler.registry.turns((scope.unwrap_or_default(), host), name, nth);
            Split::weighted(&shares, turns)
        }
    };
    Some(match shift {
        Some(shift) => split.with_shift(shift),
        None => split,
    })
}

fn redirect_of(compiler: &mut Compiler<'_>, item: &Item<model::Redirect>) -> Redirect {
    let written = &item.value;
    if let Some(status) = &written.status
        && !matches!(status.value, 301 | 302 | 303 | 307 | 308)
    {
        compiler.fault(&status.origin, "a redirect is 301, 302, 303, 307 or 308");
    }
    if let Some(scheme) = &written.scheme
        && !matches!(scheme.value.as_str(), "http" | "https")
    {
        compiler.fault(&scheme.origin, "a scheme is http or https");
    }
    for part in [&written.host, &written.path, &written.prefix].into_iter().flatten() {
        visible(compiler, part);
    }
    if written.scheme.is_none()
        && written.host.is_none()
        && written.port.is_none()
        && written.path.is_none()
        && written.prefix.is_none()
    {
        let message = "this redirects to itself: set a scheme, host, port or path";
        compiler.fault(&item.origin, message);
    }
    Redirect {
        status: written.status.as_ref().map_or(301, |status| status.value),
        scheme: text(&written.scheme),
        host: text(&written.host),
        port: written.port,
        path: text(&written.path),
        prefix: text(&written.prefix),
    }
}

fn text(part: &Option<Item<String>>) -> Option<Box<str>> {
    part.as_ref().map(|part| part.value.as_str().into())
}

fn rewrite_of(compiler: &mut Compiler<'_>, item: &Item<model::Rewrite>) -> Rewrite {
    let written = &item.value;
    let model::Rewrite { prefix, path, host, matched, .. } = written;
    for part in [prefix, path, host, matched].into_iter().flatten() {
        visible(compiler, part);
    }
    for path in [&written.prefix, &written.path].into_iter().flatten() {
        if !path.value.starts_with('/') {
            compiler.fault(&path.origin, "a path begins with /");
        }
    }
    if let (Some(prefix), Some(_)) = (&written.prefix, &written.path) {
        let message = "set either the prefix or the path, not both";
        compiler.fault(&prefix.origin, message);
    }
    let regex = written.regex.as_ref().and_then(|(regex, new)| {
        let parsed = RegexRewrite::parse(&regex.value, new);
        parsed.map_err(|message| compiler.fault(&regex.origin, message)).ok()
    });
    Rewrite {
        prefix: text(&written.prefix),
        path: text(&written.path),
        host: text(&written.host),
        matched: text(&written.matched),
        regex,
    }
}

/// Reports a `text` that has characters other than visible ASCII, which are not allowed in a
/// request line or in Location.
fn visible(compiler: &mut Compiler<'_>, text: &Item<String>) {
    if text.value.is_empty() || !text.value.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
        let message = format!("{:?} has characters that a URL cannot have", text.value);
        compiler.fault(&text.origin, message);
    }
}

fn matcher(compiler: &mut Compiler<'_>, written: &Match) -> Option<Matcher> {
    let mut path = Some(PathMatch::Any);
    if let Some(item) = &written.path {
        path = path_match(compiler, item);
    }
    let methods = methods(compiler, &written.methods);
    for (name, _) in written.headers.iter().chain(&written.without_headers) {
        compiler.field_name(name);
    }
    let values = |written: &[(Item<String>, ValueMatch)]| {
        let value = |(name, value): &(Item<String>, ValueMatch)| {
            (Box::from(name.value.as_str()), value.clone())
        };
        written.iter().map(value).collect()
    };
    let (headers, query) = (values(&written.headers), values(&written.query));
    let Match { without_headers, authority, method, .. } = written;
    let rare =
        (!without_headers.is_empty() || authority.is_some() || method.is_some()).then(|| {
            Box::new(RareMatch {
                without_headers: values(without_headers),
                authority: authority.clone(),
                method: method.clone(),
            })
        });
    Some(Matcher { path: path?, methods, headers, query, rare })
}

fn path_match(compiler: &mut Compiler<'_>, written: &Item<PathMatch>) -> Option<PathMatch> {
    let fits = match &written.value {
        PathMatch::Exact(path)
        | PathMatch::Starts(path)
        | PathMatch::ExactAnyCase(path)
        | PathMatch::StartsAnyCase(path) => path.starts_with(b"/"),
        PathMatch::Prefix(path) => path.starts_with(b"/") && path.ends_with(b"/"),
        PathMatch::Any | PathMatch::Regex(_) => true,
    };
    if !fits {
        let message = "a path must begin with /, and a prefix must also end with /";
        compiler.fault(&written.origin, message);
    }
    fits.then(|| written.value.clone())
}

fn edits(compiler: &mut Compiler<'_>, written: Option<&FieldEdits>) -> HeaderEdits {
    let Some(FieldEdits { set, add, remove }) = written else { return HeaderEdits::none() };
    for (name, value) in set.iter().chain(add) {
        field_name(compiler, name, Some(&value.value));
        if value.value.bytes().any(|byte| byte < 0x20 && byte != b'\t' || byte == 0x7f) {
            compiler.fault(&value.origin, "a field's value has no control characters");
        }
    }
    for name in remove {
        field_name(compiler, name, None);
    }
    let text = |item: &Item<String>| Box::from(item.value.as_str());
    let field = |(name, value): &(_, _)| (text(name), text(value));
    HeaderEdits {
        set: set.iter().map(field).collect(),
        add: add.iter().map(field).collect(),
        remove: remove.iter().map(text).collect(),
    }
}

/// Whether `byte` may be in a host with a port.
fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-:".contains(&byte)
}

/// Checks the name of a header field that a rule sets, adds or removes. `value` is its new value.
fn field_name(compiler: &mut Compiler<'_>, name: &Item<String>, value: Option<&str>) {
    compiler.field_name(name);
    let is = |field: &str| field.eq_ignore_ascii_case(&name.value);
    let help = match () {
        () if is("host") => match value.filter(|value| value.bytes().all(is_of_host)) {
            Some(host) => format!("write `rewrite: {{host: {host}}}` in this rule"),
            None => "write `rewrite: {host: NAME}` in this rule".to_owned(),
        },
        () if FRAMING_FIELDS.iter().any(|field| is(field)) => {
            "leave it out: the proxy writes it for each connection".to_owned()
        }
        () => return,
    };
    let message = format!("{:?} cannot be changed in `headers`", name.value);
    compiler.fault_with_help(&name.origin, message, help);
}
