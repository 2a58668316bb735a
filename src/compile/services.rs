//! Compiles services and their endpoints.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::rate_limits::{self, Owner};
use super::{
    Compiler, breaker, endpoints, health, http2, http3, is_token, jwt, locality, outlier, retries,
    standard, tcp, tls,
};
use crate::balance::{HashKey, Policy, Position};
use crate::cluster::{EndpointSet, Protocol, Service, Slices};
use crate::model::{self, Balance, Endpoints, HashBy, Item, Model, ServiceProtocol};
use crate::net::{DnsName, Egress};
use crate::proxy_protocol::SendProxyProtocol;
use crate::resilience::Scope;

/// The default of `connect_timeout`. The kernel retransmits a lost SYN after 1, 3 and 7 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The default of `connect_hedge`: after this time, another endpoint is tried if the first one has
/// not accepted.
pub(super) const CONNECT_HEDGE: Duration = Duration::from_millis(250);

/// The default of `idle_timeout`.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The default of `max_idle_connections`, for each endpoint.
const MAX_IDLE_CONNECTIONS: u32 = 1024;

/// Compiles all services. The result is sorted by name.
pub(super) fn services(compiler: &mut Compiler<'_>) -> Vec<Arc<Service>> {
    let model = compiler.model;
    let mut services = Vec::with_capacity(model.services.len());
    for item in &model.services {
        let name = &item.value.name;
        if name.value.is_empty() || name.value.contains('/') {
            compiler.fault(&name.origin, "a service's name is not empty and has no slash");
        }
        services.push(Arc::new(service_of(compiler, item)));
    }
    services.sort_by(|one, other| one.name.cmp(&other.name));
    services
}

/// The DNS names of all services.
pub(super) fn names(model: &Model) -> Vec<DnsName> {
    model.services.iter().filter_map(|item| dns_name(&item.value)).collect()
}

