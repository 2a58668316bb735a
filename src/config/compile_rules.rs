//! Hosts and their rules.

use std::sync::Arc;

use super::compile::{Compiler, is_token};
use super::compile_jwt;
use super::diagnostic::Place;
use super::file::{self, ValueMatch as Written};
use super::values::{Entries, Placed};
use crate::cluster::Service;
use crate::matching::{PathMatch, ValueMatch};
use crate::message::HeaderEdits;
use crate::route::{Action, HostPattern, Matcher, Redirect, Respond, Rewrite, Rule, Split, Table};

/// All rules, by host as written.
pub(super) struct Hosts(Vec<(String, HostPattern, Vec<Arc<Rule>>)>);

impl Hosts {
    pub(super) fn all(&self) -> Vec<(HostPattern, Vec<Arc<Rule>>)> {
        self.0.iter().map(|(_, pattern, rules)| (pattern.clone(), rules.clone())).collect()
    }

    /// A table of `wanted` hosts, and those of them for which there are no rules.
    pub(super) fn only<'w>(
        &self,
        wanted: &'w [Placed<String>],
    ) -> (Table, Vec<&'w Placed<String>>) {
        let mut hosts = Vec::new();
        let mut unknown = Vec::new();
        for host in wanted {
            match self.0.iter().find(|(name, ..)| *name == host.value) {
                Some((_, pattern, rules)) => hosts.push((pattern.clone(), rules.clone())),
                None => unknown.push(host),
            }
        }
        (Table::build(hosts), unknown)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, ..)| name.as_str())
    }
}

pub(super) fn hosts(compiler: &mut Compiler<'_>, services: &[Arc<Service>]) -> Hosts {
    let mut hosts: Vec<(String, HostPattern, Vec<Arc<Rule>>)> = Vec::new();
    let mut seen = std::collections::HashMap::new();
    for (host, rules) in &compiler.loaded.config.routes.0 {
        let pattern = match HostPattern::parse(&host.value) {
            Ok(pattern) => pattern,
            Err(message) => {
                compiler.mistake(host.place, format!("{:?}: {message}", host.value));
                continue;
            }
        };
        if let Some(first) = seen.insert(pattern.clone(), host.value.clone()) {
            compiler.mistake(host.place, format!("{:?} is the same host as {first:?}", host.value));
        }
        let compiled: Vec<_> = (1..)
            .zip(&rules.0)
            .filter_map(|(number, rule)| rule_of(compiler, services, &host.value, number, rule))
            .collect();
        unreachable_rules(compiler, &rules.0, &compiled);
        hosts.push((host.value.clone(), pattern, compiled));
    }
    Hosts(hosts)
}

/// Finds rules behind one that takes everything from them. Quadratic, so only rules without
/// further conditions are compared with those before them, and long lists not at all.
fn unreachable_rules(
    compiler: &mut Compiler<'_>,
    written: &[Placed<file::Rule>],
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
                "no request gets here: {:?} ({}) takes them all",
                earlier.name, earlier.place
            );
            let help = "put the more specific rule first";
            compiler.mistake_with_help(written[index].place, message, help);
        }
    }
}

fn rule_of(
    compiler: &mut Compiler<'_>,
    services: &[Arc<Service>],
    host: &str,
    number: usize,
    written: &Placed<file::Rule>,
) -> Option<Arc<Rule>> {
    let value = &written.value;
    let name = value.name.as_ref().map_or_else(|| format!("{host}#{number}"), |n| n.value.clone());
    let action = action(compiler, services, written);
    let matcher = matcher(compiler, &value.matches);
    let rewrite = value.rewrite.as_ref().map(|rewrite| rewrite_of(compiler, rewrite));
    if let (Some(rewrite), true) = (&value.rewrite, value.to.is_none()) {
        compiler.mistake(rewrite.place, "only a rule with `to` can rewrite");
    }
    let request_headers = edits(compiler, &value.headers.request);
    let response_headers = edits(compiler, &value.headers.response);
    let jwt = compile_jwt::demand(compiler, value.jwt.as_ref());
    let index = compiler.rule_index();
    let stats = compiler.registry.route(host, &name);
    Some(compiler.rule(Rule {
        index,
        stats,
        name: name.into(),
        host: host.into(),
        place: compiler.loaded.sources.file_line(written.place).into(),
        matcher: matcher?,
        action: action?,
        timeout: value.timeout.as_ref().map(|time| time.0),
        jwt,
        rewrite,
        request_headers,
        response_headers,
    }))
}

