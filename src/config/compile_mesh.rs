//! Listeners for captured traffic: what `mesh.inbound` and `mesh.outbound` say.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::compile::{self, Compiler};
use super::compile_rules::Hosts;
use super::compile_tls;
use super::diagnostic::Place;
use super::file_mesh::{self, Inbound, Mtls, Outbound, PeerSource, PortProtocol};
use super::values::{Entries, OneOrMany, Placed};
use crate::authz::EscapedSlashes;
use crate::balance::Policy;
use crate::cells::PerWorker;
use crate::cluster::EndpointCells;
use crate::cluster::{Destination, Protocol, Service};
use crate::dns::{Directory, DnsPlan};
use crate::http2::Settings;
use crate::mesh::{
    Addresses, Admission, Application, Capture, Declared, Direction, Excluded, Probe, Udp, Unknown,
};
use crate::message::HeaderEdits;
use crate::net::Address;
use crate::net::Bind;
use crate::net::Intercept;
use crate::route::{Action, Matcher, Rule, Split, Table};
use crate::snapshot::{ForwardClientCert, Listener, Serves};
use crate::tls::{Mode, ServerTls};

/// The names of the two listeners.
const INBOUND: &str = "mesh.inbound";
const OUTBOUND: &str = "mesh.outbound";

/// What rules, logs and metrics call destinations that no service names. No service can have a
/// name with a slash.
pub(super) const INBOUND_SERVICE: &str = "mesh/inbound";
pub(super) const PASSTHROUGH_SERVICE: &str = "mesh/passthrough";

/// How long connecting to an original destination may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a flow of UDP may be silent, and how many there may be, unless it is told otherwise.
const UDP_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const UDP_FLOWS_MAX: u32 = 10_000;

/// How long unused connections to original destinations are kept, and how many for each.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_IDLE_CONNECTIONS: u32 = 1024;

/// The listeners of captured traffic, as far as they are to be.
pub(super) fn listeners(
    compiler: &mut Compiler<'_>,
    services: &[Arc<Service>],
    hosts: &Hosts,
    bind_places: &mut HashMap<Bind, String>,
) -> Vec<Arc<Listener>> {
    let loaded = compiler.loaded;
    for (name, _) in &loaded.config.listeners.0 {
        if [INBOUND, OUTBOUND].contains(&name.value.as_str()) {
            compiler.mistake(name.place, format!("{:?} is the name of another", name.value));
        }
    }
    let mesh = &loaded.config.mesh;
    let mut listeners = Vec::new();
    if let Some(first) = mesh.inbound.bind.0.first() {
        listeners.extend(inbound(compiler, &mesh.inbound, first.place, services, bind_places));
    } else {
        only_captured(compiler, &mesh.inbound);
    }
    if let Some(first) = mesh.outbound.bind.0.first() {
        let written = &mesh.outbound;
        listeners.extend(outbound(compiler, written, first.place, services, hosts, bind_places));
    }
    listeners
}

/// What is written about captured connections and means nothing without them.
fn only_captured(compiler: &mut Compiler<'_>, written: &Inbound) {
    let protocols = written.protocols.0.iter().map(|(port, _)| port.place);
    let probes = written.probes.iter().map(|probe| probe.place);
    let places = protocols.chain(probes).chain(written.source.as_ref().map(|s| s.place));
    for place in places.collect::<Vec<_>>() {
        let help = "add `bind: 0.0.0.0:15006`";
        compiler.mistake_with_help(place, "this is for captured connections", help);
    }
}