/// The names of the services in Consul, sorted.
pub(super) fn consul_names(model: &Model) -> Vec<String> {
    let names = model.services.iter().filter_map(|item| consul_name(&item.value));
    let mut names: Vec<String> = names.map(ToOwned::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

fn consul_name(written: &model::Service) -> Option<&str> {
    match &written.endpoints {
        Some(Endpoints::Consul(name)) => Some(&name.value),
        _ => None,
    }
}

/// The source that may replace the endpoints of a service alone.
fn source(item: &Item<model::Service>) -> Option<Box<str>> {
    let id = item.origin.resource()?;
    let is_list = matches!(item.value.endpoints, Some(Endpoints::List(_)));
    (is_list && locality::ignores_zones(&item.value)).then(|| id.source.clone())
}

fn dns_name(written: &model::Service) -> Option<DnsName> {
    match &written.endpoints {
        Some(Endpoints::Name(name)) => Some(name.value.clone()),
        _ => None,
    }
}

/// The endpoints of a service in Kubernetes.
fn slices(written: &model::Service, position: Position) -> Option<Box<Slices>> {
    match &written.endpoints {
        Some(Endpoints::Slices(name)) => {
            Some(Box::new(Slices { name: name.value.as_str().into(), position }))
        }
        _ => None,
    }
}

fn service_of<'a>(compiler: &mut Compiler<'a>, item: &'a Item<model::Service>) -> Service {
    let written = &item.value;
    let name = written.name.value.as_str();
    if written.endpoints.is_none() {
        let message = format!("the service {name:?} needs one of endpoints, versions and dns");
        compiler.missing(&item.origin, &message, "write `endpoints: [IP:PORT]`");
    }
    let policy = policy(compiler, item);
    let health = health::check(compiler, written);
    let outlier = outlier::detection(compiler, written);
    let position = locality::position(compiler, written);
    let endpoints = endpoints::of_service(compiler, item, &policy, &position);
    let locality = locality::policy(written, &endpoints, &position);
    let place = |zone: &model::Zone| (zone.clone(), position.level(Some(zone), 0));
    let slow_start = outlier::slow_start(compiler, written, &policy);
    let stated = written.health_check.is_some() || outlier.is_some() || slow_start.is_some();
    let liveness = tcp::liveness(compiler, &written.tcp, compiler.egress.liveness);
    let egress = Egress { liveness, ..compiler.egress };
    let total = retries::Total::own(written.timeout);
    let retries = written.retries.as_ref().map(|item| retries::policy(compiler, item, total));
    let breaker = written.circuit_breaker.as_ref();
    let breaker = breaker.map(|written| Arc::new(breaker::breaker(compiler, name, written)));
    let concurrency = breaker::concurrency(compiler, name, written).map(Arc::new);
    let not_http =
        (written.protocol == ServiceProtocol::Tcp).then_some("the service has `protocol: tcp`");
    let owner = Owner::named(Scope::Service, name, not_http);
    let limits = rate_limits::limits(compiler, &owner, &written.rate_limits);
    let tls = tls::service(compiler, written);
    let (http3, beside) = http3::service(compiler, written, tls.as_ref());
    let budgeted = retries.is_some() || compiler.retried.contains(name);
    Service {
        name: name.into(),
        protocol: protocol(written.protocol),
        addresses: addresses(compiler, written),
        egress,
        endpoints: EndpointSet::new(endpoints),
        dns_name: dns_name(written),
        consul_name: consul_name(written).map(Into::into),
        slices: slices(written, position.clone()),
        source: source(item),
        policy,
        locality,
        dns_zone: written.dns_zone.as_ref().map(place),
        http3,
        beside,
        tls,
        jwt: jwt::demand(compiler, written.jwt.as_ref()),
        connect_timeout: written.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
        connect_hedge: written.connect_hedge.unwrap_or(CONNECT_HEDGE),
        empty_status: written.empty_status.unwrap_or(503),
        timeout: written.timeout,
        retry_budget: budgeted.then(|| compiler.registry.retry_budget(name)),
        retries,
        breaker,
        concurrency,
        rate_limits: limits.local,
        global_limit: limits.global,
        stream_idle_timeout: written.stream_idle_timeout,
        idle_timeout: written.idle_timeout.unwrap_or(IDLE_TIMEOUT),
        max_idle_connections: written.max_idle_connections.unwrap_or(MAX_IDLE_CONNECTIONS),
        send_proxy_protocol: send_proxy_protocol(written.send_proxy_protocol),
        http2: http2::settings(compiler, &written.http2),
        health,
        outlier,
        panic_percent: outlier::panic_percent(compiler, written),
        slow_start,
        changes: stated.then(|| compiler.registry.changes(name)),
        methods: compiler.registry.methods(name),
        target: standard::target(compiler, written),
        stats: compiler.registry.service(name),
    }
}

/// The virtual addresses of a service. Reports an address that another service has.
fn addresses<'a>(compiler: &mut Compiler<'a>, written: &'a model::Service) -> Vec<SocketAddr> {
    for address in &written.addresses {
        let taken = compiler.virtual_addresses.insert(address.value, &address.origin);
        if let Some(first) = taken {
            let first = compiler.model.files.line_of(first);
            let message =
                format!("{} is the address of another service, at {first}", address.value);
            compiler.fault(&address.origin, message);
        }
    }
    written.addresses.iter().map(|address| address.value).collect()
}

fn send_proxy_protocol(written: model::SendProxyProtocol) -> Option<SendProxyProtocol> {
    match written {
        model::SendProxyProtocol::None => None,
        model::SendProxyProtocol::V1 => Some(SendProxyProtocol::V1),
        model::SendProxyProtocol::V2 => Some(SendProxyProtocol::V2),
    }
}

fn protocol(written: ServiceProtocol) -> Protocol {
    match written {
        ServiceProtocol::Tcp => Protocol::Tcp,
        ServiceProtocol::Http1 => Protocol::Http1,
        ServiceProtocol::Http2 => Protocol::Http2,
        ServiceProtocol::Grpc => Protocol::Grpc,
        ServiceProtocol::Http3 => Protocol::Http3,
        ServiceProtocol::Auto => Protocol::Auto,
    }
}

fn policy(compiler: &mut Compiler<'_>, item: &Item<model::Service>) -> Policy {
    let key = match &item.value.balance {
        Balance::LeastRequest => return Policy::LeastRequest,
        Balance::RoundRobin => return Policy::RoundRobin,
        Balance::Random => return Policy::Random,
        Balance::PeakEwma => return Policy::PeakEwma,
        Balance::Hash(key) => key,
    };
    if let HashBy::Header(name) | HashBy::Cookie(name) = key
        && !is_token(name)
    {
        let message = format!("{name:?} is not a valid header or cookie name to hash");
        compiler.fault(&item.origin, message);
    }
    Policy::Hash(match key {
        HashBy::Header(name) => HashKey::Header(name.as_str().into()),
        HashBy::Cookie(name) => HashKey::Cookie(name.as_str().into()),
        HashBy::SourceIp => HashKey::SourceIp,
    })
}