fn action(
    compiler: &mut Compiler<'_>,
    services: &[Arc<Service>],
    written: &Placed<file::Rule>,
) -> Option<Action> {
    let value = &written.value;
    match (&value.to, &value.redirect, &value.respond) {
        (Some(to), None, None) => split(compiler, services, to).map(Action::Forward),
        (None, Some(redirect), None) => Some(Action::Redirect(redirect_of(compiler, redirect))),
        (None, None, Some(respond)) => {
            let status = respond.value.status.as_ref();
            if let Some(status) = status.filter(|status| !(200..=599).contains(&status.value)) {
                compiler.mistake(status.place, "a status is between 200 and 599");
            }
            let status = status.map_or(200, |status| status.value);
            let body = respond.value.body.as_bytes().into();
            Some(Action::Respond(Respond { status, body }))
        }
        _ => {
            let message = "a rule has exactly one of to, redirect and respond";
            compiler.mistake(written.place, message);
            None
        }
    }
}

fn split(
    compiler: &mut Compiler<'_>,
    services: &[Arc<Service>],
    to: &Placed<file::To>,
) -> Option<Split> {
    let mut shares = Vec::new();
    let mut complete = true;
    for (reference, weight) in &to.value.0 {
        let place = if reference.place == Place::default() { to.place } else { reference.place };
        match compiler.destination(services, place, &reference.value) {
            Some(destination) => shares.push((destination, *weight)),
            None => complete = false,
        }
    }
    (complete && !shares.is_empty()).then(|| Split::weighted(&shares))
}

fn redirect_of(compiler: &mut Compiler<'_>, written: &Placed<file::Redirect>) -> Redirect {
    let value = &written.value;
    if let Some(status) = &value.status
        && !matches!(status.value, 301 | 302 | 303 | 307 | 308)
    {
        compiler.mistake(status.place, "a redirect is 301, 302, 303, 307 or 308");
    }
    if let Some(scheme) = &value.scheme
        && !matches!(scheme.value.as_str(), "http" | "https")
    {
        compiler.mistake(scheme.place, "a scheme is http or https");
    }
    for part in [&value.host, &value.path].into_iter().flatten() {
        visible(compiler, part);
    }
    if value.scheme.is_none()
        && value.host.is_none()
        && value.port.is_none()
        && value.path.is_none()
    {
        let message = "a redirect to itself: give it a scheme, host, port or path";
        compiler.mistake(written.place, message);
    }
    let text = |part: &Option<Placed<String>>| part.as_ref().map(|part| part.value.as_str().into());
    Redirect {
        status: value.status.as_ref().map_or(301, |status| status.value),
        scheme: text(&value.scheme),
        host: text(&value.host),
        port: value.port,
        path: text(&value.path),
    }
}

fn rewrite_of(compiler: &mut Compiler<'_>, written: &Placed<file::Rewrite>) -> Rewrite {
    let value = &written.value;
    for part in [&value.prefix, &value.path, &value.host].into_iter().flatten() {
        visible(compiler, part);
    }
    for path in [&value.prefix, &value.path].into_iter().flatten() {
        if !path.value.starts_with('/') {
            compiler.mistake(path.place, "a path begins with /");
        }
    }
    if let (Some(prefix), Some(_)) = (&value.prefix, &value.path) {
        compiler.mistake(prefix.place, "either the prefix or the whole path is replaced, not both");
    }
    let text = |part: &Option<Placed<String>>| part.as_ref().map(|part| part.value.as_str().into());
    Rewrite { prefix: text(&value.prefix), path: text(&value.path), host: text(&value.host) }
}