fn inbound(
    compiler: &mut Compiler<'_>,
    written: &Inbound,
    place: Place,
    services: &[Arc<Service>],
    bind_places: &mut HashMap<Bind, String>,
) -> Option<Arc<Listener>> {
    let intercept = intercept(written.intercept);
    let tls = compile_tls::captured(compiler, INBOUND);
    let admission = admission(compiler, place, written.mtls, tls.as_ref());
    let mut port_admissions = Vec::new();
    for (port, mtls) in &written.ports.0 {
        if let Some(number) = port_number(compiler, port) {
            let admission = self::admission(compiler, mtls.place, mtls.value, tls.as_ref());
            port_admissions.push((number, admission));
        }
    }
    let capture = Capture {
        direction: Direction::Inbound,
        intercept,
        routes: Arc::new(Table::build(Vec::new())),
        onward: rule(compiler, place, INBOUND, "original", Destination::ORIGINAL),
        addresses: addresses(compiler, place, INBOUND, services),
        unknown: Unknown::Allow,
        ports: declared(compiler, &written.protocols),
        admission,
        port_admissions,
        probes: written.probes.iter().filter_map(|written| probe(compiler, written)).collect(),
        application: match written.application {
            file_mesh::Application::Original => Application::Original,
            file_mesh::Application::Loopback => Application::Loopback,
        },
        keeps_source: keeps_source(compiler, written),
        mark: compiler.mark(),
        excluded: excluded(compiler, Direction::Inbound),
        passthrough: passthrough(compiler, INBOUND_SERVICE),
        udp: written.udp.as_ref().map(|udp| self::udp(compiler, udp)),
        identity: None,
        endpoint_stats: endpoint_stats(compiler, INBOUND),
        stats: compiler.registry.capture(INBOUND),
        seen: compiler.registry.destinations(INBOUND),
    };
    let common = Common {
        name: INBOUND,
        bind: &written.bind,
        timeouts: &written.timeouts,
        connections: written.connections,
        forward_client_cert: written.forward_client_cert,
    };
    listener(compiler, common, tls, capture, bind_places)
}

fn outbound(
    compiler: &mut Compiler<'_>,
    written: &Outbound,
    place: Place,
    services: &[Arc<Service>],
    hosts: &Hosts,
    bind_places: &mut HashMap<Bind, String>,
) -> Option<Arc<Listener>> {
    let routes = match &written.hosts {
        Some(wanted) => compile::only(compiler, hosts, &wanted.0),
        None => Table::build(hosts.all()),
    };
    let capture = Capture {
        direction: Direction::Outbound,
        intercept: intercept(written.intercept),
        routes: Arc::new(routes),
        onward: rule(compiler, place, OUTBOUND, "original", Destination::ORIGINAL),
        addresses: addresses(compiler, place, OUTBOUND, services),
        unknown: match written.unknown {
            file_mesh::Unknown::Allow => Unknown::Allow,
            file_mesh::Unknown::Deny => Unknown::Deny,
        },
        ports: declared(compiler, &written.ports),
        admission: Admission::Plain,
        port_admissions: Vec::new(),
        probes: Vec::new(),
        application: Application::Original,
        keeps_source: false,
        mark: compiler.mark(),
        excluded: excluded(compiler, Direction::Outbound),
        passthrough: passthrough(compiler, PASSTHROUGH_SERVICE),
        udp: written.udp.as_ref().map(|udp| self::udp(compiler, udp)),
        identity: compiler.mesh.as_ref().and_then(|mesh| mesh.id()),
        endpoint_stats: endpoint_stats(compiler, OUTBOUND),
        stats: compiler.registry.capture(OUTBOUND),
        seen: compiler.registry.destinations(OUTBOUND),
    };
    let common = Common {
        name: OUTBOUND,
        bind: &written.bind,
        timeouts: &written.timeouts,
        connections: written.connections,
        forward_client_cert: ForwardClientCert::Sanitize,
    };
    listener(compiler, common, None, capture, bind_places)
}

/// What both listeners have.
struct Common<'a> {
    name: &'static str,
    bind: &'a OneOrMany<Placed<String>>,
    timeouts: &'a super::file::Timeouts,
    connections: Option<u32>,
    forward_client_cert: ForwardClientCert,
}

