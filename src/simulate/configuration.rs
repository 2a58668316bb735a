//! Changes the operator's configuration so that it can be simulated: one plain-text listener,
//! endpoints with HTTP/1.1 and without TLS, and no requirements of identities or tokens.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::scenario::{Place, Request};
use crate::compile::registry::Registry;
use crate::compile::{self, Compiled, Resolutions};
use crate::matching::PathMatch;
use crate::model::{
    Action, Item, Listener, ListenerProtocol, Match, Merged, Model, Origin, Rule, Service,
    ServiceProtocol,
};
use crate::net::{Bind, DnsName};
use crate::snapshot::Snapshot;

/// The name of the listener that is added if the configuration has no HTTP listener.
const LISTENER: &str = "simulated";

/// The number of addresses that each DNS name has in the simulation.
const ADDRESSES_OF_NAME: u8 = 2;

/// A configuration that was changed for the simulation.
pub struct Configuration {
    model: Model,
    resolutions: Resolutions,
    /// The name of the listener that gets the requests.
    pub listener: String,
}

impl Configuration {
    /// Makes a configuration from `model`. `names` are its DNS names. The requests go to the first
    /// HTTP listener.
    pub fn new(model: &Model, names: &[DnsName]) -> Self {
        let mut model = model.clone();
        for service in &mut model.services {
            plain_service(&mut Arc::make_mut(service).value);
        }
        for routes in &mut model.routes {
            for rule in &mut Arc::make_mut(routes).value.rules {
                rule.value.jwt = None;
            }
        }
        model.policies.clear();
        model.listeners.retain(|item| for_http(&item.value));
        if model.listeners.is_empty() {
            model.listeners.push(Arc::new(Item::new(any_host(), Origin::default())));
        }
        for item in &mut model.listeners {
            plain_listener(&mut Arc::make_mut(item).value);
        }
        let listener = model.listeners[0].value.name.value.clone();
        let resolutions = Resolutions { names: addresses(names), ..Resolutions::new() };
        Self { model, resolutions, listener }
    }

    /// Sends the requests to the listener called `name`.
    ///
    /// # Errors
    /// The names of all HTTP listeners, if `name` is not one of them.
    pub fn listen_at(&mut self, name: &str) -> Result<(), Vec<&str>> {
        let known = || self.model.listeners.iter().map(|item| &*item.value.name.value);
        if !known().any(|known| known == name) {
            return Err(known().collect());
        }
        self.listener = name.to_owned();
        Ok(())
    }

    /// The same configuration without the policies that hide failures, such as retries. Returns
    /// `None` if it has no such policies.
    pub fn without_policies(&self) -> Option<Self> {
        let mut model = self.model.clone();
        let mut found = false;
        for service in &mut model.services {
            let service = &mut Arc::make_mut(service).value;
            found |= service.retries.take().is_some() | service.health_check.take().is_some();
            found |= service.outlier_detection.take().is_some();
            found |= service.circuit_breaker.take().is_some();
            found |= service.concurrency.take().is_some();
        }
        for routes in &mut model.routes {
            for rule in &mut Arc::make_mut(routes).value.rules {
                found |= rule.value.retries.take().is_some();
                let shift = rule.value.shift.as_deref_mut();
                found |= shift.is_some_and(|shift| shift.value.abort_if.take().is_some());
            }
        }
        let (resolutions, listener) = (self.resolutions.clone(), self.listener.clone());
        found.then_some(Self { model, resolutions, listener })
    }

    /// Compiles the changed configuration.
    ///
    /// # Errors
    /// The first error. The operator's configuration had none, so this is a bug.
    pub fn compile(&self) -> Result<Compiled, String> {
        let merged = Merged { model: Arc::new(self.model.clone()), conflicts: Vec::new() };
        let compiled = compile::compile(&merged, 1, &mut Registry::new(1), &self.resolutions);
        compiled.map_err(|faults| {
            let first = faults.into_iter().next();
            first.map_or_else(String::new, |fault| fault.message)
        })
    }