/// What goes into a request line or a Location has no white space and no controls.
fn visible(compiler: &mut Compiler<'_>, text: &Placed<String>) {
    if text.value.is_empty() || !text.value.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
        compiler
            .mistake(text.place, format!("{:?} has characters that a URL cannot have", text.value));
    }
}

fn matcher(compiler: &mut Compiler<'_>, written: &file::Match) -> Option<Matcher> {
    let mut complete = true;
    let mut path = PathMatch::Any;
    if let Some(text) = &written.path {
        match PathMatch::parse(&text.value) {
            Ok(parsed) => path = parsed,
            Err(error) => {
                compiler.mistake(text.place, error.to_string());
                complete = false;
            }
        }
    }
    for method in &written.method.0 {
        if !is_token(&method.value) || method.value.bytes().any(|byte| byte.is_ascii_lowercase()) {
            let help = format!("methods are in capitals: {}", method.value.to_uppercase());
            let message = format!("{:?} is not a method", method.value);
            compiler.mistake_with_help(method.place, message, help);
        }
    }
    for (name, _) in &written.headers.0 {
        if !is_token(&name.value) {
            compiler.mistake(name.place, format!("{:?} is not the name of a field", name.value));
        }
    }
    let headers = values(compiler, &written.headers);
    let query = values(compiler, &written.query);
    let methods = written.method.0.iter().map(|method| method.value.as_str().into()).collect();
    complete.then_some(Matcher { path, methods, headers, query })
}

fn values(
    compiler: &mut Compiler<'_>,
    written: &Entries<Placed<Written>>,
) -> Vec<(Box<str>, ValueMatch)> {
    let mut values = Vec::new();
    for (name, value) in &written.0 {
        let parsed = match &value.value {
            Written::Present => Ok(ValueMatch::Present),
            Written::Text(text) => ValueMatch::parse(text),
        };
        match parsed {
            Ok(parsed) => values.push((name.value.as_str().into(), parsed)),
            Err(error) => compiler.mistake(value.place, error.to_string()),
        }
    }
    values
}

/// Fields that decide how a message is framed: nobody but the proxy sets them.
const FRAMING_FIELDS: [&str; 5] =
    ["content-length", "transfer-encoding", "connection", "upgrade", "te"];

fn edits(compiler: &mut Compiler<'_>, written: &file::FieldEdits) -> HeaderEdits {
    let fields = |entries: &Entries<Placed<String>>| -> Vec<(Box<str>, Box<str>)> {
        let pair = |(name, value): &(Placed<String>, Placed<String>)| {
            (name.value.as_str().into(), value.value.as_str().into())
        };
        entries.0.iter().map(pair).collect()
    };
    let set_or_added = written.set.0.iter().chain(&written.add.0);
    for (name, value) in set_or_added {
        field_name(compiler, name);
        if value.value.bytes().any(|byte| byte < 0x20 && byte != b'\t' || byte == 0x7f) {
            compiler.mistake(value.place, "a field's value has no control characters");
        }
    }
    for name in &written.remove.0 {
        field_name(compiler, name);
    }
    HeaderEdits {
        set: fields(&written.set),
        add: fields(&written.add),
        remove: written.remove.0.iter().map(|name| name.value.as_str().into()).collect(),
    }
}

fn field_name(compiler: &mut Compiler<'_>, name: &Placed<String>) {
    if !is_token(&name.value) {
        compiler.mistake(name.place, format!("{:?} is not the name of a field", name.value));
    }
    let framing = FRAMING_FIELDS.iter().any(|field| field.eq_ignore_ascii_case(&name.value));
    if framing || name.value.eq_ignore_ascii_case("host") {
        let help = "Host is changed by `rewrite: {host: ...}`, framing by nobody";
        let message = format!("{:?} cannot be changed by a rule", name.value);
        compiler.mistake_with_help(name.place, message, help);
    }
}
