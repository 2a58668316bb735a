//! Services and their endpoints.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::compile::{Compiler, is_token};
use super::compile_health;
use super::compile_http2;
use super::compile_jwt;
use super::compile_tls;
use super::file;
use super::values::Placed;
use crate::balance::{HashKey, Maglev, Member, Policy};
use crate::cluster::{Endpoint, Protocol, Service, Subset};
use crate::net::Address;
use crate::proxy_protocol::SendProxyProtocol;

/// How long connecting may take unless it is told otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an unused connection is kept unless it is told otherwise.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Unused connections kept for each endpoint unless it is told otherwise.
const MAX_IDLE_CONNECTIONS: u32 = 1024;

/// The services, in order of name.
pub(super) fn services(compiler: &mut Compiler<'_>) -> Vec<Arc<Service>> {
    let mut services = Vec::new();
    for (name, service) in &compiler.loaded.config.services.0 {
        if name.value.is_empty() || name.value.contains('/') {
            compiler.mistake(name.place, "a service's name is not empty and has no slash");
        }
        services.push(Arc::new(service_of(compiler, &name.value, service)));
    }
    services.sort_by(|one, other| one.name.cmp(&other.name));
    services
}

/// What an endpoint has to know of its service.
#[derive(Clone, Copy)]
struct Owner<'a> {
    name: &'a str,
    /// Its endpoints are checked.
    checked: bool,
}

fn service_of(compiler: &mut Compiler<'_>, name: &str, written: &Placed<file::Service>) -> Service {
    let value = &written.value;
    let owner = Owner { name, checked: value.health_check.is_some() };
    let mut endpoints = Vec::new();
    let mut versions: Vec<(&str, Vec<u32>)> = Vec::new();
    match (&value.endpoints, &value.versions, &value.dns) {
        (Some(list), None, None) => {
            for endpoint in list {
                endpoints.extend(endpoint_of(compiler, owner, None, endpoint));
            }
        }
        (None, Some(map), None) => {
            for (version, list) in &map.0 {
                let first = endpoints.len() as u32;
                for endpoint in list {
                    endpoints.extend(endpoint_of(compiler, owner, Some(&version.value), endpoint));
                }
                versions.push((&version.value, (first..endpoints.len() as u32).collect()));
            }
        }
        (None, None, Some(dns)) => endpoints = resolved(compiler, owner, dns),
        _ => {
            let message = format!("the service {name:?} needs one of endpoints, versions and dns");
            compiler.mistake(written.place, message);
        }
    }
    duplicates(compiler, written, &endpoints);
    let health = compile_health::check(compiler, name, value);
    versions.sort_by_key(|(version, _)| *version);
    let policy = policy(compiler, written);
    let all = ("", (0..endpoints.len() as u32).collect());
    let subsets = std::iter::once(all).chain(versions);
    let subsets = subsets.map(|(version, members)| subset(version, members, &endpoints, &policy));
    Service {
        name: name.into(),
        protocol: match value.protocol {
            file::ServiceProtocol::Tcp => Protocol::Tcp,
            file::ServiceProtocol::Http1 => Protocol::Http1,
            file::ServiceProtocol::Http2 => Protocol::Http2,
            file::ServiceProtocol::Grpc => Protocol::Grpc,
            file::ServiceProtocol::Auto => Protocol::Auto,
        },
        addresses: addresses(compiler, value),
        subsets: subsets.collect(),
        endpoints,
        policy,
        tls: compile_tls::service(compiler, name, value),
        jwt: compile_jwt::demand(compiler, value.jwt.as_ref()),
        connect_timeout: value.connect_timeout.as_ref().map_or(CONNECT_TIMEOUT, |time| time.0),
        timeout: value.timeout.as_ref().and_then(|time| time.0),
        idle_timeout: value.idle_timeout.as_ref().map_or(IDLE_TIMEOUT, |time| time.0),
        max_idle_connections: value.max_idle_connections.unwrap_or(MAX_IDLE_CONNECTIONS),
        send_proxy_protocol: match value.send_proxy_protocol {
            file::SendProxyProtocol::None => None,
            file::SendProxyProtocol::V1 => Some(SendProxyProtocol::V1),
            file::SendProxyProtocol::V2 => Some(SendProxyProtocol::V2),
        },
        http2: compile_http2::settings(compiler, &value.http2),
        health,
        methods: compiler.registry.methods(name),
        stats: compiler.registry.service(name),
    }
}

