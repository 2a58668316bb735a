//! Explains a request: its rule, its services, its token and its authorization.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use super::asked::Asked;
use crate::cluster::{Destination, Endpoints, Service};
use crate::decision::{self, Client, DENIED};
use crate::http1::framing;
use crate::jwt::{Accepted, Claims, Rejection, Requirement};
use crate::mesh::OriginalTarget;
use crate::message::HeadView;
use crate::route::{Action, Rule, Split};
use crate::snapshot::Snapshot;
use crate::time::NO_LIMIT;

/// A request, with its client and the configuration that decides about it.
pub(super) struct Call<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) client: Client<'a>,
    pub(super) request: HeadView<'a>,
}

/// Explains the request in `asked`, which `client` sends.
///
/// # Errors
/// If the arguments are not a valid request.
pub(super) fn explain_asked(
    out: &mut String,
    snapshot: &Snapshot,
    client: Client<'_>,
    asked: &Asked,
) -> Result<(), String> {
    match asked.normalised(snapshot, client.listener)? {
        Ok(parsed) => {
            let request = parsed.head.view(&parsed.text);
            explain(out, &Call { snapshot, client, request });
        }
        Err(refusal) => {
            writeln!(out, "  refused: {refusal}").ok();
        }
    }
    Ok(())
}

/// Explains a request, in the order of the proxy's decisions.
pub(super) fn explain(out: &mut String, call: &Call<'_>) {
    if let Err(refusal) = framing::request(call.request) {
        // Writing to a String cannot fail.
        writeln!(out, "  refused: {refusal}").ok();
        return;
    }
    write_looked(out, call);
    match call.client.rule(call.request).rule {
        Ok(rule) => {
            writeln!(out, "  rule {} ({}), host {}", rule.name, rule.place, rule.host).ok();
            explain_action(out, call, rule);
        }
        Err(refusal) => {
            writeln!(out, "  refused: {refusal}").ok();
        }
    }
}

/// Writes the routes that were compared with the request but do not match.
pub(super) fn write_looked(out: &mut String, call: &Call<'_>) {
    let (request, client) = (call.request, &call.client);
    let Some(table) = client.listener.routes() else { return };
    let looked = table.explain(request, client.default_port(request));
    if looked.is_empty() {
        let host = String::from_utf8_lossy(request.authority()).into_owned();
        writeln!(out, "  no routes for the host {host:?}").ok();
    }
    for (rule, mismatch) in looked {
        if let Some(mismatch) = mismatch {
            writeln!(out, "  not {} ({}): {mismatch}", rule.name, rule.place).ok();
        }
    }
}

fn explain_action(out: &mut String, call: &Call<'_>, rule: &Rule) {
    match &rule.action {
        Action::Forward(split) => explain_split(out, call, rule, split),
        Action::Redirect(redirect) => {
            if admitted(out, call, rule, None) {
                let mut location = Vec::new();
                let path = &rule.matcher.path;
                redirect.location(path, call.request, call.client.scheme, &mut location);
                let location = String::from_utf8_lossy(&location);
                writeln!(out, "  answers {} location {location}", redirect.status).ok();
            }
        }
        Action::Respond(respond) => {
            if admitted(out, call, rule, None) {
                let bytes = respond.body.len();
                writeln!(out, "  answers {} with {bytes} bytes", respond.status).ok();
            }
        }
    }
    let mut target = Vec::new();
    if let Some(rewrite) = &rule.rewrite {
        if rewrite.target(rule, call.request, &mut target) {
            writeln!(out, "  path becomes {}", String::from_utf8_lossy(&target)).ok();
        }
        if let Some(host) = &rewrite.host {
            writeln!(out, "  host becomes {host}").ok();
        }
    }
    for (name, limit) in [
        ("timeout", rule.timeout),
        ("stream_idle_timeout", rule.stream_idle_timeout),
        ("request_body_timeout", rule.request_body_timeout),
    ] {
        match limit {
            Some(NO_LIMIT) => writeln!(out, "  {name} none").ok(),
            Some(limit) => writeln!(out, "  {name} {limit:?}").ok(),
            None => None,
        };
    }
    if let Some(retries) = &rule.retries {
        writeln!(out, "  retries {retries}").ok();
    }
    if let Some(fault) = &rule.fault {
        let applies = fault.applies(call.request);
        let without = if applies { "" } else { " (not for this request: its headers differ)" };
        writeln!(out, "  fault {}{without}", fault.policy).ok();
    }
    if let Some(mirror) = &rule.mirror
        && let Some(service) = call.client.service(call.snapshot, mirror.to)
    {
        let version = version_of(service, mirror.to);
        writeln!(out, "  mirror to {}{version}: {}", service.name, mirror.policy).ok();
    }
    if let Some(priority) = rule.priority {
        writeln!(out, "  priority {}", priority.name()).ok();
    }
    for limit in &rule.rate_limits {
        writeln!(out, "  rate limit {limit}").ok();
    }
    if let Some(limit) = &rule.global_limit {
        writeln!(out, "  global rate limit: {limit}").ok();
    }
}

