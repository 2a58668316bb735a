//! Compiles the listeners for captured traffic, from `mesh.inbound` and `mesh.outbound`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::routes::Hosts;
use super::services::CONNECT_HEDGE;
use super::{Compiler, http3, jwt, listeners as plain, mark, standard, tls};
use crate::authz::EscapedSlashes;
use crate::balance::Policy;
use crate::cells::PerWorker;
use crate::cluster::EndpointCells;
use crate::cluster::{Destination, EndpointSet, Protocol, Service};
use crate::dns::{Directory, DnsPlan};
use crate::http2::Settings;
use crate::mesh::{
    Addresses, Admission, Application, Capture, Declared, Direction, EndpointAddresses, Excluded,
    Probe, Udp, Unknown,
};
use crate::model::{
    self, Inbound, InterceptBy, Item, Model, Mtls, Origin, Outbound, PeerSource, PortProtocol,
};
use crate::net::Intercept;
use crate::net::{Bind, Egress};
use crate::route::{Action, Rule, Split, Table};
use crate::snapshot::{ForwardClientCert, Listener, Serves};
use crate::tls::{Mode, ServerTls};

/// The names of the two listeners for captured traffic.
const INBOUND: &str = "mesh.inbound";
const OUTBOUND: &str = "mesh.outbound";

/// The names of unknown destinations, in rules, logs and metrics. They contain a slash, so that no
/// service can have the same name.
pub(super) const INBOUND_SERVICE: &str = "mesh/inbound";
pub(super) const PASSTHROUGH_SERVICE: &str = "mesh/passthrough";

/// The time limit for opening a connection to an original destination.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The default idle timeout of a UDP flow, and the default maximum number of open flows.
const UDP_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const UDP_FLOWS_MAX: u32 = 10_000;

/// The idle timeout of connections to original destinations, and the maximum number of idle
/// connections for each of them.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_IDLE_CONNECTIONS: u32 = 1024;

/// The compiled items to which captured traffic may go.
#[derive(Clone, Copy)]
struct Found<'a> {
    services: &'a [Arc<Service>],
    hosts: &'a Hosts<'a>,
    endpoints: &'a Arc<EndpointAddresses>,
}

/// Compiles the listeners for captured traffic. There is at most one for each direction.
pub(super) fn listeners(
    compiler: &mut Compiler<'_>,
    services: &[Arc<Service>],
    hosts: &Hosts<'_>,
    endpoints: Option<&Arc<EndpointAddresses>>,
) -> Vec<Arc<Listener>> {
    let model = compiler.model;
    for item in &model.listeners {
        let name = &item.value.name;
        if [INBOUND, OUTBOUND].contains(&name.value.as_str()) {
            compiler.fault(&name.origin, format!("{:?} is a reserved listener name", name.value));
        }
    }
    let mesh = &model.mesh;
    check_quic(compiler);
    let mut listeners = Vec::new();
    let endpoints = endpoints.cloned().unwrap_or_default();
    let found = Found { services, hosts, endpoints: &endpoints };
    if let Some(first) = mesh.inbound.binds.first() {
        listeners.push(inbound(compiler, &mesh.inbound, &first.origin, found));
    } else {
        only_captured(compiler, &mesh.inbound);
    }
    if let Some(first) = mesh.outbound.binds.first() {
        listeners.push(outbound(compiler, &mesh.outbound, &first.origin, found));
    }
    listeners
}

/// Reports settings for captured connections in a configuration that captures none.
fn only_captured(compiler: &mut Compiler<'_>, written: &Inbound) {
    let protocols = written.protocols.iter().map(|(port, _)| &port.origin);
    let probes = written.probes.iter().map(|probe| &probe.origin);
    for origin in protocols.chain(probes).chain(written.source.as_ref().map(|s| &s.origin)) {
        let help = "add `bind: 0.0.0.0:15006`";
        compiler.fault_with_help(origin, "this is for captured connections", help);
    }
}