/// The virtual addresses of a service.
fn addresses(compiler: &mut Compiler<'_>, written: &file::Service) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for address in &written.addresses.0 {
        let Ok(parsed) = address.value.parse() else {
            let message = format!("{:?} is not a virtual address", address.value);
            compiler.mistake_with_help(address.place, message, "write IP:PORT or [IPv6]:PORT");
            continue;
        };
        let at = compiler.loaded.sources.file_line(address.place);
        if let Some(first) = compiler.virtual_addresses.insert(parsed, at) {
            let message = format!("{parsed} is the address of another service, at {first}");
            compiler.mistake(address.place, message);
        }
        addresses.push(parsed);
    }
    addresses
}

fn endpoint_of(
    compiler: &mut Compiler<'_>,
    owner: Owner<'_>,
    version: Option<&str>,
    written: &Placed<file::Endpoint>,
) -> Option<Arc<Endpoint>> {
    let text = &written.value.address;
    let address = match text.strip_prefix("unix:") {
        Some(path) if path.starts_with('/') => Some(Address::Unix(PathBuf::from(path))),
        Some(_) => None,
        None => text.parse().ok().map(Address::Tcp),
    };
    let Some(address) = address else {
        let message = format!("{text:?} is not the address of an endpoint");
        let help = "write IP:PORT or unix:/path; a host name goes into `dns: HOST:PORT`";
        compiler.mistake_with_help(written.place, message, help);
        return None;
    };
    Some(Arc::new(Endpoint {
        stats: compiler.registry.endpoint(owner.name, &address),
        health: owner.checked.then(|| compiler.registry.health_state(owner.name, &address)),
        address,
        weight: written.value.weight,
        zone: written.value.zone.as_deref().map(Into::into),
        version: version.map(Into::into),
        egress: compiler.egress(),
    }))
}

/// The endpoints of a service that is found by name; none as long as it was not found.
fn resolved(
    compiler: &mut Compiler<'_>,
    owner: Owner<'_>,
    dns: &Placed<String>,
) -> Vec<Arc<Endpoint>> {
    let valid = dns.value.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if !valid {
        compiler.mistake(dns.place, format!("{:?} is not HOST:PORT", dns.value));
    }
    let addresses = compiler.resolutions.names.get(&dns.value).cloned().unwrap_or_default();
    let endpoint = |address| {
        let address = Address::Tcp(address);
        Arc::new(Endpoint {
            stats: compiler.registry.endpoint(owner.name, &address),
            health: owner.checked.then(|| compiler.registry.health_state(owner.name, &address)),
            address,
            weight: 1,
            zone: None,
            version: None,
            egress: compiler.egress(),
        })
    };
    addresses.into_iter().map(endpoint).collect()
}

fn duplicates(
    compiler: &mut Compiler<'_>,
    written: &Placed<file::Service>,
    endpoints: &[Arc<Endpoint>],
) {
    let mut seen = std::collections::HashSet::new();
    for endpoint in endpoints {
        if !seen.insert((&endpoint.address, &endpoint.version)) {
            let message = format!("the endpoint {} is listed twice", endpoint.address);
            compiler.mistake_with_help(written.place, message, "give one of them a weight instead");
        }
    }
}

fn policy(compiler: &mut Compiler<'_>, written: &Placed<file::Service>) -> Policy {
    let key = match &written.value.balance {
        file::Balance::LeastRequest => return Policy::LeastRequest,
        file::Balance::RoundRobin => return Policy::RoundRobin,
        file::Balance::Random => return Policy::Random,
        file::Balance::PeakEwma => return Policy::PeakEwma,
        file::Balance::Hash(key) => key,
    };
    if let file::HashBy::Header(name) | file::HashBy::Cookie(name) = key
        && !is_token(name)
    {
        compiler.mistake(written.place, format!("{name:?} cannot be the name of what is hashed"));
    }
    Policy::Hash(match key {
        file::HashBy::Header(name) => HashKey::Header(name.as_str().into()),
        file::HashBy::Cookie(name) => HashKey::Cookie(name.as_str().into()),
        file::HashBy::SourceIp => HashKey::SourceIp,
    })
}

fn subset(
    version: &str,
    members: Vec<u32>,
    endpoints: &[Arc<Endpoint>],
    policy: &Policy,
) -> Subset {
    let maglev = matches!(policy, Policy::Hash(_)).then(|| {
        let key = |index: &u32| endpoints[*index as usize].address.to_string();
        let keys: Vec<String> = members.iter().map(key).collect();
        let member = |(&index, key): (&u32, &String)| (index, key.clone());
        let pairs: Vec<(u32, String)> = members.iter().zip(&keys).map(member).collect();
        let list: Vec<Member<'_>> = pairs
            .iter()
            .map(|(index, key)| Member {
                index: *index,
                key: key.as_bytes(),
                weight: endpoints[*index as usize].weight,
            })
            .collect();
        Maglev::build(&list)
    });
    Subset { version: version.into(), members, maglev }
}