    /// Makes a request for each rule that forwards requests and that a simple request can match.
    pub fn requests(&self) -> Vec<Request> {
        let mut requests = Vec::new();
        for routes in &self.model.routes {
            let host = routes.value.host.value.replace('*', "simulated");
            for rule in &routes.value.rules {
                let Some((method, path)) = request_for(&rule.value) else { continue };
                requests.push(Request { method, host: host.clone(), path, weight: 1 });
            }
        }
        requests
    }
}

/// The endpoints of all services in `snapshot`. Each address is listed once.
pub fn places(snapshot: &Snapshot) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for service in &snapshot.services {
        for endpoint in &service.endpoints.load().list {
            let version = endpoint.version.iter().map(|name| format!("{}/{name}", service.name));
            let names = std::iter::once(service.name.to_string()).chain(version);
            match places.iter_mut().find(|place| place.address == endpoint.address) {
                Some(known) => known.names.extend(names),
                None => {
                    let address = endpoint.address.clone();
                    places.push(Place { address, names: names.collect() });
                }
            }
        }
    }
    places
}

fn for_http(listener: &Listener) -> bool {
    use ListenerProtocol::{Quic, Tcp, Tls};
    !matches!(listener.protocol, Tcp | Tls | Quic) && listener.redirect_https.is_none()
}

fn any_host() -> Listener {
    let bind = Bind::Tcp(SocketAddr::from(([127, 0, 0, 1], 80)));
    Listener {
        name: Item::new(LISTENER.to_owned(), Origin::default()),
        binds: vec![Item::new(bind, Origin::default())],
        ..Listener::default()
    }
}

fn plain_listener(listener: &mut Listener) {
    listener.tls.clear();
    listener.proxy_protocol = None;
    listener.protocol = ListenerProtocol::Auto;
    listener.http3 = None;
}

fn plain_service(service: &mut Service) {
    if service.protocol != ServiceProtocol::Tcp {
        service.protocol = ServiceProtocol::Http1;
    }
    service.tls = None;
    service.identities.clear();
    service.jwt = None;
    service.send_proxy_protocol = Default::default();
}

/// Addresses for DNS names, from a range for benchmarks (RFC 2544).
fn addresses(names: &[DnsName]) -> HashMap<DnsName, Vec<SocketAddr>> {
    let mut addresses = HashMap::new();
    for (number, name) in (0_u8..=u8::MAX).zip(names) {
        let port = name.address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let address = |last| IpAddr::V4(Ipv4Addr::new(198, 18, number, last));
        let all = (1..=ADDRESSES_OF_NAME).map(|last| (address(last), port.unwrap_or(80)).into());
        addresses.insert(name.clone(), all.collect());
    }
    addresses
}

/// The method and the path of a request that `rule` matches. Returns `None` if no simple request
/// matches it.
fn request_for(rule: &Rule) -> Option<(String, String)> {
    let Match { path, methods, headers, query, .. } = &rule.matches;
    let forwards = matches!(rule.action, Some(Action::Forward(_)));
    if !forwards || !headers.is_empty() || !query.is_empty() {
        return None;
    }
    let path = match path.as_ref().map(|path| &path.value) {
        None | Some(PathMatch::Any) => "/".to_owned(),
        Some(
            PathMatch::Exact(path)
            | PathMatch::Prefix(path)
            | PathMatch::Starts(path)
            | PathMatch::ExactAnyCase(path)
            | PathMatch::StartsAnyCase(path),
        ) => String::from_utf8(path.to_vec()).ok()?,
        Some(PathMatch::Regex(_)) => return None,
    };
    let method = methods.first().map_or_else(|| "GET".to_owned(), |method| method.value.clone());
    (!matches!(&*method, "HEAD" | "CONNECT")).then_some((method, path))
}