fn inbound(
    compiler: &mut Compiler<'_>,
    written: &Inbound,
    origin: &Origin,
    found: Found<'_>,
) -> Arc<Listener> {
    let tls = tls::captured(compiler, INBOUND);
    let mtls = written.mtls.as_ref();
    let at = mtls.map_or(origin, |mtls| &mtls.origin);
    let mtls = mtls.map_or_else(Mtls::default, |mtls| mtls.value);
    let admission = admission(compiler, at, mtls, tls.as_ref());
    let mut port_admissions = Vec::new();
    for (port, mtls) in &written.port_mtls {
        let admission = self::admission(compiler, &mtls.origin, mtls.value, tls.as_ref());
        port_admissions.push((*port, admission));
    }
    let capture = Capture {
        direction: Direction::Inbound,
        intercept: intercept(written.intercept),
        routes: Arc::new(Table::build(Vec::new())),
        onward: rule(compiler, origin, INBOUND, "original", Destination::ORIGINAL),
        addresses: addresses(compiler, origin, INBOUND, found),
        unknown: Unknown::Allow,
        ports: declared(&written.protocols),
        admission,
        port_admissions,
        probes: written.probes.iter().filter_map(|written| probe(compiler, written)).collect(),
        application: match written.application {
            model::Application::Original => Application::Original,
            model::Application::Loopback => Application::Loopback,
        },
        keeps_source: keeps_source(compiler, written),
        mark: mark(compiler.model),
        excluded: excluded(compiler, Direction::Inbound),
        passthrough: passthrough(compiler, INBOUND_SERVICE),
        udp: written.udp.as_ref().map(|udp| self::udp(compiler, Some(udp))),
        identity: None,
        endpoint_stats: endpoint_stats(compiler, INBOUND),
        stats: compiler.registry.capture(INBOUND),
        seen: compiler.registry.destinations(INBOUND),
        passed: None,
    };
    let common = Common {
        name: INBOUND,
        binds: &written.binds,
        timeouts: &written.timeouts,
        connections: written.connections.as_ref(),
        forward_client_cert: plain::forward_client_cert(written.forward_client_cert),
    };
    listener(compiler, common, tls, capture)
}

fn outbound(
    compiler: &mut Compiler<'_>,
    written: &Outbound,
    origin: &Origin,
    found: Found<'_>,
) -> Arc<Listener> {
    let routes = match &written.hosts {
        Some(wanted) => Arc::new(plain::only(compiler, found.hosts, wanted)),
        None => found.hosts.all(),
    };
    let capture = Capture {
        direction: Direction::Outbound,
        intercept: intercept(written.intercept),
        routes,
        onward: rule(compiler, origin, OUTBOUND, "original", Destination::ORIGINAL),
        addresses: addresses(compiler, origin, OUTBOUND, found),
        unknown: if written.deny_unknown { Unknown::Deny } else { Unknown::Allow },
        ports: declared(&written.protocols),
        admission: Admission::Plain,
        port_admissions: Vec::new(),
        probes: Vec::new(),
        application: Application::Original,
        keeps_source: false,
        mark: mark(compiler.model),
        excluded: excluded(compiler, Direction::Outbound),
        passthrough: passthrough(compiler, PASSTHROUGH_SERVICE),
        udp: written.udp.as_ref().map(|udp| self::udp(compiler, Some(udp))),
        passed: written.udp.as_ref().map(|_| compiler.registry.passed(OUTBOUND)),
        identity: compiler.mesh.as_ref().and_then(|mesh| mesh.id()),
        endpoint_stats: endpoint_stats(compiler, OUTBOUND),
        stats: compiler.registry.capture(OUTBOUND),
        seen: compiler.registry.destinations(OUTBOUND),
    };
    let common = Common {
        name: OUTBOUND,
        binds: &written.binds,
        timeouts: &written.timeouts,
        connections: written.connections.as_ref(),
        forward_client_cert: ForwardClientCert::Sanitize,
    };
    listener(compiler, common, None, capture)
}

/// The settings that both listeners have.
struct Common<'a> {
    name: &'static str,
    binds: &'a [Item<SocketAddr>],
    timeouts: &'a model::Timeouts,
    connections: Option<&'a Item<u32>>,
    forward_client_cert: ForwardClientCert,
}

fn listener(
    compiler: &mut Compiler<'_>,
    common: Common<'_>,
    tls: Option<Arc<ServerTls>>,
    capture: Capture,
) -> Arc<Listener> {
    let Common { name, binds: written, timeouts, connections, forward_client_cert } = common;
    let connections_max = plain::at_least_one(compiler, connections, "no limit");
    let mut binds = Vec::new();
    let mut datagrams = Vec::new();
    for item in written {
        let bind = Item { value: Bind::Tcp(item.value), origin: item.origin.clone() };
        if let Some(bind) = plain::taken(compiler, &bind) {
            binds.push(bind);
            datagrams.push(Bind::Udp(item.value));
        }
    }
    if capture.udp.is_some() {
        binds.extend(datagrams);
    }
    let model = compiler.model;
    let inbound = capture.direction == Direction::Inbound;
    let timeouts = plain::timeouts(timeouts);
    let http3 = match (&model.mesh.quic, &tls) {
        (Some(origin), Some(tls)) if inbound => {
            binds.extend(quic_binds(compiler, written));
            http3::of_mesh(compiler, origin, tls, &timeouts)
        }
        _ => None,
    };
    let jwt = if inbound { jwt::demand(compiler, model.token.as_ref()) } else { None };
    Arc::new(Listener {
        name: name.into(),
        binds,
        direction: capture.direction,
        serves: Serves::Captured(Arc::new(capture)),
        tls,
        http1: true,
        http2: Some(Settings::default()),
        http3,
        proxy_protocol: false,
        trusted_hops: 0,
        forward_client_cert,
        request_id: true,
        via: None,
        escaped_slashes: EscapedSlashes::Keep,
        abort_on_close: None,
        connections_max: connections_max.unwrap_or(u32::MAX),
        per_source: None,
        requests_max: u32::MAX,
        rate_limits: Default::default(),
        global_limit: None,
        timeouts,
        liveness: compiler.egress.liveness,
        jwt,
        stats: compiler.registry.listener(name),
    })
}

