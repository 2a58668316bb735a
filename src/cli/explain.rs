//! `ringway explain`: shows the listener, rule, service and endpoints of a request, and why.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::authz::path::normalise;
use crate::authz::{self, Normal, Peer};
use crate::compile::Resolutions;
use crate::compile::registry::Registry;
use crate::error::Refusal;
use crate::http1::parse;
use crate::jwt::Requirement;
use crate::mesh::{Direction, Unknown};
use crate::message::{Head, HeadView};
use crate::net::Bind;
use crate::route::{Action, Rule, Split, Table};
use crate::snapshot::{Listener, Serves, Snapshot};
use crate::sources::files;
use crate::sources::files::ProcessEnvironment;

/// The request to explain.
#[derive(Args)]
pub(super) struct ExplainArgs {
    /// A directory of YAML files, or one file. Later arguments override earlier ones key by key.
    #[arg(short, long = "config", required = true)]
    config: Vec<PathBuf>,
    /// A header field, `name: value`. You may repeat it.
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// The client's identity for the authorization rules, for example
    /// spiffe://cluster.local/ns/shop/sa/web.
    #[arg(long = "from", value_name = "SPIFFE")]
    identity: Option<String>,
    /// The client's address.
    #[arg(long = "from-ip", value_name = "IP")]
    ip: Option<IpAddr>,
    /// The method, for example GET.
    method: String,
    /// The URL, for example http://shop.example.com/cart.
    url: String,
}

pub(super) fn explain(arguments: &ExplainArgs) -> ExitCode {
    let loaded = files::load(&arguments.config, &ProcessEnvironment);
    let compiled = files::compile(&loaded, 1, &mut Registry::new(1), &Resolutions::new());
    let snapshot = match compiled {
        Ok(compiled) => compiled.snapshot,
        Err(errors) => {
            eprint!("{errors}");
            return ExitCode::FAILURE;
        }
    };
    match explanation(&snapshot, arguments) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
    }
}

fn explanation(snapshot: &Snapshot, arguments: &ExplainArgs) -> Result<String, String> {
    let (host, target) = host_and_target(&arguments.url);
    let parsed = |target: &str| {
        let (text, mut head) = (request_text(arguments, host, target), Head::default());
        parse::request(text.as_bytes(), 0..text.len(), &snapshot.limits.message, &mut head)
            .map_err(|refusal| format!("the proxy would refuse this request: {refusal}"))?;
        Ok::<_, String>((text, head))
    };
    parsed(&target)?;
    let peer =
        Peer { identity: arguments.identity.as_deref(), ip: arguments.ip, forwarded_ip: None };
    let mut out = String::new();
    for listener in &snapshot.listeners {
        let (Serves::Http(_) | Serves::Captured(_)) = &listener.serves else { continue };
        let Some(table) = listener.routes() else { continue };
        let binds: Vec<String> = listener.binds.iter().map(ToString::to_string).collect();
        // Writing to a String cannot fail.
        writeln!(out, "listener {} ({})", listener.name, binds.join(", ")).ok();
        match normal_target(snapshot, listener, &target) {
            Ok(target) => {
                let (text, head) = parsed(&target)?;
                let request = head.view(text.as_bytes());
                let call = Call { snapshot, listener, peer, request };
                explain_route(&mut out, &call, table);
            }
            Err(refusal) => {
                writeln!(out, "  refused: {refusal}").ok();
            }
        }
    }
    if out.is_empty() {
        return Err("the configuration has no HTTP listener".to_owned());
    }
    Ok(out)
}

/// A request at one of the listeners.
struct Call<'a> {
    snapshot: &'a Snapshot,
    listener: &'a Listener,
    peer: Peer<'a>,
    request: HeadView<'a>,
}

/// `target` as routes and authorization rules see it at `listener`.
fn normal_target(
    snapshot: &Snapshot,
    listener: &Listener,
    target: &str,
) -> Result<String, Refusal> {
    let mut normal = Vec::new();
    // Without authorization or tokens, the path is forwarded unchanged.
    if !snapshot.is_guarded()
        || normalise(target.as_bytes(), listener.escaped_slashes, &mut normal)? == Normal::Unchanged
    {
        return Ok(target.to_owned());
    }
    Ok(String::from_utf8_lossy(&normal).into_owned())
}

fn host_and_target(url: &str) -> (&str, String) {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = after_scheme.find(['/', '?']).unwrap_or(after_scheme.len());
    let (host, mut target) = (&after_scheme[..end], after_scheme[end..].to_owned());
    if !target.starts_with('/') {
        target.insert(0, '/');
    }
    (host, target)
}

fn request_text(arguments: &ExplainArgs, host: &str, target: &str) -> String {
    let mut text = format!("{} {target} HTTP/1.1\r\nHost: {host}\r\n", arguments.method);
    for header in &arguments.headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text + "\r\n"
}