fn listener(
    compiler: &mut Compiler<'_>,
    common: Common<'_>,
    tls: Option<Arc<ServerTls>>,
    capture: Capture,
    bind_places: &mut HashMap<Bind, String>,
) -> Option<Arc<Listener>> {
    let Common { name, bind, timeouts, connections, forward_client_cert } = common;
    for written in bind.0.iter().filter(|written| !is_address(&written.value)) {
        let message = format!("{:?} cannot be where captured connections arrive", written.value);
        compiler.mistake_with_help(written.place, message, "write IP:PORT or [IPv6]:PORT");
    }
    let addresses: Vec<_> = bind.0.iter().filter(|bind| is_address(&bind.value)).cloned().collect();
    let mut binds = compile::binds(compiler, &addresses, bind_places);
    if capture.udp.is_some() {
        let datagrams = binds.iter().filter_map(|bind| match bind {
            Bind::Tcp(address) => Some(Bind::Udp(*address)),
            _ => None,
        });
        binds.extend(datagrams.collect::<Vec<_>>());
    }
    Some(Arc::new(Listener {
        name: name.into(),
        binds,
        serves: Serves::Captured(Arc::new(capture)),
        tls,
        http1: true,
        http2: Some(Settings::default()),
        proxy_protocol: false,
        trusted_hops: 0,
        forward_client_cert,
        request_id: true,
        via: None,
        escaped_slashes: EscapedSlashes::Keep,
        connections_max: connections.unwrap_or(u32::MAX),
        timeouts: compile::timeouts(timeouts),
        stats: compiler.registry.listener(name),
    }))
}

/// What should not have been captured.
fn excluded(compiler: &mut Compiler<'_>, direction: Direction) -> Excluded {
    let written = &compiler.loaded.config.mesh.intercept;
    if let Some(mark) = written.mark.as_ref().filter(|mark| mark.value == 0) {
        compiler.mistake(mark.place, "a mark of 0 is none: nothing would be known by it");
    }
    let side = match direction {
        Direction::Inbound => &written.exclude.inbound,
        Direction::Outbound => &written.exclude.outbound,
    };
    Excluded {
        networks: side.cidrs.0.iter().map(|cidr| cidr.0).collect(),
        ports: side.ports.0.iter().map(|range| range.0.bounds()).collect(),
    }
}

fn udp(compiler: &Compiler<'_>, written: &file_mesh::Udp) -> Udp {
    let flows = written.flows.unwrap_or(UDP_FLOWS_MAX) as usize;
    Udp {
        idle: written.idle_timeout.as_ref().map_or(UDP_IDLE_TIMEOUT, |time| time.0),
        flows_max_each: flows.div_ceil(compiler.registry.workers()),
    }
}

fn is_address(bind: &str) -> bool {
    bind.parse::<SocketAddr>().is_ok()
}

fn intercept(written: file_mesh::InterceptBy) -> Intercept {
    match written {
        file_mesh::InterceptBy::Redirect | file_mesh::InterceptBy::None => Intercept::Redirect,
        file_mesh::InterceptBy::Tproxy => Intercept::Tproxy,
    }
}

/// Whether the workload sees the client's address. Not on loopback: the kernel lets no answer go
/// from there to an address that is not on it.
fn keeps_source(compiler: &mut Compiler<'_>, written: &Inbound) -> bool {
    let loopback = written.application == file_mesh::Application::Loopback;
    match &written.source {
        Some(source) if source.value == PeerSource::Client && loopback => {
            let message = "on loopback the workload cannot see the client's address";
            let help = "write `source: proxy`, or `application: original`";
            compiler.mistake_with_help(source.place, message, help);
            false
        }
        Some(source) => source.value == PeerSource::Client,
        None => written.intercept == file_mesh::InterceptBy::Tproxy && !loopback,
    }
}

/// On which terms clients are let in. Without an identity there is only plain text.
fn admission(
    compiler: &mut Compiler<'_>,
    place: Place,
    mtls: Mtls,
    tls: Option<&Arc<ServerTls>>,
) -> Admission {
    match (mtls, tls) {
        (Mtls::Permissive, Some(tls)) => Admission::Tls(Arc::clone(tls)),
        (Mtls::Strict, Some(tls)) => Admission::Tls(Arc::new(tls.with_mode(Mode::Strict))),
        (Mtls::Strict, None) if compiler.loaded.config.mesh.identity.is_none() => {
            let help = "add `mesh: {identity: {ca: DIR, id: spiffe://...}}`";
            compiler.mistake_with_help(place, "`strict` needs an identity to prove", help);
            Admission::Plain
        }
        (Mtls::Strict | Mtls::Permissive, None) | (Mtls::Disable, _) => Admission::Plain,
    }
}