/// The UDP addresses at which the listener for captured inbound traffic receives QUIC.
fn quic_binds(compiler: &mut Compiler<'_>, written: &[Item<SocketAddr>]) -> Vec<Bind> {
    let Some(port) = http3::mesh_port(compiler.model) else { return Vec::new() };
    let mut binds = Vec::new();
    for item in written {
        let address = SocketAddr::new(item.value.ip(), port);
        let bind = Item { value: Bind::Quic(address), origin: item.origin.clone() };
        binds.extend(plain::taken(compiler, &bind));
    }
    binds
}

/// Reports settings of QUIC between proxies that cannot work.
fn check_quic(compiler: &mut Compiler<'_>) {
    let mesh = &compiler.model.mesh;
    let Some(origin) = &mesh.quic else {
        if let Some(port) = &mesh.quic_port {
            let help = "add `transport: quic`, or leave it out";
            compiler.fault_with_help(&port.origin, "`quic_port` is for `transport: quic`", help);
        }
        return;
    };
    if mesh.identity.is_none() {
        let message = "QUIC between proxies is always encrypted, so it needs an identity";
        compiler.fault_with_help(origin, message, tls::IDENTITY_HELP);
    }
    let port = http3::mesh_port(compiler.model);
    let mut binds = mesh.inbound.binds.iter();
    if mesh.inbound.udp.is_some()
        && let Some(bind) = binds.find(|bind| port == Some(bind.value.port()))
    {
        let message =
            format!("UDP at {} is for the captured datagrams of `inbound.udp`", bind.value);
        let help = "add a `quic_port` for `transport: quic`, the same in all proxies of the mesh";
        compiler.fault_with_help(&bind.origin, message, help);
    }
}

/// The traffic that must not be captured. The proxy refuses it if it is captured anyway.
fn excluded(compiler: &mut Compiler<'_>, direction: Direction) -> Excluded {
    let written = &compiler.model.mesh.intercept;
    if let Some(mark) = written.mark.as_ref().filter(|mark| mark.value == 0) {
        compiler.fault(
            &mark.origin,
            "0 means no mark, but the capture rules recognise our packets by their mark",
        );
    }
    let side = match direction {
        Direction::Inbound => &written.exclude_inbound,
        Direction::Outbound => &written.exclude_outbound,
    };
    Excluded { networks: side.networks.clone(), ports: side.ports.clone() }
}

/// The limits on flows of datagrams. `None` means the defaults.
pub(super) fn udp(compiler: &Compiler<'_>, written: Option<&model::Udp>) -> Udp {
    let flows = written.and_then(|udp| udp.flows).unwrap_or(UDP_FLOWS_MAX) as usize;
    Udp {
        idle: written.and_then(|udp| udp.idle_timeout).unwrap_or(UDP_IDLE_TIMEOUT),
        flows_max_each: flows.div_ceil(compiler.registry.workers()),
    }
}

fn intercept(written: InterceptBy) -> Intercept {
    match written {
        InterceptBy::Redirect | InterceptBy::None => Intercept::Redirect,
        InterceptBy::Tproxy => Intercept::Tproxy,
    }
}

/// Whether the source address of connections to the workload is the client's address. This is not
/// possible on loopback, because the kernel drops packets from loopback to other addresses.
fn keeps_source(compiler: &mut Compiler<'_>, written: &Inbound) -> bool {
    let loopback = written.application == model::Application::Loopback;
    match &written.source {
        Some(source) if source.value == PeerSource::Client && loopback => {
            let message = "on loopback the workload cannot see the client's address";
            let help = "write `source: proxy`, or `application: original`";
            compiler.fault_with_help(&source.origin, message, help);
            false
        }
        Some(source) => source.value == PeerSource::Client,
        None => written.intercept == InterceptBy::Tproxy && !loopback,
    }
}