fn explain_route(out: &mut String, call: &Call<'_>, table: &Table) {
    let request = call.request;
    let looked = table.explain(request);
    if looked.is_empty() {
        let host = String::from_utf8_lossy(request.authority()).into_owned();
        writeln!(out, "  no routes for the host {host:?}: {}", without_rule(call.listener)).ok();
        return;
    }
    for (rule, mismatch) in &looked {
        match mismatch {
            Some(mismatch) => writeln!(out, "  not {} ({}): {mismatch}", rule.name, rule.place),
            None => writeln!(out, "  rule {} ({}), host {}", rule.name, rule.place, rule.host),
        }
        .ok();
    }
    match looked.last() {
        Some((rule, None)) => explain_action(out, call, rule),
        _ => {
            writeln!(out, "  no rule matches: {}", without_rule(call.listener)).ok();
        }
    }
}

/// The result for a request without a matching rule.
fn without_rule(listener: &Listener) -> String {
    let Some(capture) = listener.capture() else { return "404 NR".to_owned() };
    let unknown = match (capture.direction, capture.unknown) {
        (Direction::Inbound, _) => {
            return "on to the workload, at the port that it was meant for".to_owned();
        }
        (Direction::Outbound, Unknown::Allow) => "else where it was meant to go",
        (Direction::Outbound, Unknown::Deny) => "else refused with 502 OD",
    };
    format!("to the service with that original destination, {unknown}")
}

fn explain_action(out: &mut String, call: &Call<'_>, rule: &Rule) {
    let request = call.request;
    if let Some(requirement) = &rule.jwt {
        explain_token(out, requirement);
    }
    match &rule.action {
        Action::Forward(split) => explain_split(out, call, rule, split),
        Action::Redirect(redirect) => {
            let mut location = Vec::new();
            redirect.location(request, "http", &mut location);
            let location = String::from_utf8_lossy(&location);
            writeln!(out, "  answers {} location {location}", redirect.status).ok();
        }
        Action::Respond(respond) => {
            let bytes = respond.body.len();
            writeln!(out, "  answers {} with {bytes} bytes", respond.status).ok();
        }
    }
    let mut target = Vec::new();
    if let Some(rewrite) = &rule.rewrite {
        if rewrite.target(rule, request, &mut target) {
            writeln!(out, "  path becomes {}", String::from_utf8_lossy(&target)).ok();
        }
        if let Some(host) = &rewrite.host {
            writeln!(out, "  host becomes {host}").ok();
        }
    }
    if let Some(timeout) = rule.timeout {
        writeln!(out, "  timeout {timeout:?}").ok();
    }
}

fn explain_token(out: &mut String, requirement: &Requirement) {
    let providers: Vec<&str> = requirement.providers.iter().map(|it| &*it.name).collect();
    let without = if requirement.optional { "it may have none" } else { "401 without one" };
    writeln!(out, "  token of {}: {without}", providers.join(" or ")).ok();
}

fn explain_split(out: &mut String, call: &Call<'_>, rule: &Rule, split: &Split) {
    let shares = split.shares();
    let total: usize = shares.iter().map(|(_, count)| count).sum();
    for (destination, count) in shares {
        let service = &call.snapshot.services[destination.service as usize];
        let endpoints = service.endpoints.load();
        let index = destination.subset as usize;
        let subset = &endpoints.subsets[index];
        let percent = 100.0 * count as f64 / total as f64;
        let version = match &*subset.version {
            "" => String::new(),
            version => format!("/{version}"),
        };
        writeln!(out, "  to {}{version}: {percent} % of requests", service.name).ok();
        let addresses = endpoints.members(index).map(|endpoint| endpoint.address.to_string());
        let endpoints: Vec<String> = addresses.collect();
        let list = if endpoints.is_empty() { "none yet".to_owned() } else { endpoints.join(", ") };
        writeln!(out, "    endpoints ({:?}): {list}", service.policy).ok();
        if let Some(check) = &service.health {
            writeln!(out, "    health check: {check}").ok();
        }
        if let (None, Some(requirement)) = (&rule.jwt, &service.jwt) {
            explain_token(out, requirement);
        }
        explain_authorization(out, call, &service.name);
    }
}

/// Explains the authorization rules at each port of the listener. Usually the result is the same at
/// all ports.
fn explain_authorization(out: &mut String, call: &Call<'_>, service: &str) {
    if call.snapshot.authorization.is_empty() {
        return;
    }
    let port = |bind: &Bind| match bind {
        Bind::Tcp(address) | Bind::Udp(address) => address.port(),
        Bind::Unix(_) | Bind::Systemd(_) => 0,
    };
    let ports: BTreeSet<u16> = call.listener.binds.iter().map(port).collect();
    let mut said = String::new();
    for port in ports {
        let request = authz::Request {
            method: call.request.method_name(),
            host: call.request.authority(),
            path: call.request.path(),
            head: call.request,
            claims: None,
        };
        let target = authz::Target { service, port, ip: None, request: Some(request) };
        let decision = call.snapshot.authorization.decide(&call.peer, &target);
        let mut lines = format!("    authorization: {}\n", decision.verdict);
        for report in decision.reports() {
            writeln!(lines, "    authorization: {report}").ok();
        }
        if said != lines {
            if !said.is_empty() {
                writeln!(out, "    at port {port}:").ok();
            }
            out.push_str(&lines);
            said = lines;
        }
    }
}
