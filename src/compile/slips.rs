//! Reports settings that are valid, but probably a mistake.

use super::Compiler;
use crate::matching::PathMatch;
use crate::model::{self, Action, ClientTls, Endpoints, Fault, Item, ListenerProtocol, Origin};

/// The validity periods of the certificates in one file. The source of the configuration warns of
/// those that are not valid now.
#[derive(Clone, Debug)]
pub struct Validity {
    /// The origin of the name of the file.
    pub origin: Origin,
    /// The first and the last moment of validity of each certificate, in Unix seconds.
    pub each: Vec<(i64, i64)>,
    /// Whether the certificates are roots. Then one valid certificate is enough.
    pub roots: bool,
}

/// Adds the warnings about the whole model.
pub(super) fn find(compiler: &mut Compiler<'_>) {
    let model = compiler.model;
    for service in &model.services {
        empty_service(compiler, &service.value);
        unverified(compiler, &service.value);
    }
    let redirects = only_redirects(model);
    for routes in &model.routes {
        if routes.value.rules.is_empty() && !redirects {
            let host = &routes.value.host;
            let message = format!("{:?} has no rules: each request to it gets 404", host.value);
            let (to, service) = forward(model);
            let help = format!("write a rule: [{{to: {to}}}]{service}");
            compiler.warn(&host.origin, message, help);
        }
        for rule in &routes.value.rules {
            trailing_slash(compiler, &rule.value);
        }
    }
    if model.settings.sources.etcd.is_none() {
        nothing_to_serve(compiler);
    }
}

/// Whether all requests are redirected to https before they reach a rule.
fn only_redirects(model: &model::Model) -> bool {
    let redirects =
        |listener: &std::sync::Arc<Item<model::Listener>>| listener.value.redirect_https.is_some();
    !model.mesh.captures() && !model.listeners.is_empty() && model.listeners.iter().all(redirects)
}

fn empty_service(compiler: &mut Compiler<'_>, service: &model::Service) {
    let name = &service.name;
    let help = "write `endpoints: [IP:PORT]`; `dns: HOST:PORT` for a name";
    match &service.endpoints {
        Some(Endpoints::List(list)) if list.is_empty() => {
            let message = "this service has no endpoints: each request to it gets 503";
            compiler.warn(&name.origin, message, help);
        }
        Some(Endpoints::List(list)) => weightless(compiler, name, list),
        Some(Endpoints::Versions(versions)) => {
            for (version, _) in versions.iter().filter(|(_, list)| list.is_empty()) {
                let message = "this version has no endpoints: each request to it gets 503";
                compiler.warn(
                    &version.origin,
                    message,
                    format!("write `{}: [IP:PORT]`", version.value),
                );
            }
            for (version, list) in versions.iter().filter(|(_, list)| !list.is_empty()) {
                weightless(compiler, version, list);
            }
        }
        Some(
            Endpoints::Name(_) | Endpoints::Consul(_) | Endpoints::Slices(_) | Endpoints::Awaited,
        )
        | None => {}
    }
}

/// Reports endpoints that all have the weight 0. `name` is that of their service or version.
fn weightless(compiler: &mut Compiler<'_>, name: &Item<String>, list: &[Item<model::Endpoint>]) {
    if list.iter().any(|endpoint| endpoint.value.weight > 0) {
        return;
    }
    let message = format!(
        "all endpoints of {:?} have the weight 0: each request to them would get 503",
        name.value
    );
    compiler.fault_with_help(&name.origin, message, "give one of them a weight of 1 or more");
}

/// Warns of a path such as `/static/`. In Ringway it matches only this path; in other proxies it
/// also matches all paths below it.
fn trailing_slash(compiler: &mut Compiler<'_>, rule: &model::Rule) {
    let forwards = matches!(rule.action, Some(Action::Forward(_)));
    let Some(Item { value: PathMatch::Exact(path), origin }) = &rule.matches.path else { return };
    if forwards && path.ends_with(b"/") {
        let path = String::from_utf8_lossy(path);
        let message = format!("only the path {path} itself matches, and none below it");
        let help =
            format!("write {path}* for all paths below it, too; ~{path} if {path} alone is meant");
        compiler.warn(origin, message, help);
    }
}

/// Warns of a service that accepts any certificate.
fn unverified(compiler: &mut Compiler<'_>, service: &model::Service) {
    let Some(tls) = &service.tls else { return };
    if matches!(&tls.value, ClientTls::Files(files) if files.unverified) {
        let message = "the certificates of the endpoints are not verified: any server is accepted";
        compiler.warn(&tls.origin, message, "write `ca: FILE` in place of `verify: none`");
    }
}

/// The service that an example rule in the advice forwards to, and how to write the service if
/// there is none.
fn forward(model: &model::Model) -> (&str, &'static str) {
    match &model.services[..] {
        [] => ("app", ", and `services: {app: {endpoints: [IP:PORT]}}`"),
        [service] => (&service.value.name.value, ""),
        _ => ("SERVICE", ""),
    }
}

fn nothing_to_serve(compiler: &mut Compiler<'_>) {
    let model = compiler.model;
    let secondary = |fault: Fault| Fault { secondary: true, ..fault };
    if model.listeners.is_empty() && !model.mesh.captures() {
        let fault = Fault::warning(&Origin::BuiltIn, "nothing listens: there is no listener");
        let fault = fault.help("write `listeners: {web: {bind: 127.0.0.1:8080}}`");
        compiler.faults.push(secondary(fault));
    }
    let routed = |listener: &&std::sync::Arc<Item<model::Listener>>| {
        let listener = &listener.value;
        listener.protocol != ListenerProtocol::Tcp
            && listener.redirect_https.is_none()
            && listener.service.is_none()
    };
    if !model.routes.is_empty() {
        return;
    }
    for listener in model.listeners.iter().filter(routed) {
        let message = "there are no routes: each request to this listener gets 404";
        let fault = Fault::warning(&listener.value.name.origin, message);
        let (to, service) = forward(model);
        let help = format!(
            "write `routes: {{\"*\": [{{to: {to}}}]}}`{service}; \
             `protocol: tcp` passes bytes to a service"
        );
        compiler.faults.push(secondary(fault.help(help)));
    }
}