fn explain_split(out: &mut String, call: &Call<'_>, rule: &Rule, split: &Split) {
    if let Some(shift) = split.shift() {
        writeln!(out, "  shift {}", shift.plan()).ok();
    }
    let shares = split.shares();
    let total: usize = shares.iter().map(|(_, count)| count).sum();
    write_sticky(out, call, rule, split);
    for (destination, count) in shares {
        let Some(service) = call.client.service(call.snapshot, destination) else { continue };
        let percent = 100.0 * count as f64 / total as f64;
        let share = format!(": {percent} % of requests");
        write_service(out, &call.client, service, destination, &share);
        admitted(out, call, rule, Some(service));
    }
}

/// Writes the version on which the request stays.
fn write_sticky(out: &mut String, call: &Call<'_>, rule: &Rule, split: &Split) {
    let Some(sticky) = &rule.sticky else { return };
    let Some(to) = call.client.kept(rule, split, Some(call.request)) else {
        writeln!(out, "  sticky by {sticky}: the request has none, so versions take turns").ok();
        return;
    };
    if let Some(service) = call.client.service(call.snapshot, to) {
        let (name, version) = (&service.name, version_of(service, to));
        let place = match call.client.point(rule, Some(call.request)) {
            Some(point) => {
                let percent = point as f64 / u64::MAX as f64 * 100.0;
                format!("at {percent:.2} % of users, so ")
            }
            None => String::new(),
        };
        writeln!(out, "  sticky by {sticky}: {place}{name}{version}").ok();
    }
}

/// Writes the service of a destination and its endpoints.
pub(super) fn write_service(
    out: &mut String,
    client: &Client<'_>,
    service: &Service,
    destination: Destination,
    share: &str,
) {
    if let Some(address) = only_address(client, destination) {
        writeln!(out, "  to {}{share}", service.name).ok();
        writeln!(out, "    endpoint: {address}").ok();
        return;
    }
    let endpoints = service.endpoints.load();
    let index = destination.subset as usize;
    let version = version_of(service, destination);
    writeln!(out, "  to {}{version}{share}", service.name).ok();
    let addresses = endpoints.members(index).map(|endpoint| endpoint.address.to_string());
    let addresses: Vec<String> = addresses.collect();
    let list = if addresses.is_empty() { "none yet".to_owned() } else { addresses.join(", ") };
    writeln!(out, "    endpoints ({:?}): {list}", service.policy).ok();
    write_levels(out, service, &endpoints, index);
    if let Some(beside) = &service.beside {
        writeln!(out, "    transport: {beside}").ok();
    }
    if let Some(check) = &service.health {
        writeln!(out, "    health check: {check}").ok();
    }
    if let Some(breaker) = &service.breaker {
        writeln!(out, "    circuit breaker: {breaker}").ok();
    }
    if let Some(concurrency) = &service.concurrency {
        writeln!(out, "    concurrency: {concurrency}").ok();
    }
    for limit in &service.rate_limits {
        writeln!(out, "    rate limit {limit}").ok();
    }
    if let Some(limit) = &service.global_limit {
        writeln!(out, "    global rate limit: {limit}").ok();
    }
    if let Some(outlier) = &service.outlier {
        writeln!(out, "    outlier detection: {}", outlier.policy).ok();
    }
    if let Some(slow_start) = &service.slow_start {
        writeln!(out, "    slow start: {slow_start}").ok();
    }
}

/// Writes the levels of the endpoints in a subset. The first one gets the requests while it is
/// healthy.
fn write_levels(out: &mut String, service: &Service, endpoints: &Endpoints, subset: usize) {
    let Some(locality) = &service.locality else { return };
    writeln!(out, "    locality: {locality}").ok();
    let mut levels = BTreeMap::<_, (Vec<&str>, Vec<String>)>::new();
    for endpoint in endpoints.members(subset) {
        let (zones, addresses) = levels.entry(locality.compared(endpoint.level)).or_default();
        let zone = endpoint.zone.as_deref().unwrap_or("no zone");
        if !zones.contains(&zone) {
            zones.push(zone);
        }
        addresses.push(endpoint.address.to_string());
    }
    for (number, (level, (zones, addresses))) in (1..).zip(&levels) {
        let (zones, addresses) = (zones.join(", "), addresses.join(", "));
        let priority = level.priority;
        writeln!(out, "      level {number}, priority {priority}, {zones}: {addresses}").ok();
    }
}