fn port_number(compiler: &mut Compiler<'_>, port: &Placed<String>) -> Option<u16> {
    let number = port.value.parse().ok().filter(|&port| port != 0);
    if number.is_none() {
        compiler.mistake(port.place, format!("{:?} is not a port", port.value));
    }
    number
}

fn declared(
    compiler: &mut Compiler<'_>,
    written: &Entries<Placed<PortProtocol>>,
) -> Vec<(u16, Declared)> {
    let mut ports = Vec::new();
    for (port, protocol) in &written.0 {
        let Some(number) = port_number(compiler, port) else { continue };
        match protocol.value {
            PortProtocol::Auto => {}
            PortProtocol::Http => ports.push((number, Declared::Http)),
            PortProtocol::Tcp => ports.push((number, Declared::Tcp)),
        }
    }
    ports
}

fn probe(compiler: &mut Compiler<'_>, written: &Placed<file_mesh::Probe>) -> Option<Probe> {
    let file_mesh::Probe { port, path } = &written.value;
    if !path.value.starts_with('/') || path.value.contains(['?', '#', ' ']) {
        let message = format!("{:?} is not a path", path.value);
        compiler.mistake_with_help(path.place, message, "write /healthz; a query is ignored");
        return None;
    }
    Some(Probe { port: *port, path: path.value.as_str().into() })
}

fn addresses(
    compiler: &mut Compiler<'_>,
    place: Place,
    listener: &str,
    services: &[Arc<Service>],
) -> Addresses {
    Addresses::new(services, |service, destination| {
        rule(compiler, place, listener, &service.name, destination)
    })
}

/// The rule of requests that no route names, to `destination`.
fn rule(
    compiler: &mut Compiler<'_>,
    place: Place,
    host: &str,
    name: &str,
    destination: Destination,
) -> Arc<Rule> {
    let index = compiler.rule_index();
    let stats = compiler.registry.route(host, name);
    compiler.rule(Rule {
        index,
        stats,
        name: name.into(),
        host: host.into(),
        place: compiler.loaded.sources.file_line(place).into(),
        matcher: Matcher::default(),
        action: Action::Forward(Split::single(destination)),
        timeout: None,
        jwt: None,
        rewrite: None,
        request_headers: HeaderEdits::none(),
        response_headers: HeaderEdits::none(),
    })
}

/// On what terms destinations are reached that no service names: as the client would have.
fn passthrough(compiler: &mut Compiler<'_>, name: &str) -> Arc<Service> {
    Arc::new(Service {
        name: name.into(),
        protocol: Protocol::Http1,
        addresses: Vec::new(),
        endpoints: Vec::new(),
        subsets: Vec::new(),
        policy: Policy::RoundRobin,
        tls: None,
        jwt: None,
        connect_timeout: CONNECT_TIMEOUT,
        timeout: None,
        idle_timeout: IDLE_TIMEOUT,
        max_idle_connections: MAX_IDLE_CONNECTIONS,
        send_proxy_protocol: None,
        methods: compiler.registry.methods(name),
        http2: Settings::default(),
        health: None,
        stats: compiler.registry.service(name),
    })
}

/// The counters of all endpoints that are found by their address alone.
fn endpoint_stats(compiler: &mut Compiler<'_>, listener: &str) -> Arc<PerWorker<EndpointCells>> {
    // A path that no endpoint has: they begin with a slash.
    compiler.registry.endpoint(listener, &Address::Unix("*".into()))
}

/// Where the resolver listens, and what it knows.
pub(super) fn dns(compiler: &mut Compiler<'_>, services: &[Arc<Service>]) -> DnsPlan {
    let mut directory = Directory::default();
    let mark = compiler.mark();
    let Some(written) = &compiler.loaded.config.mesh.dns else {
        return DnsPlan { bind: None, directory, mark };
    };
    for service in services {
        directory.add(&service.name, service.addresses.iter().map(SocketAddr::ip));
    }
    let bind = written.bind.value.parse().ok();
    if bind.is_none() {
        let message = format!("{:?} is not an address to listen on", written.bind.value);
        compiler.mistake_with_help(written.bind.place, message, "write 127.0.0.1:15053");
    }
    DnsPlan { bind, directory, mark }
}