/// The requirements on inbound clients. If the workload has no identity, only plain text is
/// possible.
fn admission(
    compiler: &mut Compiler<'_>,
    origin: &Origin,
    mtls: Mtls,
    tls: Option<&Arc<ServerTls>>,
) -> Admission {
    match (mtls, tls) {
        (Mtls::Permissive, Some(tls)) => Admission::Tls(Arc::clone(tls)),
        (Mtls::Strict, Some(tls)) => Admission::Tls(Arc::new(tls.with_mode(Mode::Strict))),
        (Mtls::Strict, None) if compiler.model.mesh.identity.is_none() => {
            let message = "`strict` needs an identity for this workload";
            compiler.fault_with_help(origin, message, tls::IDENTITY_HELP);
            Admission::Plain
        }
        (Mtls::Strict | Mtls::Permissive, None) | (Mtls::Disable, _) => Admission::Plain,
    }
}

fn declared(written: &[(Item<u16>, PortProtocol)]) -> Vec<(u16, Declared)> {
    let declared = |(port, protocol): &(Item<u16>, PortProtocol)| match protocol {
        PortProtocol::Auto => None,
        PortProtocol::Http => Some((port.value, Declared::Http)),
        PortProtocol::Tcp => Some((port.value, Declared::Tcp)),
    };
    written.iter().filter_map(declared).collect()
}

fn probe(compiler: &mut Compiler<'_>, written: &Item<model::Probe>) -> Option<Probe> {
    let model::Probe { port, path } = &written.value;
    if !path.value.starts_with('/') || path.value.contains(['?', '#', ' ']) {
        let message = format!("{:?} is not a path", path.value);
        compiler.fault_with_help(&path.origin, message, "write /healthz; a query is ignored");
        return None;
    }
    Some(Probe { port: *port, path: path.value.as_str().into() })
}

fn addresses(
    compiler: &mut Compiler<'_>,
    origin: &Origin,
    listener: &str,
    found: Found<'_>,
) -> Addresses {
    Addresses::new(found.services, Arc::clone(found.endpoints), |service, destination| {
        rule(compiler, origin, listener, &service.name, destination)
    })
}

/// Creates a rule that forwards to `destination` the requests that no route matches.
fn rule(
    compiler: &mut Compiler<'_>,
    origin: &Origin,
    host: &str,
    name: &str,
    destination: Destination,
) -> Arc<Rule> {
    let action = Action::Forward(Split::single(destination));
    compiler.plain_rule(origin, host, name, action)
}

/// Creates the service for unknown original destinations.
fn passthrough(compiler: &mut Compiler<'_>, name: &str) -> Arc<Service> {
    Arc::new(Service {
        name: name.into(),
        protocol: Protocol::Http1,
        addresses: Vec::new(),
        egress: Egress { liveness: compiler.egress.liveness, ..Egress::default() },
        endpoints: EndpointSet::default(),
        dns_name: None,
        consul_name: None,
        slices: None,
        source: None,
        dns_zone: None,
        policy: Policy::RoundRobin,
        locality: None,
        http3: None,
        beside: None,
        tls: None,
        jwt: None,
        connect_timeout: CONNECT_TIMEOUT,
        connect_hedge: CONNECT_HEDGE,
        empty_status: 503,
        timeout: None,
        retries: None,
        retry_budget: None,
        breaker: None,
        concurrency: None,
        rate_limits: Default::default(),
        global_limit: None,
        stream_idle_timeout: None,
        idle_timeout: IDLE_TIMEOUT,
        max_idle_connections: MAX_IDLE_CONNECTIONS,
        send_proxy_protocol: None,
        methods: compiler.registry.methods(name),
        http2: Settings::default(),
        health: None,
        outlier: None,
        slow_start: None,
        panic_percent: 0,
        changes: None,
        target: standard::unknown_target(compiler, name),
        stats: compiler.registry.service(name),
    })
}

/// The counters that all endpoints without a service share.
fn endpoint_stats(compiler: &mut Compiler<'_>, listener: &str) -> Arc<PerWorker<EndpointCells>> {
    compiler.registry.passthrough(listener)
}

/// The settings of the DNS resolver for the workload: its address, the names that it answers, and
/// the SO_MARK of its sockets.
pub(super) fn dns(model: &Model, services: &[Arc<Service>]) -> DnsPlan {
    let mut directory = Directory::default();
    let bind = model.mesh.dns;
    if bind.is_some() {
        for service in services {
            directory.add(&service.name, service.addresses.iter().map(SocketAddr::ip));
        }
    }
    let captures = bind.is_some() || model.mesh.captures();
    DnsPlan { bind, directory, mark: if captures { mark(model) } else { 0 } }
}