/// The version of a destination, as a suffix of the name of the service. Empty without versions.
fn version_of(service: &Service, destination: Destination) -> String {
    match &*service.endpoints.load().subsets[destination.subset as usize].version {
        "" => String::new(),
        version => format!("/{version}"),
    }
}

/// The endpoint of a connection that can only go to its original destination. `None` means that the
/// service chooses an endpoint.
fn only_address(client: &Client<'_>, destination: Destination) -> Option<SocketAddr> {
    let (capture, original) = client.captured().filter(|_| destination == Destination::ORIGINAL)?;
    match capture.target(original) {
        OriginalTarget::Service(..) | OriginalTarget::Denied => None,
        OriginalTarget::Workload => Some(capture.application(original)),
        OriginalTarget::Endpoint(_) | OriginalTarget::Unknown => Some(original),
    }
}

/// Explains whether the request is allowed: its token, and the authorization rules for `service`.
/// `None` means that the proxy itself responds, without a service.
fn admitted(out: &mut String, call: &Call<'_>, rule: &Rule, service: Option<&Service>) -> bool {
    let Call { snapshot, client, request } = call;
    match client.is_probe(*request) {
        Ok(true) => {
            writeln!(out, "    a probe: it needs no identity and no authorization").ok();
            return true;
        }
        Ok(false) => {}
        Err(refusal) => {
            writeln!(out, "    refused: {refusal}").ok();
            return false;
        }
    }
    let checked = decision::demanded(rule, service, client.listener)
        .map(|wanted| token(out, wanted, *request));
    let token = match checked.transpose() {
        Ok(token) => token.flatten(),
        Err(rejection) => {
            writeln!(out, "    refused: {}", decision::no_token(rejection)).ok();
            return false;
        }
    };
    let name = service.map_or("", |service| &service.name);
    let claims = token.as_ref().map(|token| &token.claims);
    let passes = authorized(out, snapshot, client, name, Some(*request), claims);
    if !passes {
        writeln!(out, "    refused: {DENIED}").ok();
    }
    passes
}

/// Explains the token of a request. Returns the token if it is valid. Returns `None` if there is no
/// token, or if `explain` does not have the keys to verify it.
fn token(
    out: &mut String,
    wanted: &Requirement,
    request: HeadView<'_>,
) -> Result<Option<Accepted>, Rejection> {
    let providers: Vec<&str> = wanted.providers.iter().map(|it| &*it.name).collect();
    let without = if wanted.optional { "it may have none" } else { "401 without one" };
    writeln!(out, "    token of {}: {without}", providers.join(" or ")).ok();
    let Some(token) = wanted.token(request)? else { return Ok(None) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let checked = wanted.check(token, i64::try_from(now).unwrap_or(i64::MAX));
    match checked {
        Err(Rejection::Key) if wanted.providers.iter().any(|it| it.keys.is_empty()) => {
            let why = "its keys come from a URL, which this command does not read";
            writeln!(out, "    token not checked: {why}; no rule sees its claims here").ok();
            Ok(None)
        }
        checked => checked.map(Some),
    }
}

/// Explains the authorization rules for `service`. Returns whether they allow the request, or the
/// connection if it carries no requests.
pub(super) fn authorized(
    out: &mut String,
    snapshot: &Snapshot,
    client: &Client<'_>,
    service: &str,
    request: Option<HeadView<'_>>,
    claims: Option<&Claims>,
) -> bool {
    let policies = &snapshot.authorization;
    if policies.is_empty() {
        return true;
    }
    let (peer, target) = client.facts(service, request, claims);
    for (rule, mismatch) in policies.explain(&peer, &target) {
        if let Some(mismatch) = mismatch {
            writeln!(out, "    not {} ({}): {mismatch}", rule.name, rule.place).ok();
        }
    }
    let decision = policies.decide(&peer, &target);
    writeln!(out, "    authorization: {}", decision.verdict).ok();
    for report in decision.reports() {
        writeln!(out, "    authorization: {report}").ok();
    }
    decision.verdict.is_allowed()
}
